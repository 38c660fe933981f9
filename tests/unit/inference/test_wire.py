"""Messages to plain values and back; what does not go together."""

from __future__ import annotations

import pytest

from services.core.card import ModelState
from services.core.engine import Timing
from services.core.errors import InvalidInput
from services.inference import open_inference_pb2 as pb
from services.inference.model import Inference, ModelDescription, OutputRequest
from services.inference.statistics import Statistics
from services.inference.tensors import BYTES, FP32, UINT8, OutputTensor, TensorSpec
from services.inference.wire import (
    MAX_TENSORS,
    config_to_pb,
    index_to_pb,
    metadata_to_pb,
    request_from_pb,
    response_to_pb,
    statistics_to_pb,
)

Input = pb.ModelInferRequest.InferInputTensor
Output = pb.ModelInferRequest.InferRequestedOutputTensor
MODEL = ModelDescription(
    name="m",
    version="1",
    state=ModelState.READY,
    backend="fake",
    max_batch=8,
    inputs=[
        TensorSpec("image", UINT8, (-1, 4, 4, 3), "NHWC"),
        TensorSpec("text", BYTES, (-1, 1)),
    ],
    outputs=[TensorSpec("scores", FP32, (-1, 5))],
    device="cuda:1",
    bytes_in_memory=9,
    queue_delay_seconds=0.25,
    parameters={"digest": "sha256:00"},
)


def request(*inputs: Input, raw: list[bytes] | None = None) -> pb.ModelInferRequest:
    return pb.ModelInferRequest(inputs=inputs, raw_input_contents=raw or [])


def image(datatype: str = UINT8, contents: pb.InferTensorContents | None = None) -> Input:
    return Input(name="image", datatype=datatype, shape=[1, 2], contents=contents)


def refused(message: pb.ModelInferRequest) -> InvalidInput:
    with pytest.raises(InvalidInput) as caught:
        request_from_pb(message)
    return caught.value


def test_a_request_with_raw_contents() -> None:
    message = request(image(), image(FP32), raw=[b"ab", b"cd"])
    message.id, message.model_name, message.model_version = "i", "m", "2"
    message.parameters["fit"].string_param = "pad"
    message.parameters["timeout"].int64_param = 5
    message.parameters["scale"].double_param = 0.5
    message.parameters["priority"].uint64_param = 1
    message.parameters["deep"].bool_param = True
    message.outputs.add(name="scores").parameters["classification"].int64_param = 3
    message.outputs.add(name="logits")
    asked = request_from_pb(message)
    assert (asked.id, asked.model, asked.version) == ("i", "m", "2")
    assert [tensor.values for tensor in asked.inputs] == [b"ab", b"cd"]
    assert [tensor.values_field for tensor in asked.inputs] == [
        "raw_input_contents[0]",
        "raw_input_contents[1]",
    ]
    assert asked.inputs[1].shape == (1, 2)
    assert asked.outputs == [
        OutputRequest("scores", 3, "outputs[0]"),
        OutputRequest("logits", 0, "outputs[1]"),
    ]
    assert asked.parameters == {
        "fit": "pad",
        "timeout": 5,
        "scale": 0.5,
        "priority": 1,
        "deep": True,
    }


@pytest.mark.parametrize(
    ("datatype", "contents", "values"),
    [
        (UINT8, pb.InferTensorContents(uint_contents=[1, 2]), [1, 2]),
        (FP32, pb.InferTensorContents(fp32_contents=[0.5, 1]), [0.5, 1.0]),
        (BYTES, pb.InferTensorContents(bytes_contents=[b"a", b"b"]), [b"a", b"b"]),
        ("INT8", pb.InferTensorContents(int_contents=[-1, 2]), [-1, 2]),
        (UINT8, None, []),
    ],
)
def test_typed_contents(
    datatype: str, contents: pb.InferTensorContents | None, values: list[object]
) -> None:
    (tensor,) = request_from_pb(request(image(datatype, contents))).inputs
    assert list(tensor.values) == values
    assert tensor.typed
    assert tensor.values_field.startswith("inputs[0].contents.")


UINTS = pb.InferTensorContents(uint_contents=[1, 2])


@pytest.mark.parametrize(
    ("message", "field"),
    [
        (request(image(), raw=[b"", b""]), "raw_input_contents"),
        (request(image(), image(), raw=[b""]), "raw_input_contents"),
        (request(raw=[b""]), "raw_input_contents"),
        (request(image(contents=UINTS), raw=[b"ab"]), "inputs[0].contents"),
        (request(image(FP32, UINTS)), "inputs[0].contents.uint_contents"),
        (request(image("FP16", UINTS)), "inputs[0].contents"),
        (request(image("FLOAT", UINTS)), "inputs[0].datatype"),
        (
            request(
                Input(parameters={"shared_memory_region": pb.InferParameter(string_param="x")})
            ),
            "inputs[0].parameters.shared_memory_region",
        ),
        (request(Input(shape=[1] * 17)), "inputs[0].shape"),
        (request(*[image()] * (MAX_TENSORS + 1)), "inputs"),
        (pb.ModelInferRequest(outputs=[Output()] * (MAX_TENSORS + 1)), "outputs"),
        (pb.ModelInferRequest(parameters={"x": pb.InferParameter()}), "parameters.x"),
        (
            pb.ModelInferRequest(
                parameters={
                    str(number): pb.InferParameter(bool_param=True)
                    for number in range(MAX_TENSORS + 1)
                }
            ),
            "parameters",
        ),
        (
            pb.ModelInferRequest(outputs=[Output(parameters={"binary": pb.InferParameter()})]),
            "outputs[0].parameters.binary",
        ),
    ],
)
def test_what_does_not_go_together(message: pb.ModelInferRequest, field: str) -> None:
    assert refused(message).field == field


def test_as_many_tensors_as_are_read() -> None:
    assert len(request_from_pb(request(*[image()] * MAX_TENSORS)).inputs) == MAX_TENSORS


def test_a_response() -> None:
    outputs = [OutputTensor("scores", FP32, (1, 1), b"abcd"), OutputTensor("x", BYTES, (2,), b"")]
    response = response_to_pb("i", Inference("m", "1", outputs, ()))
    assert (response.id, response.model_name, response.model_version) == ("i", "m", "1")
    assert [(output.name, output.datatype) for output in response.outputs] == [
        ("scores", FP32),
        ("x", BYTES),
    ]
    assert list(response.outputs[1].shape) == [2]
    assert list(response.raw_output_contents) == [b"abcd", b""]


def test_metadata() -> None:
    message = metadata_to_pb(MODEL, ["1", "2"])
    assert (message.name, list(message.versions), message.platform) == ("m", ["1", "2"], "fake")
    assert list(message.inputs[0].shape) == [-1, 4, 4, 3]
    assert [tensor.datatype for tensor in (*message.inputs, *message.outputs)] == [
        UINT8,
        BYTES,
        FP32,
    ]


def test_config() -> None:
    config = config_to_pb(MODEL)
    assert (config.name, config.backend, config.max_batch_size) == ("m", "fake", 8)
    assert [tensor.data_type for tensor in config.input] == [pb.TYPE_UINT8, pb.TYPE_STRING]
    assert [tensor.format for tensor in config.input] == [
        pb.ModelInput.FORMAT_NHWC,
        pb.ModelInput.FORMAT_NONE,
    ]
    # Without the batch.
    assert list(config.input[0].dims) == [4, 4, 3]
    assert list(config.output[0].dims) == [5]
    assert config.dynamic_batching.max_queue_delay_microseconds == 250_000
    assert config.dynamic_batching.priority_levels == 21
    assert config.parameters["digest"].string_value == "sha256:00"


def test_statistics() -> None:
    statistics = Statistics(now=lambda: 1.5)
    timings = [Timing(0.1, 0.2, 0.3, 0.4, 2, 1)] * 2
    statistics.succeeded(Inference("m", "1", (), timings), 1.0)
    statistics.failed(MODEL, 2.0)
    message = statistics_to_pb(MODEL, statistics.of(MODEL))
    assert (message.inference_count, message.execution_count) == (2, 1)
    assert message.last_inference == 1500
    found = message.inference_stats
    assert (found.success.count, found.success.ns) == (1, 10**9)
    assert (found.fail.count, found.fail.ns) == (1, 2 * 10**9)
    assert found.queue.ns == 10**8
    assert (found.compute_infer.count, found.compute_infer.ns) == (1, 3 * 10**8)
    (batch,) = message.batch_stats
    assert (batch.batch_size, batch.compute_infer.count, batch.compute_infer.ns) == (
        2,
        1,
        3 * 10**8,
    )
    (memory,) = message.memory_usage
    assert (memory.type, memory.id, memory.byte_size) == ("GPU", 1, 9)


STATES: dict[ModelState, str] = {
    ModelState.READY: "READY",
    ModelState.LOADING: "LOADING",
    ModelState.WARMING_UP: "LOADING",
    ModelState.UNLOADING: "UNLOADING",
    ModelState.UNLOADED: "UNAVAILABLE",
    ModelState.FAILED: "UNAVAILABLE",
}


@pytest.mark.parametrize("state", ModelState)
def test_every_state_has_its_name(state: ModelState) -> None:
    described = ModelDescription("m", "1", state, "fake", 8, (), (), reason="why")
    message = index_to_pb(described)
    assert (message.name, message.version, message.reason) == ("m", "1", "why")
    assert message.state == STATES[state]


def test_nothing_is_said_of_parts_that_are_not_served() -> None:
    """Whoever calls them is told so by the server; see the integration tests."""
    service = pb.DESCRIPTOR.services_by_name["GRPCInferenceService"]
    names = {method.name for method in service.methods}
    assert not [name for name in names if "Load" in name or "SharedMemory" in name]
