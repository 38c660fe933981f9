"""Explain over a real server and a fake network."""

import asyncio
import io
import threading
from collections.abc import AsyncIterator

import grpc
import numpy as np
import pytest
import pytest_asyncio
from google.rpc import error_details_pb2, status_pb2
from PIL import Image

from easel.classifier.v1 import classifier_pb2 as pb
from easel.classifier.v1 import classifier_pb2_grpc
from easel.common.v1 import common_pb2
from easel.model.v1 import model_pb2, model_pb2_grpc
from services.classifier.explanation import Method
from services.classifier.heat_map import MAX_SIDE_PX
from services.core.errors import FailedPrecondition
from services.core.images import encode
from tests.integration.classifier.pictures import BAD_FILES, picture
from tests.integration.classifier.server import fake_app
from tests.integration.serving import serving
from tests.unit.classifier.fakes import GRID, FakeExplainer, FakeNetwork, until

GREEN = common_pb2.Image(encoded=picture("lime"))


def quarters(width: int = 8, height: int = 8) -> common_pb2.Image:
    """Red at the top left, green at the bottom right, else black; more green than red."""
    image = Image.new("RGB", (width, height))
    image.paste((200, 0, 0), (0, 0, width // 2, height // 2))
    image.paste((0, 255, 0), (width // 2, height // 2, width, height))
    return common_pb2.Image(encoded=encode(image))


class Service:
    """A running classifier; ``gate`` holds every explaining batch back while it is clear."""

    def __init__(self, explainer: FakeExplainer | None) -> None:
        self.network = FakeNetwork()
        self.app = fake_app(self.network, explainer)
        self.stub: classifier_pb2_grpc.ClassifierServiceAsyncStub
        self.models: model_pb2_grpc.ModelServiceAsyncStub


@pytest.fixture
def gate() -> threading.Event:
    gate = threading.Event()
    gate.set()
    return gate


@pytest.fixture
def explainer(gate: threading.Event) -> FakeExplainer:
    return FakeExplainer(gate=gate)


@pytest_asyncio.fixture
async def service(explainer: FakeExplainer, gate: threading.Event) -> AsyncIterator[Service]:
    service = Service(explainer)
    async with serving(service.app) as channel:
        service.stub = classifier_pb2_grpc.ClassifierServiceStub(channel)
        service.models = model_pb2_grpc.ModelServiceStub(channel)
        yield service
        gate.set()
        assert service.app.engine.report().rows == 0
    assert explainer.closed


async def refusal(call: object) -> tuple[grpc.StatusCode, str, str]:
    """The status a call ends with, the field that it names, and the text."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call  # type: ignore[misc]
    text = caught.value.details() or ""
    packed = dict(caught.value.trailing_metadata() or ())["grpc-status-details-bin"]
    for detail in status_pb2.Status.FromString(packed).details:
        bad = error_details_pb2.BadRequest()
        if detail.Unpack(bad):
            return caught.value.code(), bad.field_violations[0].field, text
    return caught.value.code(), "", text


async def test_the_best_label_is_explained_by_rollout(service: Service) -> None:
    response = await service.stub.Explain(pb.ExplainRequest(id="a", image=quarters()))
    assert response.id == "a"
    assert (response.label.name, response.label.index) == ("green", 1)
    assert 0.0 < response.label.score < 1.0
    assert not response.label.HasField("logit")
    assert (response.rows, response.columns) == GRID
    assert list(response.relevance) == [1.0, 0.0, 0.0, 0.0]
    assert not response.HasField("heat_map")
    assert response.model == common_pb2.ModelRef(name="fake", version="1", digest="sha256:00")
    assert (response.timing.steps, response.timing.batch_rows) == (1, 1)


async def test_a_label_by_name(service: Service) -> None:
    asked = pb.ExplainRequest(image=quarters(), method=pb.EXPLAIN_METHOD_GRADIENT)
    best = await service.stub.Explain(asked)
    asked.label = "red"
    red = await service.stub.Explain(asked)
    assert (best.label.name, list(best.relevance)) == ("green", [0.0, 0.0, 0.0, 1.0])
    assert (red.label.name, list(red.relevance)) == ("red", [1.0, 0.0, 0.0, 0.0])


async def test_of_several_outputs_of_a_name_the_likeliest_is_explained(service: Service) -> None:
    response = await service.stub.Explain(pb.ExplainRequest(image=GREEN, label="crane"))
    assert (response.label.name, response.label.index) == ("crane", 3)


@pytest.mark.parametrize(
    ("format", "expected"),
    [
        (common_pb2.IMAGE_FORMAT_UNSPECIFIED, "PNG"),
        (common_pb2.IMAGE_FORMAT_JPEG, "JPEG"),
        (common_pb2.IMAGE_FORMAT_WEBP, "WEBP"),
    ],
)
async def test_a_heat_map_over_the_picture(
    service: Service, format: common_pb2.ImageFormat.ValueType, expected: str
) -> None:
    output = common_pb2.ImageOutput(format=format)
    asked = pb.ExplainRequest(image=quarters(40, 20), overlay=True, output=output)
    response = await service.stub.Explain(asked)
    drawn = Image.open(io.BytesIO(response.heat_map.encoded))
    assert (drawn.format, drawn.size, drawn.mode) == (expected, (40, 20), "RGB")
    pixels = np.asarray(drawn, np.int64).sum(axis=2)
    assert pixels[2, 5] > pixels[17, 35] + 100


@pytest.mark.parametrize(
    ("given", "made"),
    [
        ((MAX_SIDE_PX, 4), (MAX_SIDE_PX, 4)),
        ((MAX_SIDE_PX + 1, 8), (MAX_SIDE_PX, 8)),
        ((1, 2 * MAX_SIDE_PX), (1, MAX_SIDE_PX)),
    ],
)
async def test_a_heat_map_has_bounded_sides(
    service: Service, given: tuple[int, int], made: tuple[int, int]
) -> None:
    image = common_pb2.Image(encoded=picture("red", given))
    response = await service.stub.Explain(pb.ExplainRequest(image=image, overlay=True))
    assert Image.open(io.BytesIO(response.heat_map.encoded)).size == made


async def test_raw_pixels_and_another_fit(service: Service) -> None:
    raw = common_pb2.RawImage(data=bytes((0, 255, 0)) * 8, width=4, height=2, channels=3)
    asked = pb.ExplainRequest(image=common_pb2.Image(raw=raw), overlay=True, fit=pb.FIT_PAD)
    response = await service.stub.Explain(asked)
    assert response.label.name == "green"
    assert Image.open(io.BytesIO(response.heat_map.encoded)).size == (4, 2)


@pytest.mark.parametrize(
    ("asked", "field"),
    [
        (pb.ExplainRequest(), "image"),
        (pb.ExplainRequest(image=GREEN, id="x" * 129), "id"),
        (pb.ExplainRequest(image=GREEN, label="mauve"), "label"),
        (pb.ExplainRequest(image=GREEN, method=9), "method"),  # type: ignore[arg-type]
        (pb.ExplainRequest(image=GREEN, fit=9), "fit"),  # type: ignore[arg-type]
        (pb.ExplainRequest(image=GREEN, output=common_pb2.ImageOutput()), "output"),
        (
            pb.ExplainRequest(
                image=GREEN,
                overlay=True,
                output=common_pb2.ImageOutput(format=9),  # type: ignore[arg-type]
            ),
            "output.format",
        ),
        (
            pb.ExplainRequest(
                image=GREEN,
                overlay=True,
                output=common_pb2.ImageOutput(format=common_pb2.IMAGE_FORMAT_JPEG, quality=101),
            ),
            "output.quality",
        ),
        *(
            (pb.ExplainRequest(image=common_pb2.Image(encoded=data)), "image.encoded")
            for data in BAD_FILES.values()
        ),
    ],
)
async def test_bad_requests(service: Service, asked: pb.ExplainRequest, field: str) -> None:
    code, named, _ = await refusal(service.stub.Explain(asked))
    assert (code, named) == (grpc.StatusCode.INVALID_ARGUMENT, field)


async def test_an_unknown_label_is_named(service: Service) -> None:
    _, _, text = await refusal(service.stub.Explain(pb.ExplainRequest(image=GREEN, label="mauve")))
    assert text == "The model has no label 'mauve'."


@pytest.mark.parametrize("field", ["model", "model_version"])
async def test_another_model(service: Service, field: str) -> None:
    asked = pb.ExplainRequest(image=GREEN)
    setattr(asked, field, "other")
    code, _, _ = await refusal(service.stub.Explain(asked))
    assert code is grpc.StatusCode.NOT_FOUND


@pytest.mark.parametrize("explainer", [FakeExplainer(faults=[FailedPrecondition("No attention.")])])
async def test_a_model_that_cannot_be_explained(service: Service, explainer: FakeExplainer) -> None:
    code, _, text = await refusal(service.stub.Explain(pb.ExplainRequest(image=GREEN)))
    assert (code, text) == (grpc.StatusCode.FAILED_PRECONDITION, "No attention.")
    assert (await service.stub.Classify(pb.ClassifyRequest(image=GREEN))).labels


async def test_a_server_that_has_nothing_to_explain_with() -> None:
    service = Service(None)
    async with serving(service.app) as channel:
        stub: classifier_pb2_grpc.ClassifierServiceAsyncStub
        stub = classifier_pb2_grpc.ClassifierServiceStub(channel)
        code, _, text = await refusal(stub.Explain(pb.ExplainRequest(image=GREEN)))
    assert code is grpc.StatusCode.FAILED_PRECONDITION
    assert text == "The fake backend of this server cannot explain."


async def test_rows_of_a_key_share_a_batch_and_methods_do_not(
    service: Service, explainer: FakeExplainer, gate: threading.Event
) -> None:
    gradient = pb.ExplainRequest(image=GREEN, method=pb.EXPLAIN_METHOD_GRADIENT)
    for method in (pb.EXPLAIN_METHOD_ROLLOUT, pb.EXPLAIN_METHOD_GRADIENT) * 4:  # to learn the cost
        await service.stub.Explain(pb.ExplainRequest(image=GREEN, method=method))
    gate.clear()
    explainer.batches.clear()
    calls = [service.stub.Explain(pb.ExplainRequest(image=GREEN))]
    await until(lambda: service.app.engine.report().active == 1)
    calls += [service.stub.Explain(gradient) for _ in range(2)]
    await until(lambda: service.app.engine.report().rows == 3)
    gate.set()
    for call in calls:
        assert (await call).label.name == "green"
    assert explainer.batches == [(Method.ROLLOUT, 1), (Method.GRADIENT, 2)]


async def test_explaining_is_a_kind_of_step_of_its_own(service: Service) -> None:
    await service.stub.Explain(pb.ExplainRequest(image=GREEN))
    asked = model_pb2.GetModelRequest()
    batches = (await service.models.GetModel(asked)).model.config.batches
    assert {batch.key for batch in batches} == {"layer 3", "explain rollout"}
    assert all(batch.observations > 0 for batch in batches)


async def test_a_caller_that_goes_away_leaves_nothing(
    service: Service, gate: threading.Event
) -> None:
    gate.clear()
    # One after the other: only a row that waits is gone at once.
    first = service.stub.Explain(pb.ExplainRequest(image=GREEN))
    await until(lambda: service.app.engine.report().active == 1)
    second = service.stub.Explain(pb.ExplainRequest(image=GREEN))
    await until(lambda: service.app.engine.report().rows == 2)
    second.cancel()
    with pytest.raises(asyncio.CancelledError):
        await second
    await until(lambda: service.app.engine.report().rows == 1)
    gate.set()
    assert (await first).label.name == "green"
