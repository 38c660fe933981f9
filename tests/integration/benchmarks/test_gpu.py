"""`make bench-gpu` on the processor, with a tiny model: what it runs on a GPU runs."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from benchmarks import gpu_company, gpu_load, gpu_steps
from benchmarks.gpu_load import BATCHED, EAGER, IN_TURN, Rates
from benchmarks.gpu_subject import TINY, saved

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(tmp_path_factory.mktemp("bench") / "model", TINY)


def test_a_picture_alone_and_in_company(directory: Path) -> None:
    entries = gpu_company.entries(directory, TINY, CPU)
    assert [entry.unit for entry in entries] == ["of 255"] * 4
    for most, mean in zip(entries[::2], entries[1::2], strict=True):
        assert 0.0 <= mean.value <= most.value <= 255.0


@pytest.mark.slow
def test_row_steps_in_another_precision_are_named(directory: Path) -> None:
    found = gpu_steps.entries(directory, TINY, CPU, precision="bfloat16")
    assert found[0].name == "matrices of 256 in bfloat16"
    assert found[1].name == "a tiny model, 1 row at a time, bfloat16, a row-step"


def test_row_steps_are_told_beside_the_matrix_rate(directory: Path) -> None:
    found = {entry.name: entry.value for entry in gpu_steps.entries(directory, TINY, CPU)}
    what = "a tiny model, 2 rows at a time"
    share = found[f"{what}, row-steps / matrices"]
    at_most = found[f"{what}, a row-step at the matrices' rate"]
    assert share == pytest.approx(at_most / found[f"{what}, a row-step"], rel=1e-6)
    assert found[f"{what}, step / bare call of the U-Net"] > 0.0


@pytest.mark.slow
def test_callers_of_the_generator_and_the_pipeline(directory: Path, tmp_path: Path) -> None:
    rates = Rates()
    log = tmp_path / "log"
    with gpu_load.served(directory, CPU, log) as server:
        gpu_load.await_serving(server, log)
        gpu_load.measure_served(rates, EAGER, server.target, TINY)
    peer = gpu_load.pipeline(directory, CPU, compiled=False)
    gpu_load.warm_up_pipeline(peer, TINY, CPU)
    gpu_load.measure_pipeline(rates, peer, TINY, CPU)
    assert set(rates.found) == {EAGER, IN_TURN, BATCHED}
    for by_callers in rates.found.values():
        assert list(by_callers) == list(TINY.callers)
        assert all(rate > 0.0 for found in by_callers.values() for rate in found)
    assert len(rates.entries(TINY)) == 10


@pytest.mark.slow
def test_a_server_that_does_not_start_names_its_log(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with (
        pytest.raises(RuntimeError, match=f"see {log}"),
        gpu_load.served(tmp_path / "missing", CPU, log) as server,
    ):
        gpu_load.await_serving(server, log)
    assert "missing" in log.read_text()
