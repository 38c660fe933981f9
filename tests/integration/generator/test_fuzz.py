"""Whatever is sent, the answer is events or the caller's fault, and nothing stays behind."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import grpc
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from easel.common.v1 import common_pb2
from easel.generator.v1 import generator_pb2 as pb
from easel.model.v1 import model_pb2
from services.generator.service import GeneratorApp
from tests.integration.generator.server import fake_app
from tests.integration.serving import serving_in_thread
from tests.unit.generator.fakes import FakeNetwork

CALLERS_FAULT = {
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.UNIMPLEMENTED,
}
ITEM_CODES = {code.value[0] for code in (*CALLERS_FAULT, grpc.StatusCode.RESOURCE_EXHAUSTED)}
QUICK = settings(
    max_examples=25,
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)

SMALL = st.sampled_from([0, 1, 2, 3, 8, 32, 33, 2**31, 2**32 - 1])
ENUMS = st.sampled_from([0, 0, 1, 2, 3, 9, 2**31 - 1, -1])
MARKED = st.text(alphabet="a ()[]<>\\\\:1.,", max_size=40)
TEXTS = st.one_of(st.just(""), st.just("a star"), st.text(max_size=140), MARKED)
SEEDS = st.sampled_from([0, 1, 2**63, 2**64 - 1])
OUTPUTS = st.builds(common_pb2.ImageOutput, format=ENUMS, quality=st.one_of(st.none(), SMALL))
PREVIEWS = st.builds(
    pb.Preview,
    every=SMALL,
    at_steps=st.lists(SMALL, max_size=3),
    method=ENUMS,
    output=OUTPUTS,
)
PLAIN = st.builds(
    pb.GenerateRequest,
    id=TEXTS,
    prompt=TEXTS,
    negative_prompt=TEXTS,
    steps=st.sampled_from([1, 2, 3]),
    guidance_scale=st.sampled_from([0.0, 1.0, 7.5]),
    sampler=st.sampled_from(range(15)),
    count=st.sampled_from([0, 1, 3]),
    seed=SEEDS,
)
WILD = st.builds(
    pb.GenerateRequest,
    id=TEXTS,
    model=st.sampled_from(["", "fake", "\x00", "../../etc"]),
    prompt=TEXTS,
    negative_prompt=TEXTS,
    width=SMALL,
    height=SMALL,
    steps=st.one_of(st.none(), SMALL),
    guidance_scale=st.one_of(st.none(), st.floats(width=32)),
    guidance_rescale=st.one_of(st.just(0.0), st.floats(width=32)),
    sampler=ENUMS,
    seed=st.one_of(st.none(), SEEDS),
    seeds=st.lists(SEEDS, max_size=3),
    count=SMALL,
    preview=st.one_of(st.none(), PREVIEWS),
    output=st.one_of(st.none(), OUTPUTS),
    long_prompt=ENUMS,
    prompt_weighting=st.booleans(),
    clip_skip=SMALL,
    reproducibility=ENUMS,
    cache_interval=st.sampled_from([0, 1, 2]),
    omit_steps=st.booleans(),
    omit_metadata=st.booleans(),
    in_step=st.booleans(),
)
REQUESTS = st.one_of(PLAIN, WILD)
INDICES = st.lists(SMALL, max_size=3)
ACTIONS = st.one_of(
    st.builds(pb.GenerateStreamRequest, submit=REQUESTS),
    st.builds(pb.GenerateStreamRequest, cancel=st.builds(pb.Cancel, id=TEXTS, indices=INDICES)),
    st.builds(
        pb.GenerateStreamRequest, keep_only=st.builds(pb.KeepOnly, id=TEXTS, indices=INDICES)
    ),
    st.just(pb.GenerateStreamRequest()),
)
JUNK = st.binary(max_size=300)
GENERATOR = "/easel.generator.v1.GeneratorService"
MODEL = "/easel.model.v1.ModelService"
UNARY: dict[str, st.SearchStrategy[Any]] = {
    f"{GENERATOR}/Verify": st.just(pb.VerifyRequest()),
    f"{MODEL}/GetModel": st.builds(model_pb2.GetModelRequest, name=TEXTS, version=TEXTS),
    f"{MODEL}/ListModels": st.just(model_pb2.ListModelsRequest()),
}


@pytest.fixture(scope="module")
def app() -> GeneratorApp:
    return fake_app(FakeNetwork())


@pytest.fixture(scope="module")
def channel(app: GeneratorApp) -> Iterator[grpc.Channel]:
    with serving_in_thread(app) as channel:
        yield channel
        assert app.engine.report().rows == 0


def code_of(call: Callable[[], object]) -> grpc.StatusCode:
    try:
        call()
    except grpc.RpcError as error:
        return error.code()
    return grpc.StatusCode.OK


@QUICK
@given(data=st.data())
def test_generate(channel: grpc.Channel, data: st.DataObject) -> None:
    message = data.draw(st.one_of(REQUESTS.map(lambda m: m.SerializeToString()), JUNK))
    call: Any = channel.unary_stream(f"{GENERATOR}/Generate")
    code = code_of(lambda: list(call(message, timeout=60)))
    assert code in {grpc.StatusCode.OK, *CALLERS_FAULT}


@pytest.mark.parametrize("method", UNARY)
@QUICK
@given(data=st.data())
def test_unary_calls(channel: grpc.Channel, method: str, data: st.DataObject) -> None:
    message = data.draw(st.one_of(UNARY[method].map(lambda m: m.SerializeToString()), JUNK))
    call: Any = channel.unary_unary(method)
    assert code_of(lambda: call(message, timeout=60)) in {grpc.StatusCode.OK, *CALLERS_FAULT}


@QUICK
@given(actions=st.lists(ACTIONS, max_size=6))
def test_streams_of_messages(
    channel: grpc.Channel, actions: list[pb.GenerateStreamRequest]
) -> None:
    answers = _answers(channel, [action.SerializeToString() for action in actions])
    failed = {event.failed.code for event in answers if event.HasField("failed")}
    assert failed <= ITEM_CODES


@QUICK
@given(messages=st.lists(JUNK, max_size=3))
def test_streams_of_bytes(channel: grpc.Channel, messages: list[bytes]) -> None:
    code = code_of(lambda: _answers(channel, messages))
    assert code in {grpc.StatusCode.OK, grpc.StatusCode.INVALID_ARGUMENT}


def _answers(channel: grpc.Channel, messages: Sequence[bytes]) -> list[pb.GenerateEvent]:
    call: Any = channel.stream_stream(f"{GENERATOR}/GenerateStream")
    return [pb.GenerateEvent.FromString(data) for data in call(iter(messages), timeout=60)]
