"""The two model services as the ranker sees them: their clients, and their errors named."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import (
    AsyncGenerator,
    Awaitable,
    Callable,
    Hashable,
    Iterator,
    Mapping,
    Sequence,
)
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import grpc
import numpy as np

from easel.classifier.v1 import classifier_pb2, classifier_pb2_grpc
from easel.common.v1 import common_pb2
from easel.generator.v1 import generator_pb2, generator_pb2_grpc
from easel.model.v1 import model_pb2, model_pb2_grpc
from ranker.pictures.events import Admitted, Broken, Made, News, Previewed, Stepped, Stopped
from ranker.pictures.judges.label import LabelSet
from ranker.pictures.judging import Classified, Pixels, TopLabel, Vector
from services.core.errors import (
    Cancelled,
    Draining,
    EaselError,
    FailedPrecondition,
    InvalidInput,
    ModelFault,
    NotReady,
    Overloaded,
)
from services.core.images import DEFAULT_LIMITS, to_rgb
from services.core.server.status import STATUS_CODES, from_rpc_error
from services.wire import image_from_pb

log = logging.getLogger("easel.ranker")

CLASSIFIER: Final = "classifier"
GENERATOR: Final = "generator"
# A picture's row steps on while its preview waits here, so that waiting long saves nothing.
MAX_RETRY_SECONDS: Final = 1.0
_SEEDS: Final = 2**64

Sleep = Callable[[float], Awaitable[object]]
Run = Callable[..., Awaitable[Any]]

_KINDS: Final = {code.value[0]: kind for kind, code in STATUS_CODES.items() if kind is not Draining}


@dataclass(frozen=True, slots=True)
class GeneratorModel:
    """What the ranker must know of the generator's model before it asks for candidates."""

    ref: common_pb2.ModelRef
    default_steps: int
    max_count: int


@dataclass(frozen=True, slots=True)
class ClassifierModel:
    ref: common_pb2.ModelRef
    labels: LabelSet


class ClassifierClient:
    """Classify and GetModel of the classifier; errors are those of the tree, naming it."""

    def __init__(self, channel: grpc.aio.Channel, sleep: Sleep = asyncio.sleep) -> None:
        self._sleep = sleep
        self._classifier: Any = classifier_pb2_grpc.ClassifierServiceStub(channel)
        self._models: Any = model_pb2_grpc.ModelServiceStub(channel)

    async def model(self, name: str) -> ClassifierModel:
        """The model and its labels; an empty name is the default model. Raises NotFound."""
        info = await _get_model(self._models, CLASSIFIER, name, "")
        labels = LabelSet(tuple(info.classifier.labels), info.classifier.multi_label)
        return ClassifierModel(_ref(info), labels)

    async def classify(
        self, image: common_pb2.Image, model: str, labels: int
    ) -> Sequence[common_pb2.Label]:
        """All ``labels`` of the picture, best first, with logits; asks once more if it is busy."""
        request = classifier_pb2.ClassifyRequest(
            image=image, model=model, top_k=labels, logits=True
        )
        try:
            response = await self._classify(request)
        except Overloaded as busy:
            await self._sleep(min(busy.retry_after_seconds, MAX_RETRY_SECONDS))
            response = await self._classify(request)
        found: Sequence[common_pb2.Label] = response.labels
        if len(found) != labels or not all(label.HasField("logit") for label in found):
            raise ModelFault("The classifier left out labels or logits that it was asked for.")
        return found

    async def embed(self, image: common_pb2.Image, model: str, layer: int) -> Vector:
        """The class token's embedding in ``layer``, of length 1; asks once more if it is busy."""
        request = classifier_pb2.EmbedRequest(
            image=image, model=model, layers=[layer], normalize=True
        )
        try:
            response = await self._embed(request)
        except Overloaded as busy:
            await self._sleep(min(busy.retry_after_seconds, MAX_RETRY_SECONDS))
            response = await self._embed(request)
        return _vector(response.embeddings)

    async def _classify(self, request: classifier_pb2.ClassifyRequest) -> Any:
        with naming(CLASSIFIER):
            return await self._classifier.Classify(request)

    async def _embed(self, request: classifier_pb2.EmbedRequest) -> Any:
        with naming(CLASSIFIER):
            return await self._classifier.Embed(request)


class PictureSight:
    """One picture as judges look at it: the ``Sight`` of ``judging``. Judges that look at it at the
    same time wait for each other's answers."""

    def __init__(
        self,
        image: common_pb2.Image,
        client: ClassifierClient,
        labels: Mapping[str, int],
        run: Run,
        field: str = "image",
    ) -> None:
        """``labels`` has the number of labels by model name; ``run`` runs blocking calls in
        threads; ``field`` is where the picture stands in the request."""
        self._image = image
        self._client = client
        self._labels = labels
        self._run = run
        self._field = field
        self._known: dict[Hashable, Any] = {}
        self._asking = asyncio.Lock()

    async def classified(self, model: str) -> Classified:
        found: Classified = await self._once((model,), partial(self._classified, model))
        return found

    async def embedding(self, model: str, layer: int) -> Vector:
        ask = partial(self._client.embed, self._image, model, layer)
        found: Vector = await self._once((model, layer), ask)
        return found

    async def pixels(self) -> Pixels:
        found: Pixels = await self._once("pixels", partial(self._run, self._decoded))
        return found

    async def _once(self, key: Hashable, ask: Callable[[], Awaitable[Any]]) -> Any:
        async with self._asking:
            if key not in self._known:
                self._known[key] = await ask()
            return self._known[key]

    async def _classified(self, model: str) -> Classified:
        labels = await self._client.classify(self._image, model, self._labels[model])
        best = labels[0]
        return Classified(tuple(_logits(labels)), TopLabel(best.index, best.name, best.score))

    def _decoded(self) -> Pixels:
        image = image_from_pb(self._image, field=self._field, limits=DEFAULT_LIMITS)
        return np.asarray(to_rgb(image))


class GeneratorClient:
    """GenerateStream and GetModel of the generator; errors are those of the tree, naming it."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._generator: Any = generator_pb2_grpc.GeneratorServiceStub(channel)
        self._models: Any = model_pb2_grpc.ModelServiceStub(channel)

    async def model(self, name: str, version: str) -> GeneratorModel:
        """An empty name is the default model. Raises NotFound."""
        info = await _get_model(self._models, GENERATOR, name, version)
        details = info.generator
        return GeneratorModel(_ref(info), details.default_steps, details.max_count)

    def open(
        self, request: generator_pb2.GenerateRequest, model: GeneratorModel
    ) -> GeneratorStream:
        """``request.count`` candidates, submitted when their news are first asked for."""
        return GeneratorStream(self._generator.GenerateStream, _parts(request, model.max_count))


@dataclass(frozen=True, slots=True)
class _Part:
    """A request for as many candidates as the generator takes at once, the first one's index."""

    first: int
    request: generator_pb2.GenerateRequest

    @property
    def indices(self) -> range:
        return range(self.first, self.first + self.request.count)

    def keep_only(self, indices: Sequence[int]) -> generator_pb2.GenerateStreamRequest:
        own = [index - self.first for index in indices if index in self.indices]
        keep = generator_pb2.KeepOnly(id=self.request.id, indices=own)
        return generator_pb2.GenerateStreamRequest(keep_only=keep)


class GeneratorStream:
    """The candidates of one BestOf on a stream of their own: the ``Generator`` of ``best_of``."""

    def __init__(self, start: Any, parts: Sequence[_Part]) -> None:
        self._start = start
        self._parts = {part.request.id: part for part in parts}
        self._forming = {index for part in parts for index in part.indices}
        self._admitted: set[str] = set()
        self._has_pruned = False
        self._is_closed = False
        # gRPC takes one write of a call at a time, and news and keep_only run beside each other.
        self._writing = asyncio.Lock()
        self._call: Any = None

    async def news(self) -> AsyncGenerator[News, None]:
        self._call = self._start()
        # Where the call has ended already, reading from it tells why.
        with suppress(asyncio.InvalidStateError):
            for part in self._parts.values():
                await self._write(generator_pb2.GenerateStreamRequest(submit=part.request))
        while (event := await self._read()) is not grpc.aio.EOF:
            for news in self._news(event):
                yield news
            if not self._forming:
                await self._half_close()

    async def keep_only(self, indices: Sequence[int]) -> None:
        self._has_pruned = True
        # Where the stream is over already, its reader is told why.
        with suppress(EaselError, asyncio.InvalidStateError):
            for part in self._parts.values():
                if self._forming.intersection(part.indices):
                    await self._write(part.keep_only(indices))

    async def cancel(self) -> None:
        if self._call is not None:
            self._call.cancel()

    def _news(self, event: generator_pb2.GenerateEvent) -> list[News]:
        part = self._parts.get(event.id)
        if part is None:
            return []
        news = _news(event, part.first + event.index)
        if isinstance(news, Admitted):
            self._admitted.add(event.id)
        told = [] if news is None else [news]
        if isinstance(news, Broken) and event.id not in self._admitted:
            # Refused before it began: that is the whole part, told once.
            if not self._has_pruned:
                raise news.error  # of the candidates asked for, all are made or none
            told = [Broken(index, news.error) for index in part.indices]
        self._forming -= {each.index for each in told if isinstance(each, Made | Stopped | Broken)}
        return told

    async def _write(self, message: generator_pb2.GenerateStreamRequest) -> None:
        with naming(GENERATOR, "generate"):
            async with self._writing:
                await self._call.write(message)

    async def _read(self) -> Any:
        with naming(GENERATOR, "generate"):
            return await self._call.read()

    async def _half_close(self) -> None:
        if not self._is_closed:
            self._is_closed = True
            with naming(GENERATOR), suppress(asyncio.InvalidStateError):
                async with self._writing:
                    await self._call.done_writing()


def _parts(request: generator_pb2.GenerateRequest, max_count: int) -> list[_Part]:
    """The request cut to what the generator takes at once; seeds run on as in one request."""
    seeds = _seeds(request)
    size = max_count or request.count
    parts = []
    for first in range(0, request.count, size):
        part = generator_pb2.GenerateRequest()
        part.CopyFrom(request)
        part.id, part.count = f"candidates-{first}", min(size, request.count - first)
        if first or part.count < request.count:
            part.ClearField("seed")
            part.seeds[:] = seeds[first : first + size]
        parts.append(_Part(first, part))
    return parts


def _seeds(request: generator_pb2.GenerateRequest) -> list[int]:
    """All the seeds of the request, as the generator would count them; none where it draws them."""
    if not request.seeds and not request.HasField("seed"):
        return []
    given = list(request.seeds) or [request.seed]
    missing = range(1, request.count - len(given) + 1)
    return given + [(given[-1] + index) % _SEEDS for index in missing]


async def _get_model(stub: Any, service: str, name: str, version: str) -> model_pb2.ModelInfo:
    with naming(service):
        response = await stub.GetModel(model_pb2.GetModelRequest(name=name, version=version))
    info: model_pb2.ModelInfo = response.model
    return info


def _ref(info: model_pb2.ModelInfo) -> common_pb2.ModelRef:
    return common_pb2.ModelRef(name=info.name, version=info.version, digest=info.digest)


def _logits(labels: Sequence[common_pb2.Label]) -> list[float]:
    by_index = {label.index: label.logit for label in labels}
    if len(by_index) != len(labels) or max(by_index) != len(labels) - 1:
        raise ModelFault("The classifier's labels are not numbered from 0.")
    return [by_index[index] for index in range(len(labels))]


def _vector(embeddings: Sequence[classifier_pb2.Embedding]) -> Vector:
    if len(embeddings) != 1 or embeddings[0].dtype != classifier_pb2.EMBEDDING_DTYPE_FLOAT32:
        raise ModelFault("The classifier answered other embeddings than it was asked for.")
    vector = np.frombuffer(embeddings[0].data, "<f4").astype(np.float64)
    if not vector.size or not np.isfinite(vector).all():
        raise ModelFault("The classifier's embedding holds numbers that are not finite, or none.")
    return vector


def _news(event: generator_pb2.GenerateEvent, index: int) -> News | None:
    """None for what a later generator may tell beyond what is known here."""
    match event.WhichOneof("event"):
        case "admitted":
            told = event.admitted
            return Admitted(index, told.seed, told.steps, told.eta_seconds)
        case "step":
            return Stepped(index, event.step.step)
        case "preview":
            return Previewed(index, event.preview.step, event.preview.image.encoded)
        case "image":
            made = event.image
            return Made(index, made.steps, made.image.encoded, origin=made)
        case "stopped":
            return Stopped(index, event.stopped.step)
        case "blocked":
            withheld = f"The generator withheld the picture: {event.blocked.reason}"
            return Broken(index, FailedPrecondition(withheld, reason="BLOCKED"))
        case "failed":
            return Broken(index, _named(_item_error(event.failed), GENERATOR, "generate"))
        case "refused":
            # About a message of ours that the generator could not act on, not about a picture.
            log.warning("the generator refused an action: %s", event.refused.message)
            return None
        case _:
            return None


def _item_error(item: common_pb2.ItemError) -> EaselError:
    kind = _KINDS.get(item.code, ModelFault)
    reason = item.reason or None
    if kind is InvalidInput:
        return InvalidInput(item.field, item.message, reason=reason)
    if kind is Overloaded:
        return Overloaded(item.retry_after_seconds, item.message, reason=reason)
    return kind(item.message, reason=reason)


@contextmanager
def naming(service: str, field_prefix: str = "") -> Iterator[None]:
    """Turns a failed call into an error of the tree that says which service it is about."""
    try:
        yield
    except grpc.RpcError as error:
        raise _named(from_rpc_error(error), service, field_prefix) from error
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        raise Cancelled(f"The {service} gave the work up.") from None


def _named(error: EaselError, service: str, field_prefix: str) -> EaselError:
    if isinstance(error, InvalidInput):
        field = ".".join(part for part in (field_prefix, error.field) if part)
        return InvalidInput(field, error.message, error.limit, error.given, reason=error.reason)
    if isinstance(error, Overloaded):
        message = f"The {service} is busy. {error.message}"
        return Overloaded(error.retry_after_seconds, message, reason=error.reason)
    if isinstance(error, NotReady):
        return NotReady(f"The {service} cannot be reached, or is not ready.", reason=error.reason)
    return type(error)(f"The {service}: {error.message}", reason=error.reason)
