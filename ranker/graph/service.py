"""Resolve and RecordOutcome: messages in, domain, messages out."""

from __future__ import annotations

import asyncio
import logging
import random
import secrets
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial
from typing import Final

from sqlalchemy import Connection

from easel.ranker.v1 import ranker_pb2
from ranker import wire
from ranker.catalogue import store
from ranker.catalogue.wire import capability_to_pb, model_to_pb
from ranker.clock import utc_now
from ranker.config import RankerSettings
from ranker.database import Database
from ranker.database.keys import shared_key
from ranker.graph import exploration, request, resolution
from ranker.graph.catalogue import Catalogue, CatalogueReader
from ranker.graph.counts import ShownResult
from ranker.graph.exploration import Place
from ranker.graph.index import Meaning, Term
from ranker.graph.knowledge import knowledge
from ranker.graph.log import Answer, Report, log_answer, settle
from ranker.graph.meaning import open_sentence_model
from ranker.graph.metrics import GraphMetrics
from ranker.graph.outcome import Outcome
from ranker.graph.recorder import OutcomeRecorder
from ranker.graph.resolution import Candidate
from ranker.onnx import Runtime
from ranker.tickets import Signer
from services.core.background import whole
from services.core.errors import InvalidInput

log = logging.getLogger("easel.ranker")

PURPOSE: Final = "match graph"
_PAYLOAD: Final = struct.Struct(">16sH")
_OUTCOMES: Final = {
    ranker_pb2.OUTCOME_CHOSEN: Outcome.CHOSEN,
    ranker_pb2.OUTCOME_SUCCEEDED: Outcome.SUCCEEDED,
    ranker_pb2.OUTCOME_FAILED: Outcome.FAILED,
}


@dataclass(frozen=True, slots=True)
class _Resolved:
    """All candidates, best first, of a catalogue."""

    catalogue: Catalogue
    candidates: list[Candidate]


class GraphService:
    """The match graph over the catalogue in the database."""

    def __init__(
        self,
        settings: RankerSettings,
        database: Database,
        metrics: GraphMetrics,
        meaning: Meaning | None = None,
        now: Callable[[], datetime] = utc_now,
        chance: random.Random | None = None,
    ) -> None:
        self._settings = settings
        self._database = database
        self._metrics = metrics
        self._now = now
        self._chance = chance or random.Random()
        self._reader = CatalogueReader(meaning)
        self._reading = asyncio.Lock()
        self._catalogue: Catalogue | None = None
        self.half_life = settings.evidence_half_life_days * 86_400.0
        self._outcomes = OutcomeRecorder(database, self.half_life)
        self._signer: Signer | None = None

    def load(self) -> None:
        """Open the model of meaning, if any; blocking. Raises ``FailedPrecondition``."""
        if self._settings.text_model is not None:
            runtime = Runtime(threads=self._settings.text_model_threads)
            model = open_sentence_model(self._settings.text_model, runtime)
            self._reader = CatalogueReader(model)

    async def start(self) -> None:
        """Read the catalogue, and see that counts and half-life belong together."""
        key = self._settings.signing_key_bytes
        self._signer = Signer(
            await self._database.write(shared_key) if key is None else key, PURPOSE
        )
        if await self._database.write(partial(settle, half_life=self.half_life)):
            log.info("outcomes were counted again: the half-life of evidence is another")
        await self._refreshed()

    async def resolve(self, asked: ranker_pb2.ResolveRequest) -> ranker_pb2.ResolveResponse:
        request.check_query(asked.query, self._settings.max_query_bytes)
        limit = request.count_matches(asked.limit, self._settings.max_matches)
        now = self._now()
        found = await self._resolved(asked.query, asked.type, limit, now)
        places = exploration.shown(
            min(limit, len(found.candidates)), self._settings.exploration, self._chance
        )
        shown = [found.candidates[place.base - 1] for place in places]
        answer = self._answer(asked, found, shown, places, now)
        log_it = partial(log_answer, answer=answer, half_life=self.half_life)
        logged = asyncio.create_task(self._database.write(log_it))
        try:
            await asyncio.sleep(0)  # it is being written while the response is made
            response = self._response(asked.query, found, shown, places, answer)
        except BaseException:
            # No task is left behind; what went wrong first is what is told.
            await asyncio.gather(logged, return_exceptions=True)
            raise
        await logged
        self._metrics.answered(len(shown))
        return response

    async def record_outcome(
        self, asked: ranker_pb2.RecordOutcomeRequest
    ) -> ranker_pb2.RecordOutcomeResponse:
        now = self._now()
        id, count = _PAYLOAD.unpack(self._signed.read(asked.token, now))
        request.check_position(asked.position, count)
        request.check_comment(asked.comment)
        outcome = _outcome(asked.outcome)
        report = Report(id.hex(), asked.position, outcome, now, asked.comment)
        recorded = await self._outcomes.record(report)
        if not recorded.repeated:
            self._metrics.recorded(outcome)
        return ranker_pb2.RecordOutcomeResponse(
            repeated_call=recorded.repeated,
            model=recorded.edge.model,
            capability=recorded.edge.capability,
            intent=recorded.edge.intent,
        )

    @property
    def _signed(self) -> Signer:
        assert self._signer is not None, "started first"
        return self._signer

    async def _resolved(self, query: str, type: str, limit: int, now: datetime) -> _Resolved:
        models = max(limit, self._settings.match_candidates)
        search = partial(self._search, query=query, type=type, models=models, now=now)
        catalogue = self._catalogue or await self._refreshed()
        found = await self._database.read(partial(_current, search, catalogue))
        if isinstance(found, int):
            # Read again once: it may have changed since, and might for ever.
            catalogue = await self._refreshed(found)
            found = await self._database.read(partial(search, catalogue))
        return _Resolved(catalogue, found)

    def _search(
        self,
        catalogue: Catalogue,
        connection: Connection,
        *,
        query: str,
        type: str,
        models: int,
        now: datetime,
    ) -> list[Candidate]:
        request.check_type(type, catalogue.types)
        if type and type not in catalogue.index.types:
            return []
        found = catalogue.index.search(query, models, type)
        edges = [each.edge for each in found]
        known = knowledge(connection, edges, now.timestamp(), self.half_life)
        return resolution.ordered(found, known)

    async def _refreshed(self, revision: int = 0) -> Catalogue:
        """The catalogue of ``revision`` or a later one; read once for all who wait for it."""
        return await whole(self._read_again(revision))

    async def _read_again(self, revision: int) -> Catalogue:
        async with self._reading:
            if self._catalogue is None or self._catalogue.revision < revision:
                self._catalogue = await self._database.read(self._reader.read)
                self._metrics.indexed(len(self._catalogue.index))
            return self._catalogue

    def _answer(
        self,
        asked: ranker_pb2.ResolveRequest,
        found: _Resolved,
        shown: Sequence[Candidate],
        places: Sequence[Place],
        now: datetime,
    ) -> Answer:
        return Answer(
            id=secrets.token_hex(16),
            at=now,
            query=asked.query,
            type=asked.type,
            exploration=self._settings.exploration,
            catalogue_revision=found.catalogue.revision,
            edges=tuple(each.found.edge for each in shown),
            shown=tuple(
                ShownResult(each.found.edge.key, place.base, place.propensity)
                for each, place in zip(shown, places, strict=True)
            ),
        )

    def _response(
        self,
        query: str,
        found: _Resolved,
        shown: Sequence[Candidate],
        places: Sequence[Place],
        answer: Answer,
    ) -> ranker_pb2.ResolveResponse:
        terms = found.catalogue.index.why(query, [each.found for each in shown])
        alternatives = resolution.alternatives(shown, found.candidates)
        response = ranker_pb2.ResolveResponse(
            matches=[
                self._match(found.catalogue, position, *each)
                for position, each in enumerate(
                    zip(shown, places, terms, alternatives, strict=True), 1
                )
            ],
            exploration=answer.exploration,
            catalogue_revision=answer.catalogue_revision,
        )
        if shown:
            # In whole seconds, as the ticket has it.
            ends = answer.at + timedelta(days=self._settings.outcome_days)
            expires_at = ends.replace(microsecond=0)
            payload = _PAYLOAD.pack(bytes.fromhex(answer.id), len(shown))
            response.token = self._signed.sign(payload, expires_at)
            response.expires_at.FromDatetime(expires_at)
        return response

    def _match(
        self,
        catalogue: Catalogue,
        position: int,
        candidate: Candidate,
        place: Place,
        terms: Sequence[Term],
        alternatives: Sequence[str],
    ) -> ranker_pb2.Match:
        own = candidate.found
        model = catalogue.model(own.offer)
        capability = model.capability(own.offer.capability)
        assert capability is not None, "the index is of this catalogue"
        return ranker_pb2.Match(
            position=position,
            model=model_to_pb(replace(model, capabilities=())),
            capability=capability_to_pb(capability),
            relevance=own.relevance,
            why=resolution.why(terms, own.edge.intent, own.similarity),
            success=wire.estimate(
                resolution.success(candidate.evidence, self._settings.min_outcomes)
            ),
            propensity=place.propensity,
            alternatives=alternatives,
            intent=own.edge.intent,
            terms=[ranker_pb2.MatchedTerm(word=term.word, fields=term.fields) for term in terms],
            similarity=own.similarity,
            evidence=_evidence(candidate),
            base_position=place.base,
            score=candidate.score,
        )


def _current(
    search: Callable[[Catalogue, Connection], list[Candidate]],
    catalogue: Catalogue,
    connection: Connection,
) -> list[Candidate] | int:
    """What is found, or the catalogue's revision where that is another by now."""
    revision = store.revision(connection)
    return search(catalogue, connection) if revision == catalogue.revision else revision


def _evidence(candidate: Candidate) -> ranker_pb2.MatchEvidence:
    known = candidate.evidence
    return ranker_pb2.MatchEvidence(
        impressions=known.impressions,
        chosen=known.chosen,
        succeeded=known.succeeded,
        failed=known.failed,
        choice_rate=known.attraction.rate,
        effective_looks=known.attraction.effective,
    )


def _outcome(given: ranker_pb2.Outcome.ValueType) -> Outcome:
    outcome = _OUTCOMES.get(given)
    if outcome is None:
        allowed = "OUTCOME_CHOSEN, OUTCOME_SUCCEEDED, OUTCOME_FAILED"
        raise InvalidInput("outcome", "An outcome is needed.", allowed, given)
    return outcome
