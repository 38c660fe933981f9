"""`easel demo`: the main job, from a prompt to a ranked set of pictures, on services of its own."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.console import Console

from easel.cli import best_of, counters, screen
from easel.cli.connection import AsJson, connected
from easel.cli.exits import ExitCode
from easel.cli.generate import Seed, Show, Steps, show_or_say
from easel.cli.startup import Board
from easel.cli.terminal import as_png, wants_pictures, wants_previews
from easel.cli.up import START_SECONDS, Classifier, Generator, StartTimeout, fail_with_log
from easel.client import BestOfEvent, Classification, Client, GenerateOptions, RankedImage, Ranking
from easel.report import (
    Candidate,
    Compute,
    PillowMissingError,
    Result,
    remove_earlier,
    score_text,
    write_report,
)
from easel.supervisor import ServiceFailedError, plan_stack, running

# Nobody else waits for these services: a slow machine may take its time.
_CALL_SECONDS: Final = 600.0
_METHODS: Final = ("BestOf", "ClassifyStream", "RankImages")


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the services said: the best-of, and two second looks at its finished pictures."""

    ranking: Ranking
    labels: Mapping[int, Classification]
    ranks: Mapping[int, RankedImage]


def demo(
    prompt: Annotated[str, typer.Option(help="What to paint.")] = "a red star on a blue background",
    n: Annotated[int, typer.Option("-n", "--n", min=1, max=64, help="Candidates.")] = 8,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the report.")] = Path(
        "out/demo"
    ),
    steps: Steps = None,
    seed: Seed = None,
    classifier: Classifier = None,
    generator: Generator = None,
    start_timeout: StartTimeout = START_SECONDS,
    show: Show = None,
    as_json: AsJson = False,
) -> None:
    """Start everything, paint the best of N, write a report, stop everything."""
    console = screen.err() if as_json else screen.out()
    began = time.monotonic()
    with ExitStack() as stack:
        plan = plan_stack(
            _fresh_logs(out),
            classifier=classifier,
            generator=generator,
            max_backlog_seconds=_CALL_SECONDS,
        )
        gateway = plan.by_name["gateway"]
        board = stack.enter_context(Board(plan, console))
        try:
            stack.enter_context(running(plan, tell=board.tell, start_seconds=start_timeout))
            board.settle()
        except ServiceFailedError as error:
            board.settle()
            fail_with_log(error)
        console.print(f"\n[bold]{n} candidates[/] for “{prompt}”")
        try:
            with connected(gateway.target, None, _CALL_SECONDS, as_json) as client:
                previews = wants_previews(None, show, as_json=as_json)
                events = client.best_of(
                    prompt, candidates=n, previews=previews, **_options(steps, seed)
                )
                outcome = _main_job(client, prompt, events, quiet=as_json)
                metrics = counters.settled(gateway.http, _METHODS)
        except typer.Exit:
            screen.err().print(screen.plain(f"the services' logs are in {plan.directory}", "dim"))
            raise
        result, pictures = report_of(prompt, n, outcome.ranking, metrics)
        _write(result, pictures, out)
        if as_json:
            screen.print_json(result.as_json())
        else:
            _print(console, outcome, result, out)
        if wants_pictures(show, as_json=as_json):
            show_or_say(list(pictures.values())[:4], asked=bool(show))
    console.print(f"\nall stopped; {time.monotonic() - began:.1f} s altogether", style="dim")
    _end(outcome, metrics)


def _fresh_logs(out: Path) -> Path:
    """Return the folder of the services' logs, without those of an earlier run."""
    folder = out.absolute() / "logs"
    folder.mkdir(parents=True, exist_ok=True)
    for log in folder.glob("*.log"):
        log.unlink()
    return folder


def _options(steps: int | None, seed: int | None) -> GenerateOptions:
    options = GenerateOptions()
    if steps is not None:
        options["steps"] = steps
    if seed is not None:
        options["seed"] = seed
    return options


def _main_job(
    client: Client, prompt: str, events: Iterator[BestOfEvent], *, quiet: bool
) -> Outcome:
    ranking = best_of.watch(events, quiet=quiet)
    finished = {str(index): data for index, data in _finished(ranking)}
    labels = {int(a.id): a for a in client.classify_many(finished.items(), top_k=3)}
    ranked = client.rank_images(finished, prompt=prompt)
    return Outcome(ranking, labels, {int(image.id): image for image in ranked})


def _finished(ranking: Ranking) -> Iterator[tuple[int, bytes]]:
    for candidate in ranking.candidates:
        if candidate.pruned_at_step is None and candidate.data:
            yield candidate.index, candidate.data


def report_of(
    prompt: str, n: int, ranking: Ranking, metrics: Mapping[str, float]
) -> tuple[Result, dict[str, bytes]]:
    """Return what the report says, and its pictures as PNG files by name."""
    candidates, pictures = [], {}
    for place, each in enumerate(ranking.candidates, start=1):
        file = f"{place:02d}-{each.seed}.png" if each.data else ""
        label = each.label.name if each.label else ""
        candidates.append(
            Candidate(
                rank=each.rank or place,  # failed ones come last, and without a rank
                seed=each.seed,
                score=None if each.error else each.score,
                label=label,
                file=file,
                pruned_at_step=each.pruned_at_step,
            )
        )
        if each.data:
            pictures[file] = _png(each.data)
    compute = Compute(ranking.row_steps_spent, ranking.row_steps_saved)
    return Result(prompt, n, candidates, compute, ranking.seconds, metrics), pictures


def _png(data: bytes) -> bytes:
    try:
        return as_png(data)
    except PillowMissingError as error:
        screen.fail(str(error), ExitCode.FAILED)


def _write(result: Result, pictures: Mapping[str, bytes], out: Path) -> None:
    remove_earlier(out)
    try:
        write_report(result, pictures, out)
    except PillowMissingError as error:
        screen.fail(str(error), ExitCode.FAILED)


def _print(console: Console, outcome: Outcome, result: Result, out: Path) -> None:
    console.print()
    files = {
        each.index: candidate.file
        for each, candidate in zip(outcome.ranking.candidates, result.candidates, strict=True)
    }
    best_of.print_ranking(outcome.ranking, files)
    console.print("\n[bold]A second look[/] at the finished pictures: Classify and RankImages")
    _print_second_look(console, outcome, files)
    console.print("\n[bold]The gateway's counters[/]")
    table = screen.table("counter", "value", right=["value"])
    for name, value in result.metrics.items():
        table.add_row(screen.plain(name), screen.plain(f"{value:g}", "" if value else "red"))
    console.print(table)
    console.print("\n[bold]Written[/]")
    for name in ("contact-sheet.png", "report.html", "result.json"):
        console.print(f"  {out / name}")


def _print_second_look(console: Console, outcome: Outcome, files: Mapping[int, str]) -> None:
    table = screen.table("rank", "score", "file", "labels", right=["rank", "score"])
    for index, image in outcome.ranks.items():
        labels = [f"{label.name} {label.score:.3f}" for label in outcome.labels[index].labels]
        name, shown = screen.plain(files[index]), screen.plain(", ".join(labels))
        table.add_row(str(image.rank), score_text(image.score), name, shown)
    console.print(table)


def _end(outcome: Outcome, metrics: Mapping[str, float]) -> None:
    missing = [name for name, value in metrics.items() if not value]
    if missing:
        screen.fail(f"the gateway counted nothing for {', '.join(missing)}", ExitCode.FAILED)
    failed = [each for each in outcome.ranking.candidates if each.error is not None]
    if failed:
        screen.fail(f"{len(failed)} candidates failed", ExitCode.FAILED)
