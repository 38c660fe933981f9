"""`easel calibrate-pruning`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from easel.cli import screen
from easel.cli.classifying import Model
from easel.cli.connection import TARGET, ApiKey, AsJson, Target, Timeout, connected
from easel.cli.exits import ExitCode
from easel.cli.generate import (
    Guidance,
    Height,
    Negative,
    Sampler,
    Seed,
    Steps,
    Width,
    generate_options,
)
from easel.cli.judging import (
    JudgeLabel,
    JudgeLike,
    JudgeReward,
    JudgeText,
    JudgeWeight,
    read_judges,
)
from easel.client import (
    CalibratedSchedule,
    CalibrationEvent,
    CalibrationProgress,
    PruningCalibration,
)
from easel.curve import draw_calibration
from easel.report import score_text


def calibrate_pruning(
    prompts: Annotated[
        Path | None, typer.Argument(help="A text file with a prompt a line; none with --prompt.")
    ] = None,
    prompt: Annotated[
        list[str] | None, typer.Option("--prompt", help="A prompt; repeat it: at least 4.")
    ] = None,
    candidates: Annotated[int, typer.Option("--candidates", "-n", help="Of each prompt.")] = 8,
    max_work: Annotated[
        float, typer.Option(help="Share of the steps that the schedule may take in the mean.")
    ] = 0.65,
    at: Annotated[
        str, typer.Option(help='Shares of the steps to score at, e.g. "0.3,0.5,0.7".')
    ] = "",
    label: JudgeLabel = None,
    like: JudgeLike = None,
    text: JudgeText = None,
    reward: JudgeReward = None,
    weight: JudgeWeight = None,
    negative: Negative = "",
    steps: Steps = None,
    guidance: Guidance = None,
    sampler: Sampler = "",
    seed: Seed = None,
    width: Width = None,
    height: Height = None,
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Gets calibration.json and calibration.svg.")
    ] = Path(),
    model: Model = "",
    target: Target = TARGET,
    api_key: ApiKey = None,
    timeout: Timeout = None,
    as_json: AsJson = False,
) -> None:
    """Find out how early scores tell, and the pruning that loses least for its work.

    Runs best-ofs without pruning over many prompts, as they are made of. The file that it writes
    goes into the ranker's setting CALIBRATIONS.
    """
    options = generate_options(negative, steps, guidance, sampler, seed, width, height, "", model)
    with connected(target, api_key, timeout, as_json) as client:
        asked = [*_read(prompts), *(prompt or [])]
        events = client.calibrate_pruning(
            asked,
            candidates=candidates,
            judges=read_judges(label, like, text, reward, weight),
            at=_shares(at),
            max_work=max_work,
            **options,
        )
        found, left_out = _watch(events, len(asked), quiet=as_json)
        files = _write(found, out)
    if as_json:
        screen.print_json(_json(found, left_out, files))
    else:
        _print(found, left_out, files)


def _read(file: Path | None) -> list[str]:
    if file is None:
        return []
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"{file}: no text in UTF-8") from error
    return [line.strip() for line in lines if line.strip()]


def _shares(text: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",")] if text.strip() else []
    except ValueError:
        raise ValueError(f'--at: {text!r} is no list of shares, e.g. "0.3,0.5"') from None


def _watch(events: Any, prompts: int, *, quiet: bool) -> tuple[PruningCalibration, int]:
    found: PruningCalibration | None = None
    left_out = 0
    with screen.bars(quiet=quiet) as progress:
        task = progress.add_task("calibrating", total=prompts, note="")
        event: CalibrationEvent
        for event in events:
            if isinstance(event, CalibrationProgress):
                left_out = event.left_out
                note = f"{left_out} left out" if left_out else ""
                progress.update(task, completed=event.done, note=note)
            else:
                found = event
    if found is None:
        screen.fail("the ranker ended without a calibration", ExitCode.FAILED)
    return found, left_out


def _write(found: PruningCalibration, out: Path) -> list[Path]:
    out.mkdir(parents=True, exist_ok=True)
    kept, drawn = out / "calibration.json", out / "calibration.svg"
    kept.write_text(found.json + "\n", encoding="utf-8")
    drawn.write_text(draw_calibration(found, "How early scores tell"), encoding="utf-8")
    return [kept, drawn]


def _print(found: PruningCalibration, left_out: int, files: list[Path]) -> None:
    console = screen.out()
    told = screen.table("steps", "correlation", "95 %", "best in better half",
                        right=["steps", "correlation", "95 %", "best in better half"])  # fmt: skip
    for each in found.steps:
        interval = f"{each.low:.2f} to {each.high:.2f}"
        told.add_row(
            f"{each.at:.0%}", f"{each.correlation:.2f}", interval, f"{each.best_in_half:.0%}"
        )
    console.print(told)
    console.print()
    table = screen.table("", "work", "best kept", "regret", "at most", "rounds",
                         right=["work", "best kept", "regret", "at most"])  # fmt: skip
    for schedule in _shown(found):
        table.add_row("", *_row(schedule))
    table.add_row("chosen", *_row(found.chosen), style="bold")
    console.print(table)
    about = f"{found.prompts} prompts, {found.candidates} candidates each"
    rest = f", {left_out} prompts left out" if left_out else ""
    console.print(f"{about}{rest}; what is chosen is told by cross-validation", style="dim")
    for file in files:
        console.print(screen.plain(str(file)))


def _shown(found: PruningCalibration) -> list[CalibratedSchedule]:
    """A few of many that hardly differ: no more than one for each twentieth of the work."""
    by_work = {round(each.work * 20): each for each in found.schedules}
    return [by_work[place] for place in sorted(by_work)]


def _row(schedule: CalibratedSchedule) -> list[str]:
    rounds = " ".join(
        f"{at:g}:{keep}" + ("" if margin is None else f":{margin:.3g}")
        for at, keep, margin in (
            (round(at, 4), keep, margin) for at, keep, margin in schedule.rounds
        )
    )
    return [
        f"{schedule.work:.0%}",
        f"{schedule.best_kept:.0%}",
        score_text(schedule.regret),
        score_text(schedule.regret_bound),
        rounds,
    ]


def _json(found: PruningCalibration, left_out: int, files: list[Path]) -> dict[str, object]:
    return {
        "prompts": found.prompts,
        "left_out": left_out,
        "candidates": found.candidates,
        "steps": [asdict(each) for each in found.steps],
        "chosen": asdict(found.chosen),
        "schedules": [asdict(each) for each in found.schedules],
        "files": [str(file) for file in files],
    }
