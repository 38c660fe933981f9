import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from services.classifier.network import LayerShape, Pooling, Reading
from services.classifier.request import (
    Dtype,
    EmbedRequest,
    Picture,
    check_answer_size,
    check_id,
    check_threshold,
    checked_top_k,
    readings,
)
from services.core.errors import InvalidInput
from tests.unit.classifier.fakes import DEPTH, TRAITS


def picture() -> Image.Image:
    raise AssertionError("limits are checked without decoding")


REQUEST = EmbedRequest(Picture(picture))
WITHOUT_CLASS_TOKEN = replace(TRAITS, poolings=(Pooling.MEAN, Pooling.PATCH))


@pytest.mark.parametrize(("given", "expected"), [(None, 5), (1, 1), (9, 9)])
def test_top_k_within_the_labels(given: int | None, expected: int) -> None:
    assert checked_top_k(given, 9) == expected


def test_top_k_defaults_to_what_there_is() -> None:
    assert checked_top_k(None, 2) == 2


@pytest.mark.parametrize("given", [0, 10, 2**32 - 1])
def test_top_k_outside_the_labels(given: int) -> None:
    with pytest.raises(InvalidInput) as caught:
        checked_top_k(given, 9)
    assert (caught.value.field, caught.value.limit) == ("top_k", "1 to 9")


@pytest.mark.parametrize("given", [-0.01, 1.01, math.nan, math.inf, -math.inf])
def test_threshold_outside(given: float) -> None:
    with pytest.raises(InvalidInput) as caught:
        check_threshold(given)
    assert caught.value.field == "threshold"


def test_id_is_limited_in_bytes() -> None:
    check_id("x" * 128)
    with pytest.raises(InvalidInput) as caught:
        check_id("é" * 65)
    assert (caught.value.field, caught.value.given) == ("id", "130 bytes")


def test_no_layers_is_the_last_one_normed() -> None:
    (reading,) = readings(REQUEST, TRAITS)
    assert (reading.layer, reading.final_norm) == (DEPTH, True)


def test_layers_keep_their_order_and_come_once() -> None:
    request = replace(REQUEST, layers=(-1, 0, DEPTH, 1, -DEPTH))
    assert [reading.layer for reading in readings(request, TRAITS)] == [DEPTH, 0, 1]


def test_the_final_norm_is_the_last_layers_alone() -> None:
    request = replace(REQUEST, layers=(0, DEPTH))
    assert [reading.final_norm for reading in readings(request, TRAITS)] == [False, True]
    request = replace(request, final_norm=False)
    assert [reading.final_norm for reading in readings(request, TRAITS)] == [False, False]


@given(st.integers(-(DEPTH + 1), DEPTH))
def test_every_layer_in_range_is_one_of_the_network(layer: int) -> None:
    (reading,) = readings(replace(REQUEST, layers=(layer,)), TRAITS)
    assert reading.layer == layer % (DEPTH + 1)


@pytest.mark.parametrize("layer", [DEPTH + 1, -(DEPTH + 2), 2**31 - 1, -(2**31)])
def test_layers_out_of_range(layer: int) -> None:
    with pytest.raises(InvalidInput) as caught:
        readings(replace(REQUEST, layers=(0, layer)), TRAITS)
    assert (caught.value.field, caught.value.limit) == ("layers", f"{-(DEPTH + 1)} to {DEPTH}")


def test_an_answer_too_large_for_a_message() -> None:
    # 2 layers x 4 patches x 4 numbers
    request = replace(REQUEST, pooling=Pooling.PATCH)
    wanted = (Reading(0, Pooling.PATCH), Reading(1, Pooling.PATCH))
    check_answer_size(request, wanted, TRAITS, 128)
    check_answer_size(replace(request, dtype=Dtype.FLOAT16), wanted, TRAITS, 64)
    with pytest.raises(InvalidInput) as caught:
        check_answer_size(request, wanted, TRAITS, 127)
    assert (caught.value.field, caught.value.given) == ("layers", "128 bytes")


def test_the_size_of_an_answer_is_that_of_its_layers() -> None:
    shapes = (LayerShape(4, 4, 2), LayerShape(2, 2, 4), LayerShape(1, 1, 8), LayerShape(1, 1, 8))
    traits = replace(TRAITS, shapes=shapes)
    patches = replace(REQUEST, pooling=Pooling.PATCH)
    check_answer_size(patches, (Reading(0, Pooling.PATCH), Reading(3, Pooling.PATCH)), traits, 160)
    check_answer_size(REQUEST, (Reading(0), Reading(3)), traits, 40)
    with pytest.raises(InvalidInput):
        check_answer_size(REQUEST, (Reading(0), Reading(3)), traits, 39)


@pytest.mark.parametrize("pooling", [Pooling.MEAN, Pooling.PATCH])
def test_poolings_that_the_model_has(pooling: Pooling) -> None:
    (reading,) = readings(replace(REQUEST, pooling=pooling), WITHOUT_CLASS_TOKEN)
    assert reading.pooling is pooling


def test_a_pooling_that_the_model_lacks() -> None:
    with pytest.raises(InvalidInput, match="FakeNetwork has no class token") as caught:
        readings(REQUEST, WITHOUT_CLASS_TOKEN)
    error = caught.value
    assert (error.field, error.limit, error.given) == ("pooling", "mean, patch", "cls")
