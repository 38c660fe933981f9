"""`easel best-of`, `easel rank`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.progress import TaskID

from easel.cli import screen
from easel.cli.classifying import Files, Model, item_json
from easel.cli.connection import TARGET, ApiKey, AsJson, Target, Timeout, connected
from easel.cli.exits import ExitCode, exit_code, item_line
from easel.cli.files import check_readable, read_pictures, suffix_of, write_new
from easel.cli.generate import (
    Guidance,
    Height,
    LongPrompt,
    Negative,
    Out,
    Previews,
    Prompt,
    Sampler,
    Seed,
    Show,
    Steps,
    Width,
    generate_options,
    show_or_say,
)
from easel.cli.judging import (
    JudgeLabel,
    JudgeLike,
    JudgeReward,
    JudgeText,
    JudgeWeight,
    read_judges,
)
from easel.cli.terminal import wants_pictures, wants_previews
from easel.client import (
    BestOfEvent,
    CandidateFailed,
    CandidateFinished,
    CandidatePruned,
    CandidateScored,
    CandidateStepped,
    Label,
    RankedCandidate,
    RankedImage,
    Ranking,
    Started,
)
from easel.client.requests import Round
from easel.report import score_text

_SHOWN: Final = 4


def best_of(
    prompt: Prompt,
    candidates: Annotated[int, typer.Option("--candidates", "-n", help="To start with.")] = 4,
    label: JudgeLabel = None,
    like: JudgeLike = None,
    text: JudgeText = None,
    reward: JudgeReward = None,
    weight: JudgeWeight = None,
    rounds: Annotated[
        str,
        typer.Option(
            help='Pruning, e.g. "0.3:4,0.6:2:1.5": share of the steps, number kept, margin.'
        ),
    ] = "",
    no_prune: Annotated[bool, typer.Option("--no-prune", help="Finish every candidate.")] = False,
    negative: Negative = "",
    steps: Steps = None,
    guidance: Guidance = None,
    sampler: Sampler = "",
    seed: Seed = None,
    width: Width = None,
    height: Height = None,
    long_prompt: LongPrompt = "",
    out: Out = Path(),
    show: Show = None,
    previews: Previews = None,
    model: Model = "",
    target: Target = TARGET,
    api_key: ApiKey = None,
    timeout: Timeout = None,
    as_json: AsJson = False,
) -> None:
    """Paint candidates, judge them as they form, keep the best."""
    options = generate_options(
        negative, steps, guidance, sampler, seed, width, height, long_prompt, model
    )
    with connected(target, api_key, timeout, as_json) as client:
        events = client.best_of(
            prompt,
            candidates=candidates,
            judges=read_judges(label, like, text, reward, weight),
            rounds=[] if no_prune else parse_rounds(rounds),
            previews=wants_previews(previews, show, as_json=as_json),
            **options,
        )
        ranking = watch(events, quiet=as_json)
        kept = [each for each in ranking.candidates if each.data and each.pruned_at_step is None]
        files = {
            each.index: str(write_new(out, str(each.seed), suffix_of(each.data), each.data))
            for each in kept
            if each.data
        }
    if as_json:
        screen.print_json(_ranking_json(prompt, ranking, files))
    else:
        print_ranking(ranking, files)
    if wants_pictures(show, as_json=as_json):
        show_or_say([each.data for each in kept[:_SHOWN] if each.data], asked=bool(show))
    if not kept:
        raise typer.Exit(ExitCode.FAILED)


def rank(
    files: Files,
    prompt: Annotated[str, typer.Option(help="What they should show.")] = "",
    label: JudgeLabel = None,
    like: JudgeLike = None,
    text: JudgeText = None,
    reward: JudgeReward = None,
    weight: JudgeWeight = None,
    target: Target = TARGET,
    api_key: ApiKey = None,
    timeout: Timeout = None,
    as_json: AsJson = False,
) -> None:
    """Rank pictures by how well they show a label or a prompt, or are like others."""
    with connected(target, api_key, timeout, as_json) as client:
        check_readable(files)
        pictures = {str(place): data for place, (_, data) in enumerate(read_pictures(files))}
        judges = read_judges(label, like, text, reward, weight)
        ranked = client.rank_images(pictures, prompt=prompt, judges=judges)
    if as_json:
        documents = [_ranked_json(image, files[int(image.id)]) for image in ranked]
        screen.print_json({"images": documents})
    else:
        _print_ranked(ranked, files)
    for image in ranked:
        if image.error is not None:
            raise typer.Exit(exit_code(image.error))


def parse_rounds(text: str) -> list[Round] | None:
    """Read "0.3:4,0.6:2:1.5"; None (the ranker's own schedule) for nothing. Raises
    ``ValueError``."""
    if not text.strip():
        return None
    return [_round(part) for part in text.split(",")]


def _round(text: str) -> Round:
    share, _, rest = text.partition(":")
    keep, colon, margin = rest.partition(":")
    try:
        read = float(share), int(keep)
        return (*read, float(margin)) if colon else read
    except ValueError:
        raise ValueError(
            f"rounds: {text.strip()!r} is not SHARE:KEEP or SHARE:KEEP:MARGIN, e.g. 0.3:4"
        ) from None


def watch(events: Iterator[BestOfEvent], *, quiet: bool) -> Ranking:
    """Show one bar a candidate until the ranking comes, and return it."""
    ranking = None
    with screen.bars(quiet=quiet) as progress:
        tasks: list[TaskID] = []
        for event in events:
            if isinstance(event, Started):
                tasks = [
                    progress.add_task(f"#{index + 1:<2} seed {seed}", total=event.steps, note="")
                    for index, seed in enumerate(event.seeds)
                ]
            elif isinstance(event, Ranking):
                ranking = event  # and on to the end of the stream, or the call counts as cancelled
            elif event.index < len(tasks):
                _advance(progress, tasks[event.index], event)
    if ranking is None:
        screen.fail("the ranker ended without a ranking", ExitCode.FAILED)
    return ranking


_CandidateEvent = (
    CandidateStepped | CandidateScored | CandidatePruned | CandidateFinished | CandidateFailed
)


def _advance(progress: screen.Bars, task: TaskID, event: _CandidateEvent) -> None:
    match event:
        case CandidateStepped():
            progress.update(task, completed=event.step, total=event.steps)
        case CandidateScored():
            mark = "[green]✓[/]" if event.final else "[dim]so far[/]"
            progress.update(task, note=f"{mark} {score_text(event.score)} {_name(event.label)}")
            if event.preview:
                progress.preview(event.index, event.preview)
        case CandidatePruned():
            note = f"[yellow]stopped[/], {event.steps_saved} steps saved"
            progress.update(task, completed=event.step, note=note)
            progress.preview(event.index, None)
        case CandidateFailed():
            progress.update(task, note="[red]failed[/]")
            progress.preview(event.index, None)
        case CandidateFinished():
            pass


def print_ranking(ranking: Ranking, files: dict[int, str]) -> None:
    """Print the candidates as a table, best first, and what pruning saved."""
    table = screen.table("rank", "score", "label", "seed", "fate", "file",
                         right=["rank", "score", "seed"])  # fmt: skip
    for place, each in enumerate(ranking.candidates):
        style = "dim" if each.pruned_at_step is not None else ("bold" if place == 0 else "")
        table.add_row(
            str(each.rank) if each.error is None else "–",
            score_text(each.score) if each.error is None else "–",
            screen.plain(_name(each.label)),
            str(each.seed),
            screen.plain(fate(each)),
            screen.plain(files.get(each.index, "")),
            style=style,
        )
    console = screen.out()
    console.print(table)
    total = ranking.row_steps_spent + ranking.row_steps_saved
    share = ranking.row_steps_saved / total if total else 0.0
    console.print(
        f"{ranking.seconds:.1f} s, {ranking.row_steps_spent} steps run, "
        f"{ranking.row_steps_saved} saved by pruning ({share:.0%})"
    )
    if ranking.row_steps_saved and ranking.regret_bound is not None:
        console.print(f"expected to cost at most {score_text(ranking.regret_bound)} of the score")
    if ranking.row_steps_saved:
        console.print("scores of stopped ones are of their last preview", style="dim")


def fate(candidate: RankedCandidate) -> str:
    """Return what became of a candidate, in words."""
    if candidate.error is not None:
        return f"failed: {item_line(candidate.error)}"
    if candidate.pruned_at_step is not None:
        return f"stopped at step {candidate.pruned_at_step}"
    return "finished"


def _print_ranked(ranked: list[RankedImage], files: list[str]) -> None:
    table = screen.table("rank", "score", "label", "p", "file", right=["rank", "score", "p"])
    for image in ranked:
        name = screen.plain(files[int(image.id)])
        if image.error is not None:
            table.add_row("–", "–", screen.plain(item_line(image.error), "red"), "–", name)
            continue
        rank_text = f"{image.rank}{'=' if image.tied else ''}"
        probability = f"{image.label.score:.3f}" if image.label else "–"
        shown = screen.plain(_name(image.label))
        table.add_row(rank_text, score_text(image.score), shown, probability, name)
    screen.out().print(table)


def _name(label: Label | None) -> str:
    return label.name if label else ""


def _label_json(label: Label | None) -> dict[str, object] | None:
    return {"name": label.name, "score": label.score} if label else None


def _ranked_json(image: RankedImage, file: str) -> dict[str, object]:
    return {
        "rank": image.rank,
        "file": file,
        "score": image.score,
        "parts": list(image.parts),
        "label": _label_json(image.label),
        "tied": image.tied,
        "error": item_json(image.error) if image.error else None,
    }


def _ranking_json(prompt: str, ranking: Ranking, files: dict[int, str]) -> dict[str, object]:
    return {
        "prompt": prompt,
        "candidates": [
            {
                "rank": each.rank,
                "index": each.index,
                "seed": each.seed,
                "score": each.score,
                "parts": list(each.parts),
                "label": _label_json(each.label),
                "pruned_at_step": each.pruned_at_step,
                "file": files.get(each.index),
                "timing": asdict(each.timing),
                "error": item_json(each.error) if each.error else None,
            }
            for each in ranking.candidates
        ],
        "compute": {
            "row_steps_spent": ranking.row_steps_spent,
            "row_steps_saved": ranking.row_steps_saved,
            "regret_bound": ranking.regret_bound,
        },
        "seconds": ranking.seconds,
        "generator": ranking.generator,
        "classifier": ranking.classifier,
    }
