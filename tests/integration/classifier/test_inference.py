"""The Open Inference Protocol on a running classifier, spoken with our own copy of its contract."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Sequence
from typing import Any

import grpc
import numpy as np
import numpy.typing as npt
import pytest
import pytest_asyncio
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

import easel
from services.classifier.service import ClassifierApp
from services.core.server.app import Address, serve
from services.inference import open_inference_pb2 as pb
from services.inference import open_inference_pb2_grpc as pb_grpc
from services.inference.service import SERVICE
from tests.integration.classifier.pictures import BAD_FILES, picture
from tests.integration.classifier.server import fake_app
from tests.integration.serving import serving
from tests.unit.classifier.fakes import LABELS, FakeNetwork, until

RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)


class Service:
    """A running classifier; ``gate`` holds every batch back while it is clear."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.gate.set()
        self.network = FakeNetwork(gate=self.gate)
        self.app: ClassifierApp = fake_app(
            self.network, max_in_flight=4, max_batch_rows=8, max_image_side=64
        )
        self.channel: grpc.aio.Channel
        self.stub: Any

    @property
    def rows(self) -> int:
        return self.app.engine.report().rows


@pytest_asyncio.fixture
async def service() -> AsyncIterator[Service]:
    service = Service()
    async with serving(service.app) as channel:
        service.channel = channel
        service.stub = pb_grpc.GRPCInferenceServiceStub(channel)
        yield service
        service.gate.set()
        await until(lambda: service.rows == 0)


def pixels(*colours: tuple[int, int, int], size: int = 8) -> npt.NDArray[np.uint8]:
    batch = np.empty((len(colours), size, size, 3), np.uint8)
    batch[:] = np.array(colours, np.uint8)[:, None, None, :]
    return batch


def request(
    batch: npt.NDArray[np.uint8] | None = None, *, id: str = "", **classes: int
) -> pb.ModelInferRequest:
    batch = pixels(GREEN) if batch is None else batch
    message = pb.ModelInferRequest(model_name="fake", id=id, raw_input_contents=[batch.tobytes()])
    message.inputs.add(name="image", datatype="UINT8", shape=batch.shape)
    for name, count in classes.items():
        message.outputs.add(name=name).parameters["classification"].int64_param = count
    return message


def files(*data: bytes) -> pb.ModelInferRequest:
    message = pb.ModelInferRequest(model_name="fake")
    contents = pb.InferTensorContents(bytes_contents=data)
    message.inputs.add(name="image", datatype="BYTES", shape=[len(data)], contents=contents)
    return message


def array(response: pb.ModelInferResponse, name: str) -> npt.NDArray[np.float32]:
    index = [output.name for output in response.outputs].index(name)
    data = response.raw_output_contents[index]
    return np.frombuffer(data, "<f4").reshape(response.outputs[index].shape)


async def refusal(call: Any) -> tuple[grpc.StatusCode, str]:
    """The status a call ends with, and the field that it names."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    packed = dict(caught.value.trailing_metadata() or ())["grpc-status-details-bin"]
    for detail in status_pb2.Status.FromString(packed).details:
        bad = error_details_pb2.BadRequest()
        if detail.Unpack(bad):
            return caught.value.code(), bad.field_violations[0].field
    return caught.value.code(), ""


async def test_a_server_that_is_up(service: Service) -> None:
    assert (await service.stub.ServerLive(pb.ServerLiveRequest())).live
    assert (await service.stub.ServerReady(pb.ServerReadyRequest())).ready
    for name, version, ready in (
        ("fake", "", True),
        ("fake", "1", True),
        ("fake", "2", False),
        ("other", "", False),
    ):
        asked = pb.ModelReadyRequest(name=name, version=version)
        assert (await service.stub.ModelReady(asked)).ready == ready
    metadata = await service.stub.ServerMetadata(pb.ServerMetadataRequest())
    assert (metadata.name, metadata.version) == ("easel", easel.__version__)
    assert "classification" in metadata.extensions


async def test_liveness_and_readiness_over_a_life() -> None:
    """Both are answered while everything else is refused."""
    gate = threading.Event()
    app = fake_app(FakeNetwork(gate=gate), drain_notice_seconds=60.0)
    stop, at_once = asyncio.Event(), asyncio.Event()
    opened: asyncio.Future[Address] = asyncio.get_running_loop().create_future()
    done = asyncio.ensure_future(serve(app, stop=stop, at_once=at_once, opened=opened.set_result))
    address = await opened
    async with grpc.aio.insecure_channel(address.target) as channel:
        stub: Any = pb_grpc.GRPCInferenceServiceStub(channel)
        assert await _state(stub) == (True, False, False)
        code, _ = await refusal(stub.ModelMetadata(pb.ModelMetadataRequest(name="fake")))
        assert code is grpc.StatusCode.UNAVAILABLE
        gate.set()
        while await _state(stub) != (True, True, True):
            pass
        stop.set()
        # Calls are still served during the notice, but no new ones should come.
        while await _state(stub) != (True, False, False):
            pass
        at_once.set()
    assert await done == 1


async def _state(stub: Any) -> tuple[bool, bool, bool]:
    live = await stub.ServerLive(pb.ServerLiveRequest())
    ready = await stub.ServerReady(pb.ServerReadyRequest())
    model = await stub.ModelReady(pb.ModelReadyRequest(name="fake"))
    return live.live, ready.ready, model.ready


async def test_health_and_reflection_know_it(service: Service) -> None:
    health: Any = health_pb2_grpc.HealthStub(service.channel)
    answer = await health.Check(health_pb2.HealthCheckRequest(service=SERVICE))
    assert answer.status == health_pb2.HealthCheckResponse.SERVING
    reflection: Any = reflection_pb2_grpc.ServerReflectionStub(service.channel)
    asked = reflection_pb2.ServerReflectionRequest(file_containing_symbol=SERVICE)
    async for response in reflection.ServerReflectionInfo(iter([asked])):
        assert response.file_descriptor_response.file_descriptor_proto


async def test_metadata_and_config_agree(service: Service) -> None:
    metadata = await service.stub.ModelMetadata(pb.ModelMetadataRequest(name="fake"))
    asked = pb.ModelConfigRequest(name="fake", version="1")
    config = (await service.stub.ModelConfig(asked)).config
    assert list(metadata.versions) == ["1"]
    assert config.max_batch_size == 8
    for tensors, described in (
        (config.input, metadata.inputs),
        (config.output, metadata.outputs),
    ):
        for tensor, spec in zip(tensors, described, strict=True):
            assert tensor.name == spec.name
            assert [-1, *tensor.dims] == list(spec.shape)


@pytest.mark.parametrize("method", ["ModelMetadata", "ModelConfig", "ModelStatistics"])
async def test_a_model_that_is_not_there(service: Service, method: str) -> None:
    asked = getattr(pb, f"{method}Request")
    for name, version in (("other", ""), ("fake", "2")):
        call = getattr(service.stub, method)(asked(name=name, version=version))
        assert await refusal(call) == (grpc.StatusCode.NOT_FOUND, "")


async def test_all_scores_of_a_batch(service: Service) -> None:
    response = await service.stub.ModelInfer(request(pixels(RED, BLUE), id="a"))
    assert (response.id, response.model_name, response.model_version) == ("a", "fake", "1")
    logits, probabilities = array(response, "logits"), array(response, "probabilities")
    assert logits.tolist() == [[1, 0, 0, -1, -2], [0, 0, 1, -1, -2]]
    powers = np.exp(logits)
    assert probabilities == pytest.approx(powers / powers.sum(axis=1, keepdims=True))


async def test_every_form_of_a_picture(service: Service) -> None:
    """Raw and typed, pixels and files; of another size than the model's."""
    batch = pixels(BLUE, size=16)
    planes = np.ascontiguousarray(batch.transpose(0, 3, 1, 2) / np.float32(255), "<f4")
    typed = request(batch)
    del typed.raw_input_contents[:]
    typed.inputs[0].contents.uint_contents.extend(batch.ravel().tolist())
    floats = pb.ModelInferRequest(model_name="fake", raw_input_contents=[planes.tobytes()])
    floats.inputs.add(name="image", datatype="FP32", shape=planes.shape)
    forms = [request(batch), typed, floats, files(picture("blue"))]
    answers = [await service.stub.ModelInfer(form) for form in forms]
    for answer in answers:
        assert array(answer, "logits").tolist() == [[0, 0, 1, -1, -2]]


async def test_the_best_classes(service: Service) -> None:
    asked = request(pixels(RED, BLUE), probabilities=2, logits=1)
    response = await service.stub.ModelInfer(asked)
    assert [(output.datatype, list(output.shape)) for output in response.outputs] == [
        ("BYTES", [2, 2]),
        ("BYTES", [2, 1]),
    ]
    assert _strings(response.raw_output_contents[1]) == ["1.000000:0:red", "1.000000:2:blue"]
    best = [text.split(":", 2) for text in _strings(response.raw_output_contents[0])]
    assert [(index, label) for _, index, label in best] == [
        ("0", "red"),
        ("1", "green"),
        ("2", "blue"),
        ("0", "red"),
    ]


async def test_more_classes_than_labels_are_all_of_them(service: Service) -> None:
    response = await service.stub.ModelInfer(request(probabilities=1000))
    assert list(response.outputs[0].shape) == [1, len(LABELS)]


def _strings(data: bytes) -> list[str]:
    found, start = [], 0
    while start < len(data):
        length = int.from_bytes(data[start : start + 4], "little")
        found.append(data[start + 4 : start + 4 + length].decode())
        start += 4 + length
    return found


def changed(**fields: Any) -> pb.ModelInferRequest:
    """A good request with one thing wrong about its input."""
    message = request()
    for name, value in fields.items():
        if name == "shape":
            message.inputs[0].shape[:] = value
        else:
            setattr(message.inputs[0], name, value)
    return message


def with_parameter(name: str, value: int) -> pb.ModelInferRequest:
    message = request()
    message.parameters[name].int64_param = value
    return message


@pytest.mark.parametrize(
    ("asked", "field"),
    [
        (pb.ModelInferRequest(model_name="fake"), "inputs"),
        (changed(name="pixels"), "inputs[0].name"),
        (changed(datatype="FP64"), "inputs[0].datatype"),
        (changed(shape=[8, 8, 3]), "inputs[0].shape"),
        (changed(shape=[1, 3, 8, 8]), "inputs[0].shape"),
        (changed(shape=[1, 8, 9, 3]), "raw_input_contents[0]"),
        (request(pixels(*[RED] * 9)), "inputs[0].shape"),
        (request(pixels(RED, size=65)), "inputs[0].shape"),
        (request(labels=1), "outputs[0].name"),
        (request(logits=-1), "outputs[0].parameters.classification"),
        (request(id="x" * 129), "id"),
        (with_parameter("priority", 22), "parameters.priority"),
        (with_parameter("sequence_id", 1), "parameters.sequence_id"),
        (files(picture(), b"nothing"), "inputs[0].contents.bytes_contents"),
    ],
)
async def test_bad_requests(service: Service, asked: pb.ModelInferRequest, field: str) -> None:
    assert await refusal(service.stub.ModelInfer(asked)) == (
        grpc.StatusCode.INVALID_ARGUMENT,
        field,
    )


@pytest.mark.parametrize("asked", [request(pixels(*[RED] * 8)), request(pixels(RED, size=64))])
async def test_at_the_limits(service: Service, asked: pb.ModelInferRequest) -> None:
    assert (await service.stub.ModelInfer(asked)).outputs


@pytest.mark.parametrize("name", BAD_FILES)
async def test_bad_files(service: Service, name: str) -> None:
    call = service.stub.ModelInfer(files(BAD_FILES[name]))
    assert await refusal(call) == (
        grpc.StatusCode.INVALID_ARGUMENT,
        "inputs[0].contents.bytes_contents",
    )


async def test_a_timeout_in_the_request(service: Service) -> None:
    service.gate.clear()
    code, _ = await refusal(service.stub.ModelInfer(with_parameter("timeout", 50_000)))
    assert code is grpc.StatusCode.DEADLINE_EXCEEDED


async def test_what_is_not_served(service: Service) -> None:
    for method in ("RepositoryModelLoad", "SystemSharedMemoryRegister"):
        call: Any = service.channel.unary_unary(f"/{SERVICE}/{method}")
        assert (await refusal(call(b"")))[0] is grpc.StatusCode.UNIMPLEMENTED


async def test_the_index(service: Service) -> None:
    for ready in (False, True):
        asked = pb.RepositoryIndexRequest(ready=ready)
        (model,) = (await service.stub.RepositoryIndex(asked)).models
        assert (model.name, model.version, model.state) == ("fake", "1", "READY")
    call = service.stub.RepositoryIndex(pb.RepositoryIndexRequest(repository_name="x"))
    assert await refusal(call) == (grpc.StatusCode.INVALID_ARGUMENT, "repository_name")


async def test_statistics(service: Service) -> None:
    await service.stub.ModelInfer(request(pixels(RED, BLUE)))
    with pytest.raises(grpc.aio.AioRpcError):
        await service.stub.ModelInfer(changed(name="pixels"))
    for asked in (
        pb.ModelStatisticsRequest(),
        pb.ModelStatisticsRequest(name="fake"),
        pb.ModelStatisticsRequest(name="fake", version="1"),
    ):
        (found,) = (await service.stub.ModelStatistics(asked)).model_stats
        assert (found.name, found.version, found.inference_count) == ("fake", "1", 2)
        assert 1 <= found.execution_count <= 2
        assert found.inference_stats.success.count == 1
        assert found.inference_stats.fail.count == 1
        assert found.inference_stats.compute_infer.ns > 0
        assert found.last_inference > 0
        assert sum(batch.compute_infer.count for batch in found.batch_stats) == (
            found.execution_count
        )


async def test_an_empty_stream(service: Service) -> None:
    nothing: Sequence[pb.ModelInferRequest] = ()
    assert [answer async for answer in service.stub.ModelStreamInfer(iter(nothing))] == []


async def test_a_stream_answers_in_order_and_outlives_bad_items(service: Service) -> None:
    service.gate.clear()
    requests = [
        request(pixels(RED), id="a", logits=1),
        changed(name="pixels"),
        files(b"nothing"),
        request(pixels(BLUE), id="d", logits=1),
    ]
    answered = asyncio.ensure_future(_all(service.stub.ModelStreamInfer(iter(requests))))
    await until(lambda: service.rows == 2)
    service.gate.set()
    first, second, third, last = await answered
    assert "image" in second.error_message
    assert "Picture 0" in third.error_message
    for answer, id, label in ((first, "a", "red"), (last, "d", "blue")):
        assert answer.error_message == ""
        assert answer.infer_response.id == id
        assert answer.infer_response.parameters["triton_final_response"].bool_param
        assert _strings(answer.infer_response.raw_output_contents[0])[0].endswith(label)


async def test_a_failed_item_of_a_stream_has_its_id(service: Service) -> None:
    service.network.faults.append(RuntimeError("secret"))
    (answer,) = await _all(service.stub.ModelStreamInfer(iter([request(id="a")])))
    assert answer.infer_response.id == "a"
    assert "Internal error" in answer.error_message
    assert "secret" not in answer.error_message


async def test_a_stream_of_real_statuses(service: Service) -> None:
    requests = iter([request(id="a"), changed(name="pixels"), request(id="c")])
    metadata = (("triton_grpc_error", "true"),)
    call = service.stub.ModelStreamInfer(requests, metadata=metadata)
    assert (await call.read()).infer_response.id == "a"
    assert await refusal(call.read()) == (grpc.StatusCode.INVALID_ARGUMENT, "inputs[0].name")


async def test_a_stream_is_bounded_and_its_client_leaves_nothing(service: Service) -> None:
    service.gate.clear()
    call = service.stub.ModelStreamInfer(request(id=str(number)) for number in range(20))
    reading = asyncio.ensure_future(_all(call))
    await until(lambda: service.rows == 4)
    for _ in range(500):
        await asyncio.sleep(0)
        assert service.rows == 4
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    service.gate.set()
    await until(lambda: service.rows == 0)
    assert (await service.stub.ModelInfer(request())).outputs


async def _all(call: Any) -> list[Any]:
    return [answer async for answer in call]
