"""How many rows a compiled part really runs at once, and what its caller gets of them."""

from __future__ import annotations

import importlib
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch

if find_spec("openvino") is None:
    pytest.skip("openvino is not installed", allow_module_level=True)

from services import openvino as runtime
from services.generator.openvino import Compiled, rows_at_once, rows_run
from services.openvino import operations

MOST_PLACES = 64
# Rows of 2 x 2 places, of which 16 go into one call, to how many each of them is run among.
TOGETHER = {
    1: [1], 7: [7] * 7, 8: [8] * 8, 9: [10] * 9, 10: [10] * 10, 15: [16] * 15, 16: [16] * 16,
    17: [10] * 9 + [8] * 8, 32: [16] * 32, 33: [12] * 11 + [12] * 11 + [12] * 11,
}  # fmt: skip


@pytest.fixture(scope="module")
def counting(tmp_path_factory: pytest.TempPathFactory) -> Compiled:
    """Answers each row its sum, the number it brings beside it, how many rows there are, and what
    all of them bring together.
    """
    numbers = operations.parameter([-1, 3, -1, -1], np.float32, name="numbers")
    beside = operations.parameter([-1], np.float32, name="beside")
    sums = operations.reduce_sum(numbers, operations.constant([1, 2, 3]), keep_dims=False)
    count = operations.convert(
        operations.gather(
            operations.shape_of(numbers), operations.constant([0]), operations.constant(0)
        ),
        "f32",
    )
    counts = operations.broadcast(count, operations.shape_of(beside))
    shared = operations.parameter([-1], np.float32, name="shared")
    shares = operations.add(
        operations.multiply(beside, operations.constant(np.float32(0.0))), shared
    )
    columns = [
        operations.unsqueeze(each, operations.constant([1]))
        for each in (sums, beside, counts, shares)
    ]
    answers = operations.concat(columns, 1)
    # Through our own module first, which keeps its reporter out.
    model = importlib.import_module("openvino").Model(
        [answers], [numbers, beside, shared], "counting"
    )
    for given, name in zip(model.inputs, ("numbers", "beside", "shared"), strict=True):
        given.set_names({name})
    path: Path = tmp_path_factory.mktemp("counting") / "model.xml"
    runtime.save(model, path, half=False)
    return Compiled(runtime.read(path), precision="float32", threads=1, most_places=MOST_PLACES)


@pytest.mark.parametrize(("rows", "together"), TOGETHER.items())
def test_rows_are_run_in_few_numbers_and_answered_as_they_came(
    counting: Compiled, rows: int, together: list[int]
) -> None:
    numbers = torch.arange(12.0 * rows).reshape(rows, 3, 2, 2)
    beside = torch.arange(float(rows)) - 5
    shared = torch.tensor([3.5])
    given = numbers.clone(), beside.clone(), shared.clone()

    answer = counting(numbers=numbers, beside=beside, shared=shared)

    counts = torch.tensor(together).float()
    expected = torch.stack([numbers.sum((1, 2, 3)), beside, counts, shared.expand(rows)], 1)
    assert torch.equal(answer, expected)
    for each, before in zip((numbers, beside, shared), given, strict=True):
        assert torch.equal(each, before)


@pytest.mark.parametrize(
    ("places", "expected"),
    [
        # Rows alone are the limit, up to 256 places of 8,192.
        (1, 32),
        (256, 32),
        (257, 30),
        # Above 8 an even number.
        (8192 // 9, 8),
        (8192 // 10, 10),
        (4096, 2),
        (4097, 1),
        (8192, 1),
        # A single row is never too large.
        (8193, 1),
    ],
)
def test_the_most_rows_of_a_call(places: int, expected: int) -> None:
    assert rows_at_once(places, 8192) == expected


def test_numbers_of_rows_are_few_and_pairs_get_none_added() -> None:
    assert len({rows_run(rows) for rows in range(1, 33)}) == 20
    assert [rows_run(rows) for rows in range(2, 33, 2)] == list(range(2, 33, 2))
