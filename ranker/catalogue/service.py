"""The catalogue's RPCs: messages in, domain, messages out."""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from importlib import resources
from typing import Final

from sqlalchemy import Connection

from easel.ranker.v1 import ranker_pb2
from ranker import paging
from ranker.catalogue import document, store
from ranker.catalogue.document import Document
from ranker.catalogue.facts import LiveFacts, Reading, Served, facts_of
from ranker.catalogue.model import Model
from ranker.catalogue.wire import model_from_pb, model_to_pb
from ranker.clock import utc_now
from ranker.config import RankerSettings
from ranker.database import Database
from ranker.score.log import Scored
from ranker.score.scorer import Live, Scorer
from ranker.score.wire import score
from services.core.errors import FailedPrecondition, InvalidInput

log = logging.getLogger("easel.ranker")

_SHIPPED: Final = resources.files("ranker.catalogue") / "shipped.yaml"


@dataclass(frozen=True, slots=True)
class Described:
    """A model as it is told, and its score as it is kept."""

    message: ranker_pb2.CatalogueModel
    scored: Scored


class CatalogueService:
    """The catalogue over the database, with what the model services tell now."""

    def __init__(
        self,
        settings: RankerSettings,
        database: Database,
        live: LiveFacts,
        scorer: Scorer,
        now: Callable[[], datetime] = utc_now,
    ) -> None:
        self._settings = settings
        self._database = database
        self._live = live
        self._scorer = scorer
        self._now = now

    async def start(self) -> None:
        """Put the models that come along in a catalogue that never had any."""
        if await self._database.read(store.revision):
            return
        shipped = await asyncio.to_thread(_shipped)

        def fill(connection: Connection) -> None:
            if not store.revision(connection):  # another ranker may have been first
                count = len(shipped.models)  # limits are for what callers bring
                store.apply(connection, shipped, self._now(), keep_others=False, max_models=count)

        await self._database.write(fill)
        log.info("the catalogue begins with the models that come along")

    async def get(
        self, request: ranker_pb2.GetCatalogueModelRequest
    ) -> ranker_pb2.GetCatalogueModelResponse:
        model = await self._database.read(lambda connection: store.find(connection, request.model))
        return ranker_pb2.GetCatalogueModelResponse(model=await self.message(model))

    async def list(
        self, request: ranker_pb2.ListCatalogueModelsRequest
    ) -> ranker_pb2.ListCatalogueModelsResponse:
        size = paging.page_size(request.page_size)
        after = paging.last_of(request.page_token)

        def read(connection: Connection) -> tuple[list[Model], int]:
            page = store.page(connection, type=request.type, after=after, size=size + 1)
            return page, store.revision(connection)

        found, revision = await self._database.read(read)
        models = found[:size]
        described = await self.described(models)
        return ranker_pb2.ListCatalogueModelsResponse(
            models=[described[model.id].message for model in models],
            next_page_token=paging.token_of(models[-1].id) if len(found) > size else "",
            revision=revision,
        )

    async def put(
        self, request: ranker_pb2.PutCatalogueModelRequest
    ) -> ranker_pb2.PutCatalogueModelResponse:
        if not request.HasField("model"):
            raise InvalidInput("model", "A model is needed.")
        model = model_from_pb(request.model, "model")
        kept = await self._database.write(
            lambda connection: store.put(
                connection, model, self._now(), self._settings.max_catalogue_models
            )
        )
        return ranker_pb2.PutCatalogueModelResponse(model=await self.message(kept))

    async def delete(
        self, request: ranker_pb2.DeleteCatalogueModelRequest
    ) -> ranker_pb2.DeleteCatalogueModelResponse:
        await self._database.write(lambda connection: store.remove(connection, request.model))
        return ranker_pb2.DeleteCatalogueModelResponse()

    async def export(
        self,
        request: ranker_pb2.ExportCatalogueRequest,  # noqa: ARG002
    ) -> ranker_pb2.ExportCatalogueResponse:
        def read(connection: Connection) -> tuple[str, int]:
            return document.write(store.every_record(connection)), store.revision(connection)

        yaml, revision = await self._database.read(read)
        answer = ranker_pb2.ExportCatalogueResponse(yaml=yaml, revision=revision)
        limit = self._settings.max_message_bytes
        if answer.ByteSize() > limit:
            raise FailedPrecondition(
                f"The document has {answer.ByteSize()} bytes, and a message holds {limit}; "
                "EASEL_RANKER_MAX_MESSAGE_BYTES says how many.",
                reason="CATALOGUE_TOO_LARGE",
            )
        return answer

    async def import_(
        self, request: ranker_pb2.ImportCatalogueRequest
    ) -> ranker_pb2.ImportCatalogueResponse:
        given = await asyncio.to_thread(self._read, request.yaml)
        if request.dry_run:
            limit = self._settings.max_catalogue_models
            changes = await self._database.read(
                lambda connection: store.plan(
                    connection, given, keep_others=request.keep_others, max_models=limit
                )
            )
        else:
            changes = await self._database.write(
                lambda connection: self._apply(connection, given, keep_others=request.keep_others)
            )
        return ranker_pb2.ImportCatalogueResponse(
            added=changes.added, changed=changes.changed, removed=changes.removed
        )

    async def message(self, model: Model) -> ranker_pb2.CatalogueModel:
        """The model as a message, with its live facts and its score; another record of a model has
        neither."""
        if model.same_as:
            return model_to_pb(model)
        return (await self.described([model]))[model.id].message

    async def described(self, models: Sequence[Model]) -> Mapping[str, Described]:
        """The models by their ids, with their live facts and their scores as of now."""
        live = await self._facts(models)
        scored = await self._scorer.scored(models, live)
        return {
            model.id: Described(
                model_to_pb(model, live.facts.get(model.id), score(scored[model.id])),
                scored[model.id],
            )
            for model in models
        }

    async def _facts(self, models: Iterable[Model]) -> Live:
        """What is told of those of the models that are served now."""
        readings = await self._live.read()
        certain = not any(reading.is_away for reading in readings)
        served = [(each, reading) for reading in readings for each in reading.served]
        if not served:
            return Live({}, certain)
        wanted = {model.id for model in models}
        names = [name for each, _ in served for name in each.names]
        ids = await self._database.read(lambda connection: store.model_ids(connection, names))
        by_model: defaultdict[str, list[tuple[Served, Reading]]] = defaultdict(list)
        for each, reading in served:
            id = next((ids[name] for name in each.names if name in ids), "")
            if id in wanted:
                by_model[id].append((each, reading))
        return Live({id: facts_of(pairs) for id, pairs in by_model.items()}, certain)

    def _read(self, yaml: str) -> Document:
        return document.read(yaml, self._settings.max_catalogue_bytes)

    def _apply(
        self, connection: Connection, given: Document, *, keep_others: bool
    ) -> store.Changes:
        return store.apply(
            connection,
            given,
            self._now(),
            keep_others=keep_others,
            max_models=self._settings.max_catalogue_models,
        )


def _shipped() -> Document:
    text = _SHIPPED.read_text(encoding="utf-8")
    return document.read(text, max_bytes=len(text.encode()))
