"""`easel classify`."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from easel.cli import screen
from easel.cli.connection import TARGET, ApiKey, AsJson, Target, Timeout, connected
from easel.cli.exits import exit_code, item_line
from easel.cli.files import check_readable, read_pictures
from easel.client import Classification, ItemError

Files = Annotated[list[str], typer.Argument(help="JPEG, PNG or WebP files; - is stdin.")]
Model = Annotated[str, typer.Option("--model", help="The service's default when left out.")]
Fit = Annotated[str, typer.Option("--fit", help="model, pad or center-crop.")]


def classify(
    files: Files,
    top_k: Annotated[int | None, typer.Option("--top-k", "-k", help="Labels a picture.")] = None,
    threshold: Annotated[float, typer.Option(help="Leave out labels below it, 0 to 1.")] = 0.0,
    label: Annotated[list[str] | None, typer.Option(help="Only these labels; repeat it.")] = None,
    fit: Fit = "",
    model: Model = "",
    target: Target = TARGET,
    api_key: ApiKey = None,
    timeout: Timeout = None,
    as_json: AsJson = False,
) -> None:
    """Say what is on pictures."""
    with connected(target, api_key, timeout, as_json) as client:
        check_readable(files)
        answers = client.classify_many(
            ((str(place), data) for place, (_, data) in enumerate(read_pictures(files))),
            top_k=top_k,
            threshold=threshold,
            labels=label or (),
            fit=fit,
            model=model,
        )
        found = sorted(answers, key=lambda answer: int(answer.id))
    if as_json:
        screen.print_json({"results": [_answer_json(files[int(a.id)], a) for a in found]})
    else:
        _print_labels(files, found)
    _end_on_item_errors([answer.error for answer in found])


def _print_labels(files: list[str], found: list[Classification]) -> None:
    table = screen.table("file", "label", "probability", "", right=["probability"])
    for answer in found:
        name = files[int(answer.id)]
        if answer.error is not None:
            table.add_row(screen.plain(name), screen.plain(item_line(answer.error), "red"))
            continue
        if not answer.labels:
            table.add_row(screen.plain(name), screen.plain("no label above the threshold", "dim"))
        for place, label in enumerate(answer.labels):
            table.add_row(
                screen.plain("" if place else name),
                screen.plain(label.name, "bold" if place == 0 else ""),
                f"{label.score:.4f}",
                screen.plain("█" * round(label.score * 20), "green"),
            )
    screen.out().print(table)


def _answer_json(file: str, answer: Classification) -> dict[str, object]:
    document: dict[str, object] = {
        "file": file,
        "labels": [_label_json(asdict(label)) for label in answer.labels],
        "model": answer.model,
        "timing": asdict(answer.timing),
    }
    if answer.error is not None:
        document["error"] = item_json(answer.error)
    return document


def _label_json(label: dict[str, object]) -> dict[str, object]:
    return {name: value for name, value in label.items() if value is not None}


def item_json(error: ItemError) -> dict[str, object]:
    """Return one item's failure as plain JSON values."""
    return {
        "code": error.code.name,
        "reason": error.reason,
        "message": error.message,
        "field": error.field,
    }


def _end_on_item_errors(errors: list[ItemError | None]) -> None:
    for error in errors:
        if error is not None:
            raise typer.Exit(exit_code(error))
