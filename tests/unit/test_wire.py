import contextlib
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from easel.common.v1 import common_pb2
from easel.model.v1 import model_pb2
from services.core.card import (
    BatchProfile,
    ClassifierDetails,
    EffectiveConfig,
    GeneratorDetails,
    ModelCard,
    ModelKind,
    ModelState,
)
from services.core.engine import Timing
from services.core.errors import InvalidInput, ModelFault, Overloaded
from services.core.images import ImageLimits, encode
from services.wire import (
    image_from_pb,
    image_output_from_pb,
    image_to_pb,
    item_error_to_pb,
    model_info_to_pb,
    model_ref_to_pb,
    timing_to_pb,
)

LIMITS = ImageLimits(max_bytes=10_000, max_pixels=100, max_side=50)
UINT8 = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)


def raw(pixels: np.ndarray, **fields: int) -> common_pb2.Image:
    height, width, channels = pixels.shape
    sizes = {"width": width, "height": height, "channels": channels} | fields
    return common_pb2.Image(raw=common_pb2.RawImage(data=pixels.tobytes(), **sizes))


def decoded(message: common_pb2.Image) -> Image.Image:
    return image_from_pb(message, field="image", limits=LIMITS)


def refused(message: common_pb2.Image) -> InvalidInput:
    with pytest.raises(InvalidInput) as caught:
        decoded(message)
    return caught.value


def test_an_encoded_picture() -> None:
    image = Image.fromarray(UINT8)
    assert np.array_equal(np.asarray(decoded(image_to_pb(encode(image)))), UINT8)


@pytest.mark.parametrize(("channels", "mode"), [(1, "L"), (3, "RGB"), (4, "RGBA")])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
@pytest.mark.parametrize("planar", [False, True])
def test_a_raw_picture_in_every_form(channels: int, mode: str, dtype: type, planar: bool) -> None:
    pixels = np.arange(8 * channels, dtype=np.uint8).reshape(2, 4, channels)
    typed = pixels if dtype is np.uint8 else (pixels / 255).astype("<f4")
    data = (typed.transpose(2, 0, 1) if planar else typed).tobytes()
    message = common_pb2.RawImage(
        data=data,
        width=4,
        height=2,
        channels=channels,
        dtype=common_pb2.RAW_DTYPE_UINT8 if dtype is np.uint8 else common_pb2.RAW_DTYPE_FLOAT32,
        layout=common_pb2.RAW_LAYOUT_CHW if planar else common_pb2.RAW_LAYOUT_HWC,
    )
    image = decoded(common_pb2.Image(raw=message))
    assert image.mode == mode
    assert np.array_equal(np.asarray(image).reshape(2, 4, channels), pixels)


def test_no_picture() -> None:
    assert refused(common_pb2.Image()).field == "image"


def test_empty_bytes() -> None:
    assert refused(common_pb2.Image(encoded=b"")).field == "image.encoded"


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"width": 5}, "image.raw.data"),
        ({"width": 0}, "image.raw.width"),
        ({"height": 0}, "image.raw.height"),
        ({"height": 2**32 - 1}, "image.raw.height"),
        ({"width": 50, "height": 50}, "image.raw"),
        ({"channels": 2}, "image.raw.channels"),
        ({"dtype": 9}, "image.raw.dtype"),
        ({"layout": 9}, "image.raw.layout"),
        ({"dtype": 2}, "image.raw.data"),
    ],
)
def test_a_raw_picture_that_does_not_add_up(fields: dict[str, int], field: str) -> None:
    assert refused(raw(UINT8, **fields)).field == field


@pytest.mark.parametrize("value", [-0.1, 1.5, float("nan"), float("inf")])
def test_float_pixels_out_of_range(value: float) -> None:
    pixels = np.full((1, 1, 3), value, "<f4")
    message = raw(pixels, dtype=common_pb2.RAW_DTYPE_FLOAT32)
    assert refused(message).field == "image.raw.data"


@given(st.binary(max_size=200))
def test_no_bytes_break_the_decoder(data: bytes) -> None:
    try:
        message = common_pb2.Image.FromString(data)
    except Exception:  # not a message at all
        message = common_pb2.Image(encoded=data)
    with contextlib.suppress(InvalidInput):
        assert decoded(message).size != (0, 0)


def test_output_formats() -> None:
    assert image_output_from_pb(common_pb2.ImageOutput(), field="output") == ("PNG", None)
    jpeg = common_pb2.ImageOutput(format=common_pb2.IMAGE_FORMAT_JPEG, quality=80)
    assert image_output_from_pb(jpeg, field="output") == ("JPEG", 80)


@pytest.mark.parametrize(
    ("output", "field"),
    [
        (common_pb2.ImageOutput(quality=90), "output.quality"),
        (common_pb2.ImageOutput(format=common_pb2.IMAGE_FORMAT_JPEG, quality=0), "output.quality"),
        (
            common_pb2.ImageOutput(format=common_pb2.IMAGE_FORMAT_WEBP, quality=101),
            "output.quality",
        ),
        (common_pb2.ImageOutput(format=9), "output.format"),  # type: ignore[arg-type]
    ],
)
def test_bad_output_formats(output: common_pb2.ImageOutput, field: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        image_output_from_pb(output, field="output")
    assert caught.value.field == field


def test_item_errors_say_what_a_unary_call_would() -> None:
    error = item_error_to_pb(InvalidInput("top_k", "Too many.", 5, 6))
    assert (error.code, error.field, error.reason) == (3, "top_k", "INVALID_INPUT")
    assert item_error_to_pb(Overloaded(2.5)).retry_after_seconds == 2.5


@pytest.mark.parametrize("error", [ModelFault("weights at /secret"), KeyError("secret")])
def test_item_errors_keep_internals_to_themselves(error: Exception) -> None:
    message = item_error_to_pb(error)
    assert message.code == 13
    assert "secret" not in message.message


def test_timing() -> None:
    message = timing_to_pb(Timing(1.0, 2.0, 3.0, 4.0, 5, 6))
    assert (message.queue_seconds, message.prepare_seconds) == (1.0, 2.0)
    assert (message.compute_seconds, message.finish_seconds) == (3.0, 4.0)
    assert (message.batch_rows, message.steps) == (5, 6)


CARD = ModelCard(
    "vit",
    ModelKind.CLASSIFIER,
    ModelState.READY,
    version="3",
    digest="sha256:ab",
    loaded_at=1.5,
    parameters=2**33,
    config=EffectiveConfig(batches=(BatchProfile("layer 3", 8, 0.1, 0.2, 9),), extra={"a": "b"}),
    details=ClassifierDetails(labels=("x", "y"), layers=3),
)


def test_a_model_card() -> None:
    info = model_info_to_pb(CARD)
    assert (info.name, info.kind, info.state) == (
        "vit",
        model_pb2.MODEL_KIND_CLASSIFIER,
        model_pb2.MODEL_STATE_READY,
    )
    assert info.loaded_at.ToMilliseconds() == 1500
    assert list(info.classifier.labels) == ["x", "y"]
    assert info.config.batches[0].max_rows == 8
    assert info.config.extra == {"a": "b"}
    assert model_ref_to_pb(CARD).digest == "sha256:ab"


DETAILS: Sequence[tuple[GeneratorDetails | None, str | None]] = (
    (None, None),
    (GeneratorDetails(samplers=("ddim",), default_guidance_scale=7.5), "generator"),
)


@pytest.mark.parametrize(("details", "expected"), DETAILS)
@pytest.mark.parametrize("state", ModelState)
@pytest.mark.parametrize("kind", ModelKind)
def test_every_state_and_kind_has_its_name_on_the_wire(
    state: ModelState, kind: ModelKind, details: GeneratorDetails | None, expected: str | None
) -> None:
    info = model_info_to_pb(ModelCard("x", kind, state, details=details))
    assert model_pb2.ModelState.Name(info.state) == f"MODEL_STATE_{state.name}"
    assert model_pb2.ModelKind.Name(info.kind) == f"MODEL_KIND_{kind.name}"
    assert info.WhichOneof("details") == expected
