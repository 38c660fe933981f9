"""Compare: a message in, two models and their evidence, a message out."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Final, Protocol

from sqlalchemy import Connection

from easel.ranker.v1 import ranker_pb2
from ranker.catalogue import store
from ranker.catalogue.model import Model
from ranker.catalogue.service import Described
from ranker.clock import utc_now
from ranker.comparison import text, wire
from ranker.comparison.better import Better
from ranker.comparison.document import document
from ranker.comparison.report import Evidence, Report, compare, shared_intents
from ranker.comparison.side import Fact, Side, compared
from ranker.database import Database
from ranker.score.evidence import Outcomes, added
from ranker.score.log import Scored
from ranker.score.scorer import ByIntent, Scorer
from services.core.errors import InvalidInput

MAX_INTENT_CHARS: Final = 500
_CATALOGUE: Final = "catalogue"
# What the live facts say of themselves, told as every other fact's source.
_ABOUT: Final = ("source", "read_at")


class Catalogue(Protocol):
    """Models as messages, with their live facts and scores."""

    async def described(self, models: Sequence[Model]) -> Mapping[str, Described]: ...


class Votes(Protocol):
    """Votes on pairs of pictures."""

    async def better(
        self, a: Collection[str], b: Collection[str], intents: Collection[str]
    ) -> Better: ...


class ComparisonService:
    """Compares two models of the catalogue by all that is known of them now."""

    def __init__(
        self,
        database: Database,
        catalogue: Catalogue,
        scorer: Scorer,
        votes: Votes,
        min_evidence: int,
        now: Callable[[], datetime] = utc_now,
    ) -> None:
        self._database = database
        self._catalogue = catalogue
        self._scorer = scorer
        self._votes = votes
        self._min_evidence = min_evidence
        self._now = now

    async def compare(self, asked: ranker_pb2.CompareRequest) -> ranker_pb2.CompareResponse:
        """Raises ``NotFound`` with the nearest names, and ``InvalidInput``."""
        _check(asked)
        a, b = await self._database.read(lambda connection: _found(connection, asked))
        described = await self._catalogue.described((a, b))
        one, other = (_side(model, described[model.id]) for model in (a, b))
        intent = asked.intent.strip()
        evidence = await self._evidence(a, b, shared_intents(one, other, intent))
        report = compare(one, other, evidence, intent=intent, min_evidence=self._min_evidence)
        # Some milliseconds of writing, and more for a model with many claims.
        return await asyncio.to_thread(
            _answer, report, described[a.id].message, described[b.id].message
        )

    async def _evidence(self, a: Model, b: Model, shared: Collection[str]) -> Evidence:
        if not shared:
            return Evidence({})
        now = self._now()
        outcomes = await self._database.read(
            lambda connection: self._scorer.outcomes(connection, (a.id, b.id), now)
        )
        votes = await self._votes.better(a.names, b.names, shared)
        return Evidence(_compared(outcomes), votes)


def _answer(
    report: Report, a: ranker_pb2.CatalogueModel, b: ranker_pb2.CatalogueModel
) -> ranker_pb2.CompareResponse:
    return wire.answer(report, document(report), a, b)


def _check(asked: ranker_pb2.CompareRequest) -> None:
    if len(asked.intent) > MAX_INTENT_CHARS:
        raise InvalidInput(
            "intent",
            "The intent is too long.",
            f"{MAX_INTENT_CHARS} characters",
            len(asked.intent),
        )


def _found(connection: Connection, asked: ranker_pb2.CompareRequest) -> tuple[Model, Model]:
    a, b = store.find(connection, asked.a, "a"), store.find(connection, asked.b, "b")
    if a.id == b.id:
        raise InvalidInput(
            "b",
            f"{asked.a!r} and {asked.b!r} are one model, {a.id!r}: there is nothing to compare.",
            reason="SAME_MODEL",
        )
    return a, b


def _compared(outcomes: ByIntent) -> ByIntent:
    """By intents as they are compared."""
    found: defaultdict[tuple[str, str], list[Outcomes]] = defaultdict(list)
    for (model, intent), each in outcomes.items():
        found[model, compared(intent)].append(each)
    return {key: added(each) for key, each in found.items()}


def _side(model: Model, described: Described) -> Side:
    return Side(
        model.id,
        model.name,
        model.type,
        model.capabilities,
        tuple(_facts(model, described.message.facts, described.scored)),
        described.scored,
    )


def _facts(model: Model, live: Mapping[str, str], scored: Scored) -> Iterator[Fact]:
    total = scored.score.total
    interval = text.points_interval(total.low, total.high)
    told = f"{text.points(total.points)} ({interval})"
    outcomes = scored.score.by_name["match_graph"].valued.estimate.evidence
    for name, value in (
        ("type", model.type),
        ("licence", model.licence),
        ("price", model.price),
        ("provenance", model.provenance),
        ("versions", ", ".join(model.versions)),
        ("capabilities", str(len(model.capabilities))),
    ):
        if value:
            yield Fact(name, value, _CATALOGUE)
    yield Fact("score", "none" if total.abstained else told, "log of scores")
    yield Fact("outcomes recorded", str(outcomes), "match graph")
    about = ", ".join(live[name] for name in _ABOUT if live.get(name))
    for name, value in sorted(live.items()):
        if name.split("@")[0] not in _ABOUT:
            yield Fact(f"served: {name.replace('_', ' ')}", value, about)
