"""A classifier that sees colours: what `easel evaluate` and `easel embed` meet of one."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import BytesIO
from threading import Event, Lock
from typing import Any, Final

import grpc
from PIL import Image, UnidentifiedImageError

from easel.classifier.v1 import classifier_pb2, classifier_pb2_grpc
from easel.common.v1 import common_pb2
from easel.model.v1 import model_pb2, model_pb2_grpc
from tests.integration.easel.fake_gateway import TIMING, refuse

LABELS: Final = (
    "red star", "blue ring", "green heart", "white moon", "black cross", "gray arrow", "pink circle"
)  # fmt: skip
DEPTH: Final = 12
RANKED: Final = {
    (255, 0, 0): (0, 1, 2, 3, 4, 5, 6),
    (0, 0, 255): (1, 0, 2, 3, 4, 5, 6),
    (0, 128, 0): (2, 0, 1, 3, 4, 5, 6),
    (255, 165, 0): (0, 1, 2, 3, 4, 5, 6),  # orange is taken for red
}
BUSY: Final = (128, 128, 128)  # gray finds no room at first
BROKEN: Final = (0, 0, 0)  # black makes the model fail


@dataclass
class Script:
    """What the service does, and what it was asked. ``hold_after`` answers it sends no more, until
    its caller has gone; ``holding`` tells that it has come to that. ``end_after`` answers it goes
    away."""

    digest: str = "sha256:abc"
    hold_after: int | None = None
    end_after: int | None = None
    holding: Event = field(default_factory=Event)
    requests: list[Any] = field(default_factory=list)
    answered: list[bytes] = field(default_factory=list)
    refused: set[bytes] = field(default_factory=set)
    lock: Lock = field(default_factory=Lock)


class FakeModels(model_pb2_grpc.ModelServiceServicer):
    def __init__(self, script: Script) -> None:
        self._script = script

    def GetModel(
        self, request: model_pb2.GetModelRequest, context: Any
    ) -> model_pb2.GetModelResponse:
        assert dict(context.invocation_metadata())["easel-service"] == "classifier"
        if request.name not in ("", "demo"):
            refuse(context, grpc.StatusCode.NOT_FOUND, f"There is no model {request.name!r} here.")
        model = model_pb2.ModelInfo(
            name="demo",
            version="7",
            digest=self._script.digest,
            config=model_pb2.EffectiveConfig(backend="fake", device="cpu", precision="float32"),
            classifier=model_pb2.ClassifierDetails(labels=LABELS, layers=DEPTH, hidden_size=4),
        )
        return model_pb2.GetModelResponse(model=model)


class FakeColours(classifier_pb2_grpc.ClassifierServiceServicer):
    def __init__(self, script: Script) -> None:
        self._script = script

    def ClassifyStream(
        self, request_iterator: Any, context: Any
    ) -> Iterator[classifier_pb2.ClassifyResponse]:
        for request in request_iterator:
            answer = classifier_pb2.ClassifyResponse(id=request.id, timing=TIMING)
            colour = self._seen(request, answer)
            if colour is not None:
                for place, index in enumerate(RANKED[colour][: request.top_k or 5]):
                    answer.labels.add(index=index, name=LABELS[index], score=0.9 / (place + 1))
            yield answer

    def EmbedStream(
        self, request_iterator: Any, context: Any
    ) -> Iterator[classifier_pb2.EmbedResponse]:
        gone = Event()
        assert context.add_callback(gone.set)
        for request in request_iterator:
            if self._has_answered(self._script.end_after):
                refuse(context, grpc.StatusCode.UNAVAILABLE, "Going away.")
            if self._has_answered(self._script.hold_after):
                self._script.holding.set()
                gone.wait(60)
                return
            answer = classifier_pb2.EmbedResponse(id=request.id, timing=TIMING)
            colour = self._seen(request, answer)
            if colour is not None:
                for layer in request.layers or (DEPTH,):
                    self._embed(request, colour, layer % (DEPTH + 1), answer)
            yield answer

    def _embed(
        self,
        request: classifier_pb2.EmbedRequest,
        colour: tuple[int, int, int],
        layer: int,
        answer: classifier_pb2.EmbedResponse,
    ) -> None:
        """The colour and the layer; with pooling patch four times."""
        half = request.dtype == classifier_pb2.EMBEDDING_DTYPE_FLOAT16
        patches = request.pooling == classifier_pb2.POOLING_PATCH
        data = struct.pack("<4e" if half else "<4f", *colour, layer) * (4 if patches else 1)
        answer.embeddings.add(
            layer=layer,
            data=data,
            shape=[2, 2, 4] if patches else [4],
            dtype=request.dtype,
            normalized=request.normalize,
            final_norm=request.final_norm and layer == DEPTH,
        )

    def _has_answered(self, count: int | None) -> bool:
        with self._script.lock:
            return count is not None and len(self._script.answered) >= count

    def _seen(self, request: Any, answer: Any) -> tuple[int, int, int] | None:
        """The picture's colour; None, and the answer's error set, where there is none to tell."""
        script, data = self._script, request.image.encoded
        with script.lock:
            script.requests.append(request)
            answer.model.name, answer.model.digest = "demo", script.digest
            colour = colour_of(data)
            if colour is None:
                _fail(answer, 3, "Not a picture.", "INVALID_INPUT", "image.encoded")
            elif colour == BROKEN:
                _fail(answer, 13, "Something went wrong.", "INTERNAL")
            elif colour == BUSY and data not in script.refused:
                script.refused.add(data)
                _fail(answer, 8, "Too much work.", "OVERLOADED", retry_after_seconds=0.01)
            elif colour == BUSY:
                script.answered.append(data)
                return (255, 0, 0)
            else:
                script.answered.append(data)
                return colour
        return None


# The contract's other RPCs stay abstract: nobody here calls them.
def _servicers(script: Script) -> tuple[FakeColours, FakeModels]:
    return FakeColours(script), FakeModels(script)  # type: ignore[abstract]


def colour_of(data: bytes) -> tuple[int, int, int] | None:
    try:
        picture = Image.open(BytesIO(data)).convert("RGB")
    except UnidentifiedImageError:
        return None
    seen: Any = picture.getpixel((0, 0))
    known = (*RANKED, BUSY, BROKEN)
    # The nearest: lossy formats change them a little.
    return min(known, key=lambda each: sum((a - b) ** 2 for a, b in zip(each, seen, strict=True)))


def _fail(answer: Any, code: int, message: str, reason: str, field: str = "", **more: Any) -> None:
    error = common_pb2.ItemError(code=code, message=message, reason=reason, field=field, **more)
    answer.error.CopyFrom(error)


@contextmanager
def fake_classifier() -> Iterator[tuple[str, Script]]:
    """Serve on a free loopback port for the block; gives its target."""
    script = Script()
    server = grpc.server(ThreadPoolExecutor(8))
    colours, models = _servicers(script)
    classifier_pb2_grpc.add_ClassifierServiceServicer_to_server(colours, server)
    model_pb2_grpc.add_ModelServiceServicer_to_server(models, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}", script
    finally:
        server.stop(None).wait(5)
