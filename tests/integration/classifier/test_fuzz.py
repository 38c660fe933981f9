"""Whatever is sent, the answer is a result or the caller's fault, and nothing stays behind."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import grpc
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from easel.classifier.v1 import classifier_pb2 as pb
from easel.common.v1 import common_pb2
from easel.model.v1 import model_pb2
from services.classifier.service import ClassifierApp
from services.inference import open_inference_pb2 as oip
from services.inference.service import SERVICE
from tests.integration.classifier.pictures import BAD_FILES, picture
from tests.integration.classifier.server import fake_app
from tests.integration.serving import serving_in_thread
from tests.unit.classifier.fakes import LABELS, FakeExplainer, FakeNetwork

CALLERS_FAULT = {
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.UNIMPLEMENTED,
}
ITEM_CODES = {code.value[0] for code in CALLERS_FAULT} | {0}
QUICK = settings(
    max_examples=30,
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)

FILES = [picture(), *BAD_FILES.values()]
NUMBERS = st.sampled_from([0, 1, 2, 3, 4, 5, 7, 255, 2**16, 2**32 - 1])
ENUMS = st.sampled_from([0, 1, 2, 3, 9, 2**31 - 1])
RAW = st.builds(
    common_pb2.RawImage,
    data=st.binary(max_size=64),
    width=NUMBERS,
    height=NUMBERS,
    channels=NUMBERS,
    dtype=ENUMS,
    layout=ENUMS,
)
IMAGES = st.one_of(
    st.builds(common_pb2.Image, encoded=st.sampled_from(FILES)),
    st.builds(common_pb2.Image, encoded=st.binary(max_size=200)),
    st.builds(common_pb2.Image, raw=RAW),
)
TEXTS = st.one_of(st.just(""), st.text(max_size=140))
MODELS = st.sampled_from(["", "fake", "\x00", "../../etc"])
CLASSIFY = st.builds(
    pb.ClassifyRequest,
    id=TEXTS,
    image=IMAGES,
    model=MODELS,
    model_version=st.sampled_from(["", "1", "2"]),
    top_k=st.one_of(st.none(), NUMBERS),
    threshold=st.floats(width=32),
    labels=st.lists(st.one_of(st.sampled_from(LABELS), TEXTS), max_size=3),
    logits=st.booleans(),
    fit=ENUMS,
)
EMBED = st.builds(
    pb.EmbedRequest,
    id=TEXTS,
    image=IMAGES,
    model=MODELS,
    layers=st.lists(st.sampled_from([0, 1, 3, 4, -1, -4, -5, 2**31 - 1, -(2**31)]), max_size=4),
    pooling=ENUMS,
    normalize=st.booleans(),
    dtype=ENUMS,
    final_norm=st.one_of(st.none(), st.booleans()),
    fit=ENUMS,
)
EXPLAIN = st.builds(
    pb.ExplainRequest,
    id=TEXTS,
    image=IMAGES,
    model=MODELS,
    method=ENUMS,
    label=st.one_of(st.sampled_from(LABELS), TEXTS),
    overlay=st.booleans(),
    output=st.one_of(
        st.none(),
        st.builds(common_pb2.ImageOutput, format=ENUMS, quality=st.one_of(st.none(), NUMBERS)),
    ),
    fit=ENUMS,
)
NAMES = st.builds(model_pb2.GetModelRequest, name=TEXTS, version=TEXTS)
EMPTY = st.just(model_pb2.ListModelsRequest())

LENGTHS = st.sampled_from([-1, 0, 1, 2, 3, 8, 65, 2**40])
PARAMETERS = st.dictionaries(
    st.sampled_from(["classification", "priority", "fit", "shared_memory_region"]),
    st.one_of(
        st.builds(oip.InferParameter),
        st.builds(oip.InferParameter, int64_param=st.sampled_from([-1, 0, 1, 3, 22, 2**62])),
        st.builds(oip.InferParameter, string_param=st.sampled_from(["pad", "5"])),
    ),
    max_size=2,
)
CONTENTS = st.builds(
    oip.InferTensorContents,
    uint_contents=st.lists(st.sampled_from([0, 255, 256]), max_size=13),
    fp32_contents=st.lists(st.floats(width=32), max_size=3),
    bytes_contents=st.lists(st.sampled_from(FILES), max_size=2),
)
INFER = st.builds(
    oip.ModelInferRequest,
    model_name=MODELS,
    id=TEXTS,
    parameters=PARAMETERS,
    inputs=st.lists(
        st.builds(
            oip.ModelInferRequest.InferInputTensor,
            name=st.sampled_from(["image", "pixels"]),
            datatype=st.sampled_from(["UINT8", "FP32", "BYTES", "FP16", ""]),
            shape=st.lists(LENGTHS, max_size=4),
            contents=st.one_of(st.none(), CONTENTS),
        ),
        max_size=2,
    ),
    outputs=st.lists(
        st.builds(
            oip.ModelInferRequest.InferRequestedOutputTensor,
            name=st.sampled_from(["probabilities", "logits", ""]),
            parameters=PARAMETERS,
        ),
        max_size=2,
    ),
    raw_input_contents=st.lists(st.one_of(st.binary(max_size=40), st.just(bytes(12))), max_size=2),
)

CLASSIFIER = "/easel.classifier.v1.ClassifierService"
MODEL = "/easel.model.v1.ModelService"
UNARY = {
    f"{CLASSIFIER}/Classify": CLASSIFY,
    f"{CLASSIFIER}/Embed": EMBED,
    f"{CLASSIFIER}/Explain": EXPLAIN,
    f"{MODEL}/GetModel": NAMES,
    f"{MODEL}/ListModels": EMPTY,
    f"{MODEL}/LoadModel": EMPTY,
    f"/{SERVICE}/ModelInfer": INFER,
    f"/{SERVICE}/ModelReady": st.builds(oip.ModelReadyRequest, name=TEXTS, version=TEXTS),
    f"/{SERVICE}/ModelStatistics": st.builds(oip.ModelStatisticsRequest, name=TEXTS),
}
STREAMS: dict[str, tuple[st.SearchStrategy[Any], Any]] = {
    f"{CLASSIFIER}/ClassifyStream": (CLASSIFY, pb.ClassifyResponse),
    f"{CLASSIFIER}/EmbedStream": (EMBED, pb.EmbedResponse),
}
JUNK = st.binary(max_size=300)


@pytest.fixture(scope="module")
def app() -> ClassifierApp:
    return fake_app(FakeNetwork(), FakeExplainer())


@pytest.fixture(scope="module")
def channel(app: ClassifierApp) -> Iterator[grpc.Channel]:
    with serving_in_thread(app) as channel:
        yield channel
        assert app.engine.report().rows == 0


def code_of(call: Callable[[], object]) -> grpc.StatusCode:
    try:
        call()
    except grpc.RpcError as error:
        return error.code()
    return grpc.StatusCode.OK


@pytest.mark.parametrize("method", UNARY)
@QUICK
@given(data=st.data())
def test_unary_calls(channel: grpc.Channel, method: str, data: st.DataObject) -> None:
    message = data.draw(st.one_of(UNARY[method].map(lambda m: m.SerializeToString()), JUNK))
    call: Any = channel.unary_unary(method)
    code = code_of(lambda: call(message, timeout=30))
    assert code in {grpc.StatusCode.OK, *CALLERS_FAULT}


@pytest.mark.parametrize("method", STREAMS)
@QUICK
@given(data=st.data())
def test_streams_of_messages(channel: grpc.Channel, method: str, data: st.DataObject) -> None:
    requests, response = STREAMS[method]
    messages = data.draw(st.lists(requests, max_size=5))
    answers = [
        response.FromString(answer)
        for answer in _answers(channel, method, [m.SerializeToString() for m in messages])
    ]
    assert sorted(answer.id for answer in answers) == sorted(m.id[:128] for m in messages)
    assert {answer.error.code for answer in answers} <= ITEM_CODES


@QUICK
@given(messages=st.lists(INFER, max_size=5))
def test_streams_of_tensors(channel: grpc.Channel, messages: list[oip.ModelInferRequest]) -> None:
    found = _answers(
        channel, f"/{SERVICE}/ModelStreamInfer", [m.SerializeToString() for m in messages]
    )
    answers = [oip.ModelStreamInferResponse.FromString(answer) for answer in found]
    assert [answer.infer_response.id for answer in answers] == [m.id[:128] for m in messages]
    assert not [answer for answer in answers if "Internal error" in answer.error_message]


@pytest.mark.parametrize("method", [*STREAMS, f"/{SERVICE}/ModelStreamInfer"])
@QUICK
@given(messages=st.lists(JUNK, max_size=3))
def test_streams_of_bytes(channel: grpc.Channel, method: str, messages: list[bytes]) -> None:
    code = code_of(lambda: _answers(channel, method, messages))
    assert code in {grpc.StatusCode.OK, grpc.StatusCode.INVALID_ARGUMENT}


def _answers(channel: grpc.Channel, method: str, messages: Sequence[bytes]) -> list[bytes]:
    call: Any = channel.stream_stream(method)
    return list(call(iter(messages), timeout=30))
