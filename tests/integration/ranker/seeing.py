"""A classifier that reads in a picture what it sees: its vector, and its labels."""

from __future__ import annotations

import asyncio
import json
import struct
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import grpc

from easel.classifier.v1 import classifier_pb2, classifier_pb2_grpc
from easel.common.v1 import common_pb2
from services.core.errors import EaselError, InvalidInput, NotFound
from tests.integration.ranker.upstreams import Upstreams

Context = grpc.aio.ServicerContext[Any, Any]

DEPTH = 12


def picture(vector: Sequence[float], labels: Mapping[str, float] | None = None) -> bytes:
    return json.dumps({"vector": list(vector), "labels": labels or {"dot": 0.9}}).encode()


class SeeingClassifier(classifier_pb2_grpc.ClassifierServiceServicer):
    """``holding``: it answers only while this is set; ``errors`` are raised first, one a call."""

    def __init__(self) -> None:
        self.ref = common_pb2.ModelRef(name="vit", version="1", digest="sha256:c")
        self.embeds: list[classifier_pb2.EmbedRequest] = []
        self.classifies: list[classifier_pb2.ClassifyRequest] = []
        self.errors: list[EaselError] = []
        self.under_way = 0
        self.most_under_way = 0
        self._changed = asyncio.Event()
        self.holding = asyncio.Event()
        self.holding.set()

    async def until(self, under_way: int) -> None:
        """Return once so many calls are held."""
        while self.under_way != under_way:
            self._changed.clear()
            await self._changed.wait()

    def _count(self, change: int) -> None:
        self.under_way += change
        self.most_under_way = max(self.most_under_way, self.under_way)
        self._changed.set()

    async def Embed(
        self, request: classifier_pb2.EmbedRequest, context: Context
    ) -> classifier_pb2.EmbedResponse:
        self.embeds.append(request)
        vector = (await self._seen(request))["vector"]
        (layer,) = request.layers
        if not -(DEPTH + 1) <= layer <= DEPTH:
            raise InvalidInput("layers[0]", "No such layer.", f"{-DEPTH - 1} to {DEPTH}", layer)
        embedding = classifier_pb2.Embedding(
            layer=layer % (DEPTH + 1),
            data=struct.pack(f"<{len(vector)}f", *vector),
            shape=[len(vector)],
            dtype=classifier_pb2.EMBEDDING_DTYPE_FLOAT32,
        )
        return classifier_pb2.EmbedResponse(embeddings=[embedding], model=self.ref)

    async def Classify(
        self, request: classifier_pb2.ClassifyRequest, context: Context
    ) -> classifier_pb2.ClassifyResponse:
        self.classifies.append(request)
        labels = (await self._seen(request))["labels"]
        return classifier_pb2.ClassifyResponse(
            labels=[
                common_pb2.Label(index=index, name=name, score=score)
                for index, (name, score) in enumerate(labels.items())
            ],
            model=self.ref,
        )

    async def _seen(self, request: Any) -> Any:
        self._count(1)
        try:
            await self.holding.wait()
        finally:
            self._count(-1)
        if self.errors:
            raise self.errors.pop()
        if request.model not in ("", self.ref.name) or request.model_version not in (
            "",
            self.ref.version,
        ):
            raise NotFound(f"There is no model {request.model} {request.model_version}.")
        if request.image.HasField("raw"):
            return {"vector": [1.0, 1.0, 1.0], "labels": {}}
        try:
            return json.loads(request.image.encoded)
        except ValueError:
            raise InvalidInput("image.encoded", "Not a picture.") from None


@asynccontextmanager
async def seeing_upstreams() -> AsyncIterator[tuple[Upstreams, SeeingClassifier]]:
    up, seeing = Upstreams(), SeeingClassifier()  # type: ignore[abstract]
    up.classifier = seeing  # type: ignore[assignment]
    await up.start()
    try:
        yield up, seeing
    finally:
        await up.stop()
