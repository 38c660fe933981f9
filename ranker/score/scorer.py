"""Scores of the catalogue's models: evidence gathered, weighed, and kept before it is told."""

from __future__ import annotations

import asyncio
import re
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from typing import Final, Protocol, TypeVar

from sqlalchemy import Connection, select

from ranker.catalogue import store
from ranker.catalogue.checks import MAX_USAGE_COUNT
from ranker.catalogue.model import Capability, Model
from ranker.clock import utc_now
from ranker.database import Database
from ranker.graph.decay import Decayed
from ranker.graph.tables import EDGE
from ranker.score import log
from ranker.score.components import Terms
from ranker.score.evidence import Claims, Evidence, Measurement, Outcomes, Standing, added, standing
from ranker.score.formula import Rules, score
from ranker.score.log import Logged, Scored
from ranker.score.record import Record, recorded
from ranker.score.surroundings import ecosystem
from ranker.score.weights import OTHER_TYPES, Weights

_COUNTED: Final = re.compile(r"(\d[\d,]*) of (\d[\d,]*)\b")
_BATCH: Final = 1000

T = TypeVar("T")
Usage = Mapping[str, Sequence[int]]
"""Counts of use of all models of a type by their name, in order."""
ByIntent = Mapping[tuple[str, str], Outcomes]


class Settings(Protocol):
    """What the ranker's settings say of scores."""

    @property
    def score_weights(self) -> Mapping[str, Mapping[str, float]]: ...
    @property
    def score_half_life_days(self) -> Mapping[str, float]: ...
    @property
    def score_ecosystem(self) -> Mapping[str, Sequence[str]]: ...
    @property
    def score_min_evidence(self) -> int: ...
    @property
    def score_min_share(self) -> float: ...
    @property
    def evidence_half_life_days(self) -> float: ...


@dataclass(frozen=True, slots=True)
class Live:
    """What the model services tell now: facts by model, and whether all of them answered."""

    facts: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    certain: bool = False


class Scorer:
    """Scores models as of now; ``now`` is when."""

    def __init__(
        self,
        settings: Settings,
        database: Database,
        now: Callable[[], datetime] = utc_now,
    ) -> None:
        self._settings = settings
        self._database = database
        self._now = now
        # By type: the catalogue's revision, and the counts of use as they were then.
        self._usage: dict[str, tuple[int, Usage]] = {}

    async def scored(self, models: Sequence[Model], live: Live) -> Mapping[str, Scored]:
        """The scores by the models' ids; each is in the log."""
        now = self._now()

        def read(connection: Connection) -> tuple[ByIntent, Mapping[str, Usage]]:
            outcomes = self.outcomes(connection, [model.id for model in models], now)
            types = {model.type for model in models if model.usage}
            return outcomes, {type: self._usage_of(connection, type) for type in types}

        outcomes, usage = await self._database.read(read)
        every = _by_model(outcomes)

        def computed() -> list[Record]:
            return [
                self._record(model, live, every.get(model.id, Outcomes()), usage, now)
                for model in models
            ]

        # Half a millisecond each: a long page would hold up every other call.
        logged = await self._logged(await asyncio.to_thread(computed), now)
        return await asyncio.to_thread(_scored, logged)

    def outcomes(self, connection: Connection, models: Collection[str], now: datetime) -> ByIntent:
        """Outcomes by model and intent, weighted by their age at ``now``."""
        half_life = self._settings.evidence_half_life_days * 86_400.0
        return outcomes_by_intent(connection, models, now.timestamp(), half_life)

    def rules(self, type: str) -> Rules:
        """What is configured for models of the type."""
        settings = self._settings
        return Rules(
            Weights.of(_of_type(settings.score_weights, type)),
            Terms(settings.score_min_evidence, _of_type(settings.score_half_life_days, type)),
            Decimal(repr(settings.score_min_share)),
        )

    def _record(
        self,
        model: Model,
        live: Live,
        outcomes: Outcomes,
        usage: Mapping[str, Usage],
        now: datetime,
    ) -> Record:
        sought = _of_type(self._settings.score_ecosystem, model.type)
        evidence = Evidence(
            model.id,
            model.type,
            now.astimezone(UTC).date(),
            usage=tuple(standings(model, usage.get(model.type, {}))),
            claims=claims(model.capabilities),
            measurements=tuple(measurements(model.capabilities)),
            ecosystem=ecosystem(sought, live.facts.get(model.id), certain=live.certain),
            outcomes=outcomes,
            released=model.released,
        )
        rules = self.rules(model.type)
        return recorded(evidence, rules, score(evidence, rules))

    def _usage_of(self, connection: Connection, type: str) -> Usage:
        """Read again where the catalogue changed; several threads may do so at a time."""
        revision = store.revision(connection)
        known = self._usage.get(type)
        if known is None or known[0] != revision:
            counts = store.usage(connection, type)
            known = revision, {name: sorted(each.values()) for name, each in counts.items()}
            self._usage[type] = known
        return known[1]

    async def _logged(self, records: Sequence[Record], now: datetime) -> Mapping[str, Logged]:
        """Most scores are as they were: only what is new has to wait for a write."""
        ids = [record.model for record in records]
        before = await self._database.read(lambda connection: log.latest(connection, ids))
        new = [
            record
            for record in records
            if record.model not in before or not log.same(before[record.model].record, record)
        ]
        if not new:
            return before
        added = await self._database.write(lambda connection: log.kept(connection, new, now))
        return {**before, **added}


def claims(capabilities: Iterable[Capability]) -> Claims:
    """Verified, contradicted and unmeasured ones; a measurement that answers no claim is none."""
    every = [claim for each in capabilities for claim in each.claims if claim.claimed]
    verified = sum(claim.verified for claim in every)
    contradicted = sum(bool(claim.measured) and not claim.verified for claim in every)
    return Claims(verified, contradicted, len(every) - verified - contradicted)


def measurements(capabilities: Iterable[Capability]) -> Iterable[Measurement]:
    """The accuracies that were counted: claims named so, whose measurement reads "N of M", M above
    0 and at most 2^53, which is what a count of use may be too: it is still exact as a float."""
    for capability in capabilities:
        for claim in capability.claims:
            counted = _COUNTED.match(claim.measured)
            if counted is None or "accuracy" not in claim.name.casefold():
                continue
            successes, trials = (_count(text) for text in counted.groups())
            if successes <= trials and 0 < trials <= MAX_USAGE_COUNT:
                yield Measurement(f"{capability.name}: {claim.name}", successes, trials)


def _count(text: str) -> int:
    """Of digits and commas; of more than any count has, only as many as tell that."""
    return int(text.replace(",", "").lstrip("0")[:20] or "0")


def standings(model: Model, usage: Usage) -> Iterable[Standing]:
    """Where the model stands, in each count of use that it has, among the others of ``usage``."""
    for used in sorted(model.usage, key=lambda each: each.name):
        yield standing(used.name, used.count, usage.get(used.name, ()))


def outcomes_by_intent(
    connection: Connection, models: Collection[str], now: float, half_life: float
) -> dict[tuple[str, str], Outcomes]:
    """Of all capabilities of a model together, by model and intent; times and half-life in seconds.

    Those that are known to serve no intent of the catalogue are under the empty one.
    """
    found: defaultdict[tuple[str, str], list[Outcomes]] = defaultdict(list)
    wanted = sorted(set(models))
    for start in range(0, len(wanted), _BATCH):
        rows = select(EDGE).where(EDGE.c.model.in_(wanted[start : start + _BATCH]))
        for row in connection.execute(rows):
            weights = Decayed([row.success_weight, row.failure_weight], row.weighed_at)
            good, bad = weights.worth(now, half_life)
            told = Outcomes(good, bad, row.succeeded + row.failed)
            found[row.model, row.intent].append(told)
    return {key: added(outcomes) for key, outcomes in found.items()}


def _by_model(outcomes: ByIntent) -> Mapping[str, Outcomes]:
    found: defaultdict[str, list[Outcomes]] = defaultdict(list)
    for (model, _), each in outcomes.items():
        found[model].append(each)
    return {model: added(every) for model, every in found.items()}


def _scored(logged: Mapping[str, Logged]) -> Mapping[str, Scored]:
    return {model: Scored.of(each) for model, each in logged.items()}


def _of_type(by_type: Mapping[str, T], type: str) -> T:
    return by_type.get(type, by_type[OTHER_TYPES])
