"""The arena's log in every kind of database."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from functools import partial

import numpy as np
import pytest
from sqlalchemy import Connection

from ranker.arena import store
from ranker.arena.ballots import Ballots
from ranker.arena.leaderboard import leaderboard
from ranker.arena.store import Ballot, Contender, Limits, Pair
from ranker.arena.tally import LEFT, RIGHT, TIE
from ranker.database import Database
from services.core.errors import FailedPrecondition, NotFound, NotReady

NOW = datetime(2026, 1, 2, tzinfo=UTC)
LIMITS = Limits(contenders=5, prompts=3, picture_bytes=100)


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    opened = Database.open(database_url)
    yield opened
    await opened.close()


async def arena(database: Database, *names: str, settings: bytes | None = None) -> int:
    """An intent with contenders of these names."""

    def make(connection: Connection) -> int:
        intent = store.intent_to_write(connection, "paint")
        for name in names:
            store.put_contender(connection, intent, name, settings, LIMITS, NOW)
        return intent

    return await database.write(make)


async def pair(database: Database, intent: int, id: str = "p", minutes: int = 5) -> Pair:
    def make(connection: Connection) -> Pair:
        one, other = store.contenders(connection, intent)[:2]
        expires_at = NOW + timedelta(minutes=minutes)
        made = Pair(id, intent, one, other, "a star", 0.5, expires_at)
        store.keep_pair(connection, made)
        return made

    return await database.write(make)


async def test_a_vote_is_recorded_once_and_told_again(database: Database) -> None:
    intent = await arena(database, "a", "b")
    await pair(database, intent)
    first = await database.write(lambda c: store.cast(c, "p", LEFT, "ada", NOW))
    assert (first.left.name, first.right.name, first.repeated) == ("a", "b", False)
    again = await database.write(lambda c: store.cast(c, "p", LEFT, "ada", NOW))
    assert again.repeated
    for vote, judge in ((RIGHT, "ada"), (LEFT, "eve"), (LEFT, "")):
        with pytest.raises(FailedPrecondition, match="another vote") as raised:
            await database.write(partial(store.cast, pair="p", vote=vote, judge=judge, now=NOW))
        assert raised.value.reason == "TOKEN_USED"
    votes = await database.read(lambda c: store.votes_after(c, intent, 0))
    assert [vote[1:4] for vote in votes] == [(first.left.id, first.right.id, LEFT)]


async def test_a_pair_that_was_never_shown_takes_no_vote(database: Database) -> None:
    await arena(database, "a", "b")
    with pytest.raises(FailedPrecondition) as raised:
        await database.write(lambda c: store.cast(c, "other", LEFT, "", NOW))
    assert raised.value.reason == "PAIR_GONE"


async def test_many_votes_at_once_on_one_pair_count_once(database: Database) -> None:
    intent = await arena(database, "a", "b")
    await pair(database, intent)
    cast = [database.write(lambda c: store.cast(c, "p", TIE, "ada", NOW)) for _ in range(20)]
    told = await asyncio.gather(*cast)
    assert sum(not each.repeated for each in told) == 1
    assert await database.read(lambda c: store.vote_count(c, intent)) == 1


async def test_settings_of_a_contender_do_not_change_under_its_votes(database: Database) -> None:
    intent = await arena(database, "a", settings=b"one")
    same = await database.write(lambda c: store.put_contender(c, intent, "a", b"one", LIMITS, NOW))
    assert not same[1]
    with pytest.raises(FailedPrecondition) as raised:
        await database.write(lambda c: store.put_contender(c, intent, "a", b"two", LIMITS, NOW))
    assert raised.value.reason == "CONTENDER_DIFFERS"


async def test_a_deleted_contender_goes_unless_it_has_votes(database: Database) -> None:
    intent = await arena(database, "a", "b", "c")
    await pair(database, intent)
    await database.write(lambda c: store.cast(c, "p", LEFT, "", NOW))
    await pair(database, intent, "open")
    assert await database.write(lambda c: store.delete_contender(c, intent, "c")) == (False, 0)
    assert await database.write(lambda c: store.delete_contender(c, intent, "a")) == (True, 0)
    left = await database.read(lambda c: store.contenders(c, intent))
    assert [(each.name, each.withdrawn) for each in left] == [("a", True), ("b", False)]
    roster = await database.read(lambda c: store.roster(c, intent))
    assert [each.name for each in roster.entrants] == ["b"]
    with pytest.raises(FailedPrecondition):
        await database.write(lambda c: store.cast(c, "open", LEFT, "", NOW))
    assert (await database.write(lambda c: store.put_contender(c, intent, "a", None, LIMITS, NOW)))[
        0
    ].withdrawn is False


async def test_an_unknown_name_offers_the_nearest(database: Database) -> None:
    intent = await arena(database, "stable-diffusion", "vit")
    with pytest.raises(NotFound, match="There is 'stable-diffusion'"):
        await database.read(lambda c: store.find_contender(c, intent, "stable-difusion"))
    with pytest.raises(NotFound, match="There is 'paint'"):
        await database.read(lambda c: store.intent_id(c, "pain"))


async def test_the_number_of_contenders_has_a_limit(database: Database) -> None:
    intent = await arena(database, "a", "b", "c", "d", "e")
    with pytest.raises(FailedPrecondition, match="at most 5") as raised:
        await database.write(lambda c: store.put_contender(c, intent, "f", None, LIMITS, NOW))
    assert raised.value.reason == "ARENA_FULL"
    ballots = [Ballot("", "a", "g", LEFT, "")]
    with pytest.raises(FailedPrecondition):
        await database.write(lambda c: store.import_votes(c, intent, ballots, LIMITS, NOW))
    assert len(await database.read(lambda c: store.contenders(c, intent))) == 5


async def test_the_number_of_prompts_has_a_limit(database: Database) -> None:
    intent = await arena(database)
    put = await database.write(lambda c: store.put_prompts(c, intent, ["x", "y", "x"], LIMITS))
    assert put == (2, 2)
    assert await database.write(lambda c: store.put_prompts(c, intent, ["y", "z"], LIMITS)) == (
        1,
        3,
    )
    with pytest.raises(FailedPrecondition):
        await database.write(lambda c: store.put_prompts(c, intent, ["w"], LIMITS))
    roster = await database.read(lambda c: store.roster(c, intent))
    assert len(roster.standing) == 3


async def test_pictures_are_kept_within_their_bytes(database: Database) -> None:
    intent = await arena(database, "a", "b")
    a, b = await database.read(lambda c: store.contenders(c, intent))

    def put(connection: Connection) -> list[int]:
        prompt = store.standing_prompt(connection, intent, "a star", LIMITS)
        for number in range(3):
            made = bytes([number]) * 40
            store.keep_made_picture(connection, a, "a star", made, LIMITS)
        return store.pictures_of(connection, a.id, prompt)

    kept = await database.write(put)
    assert len(kept) == 2
    assert await database.read(lambda c: store.picture(c, kept[-1])) == b"\x02" * 40

    def give(content: bytes) -> Callable[[Connection], bool]:
        def write(connection: Connection) -> bool:
            prompt = store.standing_prompt(connection, intent, "a star", LIMITS)
            return store.put_picture(connection, b, prompt, content, LIMITS)

        return write

    assert await database.write(give(b"x" * 100)) is False
    assert await database.write(give(b"x" * 100)) is True
    assert await database.read(lambda c: store.picture(c, kept[-1])) is None
    with pytest.raises(FailedPrecondition, match="no room") as raised:
        await database.write(give(b"y"))
    assert raised.value.reason == "ARENA_FULL"


async def test_who_can_meet_whom_is_told_and_every_change_of_it(database: Database) -> None:
    intent = await arena(database, "a", "b")
    versions = [await database.read(lambda c: store.revision(c, intent))]
    a = await database.read(lambda c: store.find_contender(c, intent, "a"))

    def give(connection: Connection) -> None:
        prompt = store.standing_prompt(connection, intent, "a star", LIMITS)
        store.put_picture(connection, a, prompt, b"x", LIMITS)
        other = store.prompt_to_write(connection, intent, "mine alone")
        store.put_picture(connection, a, other, b"y", LIMITS)

    await database.write(give)
    versions.append(await database.read(lambda c: store.revision(c, intent)))
    roster = await database.read(lambda c: store.roster(c, intent))
    assert roster.revision == versions[-1]
    assert [len(each.prompts) for each in roster.entrants] == [1, 0]
    await database.write(lambda c: store.put_prompts(c, intent, ["another"], LIMITS))
    versions.append(await database.read(lambda c: store.revision(c, intent)))
    assert len(set(versions)) == 3


async def test_pairs_without_a_vote_are_forgotten_with_their_callers_prompt(
    database: Database,
) -> None:
    intent = await arena(database, "a", "b")
    await pair(database, intent, "old", minutes=1)
    await pair(database, intent, "new", minutes=9)
    await database.write(lambda c: store.cast(c, "new", LEFT, "", NOW))
    later = NOW + timedelta(minutes=20)
    assert await database.write(lambda c: store.forget_pairs(c, later)) == 1
    assert await database.read(lambda c: store.find_prompt(c, intent, "a star")) is not None
    with pytest.raises(FailedPrecondition):
        await database.write(lambda c: store.cast(c, "old", LEFT, "", NOW))


async def test_a_prompt_that_is_forgotten_while_it_is_painted_comes_back(
    database: Database,
) -> None:
    intent = await arena(database, "a", "b")
    a, b = await database.read(lambda c: store.contenders(c, intent))
    await pair(database, intent, "old", minutes=1)
    later = NOW + timedelta(minutes=20)
    assert await database.write(lambda c: store.forget_pairs(c, later)) == 1
    assert await database.read(lambda c: store.find_prompt(c, intent, "a star")) is None

    def keep(connection: Connection) -> None:
        store.keep_made_picture(connection, a, "a star", b"x", LIMITS)
        shown = Pair("new", intent, a, b, "a star", 0.5, later)
        store.keep_pair(connection, shown)

    await database.write(keep)
    cast = await database.write(lambda c: store.cast(c, "new", LEFT, "", NOW))
    assert cast.left.name == "a"


async def test_a_pair_of_one_that_was_deleted_meanwhile_is_not_kept(database: Database) -> None:
    intent = await arena(database, "a", "b")
    a, b = await database.read(lambda c: store.contenders(c, intent))
    await database.write(lambda c: store.delete_contender(c, intent, "b"))
    await check_gone(database, a, b)
    with pytest.raises(NotReady, match="deleted"):
        await database.read(lambda c: store.drawn(c, intent, b.id, "b"))


async def test_what_is_of_a_deleted_contender_is_not_of_the_next_with_its_id(
    database: Database,
) -> None:
    intent = await arena(database, "a", "b", settings=b"one")
    a, b = await database.read(lambda c: store.contenders(c, intent))
    soon = NOW + timedelta(microseconds=1)
    last = b
    for name, settings, at in (("b", b"two", NOW), ("b", b"one", soon), ("c", b"one", NOW)):
        last = await replaced(database, last, name, settings, at)
        assert last.id == b.id or database.dialect == "postgresql"
        await check_gone(database, a, b)
    with pytest.raises(NotReady, match="deleted"):
        await database.read(lambda c: store.drawn(c, intent, last.id, "b"))
    with pytest.raises(NotReady, match="deleted"):
        await database.read(lambda c: store.drawn(c, intent + 1, last.id, "c"))
    assert await database.read(lambda c: store.drawn(c, intent, last.id, "c")) == last


async def replaced(
    database: Database, last: Contender, name: str, settings: bytes, at: datetime
) -> Contender:
    """Another contender after the last one, which is deleted."""

    def write(connection: Connection) -> Contender:
        store.delete_contender(connection, last.intent, last.name)
        return store.put_contender(connection, last.intent, name, settings, LIMITS, at)[0]

    return await database.write(write)


async def check_gone(database: Database, there: Contender, gone: Contender) -> None:
    """Nothing is kept of it any more."""
    shown = Pair("new", there.intent, there, gone, "a star", 0.5, NOW)
    with pytest.raises(NotReady, match="deleted"):
        await database.write(lambda c: store.keep_pair(c, shown))
    with pytest.raises(NotReady, match="deleted"):
        await database.write(lambda c: store.keep_made_picture(c, gone, "a star", b"x", LIMITS))
    assert await database.read(lambda c: store.find_prompt(c, there.intent, "a star")) is None


async def test_a_pair_of_one_that_was_withdrawn_meanwhile_is_of_its_settings_still(
    database: Database,
) -> None:
    intent = await arena(database, "a", "b")
    await pair(database, intent)
    await database.write(lambda c: store.cast(c, "p", LEFT, "", NOW))
    a, b = await database.read(lambda c: store.contenders(c, intent))
    assert await database.write(lambda c: store.delete_contender(c, intent, "b")) == (True, 0)
    shown = Pair("new", intent, a, b, "a star", 0.5, NOW)
    await database.write(lambda c: store.keep_pair(c, shown))
    cast = await database.write(lambda c: store.cast(c, "new", RIGHT, "", NOW))
    assert (cast.right.name, cast.right.withdrawn) == ("b", True)


async def test_imported_votes_count_once_by_their_id(database: Database) -> None:
    intent = await arena(database)
    votes = [
        Ballot("1", "a", "b", LEFT, "ada"),
        Ballot("2", "b", "c", TIE, ""),
        Ballot("2", "b", "c", TIE, ""),
        Ballot("", "a", "c", RIGHT, "eve"),
    ]
    first = await database.write(lambda c: store.import_votes(c, intent, votes, LIMITS, NOW))
    assert (first.imported, first.left_out, first.contenders_added) == (3, 1, 3)
    again = await database.write(lambda c: store.import_votes(c, intent, votes, LIMITS, NOW))
    assert (again.imported, again.left_out, again.contenders_added) == (1, 3, 0)
    rows = await database.read(lambda c: store.votes_after(c, intent, 0))
    names = await database.read(lambda c: store.judge_names(c, [row[4] for row in rows]))
    assert sorted(names.values()) == ["ada", "eve"]


async def test_a_tally_that_grows_with_the_log_is_that_of_the_whole_log(database: Database) -> None:
    intent = await arena(database)
    rng = np.random.default_rng(1)
    grown = Ballots()
    for _ in range(4):
        votes = [
            Ballot("", "abcd"[i], "abcd"[(i + s) % 4], int(v), ("", "ada", "eve")[j])
            for i, s, v, j in zip(
                rng.integers(4, size=60),
                rng.integers(1, 4, size=60),
                rng.integers(1, 4, size=60),
                rng.integers(3, size=60),
                strict=True,
            )
        ]
        await database.write(
            partial(store.import_votes, intent=intent, votes=votes, limits=LIMITS, now=NOW)
        )
        await database.read(lambda c: read_into(c, intent, grown))
    whole = Ballots()
    await database.read(lambda c: read_into(c, intent, whole))
    assert len(whole) == 240
    one, other = grown.tally(), whole.tally()
    for name in ("first", "second", "judge", "wins", "losses", "ties"):
        assert np.array_equal(getattr(one.cells, name), getattr(other.cells, name))
    assert leaderboard(one).standings == leaderboard(other).standings


def read_into(connection: Connection, intent: int, ballots: Ballots) -> None:
    ballots.add_contenders([each.id for each in store.contenders(connection, intent)])
    ballots.add(store.votes_after(connection, intent, ballots.last))
