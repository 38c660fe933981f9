"""An arena in the database. All functions run within one transaction, in a thread."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from hashlib import sha256
from typing import Any, Final, TypeVar

from sqlalchemy import Connection, delete, exists, func, insert, select, update
from sqlalchemy.engine import Row

from ranker.arena.selection import Entrant
from ranker.arena.tables import CONTENDER, INTENT, JUDGE, PAIR, PICTURE, PROMPT, VOTE
from ranker.database.schema import insert_into
from services.core.errors import FailedPrecondition, NotFound, NotReady

T = TypeVar("T")

_IN_ONE_QUERY: Final = 400
_KNOWN: Final = 3


@dataclass(frozen=True, slots=True)
class Limits:
    """Of every intent: contenders and standing prompts; of all arenas: bytes of pictures."""

    contenders: int
    prompts: int
    picture_bytes: int


@dataclass(frozen=True, slots=True)
class Contender:
    """``settings`` are the generator's request without what changes from picture to picture, None
    where pictures are given."""

    id: int
    intent: int
    name: str
    settings: bytes | None
    withdrawn: bool
    at: datetime


@dataclass(frozen=True, slots=True)
class Roster:
    """Who takes part in an arena, and the numbers of its standing prompts."""

    intent: int
    revision: int
    entrants: tuple[Entrant, ...]
    standing: frozenset[int]


@dataclass(frozen=True, slots=True)
class Pair:
    """What was shown of an intent, of contenders as they were read then; ``id`` tells nothing of
    it. ``prompt`` is the text."""

    id: str
    intent: int
    left: Contender
    right: Contender
    prompt: str
    propensity: float
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class Cast:
    """A vote as recorded; ``repeated``: it was there."""

    left: Contender
    right: Contender
    repeated: bool


@dataclass(frozen=True, slots=True)
class Ballot:
    """A vote cast elsewhere; ``id`` empty where it has none."""

    id: str
    left: str
    right: str
    vote: int
    judge: str


@dataclass(frozen=True, slots=True)
class Imported:
    imported: int
    left_out: int
    contenders_added: int


def intent_id(connection: Connection, name: str) -> int:
    """Raises ``NotFound`` with the nearest names."""
    found = connection.scalar(select(INTENT.c.id).where(INTENT.c.name == name))
    if found is None:
        names = list(connection.scalars(select(INTENT.c.name).order_by(INTENT.c.name)))
        raise NotFound(f"There is no arena for {name!r}.{_nearest(name, names)}")
    return int(found)


def intent_to_write(connection: Connection, name: str) -> int:
    """The intent, made where there is none."""
    made = insert_into(connection, INTENT).values(name=name, revision=0)
    connection.execute(made.on_conflict_do_nothing(index_elements=[INTENT.c.name]))
    return int(connection.execute(select(INTENT.c.id).where(INTENT.c.name == name)).scalar_one())


def _revise(connection: Connection, intent: int) -> None:
    raised = update(INTENT).where(INTENT.c.id == intent)
    connection.execute(raised.values(revision=INTENT.c.revision + 1))


# ---- contenders ----


def contenders(connection: Connection, intent: int) -> list[Contender]:
    """By id."""
    query = select(CONTENDER).where(CONTENDER.c.intent == intent).order_by(CONTENDER.c.id)
    return [_contender(row) for row in connection.execute(query)]


def picture_counts(connection: Connection, intent: int) -> dict[int, int]:
    """By contender, of those that have any."""
    rows = connection.execute(
        select(PICTURE.c.contender, func.count())
        .join(CONTENDER, CONTENDER.c.id == PICTURE.c.contender)
        .where(CONTENDER.c.intent == intent)
        .group_by(PICTURE.c.contender)
    )
    return {int(contender): int(count) for contender, count in rows}


def find_contender(connection: Connection, intent: int, name: str) -> Contender:
    """Raises ``NotFound`` with the nearest names."""
    row = connection.execute(
        select(CONTENDER).where(CONTENDER.c.intent == intent, CONTENDER.c.name == name)
    ).one_or_none()
    if row is None:
        names = connection.scalars(
            select(CONTENDER.c.name).where(CONTENDER.c.intent == intent).order_by(CONTENDER.c.name)
        )
        raise NotFound(f"There is no contender {name!r}.{_nearest(name, list(names))}")
    return _contender(row)


def put_contender(
    connection: Connection,
    intent: int,
    name: str,
    settings: bytes | None,
    limits: Limits,
    now: datetime,
) -> tuple[Contender, bool]:
    """The contender, and whether it is new.

    Raises ``FailedPrecondition`` where one of that name has other settings: its votes are on them.
    """
    row = connection.execute(
        select(CONTENDER).where(CONTENDER.c.intent == intent, CONTENDER.c.name == name)
    ).one_or_none()
    if row is None:
        _make_contenders(connection, intent, [(name, settings)], limits, now)
        return find_contender(connection, intent, name), True
    if row.settings != settings:
        raise FailedPrecondition(
            f"The contender {name!r} has other settings, and its votes are about those; "
            "give the new ones another name.",
            reason="CONTENDER_DIFFERS",
        )
    connection.execute(update(CONTENDER).where(CONTENDER.c.id == row.id).values(withdrawn=False))
    _revise(connection, intent)
    return find_contender(connection, intent, name), False


def contender_to_write(
    connection: Connection, intent: int, name: str, limits: Limits, now: datetime
) -> Contender:
    """The contender that takes part under this name, made where there is none, or taking part
    again."""
    row = connection.execute(
        select(CONTENDER).where(CONTENDER.c.intent == intent, CONTENDER.c.name == name)
    ).one_or_none()
    settings = None if row is None else row.settings
    return put_contender(connection, intent, name, settings, limits, now)[0]


def drawn(connection: Connection, intent: int, id: int, name: str) -> Contender:
    """The contender that was drawn by what was known of it. Raises ``NotReady`` where it was
    deleted since."""
    own = CONTENDER.c.id == id, CONTENDER.c.intent == intent, CONTENDER.c.name == name
    row = connection.execute(select(CONTENDER).where(*own)).one_or_none()
    if row is None:
        raise _deleted()
    return _contender(row)


def delete_contender(connection: Connection, intent: int, name: str) -> tuple[bool, int]:
    """Whether it stays as withdrawn, for it has votes, and how many pictures went."""
    contender = find_contender(connection, intent, name)
    _revise(connection, intent)
    gone = connection.execute(delete(PICTURE).where(PICTURE.c.contender == contender.id)).rowcount
    own = (VOTE.c.left == contender.id) | (VOTE.c.right == contender.id)
    open_pairs = (PAIR.c.left == contender.id) | (PAIR.c.right == contender.id)
    connection.execute(delete(PAIR).where(open_pairs, PAIR.c.voted.is_(False)))
    if connection.scalar(select(exists().where(VOTE.c.intent == intent, own))):
        withdrawn = update(CONTENDER).where(CONTENDER.c.id == contender.id).values(withdrawn=True)
        connection.execute(withdrawn)
        return True, gone
    connection.execute(delete(CONTENDER).where(CONTENDER.c.id == contender.id))
    return False, gone


def _make_contenders(
    connection: Connection,
    intent: int,
    made: Sequence[tuple[str, bytes | None]],
    limits: Limits,
    now: datetime,
) -> None:
    there = connection.scalar(
        select(func.count()).select_from(CONTENDER).where(CONTENDER.c.intent == intent)
    )
    if (there or 0) + len(made) > limits.contenders:
        raise FailedPrecondition(
            f"An arena has at most {limits.contenders} contenders; this one has {there}, "
            f"and {len(made)} more were given.",
            reason="ARENA_FULL",
        )
    rows = [
        {"intent": intent, "name": name, "settings": settings, "withdrawn": False, "at": now}
        for name, settings in made
    ]
    connection.execute(insert(CONTENDER), rows)
    _revise(connection, intent)


def _contender(row: Row[Any]) -> Contender:
    return Contender(row.id, row.intent, row.name, row.settings, row.withdrawn, row.at)


# ---- prompts and pictures ----


def put_prompts(
    connection: Connection, intent: int, texts: Sequence[str], limits: Limits
) -> tuple[int, int]:
    """How many are new as standing ones, and how many there are."""
    before = standing_count(connection, intent)
    for text in texts:
        _prompt_to_write(connection, intent, text, standing=True)
    after = standing_count(connection, intent)
    if after > limits.prompts:
        raise FailedPrecondition(
            f"An arena has at most {limits.prompts} prompts; this one has {before}.",
            reason="ARENA_FULL",
        )
    if after != before:
        _revise(connection, intent)
    return after - before, after


def find_prompt(connection: Connection, intent: int, text: str) -> int | None:
    """The number of a prompt that there is already."""
    return connection.scalar(
        select(PROMPT.c.id).where(PROMPT.c.intent == intent, PROMPT.c.digest == _digest(text))
    )


def prompt_text(connection: Connection, prompt: int) -> str:
    return str(connection.execute(select(PROMPT.c.text).where(PROMPT.c.id == prompt)).scalar_one())


def put_picture(
    connection: Connection, contender: Contender, prompt: int, encoded: bytes, limits: Limits
) -> bool:
    """A given picture; whether it was there. Raises ``FailedPrecondition`` where there is no room,
    not even in place of those that were made here."""
    digest = sha256(encoded).hexdigest()
    if _has_picture(connection, contender.id, prompt, digest):
        return True
    given = connection.scalar(
        select(func.coalesce(func.sum(PICTURE.c.size), 0)).where(PICTURE.c.generated.is_(False))
    )
    if int(given or 0) + len(encoded) > limits.picture_bytes:
        raise FailedPrecondition(
            f"There is no room for the picture: arenas keep {limits.picture_bytes} bytes of given "
            f"pictures, and have {given}.",
            reason="ARENA_FULL",
        )
    _insert_picture(connection, contender.id, prompt, digest, encoded, generated=False)
    make_room(connection, limits)
    _revise(connection, contender.intent)
    return False


def keep_made_picture(
    connection: Connection, contender: Contender, text: str, encoded: bytes, limits: Limits
) -> None:
    """One made here for the prompt ``text``, which may be new; the oldest of them go where there is
    no room. Raises ``NotReady`` where the contender was deleted meanwhile."""
    _check_there(connection, contender)
    prompt = prompt_to_write(connection, contender.intent, text)
    digest = sha256(encoded).hexdigest()
    if not _has_picture(connection, contender.id, prompt, digest):
        _insert_picture(connection, contender.id, prompt, digest, encoded, generated=True)
        make_room(connection, limits)


def make_room(connection: Connection, limits: Limits) -> None:
    """Forget the oldest pictures made here until all fit."""
    total = int(connection.scalar(select(func.coalesce(func.sum(PICTURE.c.size), 0))) or 0)
    if total <= limits.picture_bytes:
        return
    oldest = connection.execute(
        select(PICTURE.c.id, PICTURE.c.size)
        .where(PICTURE.c.generated.is_(True))
        .order_by(PICTURE.c.id)
    )
    gone = []
    for row in oldest:
        if total <= limits.picture_bytes:
            break
        total -= row.size
        gone.append(row.id)
    for part in _parts(gone):
        connection.execute(delete(PICTURE).where(PICTURE.c.id.in_(part)))


def pictures_of(connection: Connection, contender: int, prompt: int) -> list[int]:
    """The ids of its pictures for a prompt."""
    return list(
        connection.scalars(
            select(PICTURE.c.id)
            .where(PICTURE.c.contender == contender, PICTURE.c.prompt == prompt)
            .order_by(PICTURE.c.id)
        )
    )


def picture(connection: Connection, id: int) -> bytes | None:
    """Encoded; None where it went meanwhile."""
    found = connection.scalar(select(PICTURE.c.encoded).where(PICTURE.c.id == id))
    return None if found is None else bytes(found)


def prompt_to_write(connection: Connection, intent: int, text: str) -> int:
    """The prompt's number; one that a caller brings is kept, and not shown to others."""
    return _prompt_to_write(connection, intent, text, standing=False)


def standing_prompt(connection: Connection, intent: int, text: str, limits: Limits) -> int:
    """The same, for everybody's pairs."""
    put_prompts(connection, intent, [text], limits)
    return _prompt_to_write(connection, intent, text, standing=True)


def _prompt_to_write(connection: Connection, intent: int, text: str, *, standing: bool) -> int:
    digest = _digest(text)
    own = insert_into(connection, PROMPT).values(
        intent=intent, digest=digest, text=text, standing=standing
    )
    key = [PROMPT.c.intent, PROMPT.c.digest]
    connection.execute(
        own.on_conflict_do_update(index_elements=key, set_={"standing": True})
        if standing
        else own.on_conflict_do_nothing(index_elements=key)
    )
    found = find_prompt(connection, intent, text)
    assert found is not None  # it was just written
    return found


def standing_count(connection: Connection, intent: int) -> int:
    query = select(func.count()).select_from(PROMPT)
    own = query.where(PROMPT.c.intent == intent, PROMPT.c.standing.is_(True))
    return int(connection.scalar(own) or 0)


def _has_picture(connection: Connection, contender: int, prompt: int, digest: str) -> bool:
    same = exists().where(
        PICTURE.c.contender == contender, PICTURE.c.prompt == prompt, PICTURE.c.digest == digest
    )
    return bool(connection.scalar(select(same)))


def _insert_picture(
    connection: Connection,
    contender: int,
    prompt: int,
    digest: str,
    encoded: bytes,
    *,
    generated: bool,
) -> None:
    connection.execute(
        insert(PICTURE).values(
            contender=contender,
            prompt=prompt,
            digest=digest,
            size=len(encoded),
            generated=generated,
            encoded=encoded,
        )
    )


def _digest(text: str) -> str:
    return sha256(text.encode()).hexdigest()


# ---- who can meet whom ----


def revision(connection: Connection, intent: int) -> int:
    """Another one whenever the roster is."""
    query = select(INTENT.c.revision).where(INTENT.c.id == intent)
    return int(connection.execute(query).scalar_one())


def roster(connection: Connection, intent: int) -> Roster:
    standing = frozenset(
        connection.scalars(
            select(PROMPT.c.id).where(PROMPT.c.intent == intent, PROMPT.c.standing.is_(True))
        )
    )
    shown: dict[int, set[int]] = {}
    for contender, prompt in connection.execute(
        select(PICTURE.c.contender, PICTURE.c.prompt)
        .join(CONTENDER, CONTENDER.c.id == PICTURE.c.contender)
        .where(CONTENDER.c.intent == intent)
        .distinct()
    ):
        if prompt in standing:
            shown.setdefault(contender, set()).add(prompt)
    taking_part = connection.execute(
        select(CONTENDER.c.id, CONTENDER.c.name, CONTENDER.c.settings)
        .where(CONTENDER.c.intent == intent, CONTENDER.c.withdrawn.is_(False))
        .order_by(CONTENDER.c.id)
    )
    entrants = tuple(
        Entrant(row.id, row.name, row.settings is not None, frozenset(shown.get(row.id, ())))
        for row in taking_part
    )
    return Roster(intent, revision(connection, intent), entrants, standing)


# ---- pairs and votes ----


def keep_pair(connection: Connection, pair: Pair) -> None:
    """Raises ``NotReady`` where one of the two was deleted meanwhile."""
    _check_there(connection, pair.left, pair.right)
    connection.execute(
        insert(PAIR).values(
            id=pair.id,
            left=pair.left.id,
            right=pair.right.id,
            prompt=prompt_to_write(connection, pair.intent, pair.prompt),
            propensity=pair.propensity,
            expires_at=pair.expires_at,
            voted=False,
        )
    )


def forget_pairs(connection: Connection, before: datetime) -> int:
    """Those that expired without a vote, and prompts of callers that nothing is about any more."""
    old = delete(PAIR).where(PAIR.c.voted.is_(False), PAIR.c.expires_at < before)
    gone = connection.execute(old).rowcount
    if gone:
        connection.execute(
            delete(PROMPT).where(
                PROMPT.c.standing.is_(False),
                ~exists().where(PAIR.c.prompt == PROMPT.c.id),
                ~exists().where(PICTURE.c.prompt == PROMPT.c.id),
            )
        )
    return gone


def cast(connection: Connection, pair: str, vote: int, judge: str, now: datetime) -> Cast:
    """Record the vote on a pair.

    Raises ``FailedPrecondition`` where it was voted on in another way, or is forgotten.
    """
    shown = connection.execute(select(PAIR).where(PAIR.c.id == pair)).one_or_none()
    if shown is None:
        raise FailedPrecondition(
            "The pair is not there any more: a contender was deleted, or the token is too old.",
            reason="PAIR_GONE",
        )
    left, right = (_by_id(connection, id) for id in (shown.left, shown.right))
    own = judges(connection, [judge])[judge]
    if shown.voted:
        _check_same(connection, left.intent, pair, vote, own)
        return Cast(left, right, repeated=True)
    connection.execute(
        insert(VOTE).values(
            intent=left.intent,
            left=left.id,
            right=right.id,
            vote=vote,
            judge=own,
            key=_pair_key(pair),
            at=now,
        )
    )
    connection.execute(update(PAIR).where(PAIR.c.id == pair).values(voted=True))
    return Cast(left, right, repeated=False)


def judges(connection: Connection, names: Iterable[str]) -> dict[str, int]:
    """Their numbers, given to those that are new; 0 to the empty name."""
    wanted = sorted({name for name in names if name})
    for part in _parts(wanted):
        own = insert_into(connection, JUDGE).on_conflict_do_nothing(index_elements=[JUDGE.c.name])
        known = set(connection.scalars(select(JUDGE.c.name).where(JUDGE.c.name.in_(part))))
        new = [{"name": name} for name in part if name not in known]
        if new:
            connection.execute(own, new)
    found = {"": 0}
    for part in _parts(wanted):
        rows = connection.execute(select(JUDGE.c.name, JUDGE.c.id).where(JUDGE.c.name.in_(part)))
        found.update({name: int(id) for name, id in rows})
    return found


def judge_names(connection: Connection, ids: Sequence[int]) -> dict[int, str]:
    found: dict[int, str] = {}
    for part in _parts(ids):
        rows = connection.execute(select(JUDGE.c.id, JUDGE.c.name).where(JUDGE.c.id.in_(part)))
        found.update({int(id): name for id, name in rows})
    return found


def import_votes(
    connection: Connection, intent: int, votes: Sequence[Ballot], limits: Limits, now: datetime
) -> Imported:
    """All of them or, where one raises, none; those whose id is there are left out."""
    names = sorted({name for vote in votes for name in (vote.left, vote.right)})
    known = _contender_ids(connection, intent, names)
    added = [(name, None) for name in names if name not in known]
    if added:
        _make_contenders(connection, intent, added, limits, now)
        known = _contender_ids(connection, intent, names)
    voters = judges(connection, (vote.judge for vote in votes))
    there = _known_keys(connection, intent, [_import_key(vote.id) for vote in votes if vote.id])
    rows = []
    for vote in votes:
        key = _import_key(vote.id) if vote.id else None
        if key in there:
            continue
        if key is not None:
            there.add(key)
        rows.append(
            {
                "intent": intent,
                "left": known[vote.left],
                "right": known[vote.right],
                "vote": vote.vote,
                "judge": voters[vote.judge],
                "key": key,
                "at": now,
            }
        )
    if rows:
        connection.execute(insert(VOTE), rows)
    return Imported(len(rows), len(votes) - len(rows), len(added))


def vote_count(connection: Connection, intent: int) -> int:
    query = select(func.count()).select_from(VOTE).where(VOTE.c.intent == intent)
    return int(connection.scalar(query) or 0)


def votes_after(connection: Connection, intent: int, last: int) -> Sequence[Sequence[int]]:
    """(id, left, right, vote, judge) in the log's order, after vote ``last``."""
    rows = connection.execute(
        select(VOTE.c.id, VOTE.c.left, VOTE.c.right, VOTE.c.vote, VOTE.c.judge)
        .where(VOTE.c.intent == intent, VOTE.c.id > last)
        .order_by(VOTE.c.id)
    )
    return rows.all()


def _check_same(connection: Connection, intent: int, pair: str, vote: int, judge: int) -> None:
    own = VOTE.c.intent == intent, VOTE.c.key == _pair_key(pair)
    cast_before = connection.execute(select(VOTE.c.vote, VOTE.c.judge).where(*own)).one()
    if (cast_before.vote, cast_before.judge) != (vote, judge):
        raise FailedPrecondition(
            "The token was used for another vote; each is for one.", reason="TOKEN_USED"
        )


def _check_there(connection: Connection, *known: Contender) -> None:
    """Each is the one that was read, and not only of its id: SQLite gives the id of the newest
    one, once it is deleted, to the next that is made."""
    ids = [each.id for each in known]
    rows = connection.execute(select(CONTENDER).where(CONTENDER.c.id.in_(ids)))
    there = {found.id: found for found in map(_contender, rows)}
    for each in known:
        found = there.get(each.id)
        if found is None or replace(found, withdrawn=each.withdrawn) != each:
            raise _deleted()


def _deleted() -> NotReady:
    return NotReady("A contender was deleted meanwhile; ask for another pair.")


def _by_id(connection: Connection, id: int) -> Contender:
    return _contender(connection.execute(select(CONTENDER).where(CONTENDER.c.id == id)).one())


def _contender_ids(connection: Connection, intent: int, names: Sequence[str]) -> dict[str, int]:
    found: dict[str, int] = {}
    for part in _parts(names):
        rows = connection.execute(
            select(CONTENDER.c.name, CONTENDER.c.id).where(
                CONTENDER.c.intent == intent, CONTENDER.c.name.in_(part)
            )
        )
        found.update({name: int(id) for name, id in rows})
    return found


def _known_keys(connection: Connection, intent: int, keys: Sequence[str]) -> set[str | None]:
    found: set[str | None] = set()
    for part in _parts(keys):
        own = select(VOTE.c.key).where(VOTE.c.intent == intent, VOTE.c.key.in_(part))
        found.update(connection.scalars(own))
    return found


def _pair_key(pair: str) -> str:
    return f"pair:{pair}"


def _import_key(id: str) -> str:
    return f"import:{id}"


def _parts(values: Sequence[T]) -> Iterable[Sequence[T]]:
    for begin in range(0, len(values), _IN_ONE_QUERY):
        yield values[begin : begin + _IN_ONE_QUERY]


def _nearest(name: str, names: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, names, n=_KNOWN, cutoff=0.5) or list(names[:_KNOWN])
    return f" There is {', '.join(map(repr, near))}." if near else " There is none yet."
