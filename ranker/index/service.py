"""The image index on the wire: messages in, store and classifier, messages out."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable, Sequence
from contextlib import aclosing
from datetime import datetime
from functools import partial
from typing import Final, TypeVar

import numpy as np

from easel.common.v1 import common_pb2
from easel.ranker.v1 import ranker_pb2
from ranker import paging
from ranker.clock import utc_now
from ranker.config import RankerSettings
from ranker.index.collection import Collection, Origin, check_name
from ranker.index.entry import Entry, Filter, Image, Label, Match, Vector, unit
from ranker.index.inbox import Inbox
from ranker.index.limits import MAX_LABEL_BYTES, IndexLimits
from ranker.index.store import VectorStore
from ranker.index.turns import Turns
from ranker.index.upstream import (
    FITS,
    FITS_TO_PB,
    POOLINGS,
    POOLINGS_TO_PB,
    Asked,
    IndexClassifier,
)
from ranker.together import together
from services.core.errors import (
    EaselError,
    FailedPrecondition,
    InvalidInput,
    NotFound,
)
from services.core.server.stream import answer_each
from services.wire import item_error_to_pb

log = logging.getLogger("easel.ranker")

R = TypeVar("R")

TENDED_EVERY: Final = 10_000
"""Pictures of one stream, which may have no end."""

_SHOWN_CHARS: Final = 100


class IndexService:
    """The index's RPCs over a store, which is opened at the start, or else when it is needed."""

    def __init__(
        self,
        settings: RankerSettings,
        classifier: IndexClassifier,
        store: VectorStore,
        now: Callable[[], datetime] = utc_now,
    ) -> None:
        self._settings = settings
        self._limits: IndexLimits = settings.index_limits
        self._classifier = classifier
        self._store = store
        self._now = now
        self._opened: asyncio.Task[None] | None = None
        self._creating = asyncio.Lock()
        self._inboxes: dict[tuple[str, Origin], Inbox] = {}
        self._tending: dict[str, asyncio.Task[None]] = {}
        self._to_tend_again: set[str] = set()

    async def start(self) -> None:
        """Open the store. One that cannot be opened is told to those who need it."""
        try:
            await self._open()
        except EaselError as error:
            log.warning("the image index is not served: %s", error.message)

    async def close(self) -> None:
        for inbox in list(self._inboxes.values()):
            await inbox.ended()
        for task in self._tending.values():
            task.cancel()
        await asyncio.gather(*self._tending.values(), return_exceptions=True)
        await self._store.close()

    async def index_images(
        self, requests: AsyncIterable[ranker_pb2.IndexImagesRequest]
    ) -> AsyncGenerator[ranker_pb2.IndexImagesResponse, None]:
        store = await self._open()
        stream = _Stream(self, store)
        answers = answer_each(
            requests,
            stream.index,
            max_in_flight=self._settings.index_in_flight,
            failed=self._failed,
        )
        try:
            async with aclosing(answers):
                async for answer in answers:
                    yield answer
        finally:
            for name in stream.written:
                self.tend(name)

    async def search_images(
        self, request: ranker_pb2.SearchImagesRequest
    ) -> ranker_pb2.SearchImagesResponse:
        check_name(request.collection, field="collection")
        top_k = self._limits.top_k(request.top_k)
        where = self._limits.filter(request.labels, request.attributes)
        store = await self._open()
        collection = await store.find(request.collection)
        matches = await self._search(store, collection, request, top_k, where)
        return ranker_pb2.SearchImagesResponse(
            matches=[_match_to_pb(match) for match in matches],
            classifier=_ref_to_pb(collection.origin),
        )

    async def list_images(
        self, request: ranker_pb2.ListImagesRequest
    ) -> ranker_pb2.ListImagesResponse:
        check_name(request.collection, field="collection")
        count = paging.page_size(request.page_size)
        where = self._limits.filter(request.labels, request.attributes)
        after = paging.last_of(request.page_token)
        store = await self._open()
        # One more tells whether there is another page.
        images = await store.page(request.collection, after, count + 1, where)
        return ranker_pb2.ListImagesResponse(
            images=[_image_to_pb(image) for image in images[:count]],
            next_page_token=paging.token_of(images[count - 1].id) if len(images) > count else "",
        )

    async def delete_images(
        self, request: ranker_pb2.DeleteImagesRequest
    ) -> ranker_pb2.DeleteImagesResponse:
        check_name(request.collection, field="collection")
        self._limits.check_ids(request.ids)
        store = await self._open()
        deleted = await store.delete(request.collection, set(request.ids))
        if deleted:
            self.tend(request.collection)
        return ranker_pb2.DeleteImagesResponse(deleted=deleted)

    async def create_collection(
        self, request: ranker_pb2.CreateCollectionRequest
    ) -> ranker_pb2.CreateCollectionResponse:
        check_name(request.name, field="name")
        asked = _asked_from_pb(request)
        store = await self._open()
        origin = await self._classifier.origin(asked)
        collection = await self.collection(store, request.name, origin)
        if not collection.origin.is_same(origin):
            raise FailedPrecondition(
                f"There is a collection {request.name!r} already, of other vectors.",
                reason="COLLECTION_EXISTS",
            )
        return ranker_pb2.CreateCollectionResponse(collection=_collection_to_pb(collection))

    async def list_collections(
        self,
        request: ranker_pb2.ListCollectionsRequest,
    ) -> ranker_pb2.ListCollectionsResponse:
        del request
        found = await (await self._open()).collections()
        return ranker_pb2.ListCollectionsResponse(
            collections=[_collection_to_pb(collection) for collection in found]
        )

    async def delete_collection(
        self, request: ranker_pb2.DeleteCollectionRequest
    ) -> ranker_pb2.DeleteCollectionResponse:
        check_name(request.name, field="name")
        images = await (await self._open()).drop(request.name)
        for key in [key for key in self._inboxes if key[0] == request.name]:
            del self._inboxes[key]
        return ranker_pb2.DeleteCollectionResponse(images=images)

    def check_entry(self, request: ranker_pb2.IndexImagesRequest) -> None:
        check_name(request.collection, field="collection")
        self._limits.check_id(request.id, field="id")
        self._limits.check_attributes(request.attributes, field="attributes")

    async def seen(
        self, image: common_pb2.Image, origin: Origin | None
    ) -> tuple[Origin, Vector, tuple[Label, ...]]:
        """A picture's vector and labels: by what made the collection, where that is known."""
        if origin is None:
            made, vector = await self._classifier.embed(image, Asked())
            return made, vector, self._worth(await self._classifier.labels(image, made))
        async with together() as both:
            embedding = both.create_task(self._classifier.embed(image, Asked.like(origin)))
            labelling = both.create_task(self._classifier.labels(image, origin))
        made, vector = embedding.result()
        return made, vector, self._worth(labelling.result())

    async def collection(self, store: VectorStore, name: str, origin: Origin) -> Collection:
        """The one of that name, made now where there is none."""
        async with self._creating:
            try:
                return await store.find(name)
            except NotFound:
                limit, there = self._limits.max_collections, len(await store.collections())
                if there >= limit:
                    raise FailedPrecondition(
                        f"There are {there} collections, and no more than {limit} may be.",
                        reason="TOO_MANY_COLLECTIONS",
                    ) from None
                return await store.create(name, origin, self._now())

    async def keep(self, store: VectorStore, name: str, origin: Origin, entry: Entry) -> None:
        limit = self._limits.max_images
        inbox = self._inboxes.get((name, origin))
        if inbox is None:
            inbox = Inbox(partial(store.put, name, origin, max_size=limit))
            self._inboxes[name, origin] = inbox
        if not await inbox.add(entry):
            raise FailedPrecondition(
                f"The collection {name!r} is full: it has {limit} pictures, and may have no more.",
                reason="COLLECTION_FULL",
            )

    def now(self) -> datetime:
        return self._now()

    async def _open(self) -> VectorStore:
        """The store, opened; what could not be is tried again."""
        opening = self._opened
        if opening is None or (opening.done() and not _went_well(opening)):
            opening = self._opened = asyncio.create_task(self._store.open())
        await asyncio.shield(opening)
        return self._store

    async def _search(
        self,
        store: VectorStore,
        collection: Collection,
        request: ranker_pb2.SearchImagesRequest,
        top_k: int,
        where: Filter,
    ) -> Sequence[Match]:
        name = collection.name
        match request.WhichOneof("query"):
            case "image":
                asked = Asked.like(collection.origin)
                seeing = self._classifier.embed(request.image, asked)
                made, vector = await _by(collection.origin, name, seeing)
                collection.origin.check_same(made, name)
            case "embedding":
                vector = _given(request.embedding, collection)
            case "id":
                return await self._like(store, name, request.id, top_k, where)
            case _:
                if not where.labels:
                    raise InvalidInput(
                        "query", "Search by an image, an embedding, an id or labels; "
                        "ListImages lists by attributes alone.",
                    )  # fmt: skip
                return await store.likeliest(name, top_k, where)
        return _in_order(await store.nearest(name, vector, top_k, where))

    async def _like(
        self, store: VectorStore, name: str, id: str, top_k: int, where: Filter
    ) -> Sequence[Match]:
        """Those like a picture that is there, without it."""
        self._limits.check_id(id, field="id")
        vector = await store.vector(name, id)
        if vector is None:
            raise NotFound(
                f"The collection {name!r} has no picture {id[:_SHOWN_CHARS]!r}.", reason="NO_IMAGE"
            )
        found = await store.nearest(name, vector, top_k + 1, where)
        return _in_order([match for match in found if match.image.id != id][:top_k])

    def _worth(self, labels: Sequence[Label]) -> tuple[Label, ...]:
        """The best label, and others that are probable enough to be searched for."""
        least = self._settings.index_label_threshold
        return tuple(
            label
            for place, label in enumerate(labels)
            if (place == 0 or label.score >= least) and len(label.name.encode()) <= MAX_LABEL_BYTES
        )

    def _failed(
        self, request: ranker_pb2.IndexImagesRequest, error: Exception
    ) -> ranker_pb2.IndexImagesResponse:
        if not isinstance(error, EaselError):
            raise error
        shown = request.id.encode()[: self._limits.max_id_bytes].decode(errors="ignore")
        return ranker_pb2.IndexImagesResponse(id=shown, error=item_error_to_pb(error))

    def tend(self, name: str) -> None:
        """Have the store put in order what was written, once for all that is written meanwhile."""
        if name in self._tending:
            self._to_tend_again.add(name)
            return
        self._tending[name] = asyncio.create_task(self._tend_until_done(name))

    async def _tend_until_done(self, name: str) -> None:
        try:
            while True:
                self._to_tend_again.discard(name)
                await self._store.tend(name)
                if name not in self._to_tend_again:
                    return
        except NotFound:
            pass  # it is gone
        except EaselError as error:
            log.warning("collection %r was not put in order: %s", name, error.message)
        except Exception:
            log.exception("collection %r was not put in order", name)
        finally:
            del self._tending[name]


class _Stream:
    """One IndexImages: knows what made the collections that it writes to."""

    def __init__(self, service: IndexService, store: VectorStore) -> None:
        self._service = service
        self._store = store
        self._origins: dict[str, Origin] = {}
        self._turns = Turns()
        self.written: Counter[str] = Counter()

    async def index(self, request: ranker_pb2.IndexImagesRequest) -> ranker_pb2.IndexImagesResponse:
        self._service.check_entry(request)
        async with self._turns.of((request.collection, request.id)):
            return await self._index(request)

    async def _index(
        self, request: ranker_pb2.IndexImagesRequest
    ) -> ranker_pb2.IndexImagesResponse:
        name = request.collection
        origin = await self._origin(name)
        if origin is not None and request.skip_existing and await self._has(name, request.id):
            return ranker_pb2.IndexImagesResponse(
                id=request.id, skipped=True, classifier=_ref_to_pb(origin)
            )
        if not request.HasField("image"):
            raise InvalidInput("image", "A picture is needed.")
        seeing = self._service.seen(request.image, origin)
        if origin is None:
            made, vector, labels = await seeing
            collection = await self._service.collection(self._store, name, made)
            origin = self._origins[name] = collection.origin
        else:
            made, vector, labels = await _by(origin, name, seeing)
        origin.check_same(made, name)
        image = Image(request.id, labels, dict(request.attributes), self._service.now())
        try:
            await self._service.keep(self._store, name, origin, Entry(image, vector))
        except NotFound:
            self._origins.pop(name, None)
            raise
        self.written[name] += 1
        if self.written[name] % TENDED_EVERY == 0:
            self._service.tend(name)
        return ranker_pb2.IndexImagesResponse(
            id=request.id,
            labels=[_label_to_pb(label) for label in labels],
            classifier=_ref_to_pb(origin),
        )

    async def _has(self, name: str, id: str) -> bool:
        return bool(await self._store.existing(name, [id]))

    async def _origin(self, name: str) -> Origin | None:
        """What the collection is of; None where there is none yet."""
        known = self._origins.get(name)
        if known is None:
            try:
                known = self._origins[name] = (await self._store.find(name)).origin
            except NotFound:
                return None
        return known


def _in_order(matches: Sequence[Match]) -> list[Match]:
    """Equal ones by id, whichever store they are from."""
    return sorted(matches, key=lambda match: (-match.similarity, match.image.id))


async def _by(origin: Origin, name: str, asking: Awaitable[R]) -> R:
    """What the classifier answers by the model of a collection, which it may serve no longer."""
    try:
        return await asking
    except NotFound as error:
        raise FailedPrecondition(
            f"The vectors of collection {name!r} are of {origin.model} {origin.version} "
            f"({origin.digest}). {error.message}",
            reason="MODEL_GONE",
        ) from error


def _given(vector: ranker_pb2.Vector, collection: Collection) -> Vector:
    origin, digest = collection.origin, vector.model_digest
    if digest not in ("", origin.digest):
        raise FailedPrecondition(
            f"The vectors of collection {collection.name!r} are of {origin.model} with digest "
            f"{origin.digest}, the embedding's is {digest[:_SHOWN_CHARS]}. Such vectors do not "
            "compare.",
            reason="MODEL_DIFFERS",
        )
    if len(vector.values) != origin.dimensions:
        raise InvalidInput(
            "embedding.values",
            "It has another number of dimensions than the collection.",
            origin.dimensions,
            len(vector.values),
        )
    return unit(np.array(vector.values, np.float32), field="embedding.values")


def _asked_from_pb(request: ranker_pb2.CreateCollectionRequest) -> Asked:
    if request.pooling not in POOLINGS:
        raise InvalidInput(
            "pooling", "A collection has one vector a picture.", "cls or mean", request.pooling
        )
    if request.fit not in FITS:
        raise InvalidInput("fit", "Unknown fit.", f"0 to {max(FITS)}", request.fit)
    return Asked(
        request.model,
        request.model_version,
        request.layer if request.HasField("layer") else -1,
        POOLINGS[request.pooling],
        FITS[request.fit],
    )


def _collection_to_pb(collection: Collection) -> ranker_pb2.Collection:
    origin = collection.origin
    message = ranker_pb2.Collection(
        name=collection.name,
        classifier=_ref_to_pb(origin),
        layer=origin.layer,
        pooling=POOLINGS_TO_PB[origin.pooling],
        fit=FITS_TO_PB[origin.fit],
        dimensions=origin.dimensions,
        images=collection.size,
    )
    message.created_at.FromDatetime(collection.created_at)
    return message


def _ref_to_pb(origin: Origin) -> common_pb2.ModelRef:
    return common_pb2.ModelRef(name=origin.model, version=origin.version, digest=origin.digest)


def _match_to_pb(match: Match) -> ranker_pb2.ImageMatch:
    return ranker_pb2.ImageMatch(
        id=match.image.id,
        similarity=max(-1.0, min(1.0, match.similarity)),
        labels=[_label_to_pb(label) for label in match.image.labels],
        attributes=match.image.attributes,
    )


def _image_to_pb(image: Image) -> ranker_pb2.IndexedImage:
    message = ranker_pb2.IndexedImage(
        id=image.id,
        labels=[_label_to_pb(label) for label in image.labels],
        attributes=image.attributes,
    )
    if image.indexed_at is not None:
        message.indexed_at.FromDatetime(image.indexed_at)
    return message


def _label_to_pb(label: Label) -> common_pb2.Label:
    return common_pb2.Label(index=label.index, name=label.name, score=label.score)


def _went_well(task: asyncio.Task[None]) -> bool:
    return not task.cancelled() and task.exception() is None
