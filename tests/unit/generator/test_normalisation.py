"""Group normalisation with the channels last is the same normalisation."""

from __future__ import annotations

import importlib
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from services import openvino as runtime
from services.generator.normalisation import with_channels_last
from services.openvino import operations

CHANNELS, GROUPS, EPSILON = 16, 4, 1e-3
RANDOM = np.random.default_rng(0)
SCALE = RANDOM.normal(size=CHANNELS).astype(np.float32)
SHIFT = RANDOM.normal(size=CHANNELS).astype(np.float32)
PICTURES = (-1, CHANNELS, -1, -1)
After = Callable[[Any], Any]


def model(after: After, shape: tuple[int, ...] = PICTURES) -> Any:
    given = operations.parameter(list(shape), np.float32)
    normal = operations.group_normalization(
        given, operations.constant(SCALE), operations.constant(SHIFT), GROUPS, EPSILON
    )
    # Through our own module first, which keeps its reporter out.
    return importlib.import_module("openvino").Model([after(normal)], [given], "norm")


def answer(made: Any, given: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    compiled = runtime.compiled(made, runtime.options("float32", 1))
    found: np.ndarray[Any, Any] = compiled.create_infer_request().infer([given])[0]
    return found.copy()


def kinds(made: Any) -> Counter[str]:
    return Counter(layer.get_type_name() for layer in made.get_ops())


def quantised(value: Any, reach: Any = 3.0) -> Any:
    ends = [operations.constant(np.asarray(end, np.float32)) for end in (-reach, reach)]
    return operations.fake_quantize(value, *ends, *ends, 256)


def nothing(value: Any) -> Any:
    return value


def activated(value: Any) -> Any:
    return operations.swish(value)


def activated_and_quantised(value: Any) -> Any:
    return quantised(operations.swish(value))


def quantised_by_channel(value: Any) -> Any:
    return quantised(value, np.linspace(1, 3, CHANNELS).reshape(1, CHANNELS, 1, 1))


def read_twice(value: Any) -> Any:
    return operations.add(operations.swish(value), value)


def of_swish_beta(value: Any) -> Any:
    """Normalised numbers are the second input: they are not what is activated."""
    return operations.multiply(operations.constant(np.float32(2.0)), value)


AFTER = [
    nothing,
    activated,
    activated_and_quantised,
    quantised_by_channel,
    read_twice,
    of_swish_beta,
]


@pytest.mark.parametrize("after", AFTER)
@pytest.mark.parametrize("shape", [(1, 4, 4), (3, 8, 2), (2, 16, 20), (5, 1, 1)])
def test_answers_are_the_same_in_any_batch_and_size(
    after: After, shape: tuple[int, int, int]
) -> None:
    batch, height, width = shape
    chance = np.random.default_rng(shape)
    given = chance.normal(2.0, 3.0, (batch, CHANNELS, height, width)).astype(np.float32)
    expected = answer(model(after), given)
    found = answer(with_channels_last(model(after)), given)
    # One step of the quantisation, where a number falls on its edge.
    step = 6 / 255 if "quantised" in after.__name__ else 0.0
    np.testing.assert_allclose(found, expected, atol=2e-5 + step)
    assert np.mean(abs(found - expected) > 2e-5) <= max(0.01, 1 / found.size)


def test_it_is_group_normalisation() -> None:
    given = RANDOM.normal(size=(2, CHANNELS, 8, 6)).astype(np.float32)
    scale, shift = torch.from_numpy(SCALE), torch.from_numpy(SHIFT)
    normal = torch.nn.functional.group_norm(torch.from_numpy(given), GROUPS, scale, shift, EPSILON)
    found = answer(with_channels_last(model(activated)), given)
    np.testing.assert_allclose(found, torch.nn.functional.silu(normal).numpy(), atol=2e-5)


@pytest.mark.parametrize("after", AFTER)
def test_none_of_pictures_is_left(after: After) -> None:
    made = with_channels_last(model(after))
    assert kinds(made)["GroupNormalization"] == 0
    assert kinds(made)["Transpose"] == 2


@pytest.mark.parametrize(
    ("after", "inside"),
    [
        (activated, "Swish"),
        (activated_and_quantised, "FakeQuantize"),
        (quantised_by_channel, "Add"),
        (read_twice, "Add"),
    ],
)
def test_channels_come_back_after_what_takes_numbers_one_by_one(after: After, inside: str) -> None:
    made = with_channels_last(model(after))
    back = [layer for layer in made.get_ordered_ops() if layer.get_type_name() == "Transpose"][1]
    assert back.input(0).get_source_output().get_node().get_type_name() == inside


@pytest.mark.parametrize("shape", [(-1, CHANNELS, -1), (-1, CHANNELS, -1, -1, -1)])
def test_other_shapes_are_left(shape: tuple[int, ...]) -> None:
    made = with_channels_last(model(activated, shape))
    assert kinds(made)["GroupNormalization"] == 1
    given = RANDOM.normal(
        size=(2, *(CHANNELS if axis == 1 else 5 for axis in range(1, len(shape))))
    )
    expected = answer(model(activated, shape), given.astype(np.float32))
    np.testing.assert_array_equal(answer(made, given.astype(np.float32)), expected)
