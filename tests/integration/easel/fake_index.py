"""An image index that sees colours: what `easel index` and `easel similar` meet of one."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Event
from typing import Any

import grpc

from easel.classifier.v1 import classifier_pb2
from easel.common.v1 import common_pb2
from easel.model.v1 import model_pb2_grpc
from easel.ranker.v1 import ranker_pb2, ranker_pb2_grpc
from tests.integration.easel.fake_classifier import DEPTH, FakeModels, Script, colour_of
from tests.integration.easel.fake_gateway import refuse

MAX_ID_BYTES = 100


@dataclass
class Kept:
    """A picture of the index, with its place in colour space."""

    colour: tuple[int, int, int]
    attributes: dict[str, str]

    @property
    def label(self) -> common_pb2.Label:
        return common_pb2.Label(index=0, name=f"{self.colour}", score=0.9)


@dataclass
class Index(Script):
    """``collections`` by name, each with its pictures by id; ``asked`` are CreateCollection's."""

    collections: dict[str, dict[str, Kept]] = field(default_factory=dict)
    asked: list[ranker_pb2.CreateCollectionRequest] = field(default_factory=list)
    pages: int = 0


class FakeIndex(ranker_pb2_grpc.RankerServiceServicer):
    def __init__(self, index: Index) -> None:
        self._index = index

    def IndexImages(
        self, request_iterator: Any, context: Any
    ) -> Iterator[ranker_pb2.IndexImagesResponse]:
        index, gone = self._index, Event()
        assert context.add_callback(gone.set)
        for request in request_iterator:
            if index.hold_after is not None and len(index.answered) >= index.hold_after:
                index.holding.set()
                gone.wait(60)
                return
            yield self._kept(request)

    def _kept(self, request: ranker_pb2.IndexImagesRequest) -> ranker_pb2.IndexImagesResponse:
        index = self._index
        index.requests.append(request)
        classifier = common_pb2.ModelRef(name="demo", version="7", digest=index.digest)
        answer = ranker_pb2.IndexImagesResponse(id=request.id, classifier=classifier)
        images = index.collections.setdefault(request.collection, {})
        colour = colour_of(request.image.encoded)
        if len(request.id.encode()) > MAX_ID_BYTES:
            answer.id = request.id[:MAX_ID_BYTES]
            answer.error.code, answer.error.field = 3, "id"
        elif request.skip_existing and request.id in images:
            answer.skipped = True
        elif colour is None:
            answer.error.code, answer.error.message = 3, "Not a picture."
            answer.error.field = "image.encoded"
        else:
            kept = Kept(colour, dict(request.attributes))
            images[request.id] = kept
            index.answered.append(request.image.encoded)
            answer.labels.append(kept.label)
        return answer

    def SearchImages(
        self, request: ranker_pb2.SearchImagesRequest, context: Any
    ) -> ranker_pb2.SearchImagesResponse:
        images = self._images(request.collection, context)
        passing = {id: kept for id, kept in images.items() if _passes(kept, request)}
        kind = request.WhichOneof("query")
        if kind == "id":
            colour = passing.pop(request.id).colour
        else:
            colour = colour_of(request.image.encoded) or (0, 0, 0)
        ordered = sorted(passing, key=lambda id: (_distance(passing[id].colour, colour), id))
        return ranker_pb2.SearchImagesResponse(
            matches=[
                ranker_pb2.ImageMatch(
                    id=id,
                    similarity=1.0 - _distance(passing[id].colour, colour) / 441.7,
                    labels=[passing[id].label],
                    attributes=passing[id].attributes,
                )
                for id in ordered[: request.top_k or 10]
            ]
        )

    def ListImages(
        self, request: ranker_pb2.ListImagesRequest, context: Any
    ) -> ranker_pb2.ListImagesResponse:
        """Two a page, however many were asked for."""
        self._index.pages += 1
        images = self._images(request.collection, context)
        left = sorted(id for id in images if id > request.page_token)
        return ranker_pb2.ListImagesResponse(
            images=[
                ranker_pb2.IndexedImage(
                    id=id, labels=[images[id].label], attributes=images[id].attributes
                )
                for id in left[:2]
            ],
            next_page_token=left[1] if len(left) > 2 else "",
        )

    def DeleteImages(
        self, request: ranker_pb2.DeleteImagesRequest, context: Any
    ) -> ranker_pb2.DeleteImagesResponse:
        images = self._images(request.collection, context)
        deleted = [id for id in request.ids if images.pop(id, None) is not None]
        return ranker_pb2.DeleteImagesResponse(deleted=len(deleted))

    def CreateCollection(
        self, request: ranker_pb2.CreateCollectionRequest, context: Any
    ) -> ranker_pb2.CreateCollectionResponse:
        self._index.asked.append(request)
        self._index.collections.setdefault(request.name, {})
        return ranker_pb2.CreateCollectionResponse(collection=self._collection(request.name))

    def ListCollections(
        self, request: ranker_pb2.ListCollectionsRequest, context: Any
    ) -> ranker_pb2.ListCollectionsResponse:
        names = sorted(self._index.collections)
        return ranker_pb2.ListCollectionsResponse(
            collections=[self._collection(name) for name in names]
        )

    def DeleteCollection(
        self, request: ranker_pb2.DeleteCollectionRequest, context: Any
    ) -> ranker_pb2.DeleteCollectionResponse:
        images = self._images(request.name, context)
        del self._index.collections[request.name]
        return ranker_pb2.DeleteCollectionResponse(images=len(images))

    def _images(self, name: str, context: Any) -> dict[str, Kept]:
        if name not in self._index.collections:
            refuse(context, grpc.StatusCode.NOT_FOUND, f"There is no collection {name!r}.")
        return self._index.collections[name]

    def _collection(self, name: str) -> ranker_pb2.Collection:
        return ranker_pb2.Collection(
            name=name,
            classifier=common_pb2.ModelRef(name="demo", version="7", digest=self._index.digest),
            layer=DEPTH,
            pooling=classifier_pb2.POOLING_CLS,
            fit=classifier_pb2.FIT_CENTER_CROP,
            dimensions=3,
            images=len(self._index.collections[name]),
        )


def _passes(kept: Kept, request: ranker_pb2.SearchImagesRequest) -> bool:
    named = not request.labels or kept.label.name in request.labels
    return named and all(kept.attributes.get(k) == v for k, v in request.attributes.items())


def _distance(one: tuple[int, int, int], other: tuple[int, int, int]) -> float:
    return float(sum((a - b) ** 2 for a, b in zip(one, other, strict=True)) ** 0.5)


@contextmanager
def fake_index() -> Iterator[tuple[str, Index]]:
    """Serve on a free loopback port for the block; gives its target."""
    index = Index()
    server = grpc.server(ThreadPoolExecutor(8))
    servicer, models = FakeIndex(index), FakeModels(index)  # type: ignore[abstract]
    ranker_pb2_grpc.add_RankerServiceServicer_to_server(servicer, server)
    model_pb2_grpc.add_ModelServiceServicer_to_server(models, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}", index
    finally:
        server.stop(None).wait(5)
