"""`easel classify`, `easel embed`."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from easel.cli import screen
from easel.cli.connection import TARGET, ApiKey, AsJson, Target, Timeout, connected
from easel.cli.exits import exit_code, item_line
from easel.cli.files import check_readable, read_pictures
from easel.client import Classification, Embedding, ItemError

Files = Annotated[list[str], typer.Argument(help="JPEG, PNG or WebP files; - is stdin.")]
Model = Annotated[str, typer.Option("--model", help="The service's default when left out.")]


def classify(
    files: Files,
    top_k: Annotated[int | None, typer.Option("--top-k", "-k", help="Labels a picture.")] = None,
    threshold: Annotated[float, typer.Option(help="Leave out labels below it, 0 to 1.")] = 0.0,
    label: Annotated[list[str] | None, typer.Option(help="Only these labels; repeat it.")] = None,
    fit: Annotated[str, typer.Option(help="model, pad or center-crop.")] = "",
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


def embed(
    files: Files,
    layer: Annotated[
        list[int] | None, typer.Option(help="Hidden layer, -1 is the last; repeat it.")
    ] = None,
    pooling: Annotated[str, typer.Option(help="cls, mean or patch.")] = "",
    normalize: Annotated[bool, typer.Option("--normalize", help="To length 1.")] = False,
    dtype: Annotated[str, typer.Option(help="float32 or float16.")] = "",
    model: Model = "",
    target: Target = TARGET,
    api_key: ApiKey = None,
    timeout: Timeout = None,
    as_json: AsJson = False,
) -> None:
    """Turn pictures into vectors; --json has all their numbers."""
    with connected(target, api_key, timeout, as_json) as client:
        check_readable(files)
        found = [
            (
                name,
                client.embed(
                    data,
                    layers=layer or (),
                    pooling=pooling,
                    normalize=normalize,
                    dtype=dtype,
                    model=model,
                ),
            )
            for name, data in read_pictures(files)
        ]
    if as_json:
        documents = [
            {"file": name, "embeddings": [_embedding_json(e) for e in embeddings]}
            for name, embeddings in found
        ]
        screen.print_json({"results": documents})
        return
    table = screen.table("file", "layer", "shape", "dtype", "values", right=["layer"])
    for name, embeddings in found:
        for each in embeddings:
            shape = "×".join(map(str, each.shape))
            table.add_row(screen.plain(name), str(each.layer), shape, each.dtype, _start(each))
    screen.out().print(table)


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


def _embedding_json(embedding: Embedding) -> dict[str, object]:
    return {
        "layer": embedding.layer,
        "shape": list(embedding.shape),
        "dtype": embedding.dtype,
        "normalized": embedding.normalized,
        "values": embedding.values(),
    }


def _start(embedding: Embedding) -> str:
    values = embedding.values()
    shown = " ".join(f"{value:.4f}" for value in values[:4])
    return f"{shown} …" if len(values) > 4 else shown


def _end_on_item_errors(errors: list[ItemError | None]) -> None:
    for error in errors:
        if error is not None:
            raise typer.Exit(exit_code(error))
