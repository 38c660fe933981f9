"""Classification, embedding and explanation of one picture: check, prepare, run, finish."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Final, NamedTuple, TypeAlias, TypeVar

import numpy as np
from PIL import Image

from services.classifier.embedding import Embedding, encode
from services.classifier.explanation import Question
from services.classifier.heat_map import canvas, drawn
from services.classifier.labels import Label
from services.classifier.model import Answer, ClassifierModel, Loaded, Row
from services.classifier.network import Floats, Reading
from services.classifier.preprocessing import Fit, Pixels, Preprocessing, Size, Window
from services.classifier.request import (
    ClassifyRequest,
    EmbedRequest,
    ExplainRequest,
    FileFormat,
    Picture,
    ScoreRequest,
    check_answer_size,
    check_id,
    check_threshold,
    checked_top_k,
    readings,
)
from services.core.caller import Caller
from services.core.engine import Ticket, Timing
from services.core.fleet import Fleet, Member
from services.core.images import encode as encode_image
from services.core.pool import WorkerPool
from services.core.reference import ModelFiles

Result = TypeVar("Result")
Finish: TypeAlias = Callable[[Answer, Timing], Result]

# A 64 x 64 picture's pixels.
_QUICK_BYTES: Final = 64 * 64 * 3


@dataclass(slots=True)
class Classification:
    """``labels`` best first; ``model`` is the one that answered."""

    labels: tuple[Label, ...]
    model: ModelFiles
    timing: Timing


@dataclass(slots=True)
class Scores:
    """Of every output of the model, by index: [labels] each."""

    probabilities: Floats
    logits: Floats
    timing: Timing


@dataclass(slots=True)
class Embeddings:
    """One for each layer, in the order in which the request named them first."""

    embeddings: tuple[Embedding, ...]
    model: ModelFiles
    timing: Timing


@dataclass(slots=True)
class Explanation:
    """``relevance`` [rows, columns] of the patches for ``label``, adding up to 1; ``heat_map`` is
    an encoded picture, None unless asked for.
    """

    label: Label
    relevance: Floats
    heat_map: bytes | None
    model: ModelFiles
    timing: Timing


class Classifier:
    """The models of a fleet, each with the engine that runs it. All methods belong to their event
    loop.

    ``max_answer_bytes`` bounds the vectors of one answer.
    """

    def __init__(
        self,
        fleet: Fleet[ClassifierModel],
        pool: WorkerPool,
        *,
        max_answer_bytes: int = 16 * 2**20,
    ) -> None:
        self._fleet = fleet
        self._pool = pool
        self._max_answer_bytes = max_answer_bytes

    def classify(self, request: ClassifyRequest, caller: Caller) -> Awaitable[Classification]:
        """Raises ``InvalidInput``, what finding the model does, and what the engine and the pool
        refuse with, now or when awaited, which must be in the same turn of the loop, or a task be
        made of it there. A future, if preparing the picture needs no thread.
        """
        check_id(request.id)
        member = self._fleet.find(request.model, request.model_version)
        model = member.model.loaded
        top_k = checked_top_k(request.top_k, len(model.labels))
        check_threshold(request.threshold)
        among = model.labels.indices(request.labels)

        def finish(answer: Answer, timing: Timing) -> Classification:
            assert answer.logits is not None, "the head was asked for"
            labels = model.labels.best(
                answer.logits,
                top_k=top_k,
                threshold=request.threshold,
                among=among,
                with_logits=request.logits,
            )
            return Classification(labels, model.files, timing)

        return self._run(member, request.picture, request.fit, caller, finish, head=True)

    def score(self, request: ScoreRequest, caller: Caller) -> Awaitable[Scores]:
        """As ``classify``."""
        check_id(request.id)
        member = self._fleet.find(request.model, request.model_version)
        model = member.model.loaded

        def finish(answer: Answer, timing: Timing) -> Scores:
            assert answer.logits is not None, "the head was asked for"
            return Scores(model.labels.probabilities(answer.logits), answer.logits, timing)

        return self._run(member, request.picture, request.fit, caller, finish, head=True)

    def embed(self, request: EmbedRequest, caller: Caller) -> Awaitable[Embeddings]:
        """As ``classify``."""
        check_id(request.id)
        member = self._fleet.find(request.model, request.model_version)
        model = member.model.loaded
        wanted = readings(request, model.traits)
        check_answer_size(request, wanted, model.traits, self._max_answer_bytes)

        def finish(answer: Answer, timing: Timing) -> Embeddings:
            embeddings = tuple(
                encode(vector, reading, normalize=request.normalize, dtype=request.dtype)
                for vector, reading in zip(answer.vectors, wanted, strict=True)
            )
            return Embeddings(embeddings, model.files, timing)

        return self._run(member, request.picture, request.fit, caller, finish, readings=wanted)

    def choose(self, name: str, version: str) -> Loaded:
        """The model that would answer a request with these. Raises as ``Fleet.find``."""
        return self._fleet.find(name, version).model.loaded

    async def explain(self, request: ExplainRequest, caller: Caller) -> Explanation:
        """Raises as ``classify``, and ``FailedPrecondition`` for a model that cannot be explained.

        The first call loads what explains, within the memory budget.
        """
        check_id(request.id)
        member = self._fleet.find(request.model, request.model_version)
        model = member.model.loaded
        among = model.labels.indices((request.label,) if request.label else (), field="label")
        outputs = () if among is None else tuple(among.tolist())
        with member:
            await self._prepare_questions(member)
            started = member.used_at = time.perf_counter()
            preprocessing = model.traits.preprocessing
            sheet = await self._pool.run(_prepare_sheet, request, preprocessing)
            ticket: Ticket[Answer] = member.engine.submit(
                Row(sheet.pixels, question=Question(request.method, outputs)),
                tenant=caller.tenant,
                priority=caller.priority,
                deadline=caller.deadline,
            )
        ticket.timing.prepare_seconds = time.perf_counter() - started
        answer = await ticket.then(lambda answer: answer)
        assert answer.logits is not None, "a question is of the head"
        assert answer.relevance is not None, "a question was asked"
        started = time.perf_counter()
        (label,) = model.labels.best(answer.logits, top_k=1, among=among)
        heat_map = None
        if sheet.under is not None and request.overlay is not None:
            heat_map = await self._pool.run(
                _drawn, sheet.under, sheet.seen, answer.relevance, request.overlay
            )
        ticket.timing.finish_seconds = time.perf_counter() - started
        return Explanation(label, answer.relevance, heat_map, model.files, ticket.timing)

    async def _prepare_questions(self, member: Member[ClassifierModel]) -> None:
        model = member.model
        if model.bytes_for_questions == 0:
            return
        # Before others have to go for it.
        await asyncio.to_thread(model.check_questions)
        await self._fleet.enlarge(
            member, lambda: model.bytes_for_questions, model.prepare_questions
        )

    def _run(
        self,
        member: Member[ClassifierModel],
        picture: Picture,
        fit: Fit,
        caller: Caller,
        finish: Finish[Result],
        *,
        head: bool = False,
        readings: tuple[Reading, ...] = (),
    ) -> Awaitable[Result]:
        started = member.used_at = time.perf_counter()
        preprocessing = member.model.loaded.traits.preprocessing

        def submit(pixels: Pixels) -> asyncio.Future[Result]:
            prepare_seconds = time.perf_counter() - started
            ticket: Ticket[Answer] = member.engine.submit(
                Row(pixels, head, readings),
                tenant=caller.tenant,
                priority=caller.priority,
                deadline=caller.deadline,
            )
            ticket.timing.prepare_seconds = prepare_seconds
            return ticket.then(partial(_finished, finish, ticket.timing))

        if _is_quick(picture, preprocessing):
            return submit(_prepare(picture, preprocessing, fit))

        async def run() -> Result:
            with member:
                answer = submit(await self._pool.run(_prepare, picture, preprocessing, fit))
            return await answer

        return run()


def _finished(finish: Finish[Result], timing: Timing, answer: Answer) -> Result:
    started = time.perf_counter()
    result = finish(answer, timing)
    timing.finish_seconds = time.perf_counter() - started
    return result


def _is_quick(picture: Picture, preprocessing: Preprocessing) -> bool:
    """Whether preparing takes less time than the way to another thread and back."""
    if picture.quick_bytes is None:
        return False
    size = preprocessing.input
    return max(picture.quick_bytes, size.height * size.width * 3) <= _QUICK_BYTES


def _prepare(picture: Picture, preprocessing: Preprocessing, fit: Fit) -> Pixels:
    return preprocessing.prepare(picture.decode(), fit)


class _Sheet(NamedTuple):
    """What an explanation is computed from, and drawn on: ``under``, if it is to be drawn, of which
    ``pixels`` show what is ``seen``.
    """

    pixels: Pixels
    under: Image.Image | None
    seen: Window


def _prepare_sheet(request: ExplainRequest, preprocessing: Preprocessing) -> _Sheet:
    picture = request.picture.decode()
    pixels = preprocessing.prepare(picture, request.fit)
    height, width = picture.shape[:2] if isinstance(picture, np.ndarray) else picture.size[::-1]
    seen = preprocessing.window(Size(height, width), request.fit)
    if request.overlay is None:
        return _Sheet(pixels, None, seen)
    under = canvas(picture)
    return _Sheet(pixels, under, seen.scaled(under.width / width, under.height / height))


def _drawn(under: Image.Image, seen: Window, relevance: Floats, output: FileFormat) -> bytes:
    return encode_image(drawn(under, seen, relevance), output.name, quality=output.quality)
