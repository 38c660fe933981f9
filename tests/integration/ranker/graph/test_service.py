"""The service over each kind of database, with a clock and a chance that are told."""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

import pytest
from prometheus_client import CollectorRegistry
from sqlalchemy import Connection, select

from easel.ranker.v1 import ranker_pb2
from ranker.catalogue import store
from ranker.catalogue.document import Document
from ranker.catalogue.model import Capability, Model
from ranker.config import RankerSettings
from ranker.database import Database
from ranker.graph.catalogue import CatalogueReader
from ranker.graph.index import Meaning, Vectors
from ranker.graph.ledger import read_all_counts
from ranker.graph.log import Report, count_again
from ranker.graph.metrics import GraphMetrics
from ranker.graph.outcome import Outcome
from ranker.graph.recorder import OutcomeRecorder
from ranker.graph.service import GraphService
from ranker.graph.tables import ANSWER, OUTCOME
from services.core.config import load_settings
from services.core.errors import (
    EaselError,
    FailedPrecondition,
    InvalidInput,
    NotFound,
    NotReady,
    Overloaded,
)
from tests.unit.ranker.graph.offering import CATALOGUE, Subjects

T = TypeVar("T")

START = datetime(2026, 3, 1, 12, 0, 0, 250_000, tzinfo=UTC)
CHOSEN = ranker_pb2.OUTCOME_CHOSEN
SUCCEEDED = ranker_pb2.OUTCOME_SUCCEEDED
FAILED = ranker_pb2.OUTCOME_FAILED


def models() -> list[Model]:
    """Those of the unit tests' catalogue."""
    found: dict[str, Model] = {}
    for offer in CATALOGUE:
        model = found.setdefault(offer.model, Model(offer.model, offer.model.upper(), offer.type))
        capability = Capability(
            f"{offer.model}/{offer.capability}",
            offer.name,
            offer.description,
            intents=offer.intents,
            best_for=offer.best_for,
            limitations=("none that matter here",),
        )
        found[offer.model] = replace(model, capabilities=(*model.capabilities, capability))
    return list(found.values())


class Graph:
    """A started service, its clock, and the calls that tests make."""

    def __init__(self, database: Database, meaning: Meaning | None = None, **values: Any) -> None:
        self.database = database
        self.now = START
        self.registry = CollectorRegistry()
        targets = {"classifier_target": "127.0.0.1:1", "generator_target": "127.0.0.1:1"}
        settings = {**targets, "exploration": 0.0, **values}
        self.service = GraphService(
            load_settings(RankerSettings, environ={}, **settings),
            database,
            GraphMetrics(self.registry),
            meaning,
            now=lambda: self.now,
            chance=random.Random(1),
        )

    async def put(self, given: Sequence[Model], *, keep_others: bool = False) -> None:
        def write(connection: Connection) -> None:
            document = Document(tuple(given), {})
            store.apply(connection, document, START, keep_others=keep_others, max_models=1000)

        await self.database.write(write)

    def metric(self, name: str, **labels: str) -> float | None:
        return self.registry.get_sample_value(name, labels)

    async def resolve(
        self, query: str = "classify an image", limit: int = 0, type: str = ""
    ) -> ranker_pb2.ResolveResponse:
        request = ranker_pb2.ResolveRequest(query=query, limit=limit, type=type)
        return await self.service.resolve(request)

    async def tell(
        self,
        token: str,
        position: int = 1,
        outcome: ranker_pb2.Outcome.ValueType = CHOSEN,
        comment: str = "",
    ) -> ranker_pb2.RecordOutcomeResponse:
        return await self.service.record_outcome(
            ranker_pb2.RecordOutcomeRequest(
                token=token, position=position, outcome=outcome, comment=comment
            )
        )


class Hindered(Database):
    """Runs ``before_read`` before each read; writes take some turns of the event loop, and fail
    with ``write_error`` where there is one."""

    before_read: Callable[[], Awaitable[None]] | None = None
    write_error: EaselError | None = None
    reads = 0
    writes = 0

    async def read(self, fn: Callable[[Connection], T]) -> T:
        self.reads += 1
        assert self.reads < 20, "it reads for ever"
        if self.before_read is not None:
            await self.before_read()
        return await super().read(fn)

    async def write(self, fn: Callable[[Connection], T]) -> T:
        for _ in range(10):
            await asyncio.sleep(0)
        found = await super().write(fn)
        self.writes += 1
        if self.write_error is not None:
            raise self.write_error
        return found


@pytest.fixture
async def hindered() -> AsyncIterator[Hindered]:
    opened = Hindered.open()
    yield opened
    await opened.close()


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    opened = Database.open(database_url)
    yield opened
    await opened.close()


@pytest.fixture
async def graph(database: Database) -> Graph:
    started = Graph(database)
    await started.put(models())
    await started.service.start()
    return started


def ids(response: ranker_pb2.ResolveResponse) -> list[str]:
    return [match.model.id for match in response.matches]


async def refused(told: Any, kind: type[EaselError]) -> Any:
    with pytest.raises(kind) as caught:
        await told
    return caught.value


async def test_an_answer_says_why_and_on_what_evidence(graph: Graph) -> None:
    answer = await graph.resolve()
    assert ids(answer) == ["resnet", "vit", "stable-diffusion"]
    first = answer.matches[0]
    assert (first.position, first.base_position, first.propensity) == (1, 1, 1.0)
    assert (first.model.name, first.model.type) == ("RESNET", "classifier")
    assert not first.model.capabilities
    assert first.capability.id == "resnet/classification"
    assert list(first.capability.limitations) == ["none that matter here"]
    assert first.intent == "classify an image"
    assert first.why == (
        '"classify" in its intents and type; "image" in its intents; '
        'closest to its intent "classify an image"'
    )
    assert [(term.word, list(term.fields)) for term in first.terms] == [
        ("classify", ["intents", "type"]),
        ("image", ["intents"]),
    ]
    assert first.success.abstained
    assert (first.success.value, first.success.evidence) == (0.0, 0)
    assert first.evidence == ranker_pb2.MatchEvidence()
    assert not first.HasField("similarity")
    assert list(first.alternatives) == ["vit"]
    assert answer.catalogue_revision == 1
    assert answer.exploration == 0.0
    assert answer.expires_at.ToDatetime(tzinfo=UTC) == (START + timedelta(days=7)).replace(
        microsecond=0
    )


async def test_evidence_grows_and_moves_the_order(graph: Graph) -> None:
    for _ in range(30):
        answer = await graph.resolve()
        await graph.tell(answer.token, ids(answer).index("vit") + 1, SUCCEEDED)
    answer = await graph.resolve()
    assert ids(answer)[0] == "vit"
    best = answer.matches[0]
    assert (best.evidence.impressions, best.evidence.chosen, best.evidence.succeeded) == (
        30,
        30,
        30,
    )
    assert best.evidence.choice_rate > 0.9
    assert not best.success.abstained
    assert best.success.evidence == 30
    assert best.success.value == pytest.approx(31 / 32, abs=1e-4)
    assert best.success.low < best.success.value < best.success.high


async def test_too_few_or_too_old_outcomes_are_no_success_rate(graph: Graph) -> None:
    answer = await graph.resolve(limit=1)
    for _ in range(4):
        await graph.tell((await graph.resolve(limit=1)).token, 1, SUCCEEDED)
    assert (await graph.resolve(limit=1)).matches[0].success.abstained
    await graph.tell(answer.token, 1, FAILED)
    told = (await graph.resolve(limit=1)).matches[0].success
    assert (told.abstained, told.evidence) == (False, 5)
    assert told.value == pytest.approx(5 / 7, abs=1e-4)
    graph.now += timedelta(days=90)
    old = (await graph.resolve(limit=1)).matches[0].success
    assert (old.abstained, old.evidence) == (True, 5)


async def test_an_outcome_is_recorded_once(graph: Graph) -> None:
    token = (await graph.resolve()).token
    first = await graph.tell(token, 1, SUCCEEDED, "it worked")
    assert (first.repeated_call, first.model) == (False, "resnet")
    assert (first.capability, first.intent) == ("resnet/classification", "classify an image")
    again = await graph.tell(token, 1, SUCCEEDED)
    assert (again.repeated_call, again.model) == (True, "resnet")
    used = await refused(graph.tell(token, 1, FAILED), FailedPrecondition)
    assert used.reason == "TOKEN_USED"
    counted = graph.registry.get_sample_value(
        "easel_match_outcomes_total", {"outcome": "succeeded"}
    )
    assert counted == 1.0


async def test_what_is_wrong_with_a_token_is_told(graph: Graph, database: Database) -> None:
    token = (await graph.resolve(limit=2)).token
    forged = await refused(graph.tell(token[:-2] + "AA"), InvalidInput)
    assert (forged.field, forged.reason) == ("token", "TOKEN_FORGED")
    assert (await refused(graph.tell(""), InvalidInput)).field == "token"
    for position in (0, 3):
        outside = await refused(graph.tell(token, position), InvalidInput)
        assert (outside.field, outside.limit, outside.given) == (
            "position",
            "1 to 2",
            str(position),
        )
    none = await refused(graph.tell(token, 1, ranker_pb2.OUTCOME_UNSPECIFIED), InvalidInput)
    assert none.field == "outcome"
    long = await refused(graph.tell(token, comment="x" * 2001), InvalidInput)
    assert (long.field, long.limit) == ("comment", "2000 characters")
    nothing = await database.read(lambda c: list(c.execute(select(OUTCOME.c.answer))))
    assert nothing == []
    graph.now += timedelta(days=7)
    expired = await refused(graph.tell(token), FailedPrecondition)
    assert expired.reason == "TOKEN_EXPIRED"


async def test_a_token_counts_until_it_expires(graph: Graph) -> None:
    token = (await graph.resolve()).token
    graph.now = (START + timedelta(days=7)).replace(microsecond=0) - timedelta(microseconds=1)
    assert not (await graph.tell(token)).repeated_call


async def test_a_replica_takes_the_tokens_of_another(graph: Graph, database: Database) -> None:
    replica = Graph(database)
    await replica.service.start()
    token = (await graph.resolve()).token
    assert not (await replica.tell(token)).repeated_call
    assert (await graph.tell(token)).repeated_call


async def test_a_key_of_its_own_is_another(graph: Graph, database: Database) -> None:
    other = Graph(database, signing_key="ab" * 32)
    await other.service.start()
    forged = await refused(graph.tell((await other.resolve()).token), InvalidInput)
    assert forged.reason == "TOKEN_FORGED"


async def test_an_answer_that_is_not_known_here(graph: Graph) -> None:
    """As after a loss of what was in memory, where the key is a setting's."""
    key = "cd" * 32
    elsewhere, here = (Graph(each, signing_key=key) for each in (Database.open(), graph.database))
    await elsewhere.put(models())
    for each in (elsewhere, here):
        await each.service.start()
    token = (await elsewhere.resolve()).token
    await refused(here.tell(token), NotFound)
    await elsewhere.database.close()


BAD_QUESTIONS: list[tuple[dict[str, Any], str, str | None, str]] = [
    ({"query": ""}, "query", "at least 1 character", "''"),
    ({"query": " \n"}, "query", "at least 1 character", "' \\n'"),
    ({"query": "x" * 4097}, "query", "4096 bytes", "4097 bytes"),
    ({"query": "ä" * 50_000}, "query", "4096 bytes", "100000 bytes"),
    ({"query": "a\0b"}, "query", None, "at 1"),
    ({"limit": 51}, "limit", "1 to 50", "51"),
    ({"type": "poem"}, "type", "classifier, generator", "poem"),
]


async def test_bad_questions_are_told_and_change_nothing(graph: Graph) -> None:
    for asked, *expected in BAD_QUESTIONS:
        error = await refused(graph.resolve(**{"query": "image", **asked}), InvalidInput)
        assert [error.field, error.limit, error.given] == expected
    assert await graph.database.read(lambda c: list(c.execute(select(ANSWER.c.id)))) == []


async def test_questions_at_their_limits(graph: Graph) -> None:
    assert (await graph.resolve("x" * 4096)).matches == []
    assert len((await graph.resolve("image", 50)).matches) == 3


async def test_nothing_found_has_no_token_and_is_logged(graph: Graph) -> None:
    answer = await graph.resolve("zebra crossings")
    assert (list(answer.matches), answer.token, answer.HasField("expires_at")) == ([], "", False)
    logged = await graph.database.read(lambda c: list(c.scalars(select(ANSWER.c.query))))
    assert logged == ["zebra crossings"]
    assert graph.metric("easel_match_answers_total", found="no") == 1.0


async def test_only_of_one_type(graph: Graph) -> None:
    assert ids(await graph.resolve("image", type="generator")) == ["stable-diffusion"]


async def test_a_changed_catalogue_is_searched_at_once(graph: Graph) -> None:
    assert ids(await graph.resolve("translate speech")) == []
    speech = Capability("whisper/speech", "Speech translation", intents=("translate speech",))
    await graph.put(
        [Model("whisper", "Whisper", "speech", capabilities=(speech,))], keep_others=True
    )
    answer = await graph.resolve("translate speech")
    assert (ids(answer), answer.catalogue_revision) == (["whisper"], 2)
    await graph.put(models())
    assert ids(await graph.resolve("translate speech")) == []
    assert (await refused(graph.resolve(type="speech"), InvalidInput)).field == "type"
    assert graph.metric("easel_match_capabilities") == 5.0


async def test_a_catalogue_stays_as_it_was_read(graph: Graph) -> None:
    reader = CatalogueReader()
    before = await graph.database.read(reader.read)
    found = before.index.search("classify an image", 3)
    offered = [before.model(each.offer) for each in found]
    assert [model.id for model in offered] == ["resnet", "vit", "stable-diffusion"]
    renamed = replace(models()[0], name="Another", capabilities=())
    await graph.put([renamed, *models()[1:2]])
    after = await graph.database.read(reader.read)
    assert after.revision == before.revision + 1
    assert [before.model(each.offer) for each in found] == offered
    assert after.model(found[1].offer).name == "Another"


async def test_a_catalogue_that_changes_all_the_time_is_answered_from(hindered: Hindered) -> None:
    graph = Graph(hindered)
    await graph.put(models())
    await graph.service.start()

    async def change() -> None:
        await graph.put([Model("new", f"New {hindered.reads}", "speech")], keep_others=True)

    hindered.reads, hindered.before_read = 0, change
    answer = await graph.resolve()
    assert ids(answer) == ["resnet", "vit", "stable-diffusion"]
    # Searched, read again, and searched as it was then.
    assert hindered.reads == 3
    assert answer.catalogue_revision == 1 + 2


@pytest.mark.parametrize("write_error", [None, NotReady()])
async def test_an_answer_that_cannot_be_made_leaves_no_task_behind(
    hindered: Hindered, write_error: EaselError | None
) -> None:
    graph = Graph(hindered)
    await graph.put(models())
    await graph.service.start()
    hindered.writes, hindered.write_error = 0, write_error
    graph.now = datetime.max.replace(tzinfo=UTC)  # there is no day on which its token could end
    with pytest.raises(OverflowError):
        await graph.resolve()
    assert hindered.writes == 1


async def test_an_answer_that_cannot_be_logged_is_not_given(hindered: Hindered) -> None:
    graph = Graph(hindered)
    await graph.put(models())
    await graph.service.start()
    hindered.write_error = NotReady()
    await refused(graph.resolve(), NotReady)
    assert graph.metric("easel_match_answers_total", found="yes") == 0.0


class Reading(Subjects):
    """Reads texts only while ``may`` is set; counts how many threads do so at once."""

    def __init__(self) -> None:
        super().__init__()
        self.began, self.may = threading.Event(), threading.Event()
        self.may.set()
        self.most = 0
        self._now = 0
        self._lock = threading.Lock()

    def embed_documents(self, texts: Sequence[str]) -> Vectors:
        with self._lock:
            self._now += 1
            self.most = max(self.most, self._now)
        self.began.set()
        assert self.may.wait(60)
        with self._lock:
            self._now -= 1
        return super().embed_documents(texts)


async def reading(graph: Graph, meaning: Reading) -> asyncio.Task[Any]:
    """A Resolve that reads the catalogue until ``meaning`` may."""
    await graph.service.start()
    await graph.put(models())
    meaning.may.clear()
    first = asyncio.create_task(graph.resolve())
    assert await asyncio.to_thread(meaning.began.wait, 60)
    return first


async def test_a_catalogue_is_read_by_one_though_its_caller_gives_up(database: Database) -> None:
    meaning = Reading()
    graph = Graph(database, meaning)
    first = await reading(graph, meaning)
    first.cancel()
    await asyncio.wait([first])
    second = asyncio.create_task(graph.resolve())
    for _ in range(3):  # the way to another thread and back, time enough to begin there
        assert await asyncio.to_thread(meaning.began.is_set)
    meaning.may.set()
    assert (await second).matches
    assert meaning.most == 1
    assert meaning.texts == 5 + 1


async def test_a_change_that_came_while_another_was_read_is_searched(tmp_path: Path) -> None:
    database = Database.open(f"sqlite:///{tmp_path / 'easel.db'}")
    meaning = Reading()
    graph = Graph(database, meaning)
    first = await reading(graph, meaning)
    speech = Capability("whisper/speech", "Speech translation", intents=("translate speech",))
    await graph.put(
        [Model("whisper", "Whisper", "speech", capabilities=(speech,))], keep_others=True
    )
    second = asyncio.create_task(graph.resolve("translate speech", limit=1))
    await asyncio.sleep(0)  # it has the catalogue that the first one had
    meaning.may.set()
    assert (await first).catalogue_revision == 1
    answer = await second
    assert (ids(answer), answer.catalogue_revision) == (["whisper"], 2)
    await database.close()


async def test_an_empty_catalogue(database: Database) -> None:
    graph = Graph(database)
    await graph.service.start()
    assert ids(await graph.resolve()) == []
    error = await refused(graph.resolve(type="model"), InvalidInput)
    assert error.limit == "none, the catalogue is empty"


async def test_meaning_is_told(database: Database) -> None:
    graph = Graph(database, Subjects())
    await graph.put(models())
    await graph.service.start()
    match = (await graph.resolve("erase a stranger", limit=1)).matches[0]
    assert match.capability.id == "stable-diffusion/inpainting"
    assert match.similarity == pytest.approx(1.0)
    assert match.why == "likeness of meaning 1.00"
    assert match.intent == ""


async def test_exploration_swaps_and_says_how_likely_that_was(database: Database) -> None:
    graph = Graph(database, exploration=0.5)
    await graph.put(models())
    await graph.service.start()
    orders = set()
    for _ in range(20):
        answer = await graph.resolve()
        orders.add(tuple(ids(answer)))
        for match in answer.matches:
            swapped = match.base_position != match.position
            inner = match.base_position == 2
            assert match.propensity == (0.25 if swapped else 0.5 if inner else 0.75)
    assert len(orders) >= 3
    counted = await database.read(lambda c: read_all_counts(c, graph.service.half_life))
    assert sum(tally.numbers[0] for tally in counted.edge_places.values()) == 60


async def test_many_at_once_lose_nothing(graph: Graph) -> None:
    answers = await asyncio.gather(*(graph.resolve() for _ in range(40)))
    told = [graph.tell(answer.token, 1, SUCCEEDED) for answer in answers for _ in range(3)]
    repeated = [each.repeated_call for each in await asyncio.gather(*told)]
    assert repeated.count(False) == 40
    half_life = graph.service.half_life
    kept = await graph.database.read(lambda c: read_all_counts(c, half_life))
    again = await graph.database.read(lambda c: count_again(c, half_life))
    assert sum(tally.numbers[0] for tally in kept.edges.values()) == 40
    assert {key: tally.numbers for key, tally in kept.edge_places.items()} == {
        key: tally.numbers for key, tally in again.edge_places.items()
    }


async def test_one_of_a_group_that_is_refused_is_refused_alone(graph: Graph) -> None:
    first, second = await graph.resolve(), await graph.resolve()
    await graph.tell(first.token, 1, FAILED)
    told = await asyncio.gather(
        graph.tell(first.token, 1, SUCCEEDED),
        graph.tell(second.token, 1, SUCCEEDED),
        return_exceptions=True,
    )
    assert isinstance(told[0], FailedPrecondition)
    assert not isinstance(told[1], BaseException)


async def test_no_more_outcomes_wait_than_may(database: Database) -> None:
    recorder = OutcomeRecorder(database, 1.0, max_waiting=2)
    reports = [Report("unheard-of", 1, Outcome.CHOSEN, START) for _ in range(3)]
    told = await asyncio.gather(*map(recorder.record, reports), return_exceptions=True)
    assert [type(each) for each in told] == [NotFound, NotFound, Overloaded]
    with pytest.raises(NotFound):
        await recorder.record(reports[0])
