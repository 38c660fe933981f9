"""The clients of the model services, over calls made for the test."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import grpc
import numpy as np
import pytest

from easel.classifier.v1 import classifier_pb2
from easel.common.v1 import common_pb2
from easel.generator.v1 import generator_pb2
from ranker.pictures.events import Broken, News
from ranker.pictures.upstream import (
    MAX_RETRY_SECONDS,
    ClassifierClient,
    GeneratorClient,
    GeneratorModel,
    GeneratorStream,
    PictureSight,
)
from services.core.errors import EaselError, InvalidInput, ModelFault, Overloaded
from services.core.server.status import status_code, status_metadata, to_status

MODEL = GeneratorModel(common_pb2.ModelRef(), default_steps=10, max_count=2)


def rpc_error(error: EaselError) -> grpc.aio.AioRpcError:
    trailing = grpc.aio.Metadata(*status_metadata(to_status(error, "id-1"), "id-1"))
    return grpc.aio.AioRpcError(status_code(error), grpc.aio.Metadata(), trailing, error.message)


class FakeCall:
    """A stream that takes ``room`` writes, tells ``events``, and turns out to have ended with
    ``error``."""

    def __init__(
        self, room: int, error: EaselError, events: Sequence[generator_pb2.GenerateEvent] = ()
    ) -> None:
        self.writes = 0
        self._room = room
        self._error = error
        self._events = list(events)

    async def write(self, message: object) -> None:
        if self.writes == self._room:
            raise asyncio.InvalidStateError("the call is over")
        self.writes += 1

    async def read(self) -> object:
        if self._events:
            return self._events.pop(0)
        raise rpc_error(self._error)


class FakeChannel:
    """Every stream is ``call``; every other call answers, or raises, the next of ``answers``."""

    def __init__(self, call: FakeCall | None = None, answers: Sequence[object] = ()) -> None:
        self._call = call
        self._answers = list(answers)

    def unary_unary(self, *_: object, **__: object) -> Any:
        return self._answer

    def stream_stream(self, *_: object, **__: object) -> Any:
        return lambda: self._call

    unary_stream = stream_unary = stream_stream

    async def _answer(self, request: object) -> object:
        answer = self._answers.pop(0)
        if isinstance(answer, EaselError):
            raise rpc_error(answer)
        return answer


async def news_of(call: FakeCall, candidates: int) -> list[News]:
    channel: Any = FakeChannel(call)
    request = generator_pb2.GenerateRequest(count=candidates)
    found: list[News] = []
    with pytest.raises(Overloaded, match="generator"):
        await collect(GeneratorClient(channel).open(request, MODEL), found)
    return found


async def collect(stream: GeneratorStream, found: list[News]) -> None:
    async for news in stream.news():
        found.append(news)


@pytest.mark.parametrize("room", [0, 1, 3])
async def test_a_call_that_ends_while_it_is_written_to_tells_why(room: int) -> None:
    call = FakeCall(room, Overloaded(7.0))
    assert await news_of(call, candidates=6) == []
    assert call.writes == room


async def test_a_refused_action_is_logged_and_no_candidate_fails_of_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    refused = common_pb2.ItemError(code=5, message="There is no such request.")
    event = generator_pb2.GenerateEvent(id="candidates-0", refused=refused)
    assert await news_of(FakeCall(1, Overloaded(7.0), [event]), candidates=1) == []
    assert "no such request" in caplog.text


async def test_events_of_an_unknown_kind_are_passed_over() -> None:
    event = generator_pb2.GenerateEvent(id="candidates-0")
    event.MergeFromString(b"\xfa\x3f\x00")  # field 1023
    assert await news_of(FakeCall(1, Overloaded(7.0), [event]), candidates=1) == []


class Clock:
    def __init__(self) -> None:
        self.slept: list[float] = []

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)


ANSWER = classifier_pb2.ClassifyResponse(labels=[common_pb2.Label(index=0, logit=1.0)])


@pytest.mark.parametrize(("asked", "slept"), [(0.25, 0.25), (60.0, MAX_RETRY_SECONDS)])
async def test_a_busy_classifier_is_asked_once_more(asked: float, slept: float) -> None:
    clock = Clock()
    channel: Any = FakeChannel(answers=[Overloaded(asked), ANSWER])
    client = ClassifierClient(channel, clock.sleep)
    assert list(await client.classify(common_pb2.Image(), "", 1)) == list(ANSWER.labels)
    assert clock.slept == pytest.approx([slept])


async def test_a_classifier_that_stays_busy_is_not_asked_for_ever() -> None:
    clock = Clock()
    channel: Any = FakeChannel(answers=[Overloaded(0.5), Overloaded(0.5), ANSWER])
    with pytest.raises(Overloaded):
        await ClassifierClient(channel, clock.sleep).classify(common_pb2.Image(), "", 1)
    assert len(clock.slept) == 1


async def test_a_blocked_candidate_is_broken_and_says_so() -> None:
    name = "candidates-0"
    events = [
        generator_pb2.GenerateEvent(id=name, index=0, admitted=generator_pb2.Admitted()),
        generator_pb2.GenerateEvent(id=name, index=1, admitted=generator_pb2.Admitted()),
        generator_pb2.GenerateEvent(
            id=name, index=1, blocked=generator_pb2.Blocked(reason="unsafe")
        ),
    ]
    *_, broken = await news_of(FakeCall(1, Overloaded(7.0), events), candidates=2)
    assert isinstance(broken, Broken)
    assert (broken.index, broken.error.reason) == (1, "BLOCKED")
    assert "unsafe" in broken.error.message


# ---- embeddings, and pictures as judges look at them ----


def embedded(*values: float, **fields: Any) -> classifier_pb2.EmbedResponse:
    data = np.asarray(values, "<f4").tobytes()
    told = {"dtype": classifier_pb2.EMBEDDING_DTYPE_FLOAT32, "data": data, **fields}
    return classifier_pb2.EmbedResponse(embeddings=[classifier_pb2.Embedding(**told)])


async def test_a_busy_classifier_is_asked_once_more_for_an_embedding() -> None:
    clock = Clock()
    channel: Any = FakeChannel(answers=[Overloaded(0.25), embedded(0.6, 0.8)])
    client = ClassifierClient(channel, clock.sleep)
    np.testing.assert_allclose(await client.embed(common_pb2.Image(), "", -1), [0.6, 0.8])
    assert clock.slept == pytest.approx([0.25])


@pytest.mark.parametrize(
    "answer",
    [
        classifier_pb2.EmbedResponse(),
        embedded(),
        embedded(1.0, float("nan")),
        embedded(1.0, dtype=classifier_pb2.EMBEDDING_DTYPE_FLOAT16),
    ],
)
async def test_embeddings_that_cannot_be_used(answer: classifier_pb2.EmbedResponse) -> None:
    channel: Any = FakeChannel(answers=[answer])
    with pytest.raises(ModelFault):
        await ClassifierClient(channel).embed(common_pb2.Image(), "", -1)


def sight(answers: Sequence[object], image: common_pb2.Image | None = None) -> PictureSight:
    async def run(work: Any, *given: Any) -> Any:
        return work(*given)

    channel: Any = FakeChannel(answers=answers)
    shown = image or common_pb2.Image()
    return PictureSight(shown, ClassifierClient(channel), {"": 1, "m": 1}, run, "images[3].image")


async def test_each_question_is_asked_once_however_many_ask_it() -> None:
    other = classifier_pb2.ClassifyResponse(labels=[common_pb2.Label(index=0, logit=2.0)])
    looked = sight([ANSWER, other, embedded(1.0), embedded(0.5)])
    first, again = await asyncio.gather(looked.classified(""), looked.classified(""))
    assert first is again
    assert first.logits == (1.0,)
    assert (await looked.classified("m")).logits == (2.0,)
    assert await looked.embedding("", -1) is await looked.embedding("", -1)
    assert (await looked.embedding("", 2)).tolist() == [0.5]


async def test_pixels_of_raw_pictures_and_of_none() -> None:
    raw = common_pb2.RawImage(data=bytes(range(12)), width=2, height=2, channels=3)
    looked = sight([], common_pb2.Image(raw=raw))
    found = await looked.pixels()
    assert found.dtype == np.uint8
    assert found.reshape(-1).tolist() == list(range(12))
    assert await looked.pixels() is found
    with pytest.raises(InvalidInput) as caught:
        await sight([]).pixels()
    assert caught.value.field == "images[3].image"
