"""`easel evaluate`."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from rich.table import Table

from easel.cli import screen
from easel.cli.classifying import Fit, Model
from easel.cli.connection import TARGET, ApiKey, AsJson, Target, Timeout, connected
from easel.cli.exits import ExitCode
from easel.cli.files import PictureFile, pictures_under
from easel.cli.stream import Failure, answered
from easel.client import Classification, Client
from easel.evaluation.confusion import TOP_K, LabelRates
from easel.evaluation.folder import label_of_each
from easel.evaluation.matrix import draw_matrix, require_pillow
from easel.evaluation.rate import Rate
from easel.evaluation.report import Evaluation, Mistake
from easel.model.v1 import model_pb2
from easel.report import PillowMissingError

_SHOWN_LABELS: Final = 20
_SHOWN_FAILURES: Final = 10


def evaluate(
    directory: Annotated[
        Path, typer.Argument(help="Holds a folder for each label, named like it, with pictures.")
    ],
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Folder for report.json and confusion.png."),
    ] = None,
    names: Annotated[
        Path | None,
        typer.Option(help="JSON file that says which label, or index of one, a folder means."),
    ] = None,
    fit: Fit = "",
    model: Model = "",
    target: Target = TARGET,
    api_key: ApiKey = None,
    timeout: Timeout = None,
    as_json: AsJson = False,
) -> None:
    """Measure how often the classifier is right on pictures sorted into folders."""
    if out is not None:
        _check_drawing()
    with connected(target, api_key, timeout, as_json) as client:
        pictures, ignored = _labelled(directory)
        told = _read_names(names)
        info = client.get_model(model)
        labels = list(info.classifier.labels)
        meant = label_of_each({_folder(each) for each in pictures}, labels, told)
        found = Evaluation(
            str(directory), fit or "model", _model_json(info), labels, ignored=ignored
        )
        codes = _run(client, info, pictures, meant, found, quiet=as_json)
        files = _write(found, out) if out is not None else []
    if as_json:
        screen.print_json(found.as_json())
    else:
        _print(found, files)
    if codes:
        raise typer.Exit(codes[0])


def _run(
    client: Client,
    info: model_pb2.ModelInfo,
    pictures: Sequence[PictureFile],
    meant: dict[str, int],
    found: Evaluation,
    *,
    quiet: bool,
) -> list[ExitCode]:
    """Fill ``found``; returns the exit codes of the pictures that failed."""
    codes = []
    answers = answered(
        pictures,
        lambda sending: client.classify_many(
            sending,
            top_k=min(TOP_K, len(found.labels)),
            fit="" if found.fit == "model" else found.fit,
            model=info.name,
            model_version=info.version,
        ),
        digest=info.digest,
    )
    started = time.perf_counter()
    with screen.bars(quiet=quiet) as progress:
        task = progress.add_task("evaluating", total=len(pictures), note="")
        for picture, answer in answers:
            if isinstance(answer, Failure):
                found.failed[picture.name] = answer.reason
                codes.append(answer.code)
            else:
                _count(found, picture, meant[_folder(picture)], answer)
            found.pace.seconds = time.perf_counter() - started
            progress.update(task, advance=1, note=_so_far(found))
    return codes


def _count(found: Evaluation, picture: PictureFile, wanted: int, answer: Classification) -> None:
    found.confusion.add(wanted, [label.index for label in answer.labels])
    best, pace = answer.labels[0], found.pace
    if best.index != wanted:
        said = found.labels[best.index]
        mistake = Mistake(picture.name, found.labels[wanted], said, best.score)
        found.mistakes.append(mistake)
    pace.pictures += 1
    pace.queue_seconds += answer.timing.queue_seconds
    pace.prepare_seconds += answer.timing.prepare_seconds
    pace.compute_seconds += answer.timing.compute_seconds
    pace.batch_rows += answer.timing.batch_rows


def _so_far(found: Evaluation) -> str:
    share = found.confusion.top_1.share
    rate = "" if share is None else f"{share:.1%} right, "
    failed = f", [red]{len(found.failed)} failed[/]" if found.failed else ""
    return f"{rate}{found.pace.pictures_per_second:.0f}/s{failed}"


def _labelled(directory: Path) -> tuple[list[PictureFile], list[str]]:
    if not directory.is_dir():
        raise ValueError(f"{directory}: no such folder")
    pictures, ignored = pictures_under(directory)
    loose = [each.name for each in pictures if "/" not in each.name]
    if loose:
        more = f" and {len(loose) - 1} more" if len(loose) > 1 else ""
        raise ValueError(f"{directory}: {loose[0]}{more} in no folder of a label")
    if not pictures:
        raise ValueError(f"{directory}: no pictures in folders (JPEG, PNG, WebP)")
    return pictures, ignored


def _folder(picture: PictureFile) -> str:
    return picture.name.partition("/")[0]


def _read_names(file: Path | None) -> dict[str, object]:
    if file is None:
        return {}
    try:
        names = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{file}: no JSON: {error}") from error
    if not isinstance(names, dict):
        raise ValueError(f"{file}: no JSON object of folder names")
    return names


def _model_json(info: model_pb2.ModelInfo) -> dict[str, Any]:
    return {
        "name": info.name,
        "version": info.version,
        "digest": info.digest,
        "architecture": info.architecture,
        "backend": info.config.backend,
        "device": info.config.device,
        "precision": info.config.precision,
    }


def _check_drawing() -> None:
    try:
        require_pillow()
    except PillowMissingError as error:
        screen.fail(str(error), ExitCode.BAD_INPUT)


def _write(found: Evaluation, out: Path) -> list[Path]:
    out.mkdir(parents=True, exist_ok=True)
    report = out / "report.json"
    report.write_text(json.dumps(found.as_json(), indent=2, ensure_ascii=False) + "\n", "utf-8")
    if not found.confusion.cells:
        return [report]
    title = f"{found.model['name']} on {found.directory}"
    matrix = out / "confusion.png"
    matrix.write_bytes(draw_matrix(found.confusion, found.labels, title))
    return [report, matrix]


def _print(found: Evaluation, files: Sequence[Path]) -> None:
    console = screen.out()
    confusion, model, pace = found.confusion, found.model, found.pace
    rates = confusion.labels()
    worst = sorted(rates, key=lambda each: (each.found.share or 0.0, each.index))[:_SHOWN_LABELS]
    if rates:
        console.print(_table(found, worst))
        if len(rates) > len(worst):
            rest = f"and {len(rates) - len(worst)} more labels, no worse than these"
            console.print(rest, style="dim")
        console.print(f"top-1 {_rate_text(confusion.top_1)}, top-{TOP_K}", end=" ")
        console.print(_rate_text(confusion.top_k))
    what = f"{model['name']}, {model['backend']} {model['device']} {model['precision']}"
    pictures = f"{confusion.cells.total():,} pictures of {len(rates):,} labels"
    speed = f"{pace.pictures_per_second:.1f} pictures/s"
    console.print(screen.plain(f"{pictures} in {pace.seconds:.1f} s, {speed}; {what}"))
    if found.ignored:
        console.print(screen.plain(f"{len(found.ignored)} other files left out", "dim"))
    for file in files:
        console.print(screen.plain(str(file)))
    print_failures(found.failed)


def print_failures(failed: dict[str, str]) -> None:
    """Say on stderr which pictures failed and why."""
    console = screen.err()
    if failed:
        console.print(screen.plain(f"{len(failed)} pictures failed and are not counted:", "red"))
    for file, reason in list(failed.items())[:_SHOWN_FAILURES]:
        console.print(screen.plain(f"  {file}: {reason}"), soft_wrap=True)
    if len(failed) > _SHOWN_FAILURES:
        console.print(f"  and {len(failed) - _SHOWN_FAILURES} more")


def _table(found: Evaluation, rates: Sequence[LabelRates]) -> Table:
    table = screen.table(
        "label", "pictures", "top-1", "95 %", f"top-{TOP_K}", "precision", "f1", "taken for",
        right=["pictures", "top-1", "95 %", f"top-{TOP_K}", "precision", "f1"],
    )  # fmt: skip
    for each in rates:
        low, high = each.found.interval
        table.add_row(
            screen.plain(found.labels[each.index]),
            str(each.found.total),
            _share(each.found),
            f"{low:.1%}–{high:.1%}",
            _share(each.found_in_top),
            _share(each.trusted),
            f"{each.f1:.3f}",
            screen.plain("" if each.taken_for is None else found.labels[each.taken_for]),
        )
    return table


def _rate_text(rate: Rate) -> str:
    low, high = rate.interval
    return f"{_share(rate)} ({low:.1%} to {high:.1%})"


def _share(rate: Rate) -> str:
    return "–" if rate.share is None else f"{rate.share:.1%}"
