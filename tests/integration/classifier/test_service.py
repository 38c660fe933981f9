import asyncio
import threading
from collections.abc import AsyncIterator, Iterable
from dataclasses import replace

import grpc
import numpy as np
import pytest
import pytest_asyncio
from google.rpc import error_details_pb2, status_pb2

from easel.classifier.v1 import classifier_pb2 as pb
from easel.classifier.v1 import classifier_pb2_grpc
from easel.common.v1 import common_pb2
from easel.model.v1 import model_pb2, model_pb2_grpc
from services.classifier.network import Pooling
from services.classifier.service import ClassifierApp
from tests.integration.classifier.pictures import BAD_FILES, picture
from tests.integration.classifier.server import fake_app
from tests.integration.serving import serving
from tests.unit.classifier.fakes import DEPTH, GRID, HIDDEN, LABELS, TRAITS, FakeNetwork, until

GREEN = common_pb2.Image(encoded=picture("lime"))
LAYERS = [*range(-(DEPTH + 1), DEPTH + 1)]


class Service:
    """A running classifier; ``gate`` holds every batch back while it is clear."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.gate.set()
        self.network = FakeNetwork(gate=self.gate)
        self.app: ClassifierApp = fake_app(self.network, max_in_flight=4)
        self.stub: classifier_pb2_grpc.ClassifierServiceAsyncStub
        self.models: model_pb2_grpc.ModelServiceAsyncStub

    @property
    def rows(self) -> int:
        return self.app.engine.report().rows


@pytest_asyncio.fixture
async def service() -> AsyncIterator[Service]:
    service = Service()
    async with serving(service.app) as channel:
        service.stub = classifier_pb2_grpc.ClassifierServiceStub(channel)
        service.models = model_pb2_grpc.ModelServiceStub(channel)
        yield service
        service.gate.set()
        assert service.rows == 0
    assert service.network.closed


def request(id: str = "", image: common_pb2.Image = GREEN, **fields: object) -> pb.ClassifyRequest:
    return pb.ClassifyRequest(id=id, image=image, **fields)  # type: ignore[arg-type]


async def refusal(call: object) -> tuple[grpc.StatusCode, str]:
    """The status a call ends with, and the field that it names."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call  # type: ignore[misc]
    packed = dict(caught.value.trailing_metadata() or ())["grpc-status-details-bin"]
    for detail in status_pb2.Status.FromString(packed).details:
        bad = error_details_pb2.BadRequest()
        if detail.Unpack(bad):
            return caught.value.code(), bad.field_violations[0].field
    return caught.value.code(), ""


async def test_classify(service: Service) -> None:
    response = await service.stub.Classify(request("a", top_k=2, logits=True))
    assert response.id == "a"
    assert [label.name for label in response.labels] == ["green", "red"]
    assert response.labels[0].logit == 1.0
    assert response.model == common_pb2.ModelRef(name="fake", version="1", digest="sha256:00")
    assert (response.timing.steps, response.timing.batch_rows) == (1, 1)
    assert not response.HasField("error")


async def test_all_labels_without_logits(service: Service) -> None:
    response = await service.stub.Classify(request(top_k=len(LABELS)))
    assert sum(label.score for label in response.labels) == pytest.approx(1.0)
    assert not any(label.HasField("logit") for label in response.labels)


async def test_raw_pixels(service: Service) -> None:
    raw = common_pb2.RawImage(data=bytes((0, 0, 255)) * 6, width=2, height=3, channels=3)
    response = await service.stub.Classify(request(image=common_pb2.Image(raw=raw)))
    assert response.labels[0].name == "blue"


async def test_embed_every_layer_in_one_pass(service: Service) -> None:
    service.network.batches.clear()
    asked = pb.EmbedRequest(image=GREEN, layers=LAYERS, pooling=pb.POOLING_PATCH)
    response = await service.stub.Embed(asked)
    assert service.network.batches == [1]
    assert [embedding.layer for embedding in response.embeddings] == [*range(DEPTH + 1)]
    for embedding in response.embeddings:
        assert list(embedding.shape) == [*GRID, HIDDEN]
        assert embedding.final_norm == (embedding.layer == DEPTH)
        numbers = np.frombuffer(embedding.data, "<f4")
        assert set(numbers) == {embedding.layer + 0.5 * embedding.final_norm}


async def test_embed_says_what_was_done(service: Service) -> None:
    response = await service.stub.Embed(
        pb.EmbedRequest(
            id="e",
            image=GREEN,
            normalize=True,
            dtype=pb.EMBEDDING_DTYPE_FLOAT16,
            pooling=pb.POOLING_MEAN,
            final_norm=False,
        )
    )
    (embedding,) = response.embeddings
    assert np.frombuffer(embedding.data, "<f2").tolist() == [0.5] * HIDDEN
    assert (response.id, embedding.normalized, embedding.final_norm) == ("e", True, False)
    assert embedding.pooling == pb.POOLING_MEAN
    assert embedding.dtype == pb.EMBEDDING_DTYPE_FLOAT16


@pytest.mark.parametrize("name", BAD_FILES)
async def test_bad_files(service: Service, name: str) -> None:
    image = common_pb2.Image(encoded=BAD_FILES[name])
    expected = (grpc.StatusCode.INVALID_ARGUMENT, "image.encoded")
    assert await refusal(service.stub.Classify(request(image=image))) == expected
    assert await refusal(service.stub.Embed(pb.EmbedRequest(image=image))) == expected


@pytest.mark.parametrize(
    ("asked", "field"),
    [
        (pb.ClassifyRequest(), "image"),
        (request("x" * 129), "id"),
        (request(top_k=0), "top_k"),
        (request(top_k=len(LABELS) + 1), "top_k"),
        (request(threshold=1.5), "threshold"),
        (request(threshold=float("nan")), "threshold"),
        (request(labels=["red", "mauve"]), "labels"),
        (request(fit=9), "fit"),
        (
            request(
                image=common_pb2.Image(
                    raw=common_pb2.RawImage(data=b"12345", width=2, height=1, channels=3)
                )
            ),
            "image.raw.data",
        ),
    ],
)
async def test_bad_classify_requests(
    service: Service, asked: pb.ClassifyRequest, field: str
) -> None:
    expected = (grpc.StatusCode.INVALID_ARGUMENT, field)
    assert await refusal(service.stub.Classify(asked)) == expected


@pytest.mark.parametrize(
    ("asked", "field"),
    [
        (pb.EmbedRequest(image=GREEN, layers=[DEPTH + 1]), "layers"),
        (pb.EmbedRequest(image=GREEN, layers=[-DEPTH - 2]), "layers"),
        (pb.EmbedRequest(image=GREEN, pooling=9), "pooling"),  # type: ignore[arg-type]
        (pb.EmbedRequest(image=GREEN, dtype=9), "dtype"),  # type: ignore[arg-type]
    ],
)
async def test_bad_embed_requests(service: Service, asked: pb.EmbedRequest, field: str) -> None:
    expected = (grpc.StatusCode.INVALID_ARGUMENT, field)
    assert await refusal(service.stub.Embed(asked)) == expected


async def test_a_pooling_that_the_model_lacks() -> None:
    network = FakeNetwork(traits=replace(TRAITS, poolings=(Pooling.MEAN,)))
    async with serving(fake_app(network)) as channel:
        stub = classifier_pb2_grpc.ClassifierServiceStub(channel)
        asked = pb.EmbedRequest(image=GREEN)
        refused = await refusal(stub.Embed(asked))
        assert refused == (grpc.StatusCode.INVALID_ARGUMENT, "pooling")
        asked.pooling = pb.POOLING_MEAN
        assert len((await stub.Embed(asked)).embeddings) == 1


@pytest.mark.parametrize("field", ["model", "model_version"])
async def test_another_model(service: Service, field: str) -> None:
    not_found = (grpc.StatusCode.NOT_FOUND, "")
    classify, embed = request(), pb.EmbedRequest(image=GREEN)
    for asked in (classify, embed):
        setattr(asked, field, "other")
    assert await refusal(service.stub.Classify(classify)) == not_found
    assert await refusal(service.stub.Embed(embed)) == not_found


async def test_the_answer_to_a_step_that_fails_shows_nothing(service: Service) -> None:
    service.network.faults.append(RuntimeError("secret"))
    with pytest.raises(grpc.aio.AioRpcError, match="Internal error") as caught:
        await service.stub.Classify(request())
    assert caught.value.code() is grpc.StatusCode.INTERNAL
    assert "secret" not in str(caught.value)


async def test_a_deadline_that_passes(service: Service) -> None:
    service.gate.clear()
    code = grpc.StatusCode.DEADLINE_EXCEEDED
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await service.stub.Classify(request(), timeout=0.05)
    assert caught.value.code() is code
    service.gate.set()
    await until(lambda: service.rows == 0)


async def test_models(service: Service) -> None:
    (listed,) = (await service.models.ListModels(model_pb2.ListModelsRequest())).models
    asked = model_pb2.GetModelRequest(name="fake", version="1")
    model = (await service.models.GetModel(asked)).model
    assert model == listed
    assert (model.kind, model.state) == (
        model_pb2.MODEL_KIND_CLASSIFIER,
        model_pb2.MODEL_STATE_READY,
    )
    assert (model.config.backend, model.config.precision) == ("fake", "float32")
    assert list(model.classifier.labels) == list(LABELS)
    assert model.config.batches[0].observations > 0
    assert dict(model.config.extra) == {
        "formats": "",
        "poolings": "cls, mean, patch",
        "temperature": "1",
    }
    code, _ = await refusal(service.models.GetModel(model_pb2.GetModelRequest(name="other")))
    assert code is grpc.StatusCode.NOT_FOUND
    code, _ = await refusal(service.models.LoadModel(model_pb2.LoadModelRequest()))
    assert code is grpc.StatusCode.UNIMPLEMENTED


async def test_an_empty_stream(service: Service) -> None:
    nothing: list[pb.ClassifyRequest] = []
    assert [response async for response in service.stub.ClassifyStream(iter(nothing))] == []
    assert [response async for response in service.stub.EmbedStream(iter([]))] == []


async def test_a_stream_answers_out_of_order_and_outlives_bad_items(service: Service) -> None:
    service.gate.clear()
    bad = request("bad", image=common_pb2.Image(encoded=b"nothing"))
    lost = request("lost", model="other")
    answers: dict[str, pb.ClassifyResponse] = {}
    async for response in service.stub.ClassifyStream(iter([request("good"), bad, lost])):
        answers[response.id] = response
        if len(answers) == 2:
            service.gate.set()
    assert list(answers)[-1] == "good"
    assert answers["good"].labels[0].name == "green"
    assert answers["bad"].error.code == grpc.StatusCode.INVALID_ARGUMENT.value[0]
    assert answers["bad"].error.field == "image.encoded"
    assert answers["lost"].error.code == grpc.StatusCode.NOT_FOUND.value[0]


async def test_an_embed_stream(service: Service) -> None:
    requests = [
        pb.EmbedRequest(id=str(layer), image=GREEN, layers=[layer]) for layer in (0, 1, DEPTH, 99)
    ]
    answers = {response.id: response async for response in service.stub.EmbedStream(iter(requests))}
    assert [answers[id].embeddings[0].layer for id in ("0", "1", str(DEPTH))] == [0, 1, DEPTH]
    assert answers["99"].error.field == "layers"


async def test_a_stream_is_bounded_and_batches(service: Service) -> None:
    service.gate.clear()
    ids = [str(number) for number in range(20)]
    call = service.stub.ClassifyStream(request(id) for id in ids)
    answered = asyncio.ensure_future(_ids(call))
    await until(lambda: service.rows == 4)
    service.network.batches.clear()
    for _ in range(500):
        await asyncio.sleep(0)
        assert service.rows == 4
    service.gate.set()
    assert sorted(await answered, key=int) == ids
    assert max(service.network.batches) <= 4


async def test_a_client_that_goes_away_leaves_nothing(service: Service) -> None:
    service.gate.clear()
    call = service.stub.ClassifyStream(request(str(number)) for number in range(20))
    reading = asyncio.ensure_future(_ids(call))
    await until(lambda: service.rows == 4)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    # One batch is on the device and cannot be taken back; all else goes at once.
    await until(lambda: service.app.engine.report().waiting == 0)
    service.gate.set()
    await until(lambda: service.rows == 0)
    assert service.app.engine.backlog_seconds == 0.0
    assert (await service.stub.Classify(request())).labels


async def _ids(call: object) -> Iterable[str]:
    return [response.id async for response in call]  # type: ignore[attr-defined]
