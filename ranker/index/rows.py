"""Collections and pictures in the SQL database: all of them that is not a vector."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection as Several
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from typing import Any, Final, TypeVar

from sqlalchemy import ColumnElement, Connection, Row, Select, delete, func, insert, select, update

from ranker.database.schema import insert_into
from ranker.index import tables
from ranker.index.collection import Collection, Origin
from ranker.index.entry import Filter, Image, Label, Match
from ranker.index.store import no_collection

T = TypeVar("T")

# SQLite takes 32,766 variables in a statement.
_MANY: Final = 5_000


@dataclass(frozen=True, slots=True)
class Shelf:
    """A collection with its number in the database."""

    number: int
    collection: Collection


@dataclass(frozen=True, slots=True)
class Written:
    """``numbers`` by id of what was written, those ``replaced`` by it, and the ids ``refused``."""

    numbers: Mapping[str, int]
    replaced: Sequence[int]
    refused: Sequence[str]


def all_shelves(connection: Connection) -> list[Shelf]:
    """By name."""
    found = connection.execute(select(tables.collections).order_by(tables.collections.c.name))
    return [_shelf(row) for row in found]


def find(connection: Connection, name: str) -> Shelf:
    """Raises ``NotFound``."""
    row = connection.execute(
        select(tables.collections).where(tables.collections.c.name == name)
    ).one_or_none()
    if row is None:
        raise no_collection(name)
    return _shelf(row)


def create(
    connection: Connection, name: str, origin: Origin, created_at: datetime
) -> tuple[Shelf, bool]:
    """The collection of that name, and whether it was made now."""
    values = {"name": name, "origin": origin.to_json(), "size": 0, "created_at": created_at}
    made = connection.scalar(
        insert_into(connection, tables.collections)
        .values(values)
        .on_conflict_do_nothing()
        .returning(tables.collections.c.number)
    )
    return find(connection, name), made is not None


def drop(connection: Connection, name: str) -> Shelf:
    """Return what it was; its pictures go with it. Raises ``NotFound``."""
    shelf = find(connection, name)
    connection.execute(
        delete(tables.collections).where(tables.collections.c.number == shelf.number)
    )
    return shelf


def put(
    connection: Connection,
    shelf: Shelf,
    given: Sequence[Image],
    *,
    max_size: int,
    numbers: Mapping[str, int] | None = None,
) -> Written:
    """Write pictures of different ids, in the place of those there, up to ``max_size`` in all.

    ``numbers`` are theirs by id; the database counts them up where they are left to it.
    """
    size = _size(connection, shelf)
    there = numbers_of(connection, shelf.number, [image.id for image in given])
    new = [image.id for image in given if image.id not in there]
    refused = new[max(0, max_size - size) :]
    written = [image for image in given if image.id not in set(refused)]
    replaced = list(there.values())
    _delete_images(connection, replaced)
    made = _insert_images(connection, shelf.number, written, numbers)
    _count(connection, shelf, len(new) - len(refused))
    return Written(made, replaced, refused)


def remove(connection: Connection, shelf: Shelf, ids: Iterable[str]) -> list[int]:
    """Delete pictures, and return the numbers of those that were there."""
    there = list(numbers_of(connection, shelf.number, ids).values())
    _delete_images(connection, there)
    _count(connection, shelf, -len(there))
    return there


def numbers_of(connection: Connection, collection: int, ids: Iterable[str]) -> dict[str, int]:
    images = tables.images.c
    found: dict[str, int] = {}
    for some in _groups(ids):
        rows = connection.execute(
            select(images.id, images.number).where(
                images.collection == collection, images.id.in_(some)
            )
        )
        found.update({row.id: row.number for row in rows})
    return found


def passing(collection: int, where: Filter) -> list[ColumnElement[bool]]:
    """Conditions on ``images`` that hold for what ``where`` lets pass."""
    labels, attributes, images = tables.labels.c, tables.attributes.c, tables.images.c
    conditions = [images.collection == collection]
    if where.labels:
        named = select(labels.image).where(
            labels.collection == collection, labels.name.in_(where.labels)
        )
        conditions.append(images.number.in_(named))
    for name, value in where.attributes.items():
        having = select(attributes.image).where(
            attributes.collection == collection,
            attributes.name == name,
            attributes.value == value,
        )
        conditions.append(images.number.in_(having))
    return conditions


def numbers_passing(
    connection: Connection,
    collection: int,
    where: Filter,
    *,
    count: int | None = None,
    among: Sequence[int] | None = None,
) -> list[int]:
    """Of all, or of ``among``; of ``count`` at most."""
    images = tables.images.c
    chosen = select(images.number).where(*passing(collection, where)).limit(count)
    if among is None:
        return list(connection.scalars(chosen))
    groups = (connection.scalars(chosen.where(images.number.in_(some))) for some in _groups(among))
    return [number for group in groups for number in group]


def page(
    connection: Connection, collection: int, after: str, count: int, where: Filter
) -> list[Image]:
    images = tables.images.c
    chosen = (
        select(images.number)
        .where(*passing(collection, where), images.id > after)
        .order_by(images.id)
        .limit(count)
    )
    numbers = list(connection.scalars(chosen))
    found = described(connection, numbers)
    return [found[number] for number in numbers]


def likeliest(connection: Connection, collection: int, count: int, where: Filter) -> list[Match]:
    """By the probability of the best of the labels that ``where`` names, then by id."""
    labels, images = tables.labels.c, tables.images.c
    best: Select[Any] = (
        select(images.number)
        .join(tables.labels, labels.image == images.number)
        .where(*passing(collection, where), labels.name.in_(where.labels))
        .group_by(images.number, images.id)
        .order_by(func.max(labels.score).desc(), images.id)
        .limit(count)
    )
    numbers = list(connection.scalars(best))
    found = described(connection, numbers)
    return [Match(found[number]) for number in numbers]


def described(connection: Connection, numbers: Several[int]) -> dict[int, Image]:
    """Pictures by number; those that are gone are left out."""
    found: dict[int, Image] = {}
    for some in _groups(numbers):
        found.update(_described(connection, some))
    return found


def _described(connection: Connection, numbers: Sequence[int]) -> Iterator[tuple[int, Image]]:
    labels, attributes = tables.labels.c, tables.attributes.c
    named: dict[int, list[Label]] = defaultdict(list)
    for row in connection.execute(
        select(tables.labels).where(labels.image.in_(numbers)).order_by(labels.score.desc())
    ):
        named[row.image].append(Label(row.label, row.name, row.score))
    having: dict[int, dict[str, str]] = defaultdict(dict)
    for row in connection.execute(
        select(tables.attributes).where(attributes.image.in_(numbers)).order_by(attributes.name)
    ):
        having[row.image][row.name] = row.value
    for row in connection.execute(select(tables.images).where(tables.images.c.number.in_(numbers))):
        number = row.number
        yield number, Image(row.id, tuple(named[number]), having[number], row.indexed_at)


def _insert_images(
    connection: Connection,
    collection: int,
    given: Sequence[Image],
    chosen: Mapping[str, int] | None,
) -> dict[str, int]:
    if not given:
        return {}
    images = tables.images.c
    rows = connection.execute(
        insert(tables.images).returning(images.id, images.number),
        [
            {
                "collection": collection,
                "id": image.id,
                "indexed_at": image.indexed_at,
                **({} if chosen is None else {"number": chosen[image.id]}),
            }
            for image in given
        ],
    )
    numbers = {row.id: row.number for row in rows}
    named = [
        {
            "image": numbers[image.id],
            "label": label.index,
            "collection": collection,
            "name": label.name,
            "score": label.score,
        }
        for image in given
        for label in image.labels
    ]
    having = [
        {"image": numbers[image.id], "name": name, "collection": collection, "value": value}
        for image in given
        for name, value in image.attributes.items()
    ]
    if named:
        connection.execute(insert(tables.labels), named)
    if having:
        connection.execute(insert(tables.attributes), having)
    return numbers


def _delete_images(connection: Connection, numbers: Sequence[int]) -> None:
    for some in _groups(numbers):
        connection.execute(delete(tables.images).where(tables.images.c.number.in_(some)))


def _size(connection: Connection, shelf: Shelf) -> int:
    """As it is now. Raises ``NotFound`` where the collection went meanwhile."""
    collections = tables.collections.c
    size: int | None = connection.scalar(
        select(collections.size).where(collections.number == shelf.number)
    )
    if size is None:
        raise no_collection(shelf.collection.name)
    return size


def _count(connection: Connection, shelf: Shelf, change: int) -> None:
    collections = tables.collections.c
    connection.execute(
        update(tables.collections)
        .where(collections.number == shelf.number)
        .values(size=collections.size + change)
    )


def _groups(values: Iterable[T]) -> Iterator[list[T]]:
    left = iter(values)
    while some := list(islice(left, _MANY)):
        yield some


def _shelf(row: Row[Any]) -> Shelf:
    collection = Collection(row.name, Origin.from_json(row.origin), row.size, row.created_at)
    return Shelf(row.number, collection)
