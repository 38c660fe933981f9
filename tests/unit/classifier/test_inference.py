"""Tensors to pictures and labels to tensors, and the classifier between them."""

from __future__ import annotations

import asyncio
import io
import math
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import pytest_asyncio
from PIL import Image

from services.classifier.classifier import Classifier, Scores
from services.classifier.inference import (
    LOGITS,
    OUTPUTS,
    PROBABILITIES,
    TensorClassifier,
    answer,
    fit_of,
    pictures,
    wanted,
)
from services.classifier.labels import Labels
from services.classifier.model import Answer, ClassifierModel, Row
from services.classifier.preprocessing import Fit
from services.classifier.request import Picture
from services.core.caller import Caller
from services.core.card import ModelCard, ModelKind, ModelState
from services.core.engine import Engine, EngineLimits, Timing
from services.core.errors import InvalidInput, ModelFault, NotFound, Overloaded
from services.core.images import ImageLimits
from services.core.pool import WorkerPool
from services.inference.model import InferRequest, OutputRequest, Value
from services.inference.tensors import BYTES, FP32, UINT8, Tensor, join
from tests.unit.classifier.fakes import FILES, LABELS, FakeNetwork, fleet_of, until

IMAGE_LIMITS = ImageLimits(max_side=6, max_pixels=20)
BATCH = np.arange(2 * 3 * 4 * 3, dtype=np.uint8).reshape(2, 3, 4, 3)
CALLER = Caller()


def image(datatype: str, shape: Sequence[int], values: bytes | Sequence[Any] = b"") -> Tensor:
    return Tensor("image", datatype, tuple(shape), values)


def uint8(batch: npt.NDArray[np.uint8]) -> Tensor:
    return image(UINT8, batch.shape, batch.tobytes())


def planes(batch: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """[batch, 3, height, width], 0 to 1."""
    return np.ascontiguousarray(batch.transpose(0, 3, 1, 2) / np.float32(255), "<f4")


def png(pixels: npt.NDArray[np.uint8]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def read(*inputs: Tensor, max_batch: int = 4) -> list[Picture]:
    return pictures(inputs, limits=IMAGE_LIMITS, max_batch=max_batch)


def refused(call: Callable[[], object]) -> InvalidInput:
    with pytest.raises(InvalidInput) as caught:
        call()
    return caught.value


@pytest.mark.parametrize(
    "tensor",
    [
        uint8(BATCH),
        image(UINT8, BATCH.shape, BATCH.ravel().tolist()),
        image(FP32, (2, 3, 3, 4), planes(BATCH).tobytes()),
        image(FP32, (2, 3, 3, 4), planes(BATCH).ravel().tolist()),
        image(BYTES, (2,), join(png(pixels) for pixels in BATCH)),
        image(BYTES, (2, 1), join(png(pixels) for pixels in BATCH)),
        image(BYTES, (2,), [png(pixels) for pixels in BATCH]),
    ],
    ids=[
        "uint8", "uint8 typed", "fp32", "fp32 typed", "bytes", "bytes of one column", "bytes typed",
    ],
)  # fmt: skip
def test_every_form_gives_the_same_pixels(tensor: Tensor) -> None:
    found = read(tensor)
    assert len(found) == 2
    for picture, pixels in zip(found, BATCH, strict=True):
        assert np.array_equal(np.asarray(picture.decode()), pixels)


def test_raw_pixels_alone_are_quick() -> None:
    assert [picture.quick_bytes for picture in read(uint8(BATCH))] == [36, 36]
    assert read(image(UINT8, BATCH.shape, BATCH.ravel().tolist()))[0].quick_bytes is None
    assert read(image(BYTES, (1,), join([b"x"])))[0].quick_bytes is None


@pytest.mark.parametrize(("shape"), [(1, 6, 3, 3), (1, 4, 5, 3), (4, 1, 1, 3)])
def test_at_the_limits(shape: tuple[int, ...]) -> None:
    assert read(uint8(np.zeros(shape, np.uint8)))


@pytest.mark.parametrize(
    ("tensors", "field", "limit"),
    [
        ([], "inputs", "1"),
        ([uint8(BATCH)] * 2, "inputs", "1"),
        ([replace(uint8(BATCH), name="pixels")], "inputs[0].name", "image"),
        ([image("FP16", (1, 3, 2, 2))], "inputs[0].datatype", "UINT8, FP32, BYTES"),
        ([image("uint8", (1, 2, 2, 3))], "inputs[0].datatype", "UINT8, FP32, BYTES"),
        ([image(UINT8, (2, 2, 3), bytes(12))], "inputs[0].shape", "[-1, -1, -1, 3]"),
        ([image(UINT8, (1, 3, 2, 2), bytes(12))], "inputs[0].shape", "[-1, -1, -1, 3]"),
        ([image(UINT8, (1, 2, 2, 1), bytes(4))], "inputs[0].shape", "[-1, -1, -1, 3]"),
        ([image(FP32, (1, 2, 2, 3), bytes(48))], "inputs[0].shape", "[-1, 3, -1, -1]"),
        ([image(BYTES, (1, 2), join([b"a", b"b"]))], "inputs[0].shape", "[-1] or [-1, 1]"),
        ([image(BYTES, (), b"")], "inputs[0].shape", "[-1] or [-1, 1]"),
        ([image(UINT8, (0, 2, 2, 3))], "inputs[0].shape", "1 to 4"),
        ([image(UINT8, (5, 1, 1, 3), bytes(15))], "inputs[0].shape", "1 to 4"),
        ([image(BYTES, (5,), join([b"a"] * 5))], "inputs[0].shape", "1 to 4"),
        ([image(BYTES, (0,), b"")], "inputs[0].shape", "1 to 4"),
        ([image(UINT8, (1, 7, 1, 3), bytes(21))], "inputs[0].shape", "6 a side and 20 pixels"),
        ([image(FP32, (1, 3, 3, 7), bytes(252))], "inputs[0].shape", "6 a side and 20 pixels"),
        ([image(UINT8, (1, 3, 7, 3), bytes(63))], "inputs[0].shape", "6 a side and 20 pixels"),
        ([image(UINT8, (1, 2**40, 2**40, 3))], "inputs[0].shape", "6 a side and 20 pixels"),
        ([image(UINT8, (1, 2, 2, 3), bytes(11))], "raw_input_contents[0]", "12 bytes"),
        ([image(FP32, (1, 3, 2, 2), bytes(12))], "raw_input_contents[0]", "48 bytes"),
        ([image(BYTES, (2,), join([b"a"]))], "raw_input_contents[0]", "2 elements"),
    ],
)
def test_what_is_refused_before_decoding(tensors: list[Tensor], field: str, limit: str) -> None:
    error = refused(lambda: read(*tensors))
    assert (error.field, error.limit) == (field, limit)
    # Clients of this protocol show the text alone.
    assert limit in error.message


@pytest.mark.parametrize("value", [-0.01, 1.01, math.nan, math.inf])
def test_fp32_pixels_beyond_one(value: float) -> None:
    numbers = np.zeros((2, 3, 1, 1), "<f4")
    numbers[1, 0] = value
    first, second = read(image(FP32, numbers.shape, numbers.tobytes()))
    first.decode()
    error = refused(second.decode)
    assert (error.field, error.limit) == ("raw_input_contents[0]", "0.0 to 1.0")
    assert "Picture 1" in error.message


def test_a_file_that_is_no_picture() -> None:
    good, bad = read(image(BYTES, (2,), join([png(BATCH[0]), b"nothing"])))
    good.decode()
    error = refused(bad.decode)
    assert error.field == "raw_input_contents[0]"
    assert error.message.startswith("Picture 1 of 'image': ")


def test_outputs_are_all_by_default() -> None:
    assert wanted(()) == [OutputRequest(PROBABILITIES), OutputRequest(LOGITS)]
    asked = [OutputRequest(LOGITS, 2)]
    assert wanted(asked) == asked


@pytest.mark.parametrize("names", [["label"], [PROBABILITIES, ""], [LOGITS, LOGITS]])
def test_unknown_outputs_and_twins(names: list[str]) -> None:
    outputs = [OutputRequest(name, 0, f"outputs[{i}]") for i, name in enumerate(names)]
    error = refused(lambda: wanted(outputs))
    assert error.field == f"outputs[{len(names) - 1}].name"


@pytest.mark.parametrize("fit", Fit)
def test_a_fit(fit: Fit) -> None:
    assert fit_of({"fit": fit.value}) is fit


@pytest.mark.parametrize(
    ("parameters", "field"),
    [
        ({"fit": "crop"}, "parameters.fit"),
        ({"fit": 1}, "parameters.fit"),
        ({"x": 1}, "parameters.x"),
    ],
)
def test_unknown_parameters(parameters: dict[str, Value], field: str) -> None:
    assert refused(lambda: fit_of(parameters)).field == field


NAMES = Labels(("a", "b", "c"))


def scores(*logits: float) -> Scores:
    found = np.array(logits, np.float32)
    return Scores(NAMES.probabilities(found), found, Timing())


FOUND = [scores(1.0, -1.0, 3.0), scores(0.0, 2.0, 0.5)]


def test_scores_by_index() -> None:
    output = answer(OutputRequest(PROBABILITIES), FOUND, NAMES)
    assert (output.name, output.datatype, output.shape) == (PROBABILITIES, FP32, (2, 3))
    found = np.frombuffer(output.data, "<f4").reshape(2, 3)
    assert np.array_equal(found, np.stack([each.probabilities for each in FOUND]))
    output = answer(OutputRequest(LOGITS), FOUND, NAMES)
    assert np.frombuffer(output.data, "<f4").tolist() == [1.0, -1.0, 3.0, 0.0, 2.0, 0.5]


@pytest.mark.parametrize(("asked", "given"), [(1, 1), (2, 2), (3, 3), (4, 3), (2**62, 3)])
def test_as_many_classes_as_there_are(asked: int, given: int) -> None:
    output = answer(OutputRequest(LOGITS, asked), FOUND, NAMES)
    assert output.shape == (2, given)
    elements = Tensor("", BYTES, (2 * given,), output.data).elements()
    assert elements[0] == b"3.000000:2:c"
    assert elements[given] == b"2.000000:1:b"


def test_classes_of_probabilities() -> None:
    output = answer(OutputRequest(PROBABILITIES, 1), FOUND[:1], NAMES)
    (text,) = Tensor("", BYTES, (1,), output.data).elements()
    assert text == f"{FOUND[0].probabilities[2]:f}:2:c".encode()


class Bench:
    """The classifier over a fake network; ``gate`` holds every batch back until it is set."""

    def __init__(self, max_rows: int = 1024) -> None:
        self.gate = threading.Event()
        self.gate.set()
        self.network = FakeNetwork(gate=self.gate)
        model = ClassifierModel(self.network, lambda: FILES)
        self.limits = EngineLimits(max_rows=max_rows, max_batch_rows=4)
        self.fleet = fleet_of(model, self.limits)
        self.pool = WorkerPool("decode", 1, 8)
        self.classifier = Classifier(self.fleet, self.pool)
        self.models = TensorClassifier(self.classifier, self.fleet, ImageLimits(), self.limits)

    @property
    def engine(self) -> Engine[Row, Answer]:
        return self.fleet.find("", "").engine


@pytest_asyncio.fixture
async def bench() -> AsyncIterator[Bench]:
    bench = Bench(max_rows=3)
    await asyncio.to_thread(bench.fleet.load)
    await bench.fleet.start()
    yield bench
    bench.gate.set()
    assert bench.engine.report().rows == 0
    await bench.fleet.close()
    bench.pool.close()


def coloured(*colours: tuple[int, int, int]) -> Tensor:
    batch = np.empty((len(colours), 8, 8, 3), np.uint8)
    batch[:] = np.array(colours, np.uint8)[:, None, None, :]
    return uint8(batch)


RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)


async def test_a_batch_is_rows_of_one_engine(bench: Bench) -> None:
    bench.network.batches.clear()
    bench.gate.clear()
    asked = InferRequest([coloured(RED, BLUE, GREEN)], [OutputRequest(LOGITS, 1)])
    answered = asyncio.ensure_future(bench.models.infer(asked, CALLER))
    await until(lambda: bench.engine.report().rows == 3)
    bench.gate.set()
    found = await answered
    assert sum(bench.network.batches) == 3
    assert (found.model, found.version, len(found.timings)) == (FILES.name, FILES.version, 3)
    (output,) = found.outputs
    assert Tensor("", BYTES, (3,), output.data).elements() == [
        b"1.000000:0:red",
        b"1.000000:2:blue",
        b"1.000000:1:green",
    ]


async def test_an_item_alone_equals_the_item_in_a_batch(bench: Bench) -> None:
    async def scored(*colours: tuple[int, int, int]) -> npt.NDArray[np.float32]:
        asked = InferRequest([coloured(*colours)], [OutputRequest(PROBABILITIES)])
        (output,) = (await bench.models.infer(asked, CALLER)).outputs
        return np.frombuffer(output.data, "<f4").reshape(output.shape)

    together = await scored(RED, GREEN, BLUE)
    assert together.shape == (3, len(LABELS))
    for row, colour in zip(together, (RED, GREEN, BLUE), strict=True):
        assert np.array_equal(row, (await scored(colour))[0])


async def test_a_batch_is_taken_whole_or_not_at_all(bench: Bench) -> None:
    """Four rows are more than this engine takes on."""
    with pytest.raises(Overloaded):
        await bench.models.infer(InferRequest([coloured(RED, RED, RED, RED)]), CALLER)
    await until(lambda: bench.engine.report().rows == 0)


async def test_a_bad_picture_takes_its_batch_with_it(bench: Bench) -> None:
    files = image(BYTES, (2,), join([png(BATCH[0]), b"nothing"]))
    with pytest.raises(InvalidInput, match="Picture 1"):
        await bench.models.infer(InferRequest([files]), CALLER)
    await until(lambda: bench.engine.report().rows == 0)


async def test_a_step_that_fails_fails_the_request(bench: Bench) -> None:
    bench.network.faults.append(RuntimeError("secret"))
    with pytest.raises(ModelFault):
        await bench.models.infer(InferRequest([coloured(RED)]), CALLER)


async def test_a_caller_that_leaves_leaves_nothing(bench: Bench) -> None:
    bench.gate.clear()
    asked = InferRequest([coloured(RED, GREEN)])
    first = asyncio.ensure_future(bench.models.infer(asked, CALLER))
    await until(lambda: bench.engine.report().rows == 2)
    first.cancel()
    bench.gate.set()
    with pytest.raises(asyncio.CancelledError):
        await first
    await until(lambda: bench.engine.report().rows == 0)


@pytest.mark.parametrize(("name", "version"), [("other", ""), ("", "2")])
async def test_another_model(bench: Bench, name: str, version: str) -> None:
    with pytest.raises(NotFound):
        await bench.models.infer(InferRequest([], model=name, version=version), CALLER)
    with pytest.raises(NotFound):
        bench.models.describe(name, version)


async def test_an_id_is_bounded(bench: Bench) -> None:
    with pytest.raises(InvalidInput) as caught:
        await bench.models.infer(InferRequest([coloured(RED)], id="x" * 129), CALLER)
    assert caught.value.field == "id"


async def test_the_description(bench: Bench) -> None:
    described = bench.models.describe("", "")
    assert [described] == list(bench.models.describe_all())
    assert (described.name, described.state) == ("fake", ModelState.READY)
    assert described.max_batch == 4
    (pixels,) = described.inputs
    assert (pixels.name, pixels.datatype, pixels.shape) == ("image", UINT8, (-1, 8, 8, 3))
    assert [(spec.name, spec.shape) for spec in described.outputs] == [
        (name, (-1, len(LABELS))) for name in OUTPUTS
    ]
    assert described.parameters["digest"] == FILES.digest


class NotLoaded:
    """One model, that could not be loaded."""

    card = ModelCard("fake", ModelKind.CLASSIFIER, ModelState.FAILED, "2", error="No weights.")

    def list_models(self) -> Sequence[ModelCard]:
        return [self.card]

    def get_model(self, name: str, version: str) -> ModelCard:
        return self.card


async def test_the_description_of_a_model_that_is_not_loaded(bench: Bench) -> None:
    models = TensorClassifier(bench.classifier, NotLoaded(), ImageLimits(), bench.limits)
    (described,) = models.describe_all()
    assert (described.version, described.state) == ("2", ModelState.FAILED)
    assert described.reason == "No weights."
    assert not described.inputs
    assert not described.outputs
