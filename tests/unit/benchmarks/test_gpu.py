"""What `make bench-gpu` measures on, and what it tells."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from benchmarks.gpu import PARTS, Run, chosen_parts, measured
from benchmarks.gpu_load import BATCHED, EAGER, IN_TURN, Rates, each_asks, settings
from benchmarks.gpu_subject import FULL, TINY, NoGpuError, chosen_device, chosen_size
from benchmarks.plots import drawing, filled
from benchmarks.report import Entry

CPU = torch.device("cpu")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
@pytest.mark.parametrize("quick", [True, False])
def test_without_a_gpu_it_says_so_and_what_to_do(quick: bool) -> None:
    with pytest.raises(NoGpuError, match=r"there is none here: torch.*is_available\(\) is false"):
        chosen_device({}, quick=quick)


def test_a_processor_is_for_a_look_alone() -> None:
    assert chosen_device({"DEVICE": "cpu"}, quick=True) == CPU
    with pytest.raises(NoGpuError, match="it takes QUICK=1 too"):
        chosen_device({"DEVICE": "cpu"}, quick=False)


def test_sizes() -> None:
    assert chosen_size(quick=True) is TINY
    assert chosen_size(quick=False) is FULL
    assert (FULL.side, FULL.steps, FULL.callers) == (512, 30, (1, 4, 8, 16, 32))


def test_parts_are_all_or_those_that_are_named() -> None:
    assert chosen_parts("", torch.device("cuda:0")) == list(PARTS)
    here = ["company", "steps", "float16-steps", "vit", "eager", "diffusers"]
    assert chosen_parts("", CPU) == here
    assert chosen_parts(" compiled,steps ", CPU) == ["compiled", "steps"]
    with pytest.raises(ValueError, match="no such part: vti; there are: company, steps"):
        chosen_parts("vti", CPU)


def test_a_part_that_fails_leaves_the_others(capsys: pytest.CaptureFixture[str]) -> None:
    def fail(run: Run) -> None:
        raise RuntimeError("no compiler")

    run = Run(Path(), TINY, CPU)
    kept: list[int] = []

    def sound(run: Run) -> None:
        run.entries.append(Entry("sound", 1.0, "s", ""))

    parts = {"bad": fail, "sound": sound}
    measured(run, parts, keep=lambda run: kept.append(len(run.entries)))
    assert kept == [0, 1]
    assert [entry.name for entry in run.entries] == ["sound"]
    assert run.record()[1] == {
        "accelerator": "no GPU",
        "charts": [],
        "failed": {"bad": "RuntimeError: no compiler"},
    }
    assert "no compiler" in capsys.readouterr().err


def some_rates() -> Rates:
    rates = Rates()
    for callers, ours, in_turn, batched in ((1, 1.0, 2.0, 2.0), (8, 6.0, 2.0, 4.0)):
        for factor in (0.9, 1.0, 1.1):
            rates.keep(EAGER, callers, factor * ours)
            rates.keep(IN_TURN, callers, in_turn)
            rates.keep(BATCHED, callers, batched)
    return rates


def test_rates_are_told_by_themselves_and_against_the_pipeline() -> None:
    found = {entry.name: entry for entry in some_rates().entries(FULL)}
    assert found["SD 1.5, 8 callers: generator"].value == pytest.approx(6.0)
    assert found["SD 1.5, 8 callers: generator"].spread == pytest.approx(0.6)
    assert found[f"SD 1.5, 1 caller: generator / {IN_TURN}"].value == pytest.approx(0.5)
    assert found[f"SD 1.5, 8 callers: generator / {IN_TURN}"].value == pytest.approx(3.0)
    assert found[f"SD 1.5, 8 callers: generator / {BATCHED}"].value == pytest.approx(1.5)
    assert all(entry.bound is None for entry in found.values())


def test_the_saturation_curve_has_a_line_for_each() -> None:
    chart = some_rates().chart(FULL)
    assert [line.name for line in chart.lines] == [EAGER, IN_TURN, BATCHED]
    ours = chart.lines[0]
    assert ours.x == (1.0, 8.0)
    assert ours.y == pytest.approx((1.0, 6.0))
    assert ours.low == pytest.approx((0.9, 5.4))
    assert ours.high == pytest.approx((1.1, 6.6))


def test_every_caller_asks_for_two_pictures_or_more() -> None:
    made = {callers: callers * each_asks(callers, FULL) for callers in FULL.callers}
    assert made == {1: 4, 4: 8, 8: 16, 16: 32, 32: 64}


def test_the_generator_runs_in_the_precision_of_its_peers() -> None:
    assert settings(Path("model"), torch.device("cuda:0"), compiled=False) == [
        "model=model",
        "device=cuda:0",
        "precision=bfloat16",
    ]
    assert "compile=true" in settings(Path("model"), torch.device("cuda:0"), compiled=True)
    assert "precision=float32" in settings(Path("model"), CPU, compiled=False)


def test_a_record_tells_its_gpu() -> None:
    record = {
        "machine": {"cores": 16, "processor": "P", "features": ["avx2"]},
        "accelerator": "a GPU, 78 GiB, CUDA 13",
        "commit": "abc",
        "entries": [],
    }
    told = "a GPU, 78 GiB, CUDA 13; 16 cores, P (avx2), commit abc"
    assert told in filled("<!-- gpu --><!-- /gpu -->", "gpu", record)
    assert told in drawing(record, "make bench-gpu")
