"""Tensors of a request: sizes, elements and shapes, with what is refused and how."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.core.errors import InvalidInput
from services.inference.tensors import (
    ANY,
    BYTES,
    FP32,
    UINT8,
    Tensor,
    check_batch,
    check_shape,
    classes,
    join,
    numbers,
    shown,
)


def tensor(datatype: str, shape: Sequence[int], values: bytes | Sequence[Any] = b"") -> Tensor:
    return Tensor("image", datatype, tuple(shape), values)


def refused(call: Callable[[], object]) -> InvalidInput:
    with pytest.raises(InvalidInput) as caught:
        call()
    return caught.value


@pytest.mark.parametrize("typed", [False, True])
@pytest.mark.parametrize(("datatype", "dtype"), [(UINT8, "u1"), (FP32, "<f4")])
def test_items_of_a_batch(datatype: str, dtype: str, typed: bool) -> None:
    batch = np.arange(24).reshape(2, 3, 4).astype(dtype)
    values = batch.ravel().tolist() if typed else batch.tobytes()
    given = tensor(datatype, batch.shape, values)
    given.check_values()
    assert given.typed == typed
    for index in range(2):
        item = given.item(index)
        assert item.dtype == np.dtype(dtype)
        assert np.array_equal(item, batch[index])


@pytest.mark.parametrize(
    ("datatype", "values", "limit", "given"),
    [
        (UINT8, bytes(5), "6 bytes", "5 bytes"),
        (UINT8, bytes(7), "6 bytes", "7 bytes"),
        (FP32, bytes(6), "24 bytes", "6 bytes"),
        (FP32, [0.0] * 5, "6 elements", "5 elements"),
        (UINT8, [0] * 7, "6 elements", "7 elements"),
    ],
)
def test_as_many_numbers_as_the_shape_says(
    datatype: str, values: bytes | Sequence[Any], limit: str, given: str
) -> None:
    error = refused(tensor(datatype, (2, 3), values).check_values)
    assert (error.field, error.limit, error.given) == ("raw_input_contents[0]", limit, given)
    assert "[2, 3]" in error.message
    assert given.split()[0] in error.message


@pytest.mark.parametrize("values", [[0, 256], [0, 2**32 - 1], [0, -1]])
def test_a_number_beyond_its_datatype(values: list[int]) -> None:
    error = refused(lambda: tensor(UINT8, (1, 2), values).item(0))
    assert (error.field, error.limit) == ("raw_input_contents[0]", UINT8)


@given(st.lists(st.binary(max_size=8), max_size=6))
def test_elements_survive_the_wire(elements: list[bytes]) -> None:
    assert tensor(BYTES, (len(elements),), join(elements)).elements() == elements


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("values", [join([b"a", b"bc"]), [b"a", b"bc"]])
def test_as_many_elements_as_the_shape_says(values: bytes | list[bytes], count: int) -> None:
    error = refused(tensor(BYTES, (count,), values).elements)
    assert (error.field, error.limit) == ("raw_input_contents[0]", f"{count} elements")


@pytest.mark.parametrize("values", [b"\x01", b"\x02\0\0\0a", b"\xff\xff\xff\xffabc"])
def test_an_element_that_ends_after_the_data(values: bytes) -> None:
    error = refused(tensor(BYTES, (1,), values).elements)
    assert error.limit == f"{len(values)} bytes"
    assert "Element 0" in error.message


@given(st.binary(max_size=40), st.integers(0, 4))
def test_no_bytes_break_the_reader(data: bytes, count: int) -> None:
    try:
        found = tensor(BYTES, (count,), data).elements()
    except InvalidInput:
        return
    assert join(found) == data


@pytest.mark.parametrize("shape", [(0, 4, 4, 3), (1, 4, 4, 3), (9, 1, 2, 3), (-1, 4, 4, 3)])
def test_a_shape_that_fits(shape: tuple[int, ...]) -> None:
    """The batch is for ``check_batch``."""
    check_shape(tensor(UINT8, shape), (ANY, ANY, ANY, 3))


@pytest.mark.parametrize(
    "shape", [(), (3,), (4, 4, 3), (1, 1, 4, 4, 3), (1, 0, 4, 3), (1, 4, -1, 3), (1, 3, 4, 4)]
)
def test_a_shape_that_does_not(shape: tuple[int, ...]) -> None:
    error = refused(lambda: check_shape(tensor(UINT8, shape), (ANY, ANY, ANY, 3)))
    assert (error.field, error.limit) == ("inputs[0].shape", "[-1, -1, -1, 3]")
    assert error.given == shown(shape)
    assert shown(shape) in error.message


def test_one_of_several_shapes() -> None:
    check_shape(tensor(BYTES, (4,)), (ANY,), (ANY, 1))
    check_shape(tensor(BYTES, (4, 1)), (ANY,), (ANY, 1))
    error = refused(lambda: check_shape(tensor(BYTES, (4, 2)), (ANY,), (ANY, 1)))
    assert error.limit == "[-1] or [-1, 1]"


@pytest.mark.parametrize("count", [1, 4])
def test_a_batch_within_bounds(count: int) -> None:
    assert check_batch(tensor(BYTES, (count,)), 4) == count


@pytest.mark.parametrize("count", [-1, 0, 5, 2**62])
def test_a_batch_out_of_bounds(count: int) -> None:
    error = refused(lambda: check_batch(tensor(BYTES, (count,)), 4))
    assert (error.field, error.limit, error.given) == ("inputs[0].shape", "1 to 4", str(count))


def test_a_long_shape_is_shown_short() -> None:
    assert shown(range(9)) == "[0, 1, 2, 3, 4, 5, 6, 7, ...]"


def test_numbers_go_row_by_row() -> None:
    output = numbers("logits", np.array([[1, 2], [3, 4]], np.float32).T)
    assert (output.datatype, output.shape) == (FP32, (2, 2))
    assert np.frombuffer(output.data, "<f4").tolist() == [1, 3, 2, 4]


def test_classes_are_score_index_label() -> None:
    output = classes("scores", [[(0.75, 3, "a:b"), (0.25, 1, "ä")], [(1.0, 0, "c"), (0.0, 1, "ä")]])
    assert (output.datatype, output.shape) == (BYTES, (2, 2))
    assert tensor(BYTES, (4,), output.data).elements() == [
        b"0.750000:3:a:b",
        "0.250000:1:ä".encode(),
        b"1.000000:0:c",
        "0.000000:1:ä".encode(),
    ]
