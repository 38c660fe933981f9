"""A generator and a classifier made for the tests, served by real servers of their own.

A candidate's picture is the text ``<what> <step> <seed>``, and the classifier scores it by the
seed: the larger, the redder the star.
"""

from __future__ import annotations

import asyncio
import math
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc
from prometheus_client import CollectorRegistry

from easel.classifier.v1 import classifier_pb2, classifier_pb2_grpc
from easel.common.v1 import common_pb2
from easel.generator.v1 import generator_pb2, generator_pb2_grpc
from easel.model.v1 import model_pb2, model_pb2_grpc
from services.core.errors import EaselError, InvalidInput, NotFound
from services.core.server.interceptor import CallInterceptor
from services.core.server.metrics import ServerMetrics

LABELS = ("blue circle", "red star", "green ring")
RED_STAR = 1
FIRST_SEED = 1000
DEFAULT_STEPS = 10
PROMPT = "a red star on a blue background"

Context = grpc.aio.ServicerContext[Any, Any]


class ScriptedClassifier(classifier_pb2_grpc.ClassifierServiceServicer):
    """Its logit for the red star is the number at the end of the picture's bytes."""

    def __init__(self) -> None:
        self.images: list[bytes] = []
        self.embedded: list[tuple[bytes, int]] = []
        self.error: EaselError | None = None
        self.errors: list[EaselError] = []
        self.asked = asyncio.Event()
        self.may_answer = asyncio.Event()
        self.may_answer.set()
        self.redness: Callable[[bytes], float] = lambda picture: float(picture.split()[-1]) / 1000.0

    async def Classify(
        self, request: classifier_pb2.ClassifyRequest, context: Context
    ) -> classifier_pb2.ClassifyResponse:
        self.images.append(request.image.encoded)
        self.asked.set()
        await self.may_answer.wait()
        if self.errors:
            raise self.errors.pop()
        if self.error is not None:
            raise self.error
        try:
            logit = self.redness(request.image.encoded)
        except (ValueError, IndexError):
            raise InvalidInput("image.encoded", "Not a picture.") from None
        assert request.logits
        assert request.top_k == len(LABELS)
        logits = [0.0, logit, -1.0]
        order = sorted(range(len(LABELS)), key=lambda index: -logits[index])
        return classifier_pb2.ClassifyResponse(
            labels=[
                common_pb2.Label(index=index, name=LABELS[index], score=0.5, logit=logits[index])
                for index in order
            ]
        )

    async def Embed(
        self, request: classifier_pb2.EmbedRequest, context: Context
    ) -> classifier_pb2.EmbedResponse:
        """On the unit circle, at the angle in degrees at the end of the picture's bytes."""
        self.embedded.append((request.image.encoded, request.layers[0]))
        if self.errors:
            raise self.errors.pop()
        if not -5 < request.layers[0] < 5:
            raise InvalidInput("layers", "There is no such layer.", "-4 to 4", request.layers[0])
        try:
            angle = math.radians(float(request.image.encoded.split()[-1]))
        except (ValueError, IndexError):
            raise InvalidInput("image.encoded", "Not a picture.") from None
        assert request.normalize
        data = struct.pack("<2f", math.cos(angle), math.sin(angle))
        embedding = classifier_pb2.Embedding(
            data=data, shape=[2], dtype=classifier_pb2.EMBEDDING_DTYPE_FLOAT32
        )
        return classifier_pb2.EmbedResponse(embeddings=[embedding])


class ScriptedModels(model_pb2_grpc.ModelServiceServicer):
    def __init__(self, info: model_pb2.ModelInfo) -> None:
        self.info = info
        self.lists = 0

    async def GetModel(
        self, request: model_pb2.GetModelRequest, context: Context
    ) -> model_pb2.GetModelResponse:
        if request.name not in ("", self.info.name):
            raise NotFound(f"There is no model {request.name[:50]!r}.")
        return model_pb2.GetModelResponse(model=self.info)

    async def ListModels(
        self, request: model_pb2.ListModelsRequest, context: Context
    ) -> model_pb2.ListModelsResponse:
        self.lists += 1
        return model_pb2.ListModelsResponse(models=[self.info])


class ScriptedGenerator(generator_pb2_grpc.GeneratorServiceServicer):
    """Steps the rows of a request together, once ``rows_to_await`` have come on its stream; at a
    step of ``patience`` it waits until no more than so many are left."""

    def __init__(self) -> None:
        self.row_steps = 0
        self.submitted: list[generator_pb2.GenerateRequest] = []
        self.patience: dict[int, int] = {}
        self.rows_to_await = 0
        self.padding = 0
        self.draw: Callable[[int, int], bytes] = lambda step, seed: b""
        self.broken: dict[int, common_pb2.ItemError] = {}
        self.refusal: common_pb2.ItemError | None = None
        self.taken_before_refusal = 0
        self.error_at: dict[int, EaselError] = {}
        self.metadata: dict[str, Any] = {}
        self.time_remaining: float | None = None
        self.is_waiting = asyncio.Event()
        self.wait_was_cancelled = asyncio.Event()
        self.ended = asyncio.Event()
        self.outcome: str = ""

    async def GenerateStream(
        self,
        requests: AsyncIterator[generator_pb2.GenerateStreamRequest],
        context: Context,
    ) -> AsyncIterator[generator_pb2.GenerateEvent]:
        self.metadata = dict(context.invocation_metadata() or ())
        self.time_remaining = context.time_remaining()
        rows = _Rows(self)
        reader = asyncio.create_task(rows.read(requests))
        try:
            while (event := await rows.outbox.get()) is not None:
                if isinstance(event, EaselError):
                    raise event
                yield event
            self.outcome = "complete"
        finally:
            reader.cancel()
            await asyncio.gather(reader, return_exceptions=True)
            self.outcome = self.outcome or "cancelled"
            self.ended.set()


class _Rows:
    """The rows of one stream, as (request id, index)."""

    def __init__(self, script: ScriptedGenerator) -> None:
        self.outbox: asyncio.Queue[generator_pb2.GenerateEvent | EaselError | None]
        self.outbox = asyncio.Queue()
        self._script = script
        self._alive: set[tuple[str, int]] = set()
        self._stopped: list[tuple[str, int]] = []
        self._changed = asyncio.Event()

    async def read(self, requests: AsyncIterator[generator_pb2.GenerateStreamRequest]) -> None:
        lives = []
        async with asyncio.TaskGroup() as group:
            async for message in requests:
                if message.HasField("submit"):
                    self._script.submitted.append(message.submit)
                    lives.append(group.create_task(self._live(message.submit)))
                elif message.HasField("keep_only"):
                    self._keep_only(message.keep_only)
        await self.outbox.put(None)

    def _keep_only(self, keep: generator_pb2.KeepOnly) -> None:
        leaving = {row for row in self._alive if row[0] == keep.id and row[1] not in keep.indices}
        self._alive -= leaving
        self._stopped += sorted(leaving)
        self._changed.set()

    async def _live(self, order: generator_pb2.GenerateRequest) -> None:
        script, steps = self._script, order.steps or DEFAULT_STEPS
        if (
            script.refusal is not None
            and order not in script.submitted[: script.taken_before_refusal]
        ):
            await self._tell(order, 0, failed=script.refusal)
            return
        seeds = list(order.seeds) or [(order.seed or FIRST_SEED) + i for i in range(order.count)]
        for index, seed in enumerate(seeds):
            self._alive.add((order.id, index))
            admitted = generator_pb2.Admitted(seed=seed, steps=steps, eta_seconds=1.0)
            await self._tell(order, index, admitted=admitted)
        self._changed.set()
        while len(self._alive) < script.rows_to_await:
            await self._wait()
        for step in range(1, steps + 1):
            await self._step(order, step, steps, seeds)
        for index in self._own(order):
            drawn = script.draw(steps, seeds[index])
            image = generator_pb2.GeneratedImage(
                image=common_pb2.Image(
                    encoded=drawn or b" " * script.padding + b"final %d %d" % (steps, seeds[index])
                ),
                seed=seeds[index],
                steps=steps,
                timing=common_pb2.Timing(steps=steps, batch_rows=len(seeds)),
                provenance=generator_pb2.Provenance(pixel_sha256=f"{seeds[index]}"),
            )
            await self._tell(order, index, image=image)

    async def _step(
        self, order: generator_pb2.GenerateRequest, step: int, steps: int, seeds: list[int]
    ) -> None:
        script = self._script
        if step in script.error_at:
            await self.outbox.put(script.error_at[step])
        if step in script.broken:
            self._alive.discard((order.id, 0))
            await self._tell(order, 0, failed=script.broken[step])
        for index in self._own(order):
            script.row_steps += 1
            await self._tell(order, index, step=generator_pb2.Step(step=step, steps=steps))
            if step in order.preview.at_steps:
                assert order.preview.method == generator_pb2.PREVIEW_METHOD_DECODED
                image = common_pb2.Image(
                    encoded=script.draw(step, seeds[index])
                    or b"preview %d %d" % (step, seeds[index])
                )
                shown = generator_pb2.PreviewImage(image=image, step=step, steps=steps)
                await self._tell(order, index, preview=shown)
        while len(self._alive) > script.patience.get(step, len(self._alive)):
            script.is_waiting.set()
            await self._wait()
        for id, index in [row for row in self._stopped if row[0] == order.id]:
            self._stopped.remove((id, index))
            stopped = generator_pb2.Stopped(step=step, steps=steps)
            await self._tell(order, index, stopped=stopped)

    async def _wait(self) -> None:
        self._changed.clear()
        try:
            await self._changed.wait()
        except asyncio.CancelledError:
            self._script.wait_was_cancelled.set()
            raise

    def _own(self, order: generator_pb2.GenerateRequest) -> list[int]:
        return sorted(index for id, index in self._alive if id == order.id)

    async def _tell(self, order: generator_pb2.GenerateRequest, index: int, **event: Any) -> None:
        await self.outbox.put(generator_pb2.GenerateEvent(id=order.id, index=index, **event))


class Upstreams:
    """Both services, each on a server of its own."""

    def __init__(self) -> None:
        self.classifier = ScriptedClassifier()  # type: ignore[abstract]  # Classify is enough
        self.generator = ScriptedGenerator()  # type: ignore[abstract]  # GenerateStream is enough
        classifier = model_pb2.ClassifierDetails(labels=LABELS)
        self.classifier_models = ScriptedModels(  # type: ignore[abstract]
            model_pb2.ModelInfo(name="vit", version="1", digest="sha256:c", classifier=classifier)
        )
        generator = model_pb2.GeneratorDetails(default_steps=DEFAULT_STEPS, max_count=16)
        self.generator_models = ScriptedModels(  # type: ignore[abstract]
            model_pb2.ModelInfo(name="sd", version="2", digest="sha256:g", generator=generator)
        )
        self.classifier_target = ""
        self.generator_target = ""
        self._servers: list[grpc.aio.Server] = []

    async def start(self) -> None:
        server, services, self.classifier_target = self.open()
        classifier_pb2_grpc.add_ClassifierServiceServicer_to_server(self.classifier, services)
        model_pb2_grpc.add_ModelServiceServicer_to_server(self.classifier_models, services)
        await server.start()
        server, services, self.generator_target = self.open()
        generator_pb2_grpc.add_GeneratorServiceServicer_to_server(self.generator, services)
        model_pb2_grpc.add_ModelServiceServicer_to_server(self.generator_models, services)
        await server.start()

    def open(self) -> tuple[grpc.aio.Server, grpc.aio.Server, str]:
        """A server, what its servicers are added to, and where it will listen."""
        server = grpc.aio.server()
        services = CallInterceptor(ServerMetrics(CollectorRegistry())).install(server)
        self._servers.append(server)
        return server, services, f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"

    async def stop(self) -> None:
        for server in self._servers:
            await server.stop(None)


@asynccontextmanager
async def upstreams() -> AsyncIterator[Upstreams]:
    running = Upstreams()
    await running.start()
    try:
        yield running
    finally:
        await running.stop()
