"""`easel embed`."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import Annotated, Any

import typer

from easel.cli import screen
from easel.cli.classifying import Files, Fit, Model
from easel.cli.connection import TARGET, ApiKey, AsJson, Target, Timeout, connected
from easel.cli.evaluate import print_failures
from easel.cli.exits import ExitCode
from easel.cli.files import PictureFile, check_readable, named_pictures, read_pictures
from easel.cli.stream import Failure, answered
from easel.client import Client, EaselClientError, Embedding
from easel.model.v1 import model_pb2
from easel.vectors.destination import destination
from easel.vectors.extras import ExtraMissingError
from easel.vectors.recipe import Column, Recipe, Record
from easel.vectors.sink import Sink, Store, StoreError


def embed(
    files: Files,
    to: Annotated[
        str,
        typer.Option(
            help="FILE.parquet, FILE.index (FAISS) or milvus:URI; then directories are taken too."
        ),
    ] = "",
    layers: Annotated[
        list[str] | None,
        typer.Option("--layers", "--layer", help="Hidden layers, e.g. 4,-1; -1 is the last."),
    ] = None,
    pooling: Annotated[str, typer.Option(help="cls, mean or patch.")] = "",
    normalize: Annotated[bool, typer.Option("--normalize", help="To length 1.")] = False,
    dtype: Annotated[str, typer.Option(help="float32 or float16.")] = "",
    final_norm: Annotated[
        bool, typer.Option(help="Apply the model's final norm to its last layer.")
    ] = True,
    fit: Fit = "",
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with what is there, leave out what it has.")
    ] = False,
    collection: Annotated[str, typer.Option(help="Milvus: the collection's name.")] = "easel",
    milvus_token: Annotated[
        str, typer.Option(envvar="EASEL_MILVUS_TOKEN", help="Milvus: user:password or API key.")
    ] = "",
    model: Model = "",
    target: Target = TARGET,
    api_key: ApiKey = None,
    timeout: Timeout = None,
    as_json: AsJson = False,
) -> None:
    """Turn pictures into vectors: shown (--json has all their numbers), or kept (--to)."""
    with connected(target, api_key, timeout, as_json) as client:
        asked = _Asked(
            parse_layers(layers or []), pooling, normalize, dtype, final_norm, fit, model
        )
        if not to:
            if resume:
                raise ValueError("--resume: needs --to")
            _show(client, files, asked, as_json=as_json)
            return
        try:
            store = destination(to, collection=collection, token=milvus_token)
            kept = _keep(client, files, asked, store, resume=resume, quiet=as_json)
        except ExtraMissingError as error:
            screen.fail(str(error), ExitCode.BAD_INPUT)
        except StoreError as error:
            screen.fail(str(error), ExitCode.FAILED)
    if as_json:
        screen.print_json({"to": to, **kept.as_json()})
    else:
        _print_kept(kept, to)
    if kept.codes:
        raise typer.Exit(kept.codes[0])


def parse_layers(texts: Sequence[str]) -> tuple[int, ...]:
    """Read "4,-1", any number of times. Raises ``ValueError``."""
    try:
        return tuple(int(part) for text in texts for part in text.split(","))
    except ValueError:
        raise ValueError(f"--layers: {','.join(texts)!r} is not whole numbers, e.g. 4,-1") from None


@dataclass(frozen=True, slots=True)
class _Asked:
    """The options of the vectors, as they were given."""

    layers: tuple[int, ...]
    pooling: str
    normalize: bool
    dtype: str
    final_norm: bool
    fit: str
    model: str

    def options(self) -> dict[str, Any]:
        return {
            "layers": self.layers,
            "pooling": self.pooling,
            "normalize": self.normalize,
            "dtype": self.dtype,
            "final_norm": self.final_norm,
            "fit": self.fit,
        }

    def recipe(self, info: model_pb2.ModelInfo) -> Recipe:
        """Raises ``ValueError`` for a layer that the model lacks."""
        depth = info.classifier.layers
        for layer in self.layers:
            if not -(depth + 1) <= layer <= depth:
                raise ValueError(
                    f"--layers: {info.name} has the layers {-(depth + 1)} to {depth}, given {layer}"
                )
        found = dict.fromkeys(layer % (depth + 1) for layer in self.layers or (depth,))
        return Recipe(
            model=info.name,
            version=info.version,
            digest=info.digest,
            layers=tuple(found),
            pooling=self.pooling or "cls",
            normalize=self.normalize,
            dtype=self.dtype or "float32",
            final_norm=self.final_norm,
            fit=self.fit or "model",
        )


@dataclass
class _Kept:
    """What came of it. ``already`` were there before."""

    recipe: Recipe
    already: int = 0
    written: int = 0
    failed: dict[str, str] = field(default_factory=dict)
    codes: list[ExitCode] = field(default_factory=list)
    ignored: Sequence[str] = ()
    seconds: float = 0.0

    @property
    def pictures_per_second(self) -> float:
        return self.written / self.seconds if self.seconds else 0.0

    def as_json(self) -> dict[str, Any]:
        return {
            "written": self.written,
            "already": self.already,
            "failed": [{"file": file, "error": error} for file, error in self.failed.items()],
            "ignored": list(self.ignored),
            "model": self.recipe.model,
            "digest": self.recipe.digest,
            "layers": list(self.recipe.layers),
            "pooling": self.recipe.pooling,
            "normalized": self.recipe.normalize,
            "dtype": self.recipe.dtype,
            "seconds": self.seconds,
            "pictures_per_second": self.pictures_per_second,
        }


def _keep(
    client: Client, files: list[str], asked: _Asked, store: Store, *, resume: bool, quiet: bool
) -> _Kept:
    pictures, ignored = named_pictures(files)
    if not pictures:
        raise ValueError(f"{', '.join(files)}: no pictures (JPEG, PNG, WebP)")
    info = client.get_model(asked.model)
    kept = _Kept(asked.recipe(info), ignored=ignored)
    with closing(store.open(kept.recipe, resume=resume)) as sink:
        there = sink.kept([each.name for each in pictures])
        kept.already = len(there)
        left = [each for each in pictures if each.name not in there]
        try:
            _fill(client, asked, left, sink, kept, quiet=quiet)
        except (KeyboardInterrupt, EaselClientError):
            sink.save()
            if kept.already + kept.written:
                screen.err().print("what was embedded is kept, --resume goes on with it")
            raise
        sink.finish()
    return kept


def _fill(
    client: Client,
    asked: _Asked,
    left: Sequence[PictureFile],
    sink: Sink,
    kept: _Kept,
    *,
    quiet: bool,
) -> None:
    recipe = kept.recipe
    answers = answered(
        left,
        lambda sending: client.embed_many(
            sending, **asked.options(), model=recipe.model, model_version=recipe.version
        ),
        digest=recipe.digest,
    )
    started = time.perf_counter()
    columns: tuple[Column, ...] = ()
    with screen.bars(quiet=quiet) as progress:
        total = len(left) + kept.already
        task = progress.add_task("embedding", total=total, completed=kept.already, note="")
        for picture, answer in answers:
            if isinstance(answer, Failure):
                kept.failed[picture.name] = answer.reason
                kept.codes.append(answer.code)
            else:
                found = answer.embeddings
                if not columns:
                    columns = tuple(Column(each.layer, each.shape) for each in found)
                    sink.begin(columns)
                sink.add(Record(picture.name, tuple(each.data for each in found)))
                kept.written += 1
            kept.seconds = time.perf_counter() - started
            failed = f", [red]{len(kept.failed)} failed[/]" if kept.failed else ""
            progress.update(task, advance=1, note=f"{kept.pictures_per_second:.0f}/s{failed}")


def _print_kept(kept: _Kept, to: str) -> None:
    recipe, console = kept.recipe, screen.out()
    length = ", length 1" if recipe.normalize else ""
    layers = ",".join(map(str, recipe.layers))
    what = f"layers {layers}, {recipe.pooling}, {recipe.dtype}{length}"
    console.print(screen.plain(f"{to}: {recipe.model}, {what}"))
    already = f", {kept.already:,} were there" if kept.already else ""
    speed = f"{kept.seconds:.1f} s, {kept.pictures_per_second:.1f}/s"
    console.print(f"{kept.written:,} pictures written{already} ({speed})")
    if kept.ignored:
        console.print(screen.plain(f"{len(kept.ignored)} other files left out", "dim"))
    print_failures(kept.failed)


def _show(client: Client, files: list[str], asked: _Asked, *, as_json: bool) -> None:
    check_readable(files)
    found = [
        (name, client.embed(data, **asked.options(), model=asked.model))
        for name, data in read_pictures(files)
    ]
    if as_json:
        documents = [
            {"file": name, "embeddings": [_embedding_json(each) for each in embeddings]}
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
