"""The catalogue in the database: functions over a connection, for ``Database.read``, ``write``."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import date, datetime
from typing import Any, Final

from sqlalchemy import Connection, Row, delete, func, insert, select, update

from ranker.catalogue.checks import MAX_NAME_CHARS, check_beside, check_model
from ranker.catalogue.document import Document
from ranker.catalogue.model import CAPABILITY_TEXTS, Capability, Claim, Model, Usage
from ranker.catalogue.names import fold, index_of
from ranker.catalogue.tables import CAPABILITY, MODEL, NAME, REVISION
from ranker.database.schema import insert_into
from services.core.errors import FailedPrecondition, InvalidInput, NotFound

_ID_POSITION: Final = -2
_NAME_POSITION: Final = -1
_REVISION_ROW: Final = 1
# Values of one IN: SQLite counts every one.
_BATCH: Final = 500


@dataclass(frozen=True, slots=True)
class Changes:
    """Ids of the models that an import adds, changes and removes, in order."""

    added: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.added or self.changed or self.removed)


def revision(connection: Connection) -> int:
    """The catalogue's number, which every change raises; 0 before the first."""
    return connection.scalar(select(REVISION.c.number)) or 0


def changed_since(connection: Connection, number: int) -> list[Model]:
    """The models (no other records) that changed after ``revision`` was ``number``, by their id.

    Which are gone, ``ids`` tells.
    """
    return _models(connection, MODEL.c.same_as.is_(None), MODEL.c.revision > number)


def ids(connection: Connection) -> list[str]:
    """The ids of all models, in order."""
    query = select(MODEL.c.id).where(MODEL.c.same_as.is_(None)).order_by(MODEL.c.id)
    return list(connection.scalars(query))


def find(connection: Connection, text: str, field: str = "model") -> Model:
    """The model with an id, name or alias like ``text``, its case left out; for another record the
    model that it is the same as.

    Raises ``NotFound`` with the nearest names, ``InvalidInput`` naming ``field`` for an empty text.
    """
    id = _model_of(connection, find_id(connection, text, field))
    (model,) = _models(connection, MODEL.c.id == id)
    return model


def find_id(connection: Connection, text: str, field: str = "model") -> str:
    """The id of the very record that ``text`` names. Raises as ``find`` does."""
    if not text.strip():
        raise InvalidInput(field, "A model is needed: its id, its name or an alias.")
    if len(text) > MAX_NAME_CHARS:
        limit = f"{MAX_NAME_CHARS} characters"
        raise InvalidInput(field, "The name is too long.", limit, len(text))
    if "\0" in text:  # not every database can be asked for it
        raise InvalidInput(field, "A name has no character of code 0.")
    id: str | None = connection.scalar(select(NAME.c.model_id).where(NAME.c.key == fold(text)))
    if id is not None:
        return id
    nearest = index_of(tuple(connection.scalars(select(NAME.c.text)))).nearest(text)
    offered = ", ".join(repr(name) for name in nearest)
    hint = f"; the nearest names: {offered}" if nearest else ""
    raise NotFound(f"There is no model {text[:128]!r} in the catalogue{hint}.")


def model_ids(connection: Connection, names: Sequence[str]) -> dict[str, str]:
    """For each of a few names that is in the catalogue, the id of the model that it means."""
    keys = {name: fold(name) for name in names}
    rows = connection.execute(
        select(NAME.c.key, NAME.c.model_id).where(NAME.c.key.in_(set(keys.values())))
    )
    owners = {row.key: row.model_id for row in rows}
    return {name: _model_of(connection, owners[key]) for name, key in keys.items() if key in owners}


def get(connection: Connection, id: str) -> Model | None:
    """The very record with this id."""
    return next(iter(_models(connection, MODEL.c.id == id)), None)


def page(connection: Connection, *, type: str, after: str, size: int) -> list[Model]:
    """At most ``size`` models with an id behind ``after``, in order; ``type`` empty is any."""
    if "\0" in type:  # not every database can be asked for it
        return []
    conditions = [MODEL.c.same_as.is_(None), MODEL.c.id > after]
    if type:
        conditions.append(MODEL.c.type == type)
    return _models(connection, *conditions, limit=size)


def usage(connection: Connection, type: str) -> dict[str, dict[str, int]]:
    """The counts of use of all models of a type, by count's name and model's id."""
    found: defaultdict[str, dict[str, int]] = defaultdict(dict)
    rows = select(MODEL.c.id, MODEL.c.usage).where(MODEL.c.type == type, MODEL.c.same_as.is_(None))
    for id, counts in connection.execute(rows):
        for each in counts:
            found[each["name"]][id] = each["count"]
    return dict(found)


def every_record(connection: Connection) -> list[Model]:
    """All models and other records, by their id."""
    return _models(connection)


def put(connection: Connection, model: Model, now: datetime, max_models: int) -> Model:
    """Add the model, or put it in the place of the one with its id; returns it as it is kept.

    One that is as before stays as it is. Raises ``InvalidInput``, and ``FailedPrecondition`` where
    the catalogue is full.
    """
    check_model(model)
    before = get(connection, model.id)
    if before is not None and _same(before, model):
        return before
    if before is None:
        count = connection.scalar(select(func.count()).select_from(MODEL)) or 0
        if count >= max_models:
            raise FailedPrecondition(
                f"The catalogue is full: it has {count} models, and {max_models} may be.",
                reason="CATALOGUE_FULL",
            )
    check_beside(model, _StoredNames(connection))
    number = _raise_revision(connection)
    _save(connection, [(model, before is not None)], now, number)
    return replace(model, updated_at=now, revision=number)


def remove(connection: Connection, text: str) -> None:
    """Take the very record that ``text`` names out of the catalogue.

    Raises as ``find`` does, and ``FailedPrecondition`` where others are the same as it.
    """
    id = find_id(connection, text)
    others = list(connection.scalars(select(MODEL.c.id).where(MODEL.c.same_as == id).limit(5)))
    if others:
        raise FailedPrecondition(
            f"{id!r} is what others are the same as: {', '.join(map(repr, others))}.",
            reason="SAME_AS_IN_USE",
        )
    _raise_revision(connection)
    _delete(connection, [id])


def plan(
    connection: Connection, document: Document, *, keep_others: bool, max_models: int
) -> Changes:
    """What making the catalogue what the document says would change; changes nothing.

    With ``keep_others`` models that are not in the document stay. Raises ``InvalidInput``.
    """
    before = {model.id: model for model in every_record(connection)}
    given = {model.id: model for model in document.models}
    rest = {id: model for id, model in before.items() if id not in given}
    document.check(rest if keep_others else {}, max_models)
    return Changes(
        added=tuple(sorted(given.keys() - before.keys())),
        changed=tuple(
            sorted(id for id in given.keys() & before.keys() if not _same(given[id], before[id]))
        ),
        removed=() if keep_others else tuple(sorted(rest)),
    )


def apply(
    connection: Connection,
    document: Document,
    now: datetime,
    *,
    keep_others: bool,
    max_models: int,
) -> Changes:
    """As ``plan``, done."""
    changes = plan(connection, document, keep_others=keep_others, max_models=max_models)
    if not changes:
        return changes
    number = _raise_revision(connection)
    given = {model.id: model for model in document.models}
    # Names may move from one to another: all of them go before any comes. Nor may a record point
    # to one that is gone, or is not there yet.
    for batch in _batches([*changes.removed, *changes.changed]):
        connection.execute(update(MODEL).where(MODEL.c.id.in_(batch)).values(same_as=None))
        connection.execute(delete(NAME).where(NAME.c.model_id.in_(batch)))
        connection.execute(delete(CAPABILITY).where(CAPABILITY.c.model_id.in_(batch)))
    stored = [(given[id], True) for id in changes.changed]
    _save(connection, [*stored, *((given[id], False) for id in changes.added)], now, number)
    _delete(connection, changes.removed)
    return changes


class _StoredNames:
    """``checks.Names`` of what is kept."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def owner(self, key: str) -> str | None:
        query = select(NAME.c.model_id).where(NAME.c.key == key)
        return self._connection.scalar(query)

    def same_as(self, id: str) -> str | None:
        row = self._connection.execute(select(MODEL.c.same_as).where(MODEL.c.id == id)).first()
        return None if row is None else row.same_as or ""


def _model_of(connection: Connection, id: str) -> str:
    """The id of the model that the record with this id is the same as, or is."""
    while following := connection.scalar(select(MODEL.c.same_as).where(MODEL.c.id == id)):
        id = following
    return id


def _same(one: Model, other: Model) -> bool:
    """Whether both say the same, whenever it was said."""
    return _said(one) == _said(other)


def _said(model: Model) -> Model:
    return replace(model, updated_at=None, revision=0)


def _raise_revision(connection: Connection) -> int:
    number = revision(connection) + 1
    given = insert_into(connection, REVISION).values(id=_REVISION_ROW, number=number)
    connection.execute(given.on_conflict_do_update(index_elements=["id"], set_={"number": number}))
    return number


def _save(
    connection: Connection, models: Sequence[tuple[Model, bool]], now: datetime, number: int
) -> None:
    """Write models whole; each with whether its row is there. What they are the same as comes last,
    when all rows are there.
    """
    if not models:
        return
    present = [model.id for model, is_there in models if is_there]
    for batch in _batches(present):
        connection.execute(delete(NAME).where(NAME.c.model_id.in_(batch)))
        connection.execute(delete(CAPABILITY).where(CAPABILITY.c.model_id.in_(batch)))
    for model, is_there in models:
        if is_there:
            row = _row(model, now, number)
            connection.execute(update(MODEL).where(MODEL.c.id == model.id).values(row))
    new = [_row(model, now, number) for model, is_there in models if not is_there]
    _insert_all(connection, MODEL, new)
    all_models = [model for model, _ in models]
    _insert_all(connection, NAME, [row for model in all_models for row in _name_rows(model)])
    capabilities = [row for model in all_models for row in _capability_rows(model)]
    _insert_all(connection, CAPABILITY, capabilities)
    for model in all_models:
        if model.same_as:
            link = update(MODEL).where(MODEL.c.id == model.id).values(same_as=model.same_as)
            connection.execute(link)


def _insert_all(connection: Connection, table: Any, rows: Sequence[Mapping[str, Any]]) -> None:
    if rows:
        connection.execute(insert(table), rows)


def _delete(connection: Connection, ids: Sequence[str]) -> None:
    for batch in _batches(ids):
        connection.execute(update(MODEL).where(MODEL.c.id.in_(batch)).values(same_as=None))
    for batch in _batches(ids):
        connection.execute(delete(MODEL).where(MODEL.c.id.in_(batch)))


def _row(model: Model, now: datetime, number: int) -> dict[str, Any]:
    return {
        "id": model.id,
        "name": model.name,
        "type": model.type,
        "licence": model.licence,
        "price": model.price,
        "provenance": model.provenance,
        "versions": list(model.versions),
        "released": None if model.released is None else model.released.isoformat(),
        "usage": [_plain(usage) for usage in model.usage],
        "same_as": None,
        "updated_at": now,
        "revision": number,
    }


def _name_rows(model: Model) -> Iterator[dict[str, Any]]:
    seen: set[str] = set()
    for position, text in enumerate(model.names, start=_ID_POSITION):
        if fold(text) not in seen:  # the name may be the id
            seen.add(fold(text))
            yield {
                "key": fold(text),
                "text": text,
                "model_id": model.id,
                "position": position,
            }


def _capability_rows(model: Model) -> Iterator[dict[str, Any]]:
    for position, capability in enumerate(model.capabilities):
        yield {
            "id": capability.id,
            "model_id": model.id,
            "position": position,
            "name": capability.name,
            "description": capability.description,
            **{name: list(getattr(capability, name)) for name in CAPABILITY_TEXTS},
            "claims": [_plain(claim) for claim in capability.claims],
        }


def _models(connection: Connection, *conditions: Any, limit: int | None = None) -> list[Model]:
    """The models for which all conditions hold, whole, by their id."""
    chosen = select(MODEL).where(*conditions).order_by(MODEL.c.id).limit(limit)
    rows = connection.execute(chosen).all()
    wanted = chosen.with_only_columns(MODEL.c.id).subquery()
    within = select(wanted.c.id)
    aliases: defaultdict[str, list[str]] = defaultdict(list)
    names = (
        select(NAME.c.model_id, NAME.c.text)
        .where(NAME.c.model_id.in_(within), NAME.c.position > _NAME_POSITION)
        .order_by(NAME.c.model_id, NAME.c.position)
    )
    for row in connection.execute(names):
        aliases[row.model_id].append(row.text)
    capabilities: defaultdict[str, list[Capability]] = defaultdict(list)
    parts = (
        select(CAPABILITY)
        .where(CAPABILITY.c.model_id.in_(within))
        .order_by(CAPABILITY.c.model_id, CAPABILITY.c.position)
    )
    for row in connection.execute(parts):
        capabilities[row.model_id].append(_capability(row))
    return [_model(row, aliases[row.id], capabilities[row.id]) for row in rows]


def _model(row: Row[Any, Any], aliases: Iterable[str], capabilities: Iterable[Capability]) -> Model:
    return Model(
        id=row.id,
        name=row.name,
        type=row.type,
        licence=row.licence,
        price=row.price,
        provenance=row.provenance,
        aliases=tuple(aliases),
        versions=tuple(row.versions),
        released=None if row.released is None else date.fromisoformat(row.released),
        usage=tuple(Usage(**_timed(plain)) for plain in row.usage),
        capabilities=tuple(capabilities),
        same_as=row.same_as or "",
        updated_at=row.updated_at,
        revision=row.revision,
    )


def _capability(row: Row[Any, Any]) -> Capability:
    return Capability(
        id=row.id,
        name=row.name,
        description=row.description,
        **{name: tuple(getattr(row, name)) for name in CAPABILITY_TEXTS},
        claims=tuple(Claim(**_timed(plain)) for plain in row.claims),
    )


def _plain(told: Claim | Usage) -> dict[str, Any]:
    at = told.measured_at
    return {**asdict(told), "measured_at": None if at is None else at.isoformat()}


def _timed(plain: Mapping[str, Any]) -> dict[str, Any]:
    at = plain["measured_at"]
    return {**plain, "measured_at": None if at is None else datetime.fromisoformat(at)}


def _batches(ids: Sequence[str]) -> Iterator[Sequence[str]]:
    for start in range(0, len(ids), _BATCH):
        yield ids[start : start + _BATCH]
