"""`easel index`, `easel similar`, `easel collections`."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

import typer

from easel.cli import screen
from easel.cli.classifying import Model
from easel.cli.connection import TARGET, ApiKey, AsJson, Target, Timeout, connected
from easel.cli.evaluate import print_failures
from easel.cli.exits import EPILOG, ExitCode
from easel.cli.files import (
    PICTURE_SUFFIXES,
    PictureFile,
    check_readable,
    named_pictures,
    read_pictures,
)
from easel.cli.generate import Show, show_or_say
from easel.cli.stream import Failure, answered
from easel.cli.terminal import wants_pictures
from easel.client import Client, EaselClientError, ImageMatch, Indexed
from easel.client import Collection as KeptCollection

_SHOWN = 8
DEFAULT_COLLECTION = "pictures"
# Asking for the ids that are there is dearer than sending so many pictures for nothing.
_WORTH_LISTING = 4

Collection = Annotated[
    str, typer.Option("--collection", "-c", help="The collection's name; made where it is new.")
]
Attributes = Annotated[
    list[str] | None,
    typer.Option("--attribute", "-a", help="NAME=VALUE; repeat it."),
]
Labels = Annotated[
    list[str] | None,
    typer.Option("--label", help="Only with this label; repeated, with any of them."),
]

app = typer.Typer(
    help="List the collections of pictures, what is in one, and delete.",
    epilog=EPILOG,
    no_args_is_help=True,
)


def index(
    files: Annotated[list[str], typer.Argument(help="Directories, or JPEG, PNG and WebP files.")],
    collection: Collection = DEFAULT_COLLECTION,
    attribute: Attributes = None,
    replace_existing: Annotated[
        bool, typer.Option("--replace", help="Index again what is there already.")
    ] = False,
    layer: Annotated[
        int | None, typer.Option(help="New collections: hidden layer; -1 is the last.")
    ] = None,
    pooling: Annotated[str, typer.Option(help="New collections: cls or mean.")] = "",
    fit: Annotated[
        str, typer.Option("--fit", help="New collections: model, pad or center-crop.")
    ] = "",
    model: Model = "",
    target: Target = TARGET,
    api_key: ApiKey = None,
    timeout: Timeout = None,
    as_json: AsJson = False,
) -> None:
    """Have pictures found by `easel similar`; what is there already is left out.

    Interrupted, it goes on where it was when it is called again.
    """
    with connected(target, api_key, timeout, as_json) as client:
        pictures, ignored = named_pictures(files)
        if not pictures:
            raise ValueError(f"{', '.join(files)}: no pictures (JPEG, PNG, WebP)")
        attributes = parse_attributes(attribute or [])
        if model or pooling or fit or layer is not None:
            client.create_collection(collection, model=model, layer=layer, pooling=pooling, fit=fit)
        done = _Done(collection, ignored=ignored)
        _index(client, pictures, attributes, done, again=replace_existing, quiet=as_json)
    if as_json:
        screen.print_json(done.as_json())
    else:
        _print_done(done)
    if done.codes:
        raise typer.Exit(done.codes[0])


def similar(
    picture: Annotated[
        str, typer.Argument(help="A JPEG, PNG or WebP file; - is stdin. None with --id.")
    ] = "",
    id: Annotated[
        str, typer.Option("--id", help="Like this picture of the collection instead.")
    ] = "",
    collection: Annotated[
        str, typer.Option("--collection", "-c", help="Where to look.")
    ] = DEFAULT_COLLECTION,
    top_k: Annotated[int, typer.Option("--top-k", "-k", min=1, help="Pictures to find.")] = 10,
    label: Labels = None,
    attribute: Attributes = None,
    folder: Annotated[
        Path, typer.Option(help="Where the indexed pictures lie, to be shown.")
    ] = Path(),
    show: Show = None,
    target: Target = TARGET,
    api_key: ApiKey = None,
    timeout: Timeout = None,
    as_json: AsJson = False,
) -> None:
    """Find the pictures of a collection that are most like a picture, or show a label."""
    with connected(target, api_key, timeout, as_json) as client:
        if bool(picture) == bool(id) and (picture or not label):
            raise ValueError("say what to look for: a picture, --id or --label")
        matches = client.search_images(
            collection,
            image=_picture(picture),
            id=id,
            top_k=top_k,
            labels=label or [],
            attributes=parse_attributes(attribute or []),
        )
    if as_json:
        screen.print_json({"matches": [match_json(match) for match in matches]})
    else:
        _print_matches(matches)
    if wants_pictures(show, as_json=as_json):
        show_or_say(_found_files(matches[:_SHOWN], folder), asked=bool(show))


@app.command("list", epilog=EPILOG)
def list_collections(
    target: Target = TARGET,
    api_key: ApiKey = None,
    timeout: Timeout = None,
    as_json: AsJson = False,
) -> None:
    """List the collections with what their vectors are made by."""
    with connected(target, api_key, timeout, as_json) as client:
        found = client.list_collections()
    if as_json:
        screen.print_json({"collections": [_collection_json(each) for each in found]})
        return
    table = screen.table(
        "collection", "pictures", "model", "layer", "pooling", "fit", "dimensions",
        right=["pictures", "layer", "dimensions"],
    )  # fmt: skip
    for each in found:
        model = f"{each.model} {each.version}"
        table.add_row(
            each.name, f"{each.images:,}", screen.plain(model), str(each.layer), each.pooling,
            each.fit, str(each.dimensions),
        )  # fmt: skip
    screen.out().print(table if found else screen.plain("no collections", "dim"))


@app.command("show", epilog=EPILOG)
def show_collection(
    name: Annotated[str, typer.Argument(help="The collection.")],
    label: Labels = None,
    attribute: Attributes = None,
    target: Target = TARGET,
    api_key: ApiKey = None,
    timeout: Timeout = None,
    as_json: AsJson = False,
) -> None:
    """List a collection's pictures by name."""
    with connected(target, api_key, timeout, as_json) as client:
        attributes = parse_attributes(attribute or [])
        found = list(client.list_images(name, labels=label or [], attributes=attributes))
    if as_json:
        screen.print_json({"images": [match_json(image) for image in found]})
    else:
        _print_matches(found)


@app.command("delete", epilog=EPILOG)
def delete_collection(
    name: Annotated[str, typer.Argument(help="The collection.")],
    picture: Annotated[
        list[str] | None, typer.Argument(help="Only these pictures of it, by name.")
    ] = None,
    target: Target = TARGET,
    api_key: ApiKey = None,
    timeout: Timeout = None,
    as_json: AsJson = False,
) -> None:
    """Delete a collection with all its pictures, or some of them."""
    with connected(target, api_key, timeout, as_json) as client:
        deleted = (
            client.delete_collection(name) if not picture else client.delete_images(name, picture)
        )
    if as_json:
        screen.print_json({"deleted": deleted})
    else:
        screen.out().print(screen.plain(f"{deleted:,} pictures deleted from {name}"))


def parse_attributes(texts: Sequence[str]) -> dict[str, str]:
    """Read NAME=VALUE, any number of times. Raises ``ValueError``."""
    attributes: dict[str, str] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not name or not equals:
            raise ValueError(f"--attribute: {text!r} is not NAME=VALUE")
        if name in attributes:
            raise ValueError(f"--attribute: {name!r} is given twice")
        attributes[name] = value
    return attributes


def match_json(match: ImageMatch) -> dict[str, Any]:
    labels = [{"name": label.name, "probability": label.score} for label in match.labels]
    document: dict[str, Any] = {"id": match.id}
    if match.similarity is not None:
        document["similarity"] = match.similarity
    return {**document, "labels": labels, "attributes": dict(match.attributes)}


@dataclass
class _Done:
    """What came of it. ``already`` were there before."""

    collection: str
    already: int = 0
    indexed: int = 0
    failed: dict[str, str] = field(default_factory=dict)
    codes: list[ExitCode] = field(default_factory=list)
    ignored: Sequence[str] = ()
    model: str = ""
    digest: str = ""
    seconds: float = 0.0

    @property
    def pictures_per_second(self) -> float:
        return self.indexed / self.seconds if self.seconds else 0.0

    def as_json(self) -> dict[str, Any]:
        return {
            "collection": self.collection,
            "indexed": self.indexed,
            "already": self.already,
            "failed": [{"file": file, "error": error} for file, error in self.failed.items()],
            "ignored": list(self.ignored),
            "model": self.model,
            "digest": self.digest,
            "seconds": self.seconds,
            "pictures_per_second": self.pictures_per_second,
        }


def _index(
    client: Client,
    pictures: Sequence[PictureFile],
    attributes: Mapping[str, str],
    done: _Done,
    *,
    again: bool,
    quiet: bool,
) -> None:
    there = {each.name: each for each in client.list_collections()}.get(done.collection)
    if there is None:
        info = client.get_model()
        done.model, done.digest = info.name, info.digest
    else:
        done.model, done.digest = there.model, there.digest
    left = pictures if again else _left(client, pictures, there)
    done.already = len(pictures) - len(left)
    try:
        _fill(client, left, attributes, done, again=again, quiet=quiet)
    except (KeyboardInterrupt, EaselClientError):
        if done.already + done.indexed:
            screen.err().print("what was indexed is kept; the same command goes on with it")
        raise


def _left(
    client: Client, pictures: Sequence[PictureFile], there: KeptCollection | None
) -> Sequence[PictureFile]:
    """Those that need not be sent to learn that they are there are left out."""
    if there is None or there.images > _WORTH_LISTING * len(pictures):
        return pictures
    known = {image.id for image in client.list_images(there.name)}
    return [picture for picture in pictures if picture.name not in known]


def _fill(
    client: Client,
    left: Sequence[PictureFile],
    attributes: Mapping[str, str],
    done: _Done,
    *,
    again: bool,
    quiet: bool,
) -> None:
    numbers = {picture.name: number for number, picture in enumerate(left)}

    def call(sending: Iterator[tuple[str, bytes]]) -> Iterator[Indexed]:
        """The stream counts pictures, the collection has them by name."""
        named = ((left[int(number)].name, data) for number, data in sending)
        answers = client.index_images(
            named, collection=done.collection, attributes=attributes, skip_existing=not again
        )
        return (replace(answer, id=str(_number(answer.id, numbers))) for answer in answers)

    started = time.perf_counter()
    with screen.bars(quiet=quiet) as progress:
        total = len(left) + done.already
        task = progress.add_task("indexing", total=total, completed=done.already, note="")
        for picture, answer in answered(left, call, digest=done.digest):
            if isinstance(answer, Failure):
                done.failed[picture.name] = answer.reason
                done.codes.append(answer.code)
            elif answer.skipped:
                done.already += 1
            else:
                done.indexed += 1
            done.seconds = time.perf_counter() - started
            failed = f", [red]{len(done.failed)} failed[/]" if done.failed else ""
            progress.update(task, advance=1, note=f"{done.pictures_per_second:.0f}/s{failed}")


def _number(id: str, numbers: Mapping[str, int]) -> int:
    """That of the picture; of an id that is too long, a refusal has the beginning."""
    number = numbers.get(id)
    return (
        number
        if number is not None
        else next(number for name, number in numbers.items() if name.startswith(id))
    )


def _print_done(done: _Done) -> None:
    console = screen.out()
    already = f", {done.already:,} were there" if done.already else ""
    speed = f"{done.seconds:.1f} s, {done.pictures_per_second:.1f}/s"
    text = f"{done.collection}: {done.indexed:,} pictures indexed{already} ({speed})"
    console.print(screen.plain(text))
    if done.ignored:
        console.print(screen.plain(f"{len(done.ignored)} other files left out", "dim"))
    print_failures(done.failed)


def _picture(name: str) -> bytes | None:
    if not name:
        return None
    check_readable([name])
    ((_, data),) = read_pictures([name])
    return data


def _print_matches(matches: Sequence[ImageMatch]) -> None:
    is_like = any(match.similarity is not None for match in matches)
    first = ["similarity"] if is_like else []
    table = screen.table(*first, "picture", "label", "p", "attributes", right=["similarity", "p"])
    for match in matches:
        best = match.labels[0] if match.labels else None
        cells = [f"{match.similarity or 0.0:.3f}"] if is_like else []
        attributes = " ".join(f"{name}={value}" for name, value in match.attributes.items())
        table.add_row(
            *cells,
            screen.plain(match.id),
            screen.plain(best.name if best else ""),
            f"{best.score:.2f}" if best else "",
            screen.plain(attributes, "dim"),
        )
    screen.out().print(table if matches else screen.plain("no pictures", "dim"))


def _found_files(matches: Sequence[ImageMatch], folder: Path) -> list[bytes]:
    """The pictures that lie where they did when they were indexed."""
    paths = [folder / match.id for match in matches]
    kinds = PICTURE_SUFFIXES
    return [path.read_bytes() for path in paths if path.suffix.lower() in kinds and path.is_file()]


def _collection_json(collection: KeptCollection) -> dict[str, Any]:
    return {**asdict(collection), "created_at": collection.created_at.isoformat()}
