"""How many rows a compiled part really runs, and what its caller gets of them."""

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
from services.generator.openvino import Compiled, rows_run
from services.openvino import operations

EXPECTED = {
    1: 1, 7: 7, 8: 8,
    9: 10, 10: 10, 11: 12, 31: 32, 32: 32,
    33: 40, 39: 40, 40: 40, 41: 48, 64: 64, 65: 72,
}  # fmt: skip


@pytest.fixture(scope="module")
def counting(tmp_path_factory: pytest.TempPathFactory) -> Compiled:
    """Answers each row its sum, the number it brings beside it, and how many rows there are."""
    numbers = operations.parameter([-1, 3], np.float32, name="numbers")
    beside = operations.parameter([-1], np.float32, name="beside")
    sums = operations.reduce_sum(numbers, operations.constant([1]), keep_dims=True)
    column = operations.unsqueeze(beside, operations.constant([1]))
    count = operations.convert(
        operations.gather(
            operations.shape_of(numbers), operations.constant([0]), operations.constant(0)
        ),
        "f32",
    )
    counts = operations.broadcast(count, operations.shape_of(column))
    answers = operations.concat([sums, column, counts], 1)
    # Through our own module first, which keeps its reporter out.
    model = importlib.import_module("openvino").Model([answers], [numbers, beside], "counting")
    for given, name in zip(model.inputs, ("numbers", "beside"), strict=True):
        given.set_names({name})
    path: Path = tmp_path_factory.mktemp("counting") / "model.xml"
    runtime.save(model, path, half=False)
    return Compiled(path, precision="float32", threads=1)


@pytest.mark.parametrize(("rows", "run"), EXPECTED.items())
def test_rows_are_run_as_one_of_few_numbers_and_answered_as_they_came(
    counting: Compiled, rows: int, run: int
) -> None:
    numbers = torch.arange(3.0 * rows).reshape(rows, 3)
    beside = torch.arange(float(rows)) - 5
    given = numbers.clone(), beside.clone()

    answer = counting(numbers=numbers, beside=beside)

    expected = torch.stack([numbers.sum(1), beside, torch.full((rows,), float(run))], 1)
    assert torch.equal(answer, expected)
    assert torch.equal(numbers, given[0])
    assert torch.equal(beside, given[1])


def test_numbers_of_rows_are_few_and_little_is_added() -> None:
    asked = range(1, 65)
    run = [rows_run(rows) for rows in asked]
    assert len(set(run)) == 24
    assert all(more >= rows for more, rows in zip(run, asked, strict=True))
    assert max(more / rows for more, rows in zip(run, asked, strict=True)) < 1.25


def test_rows_with_guidance_get_none_added_up_to_32() -> None:
    pairs = range(2, 33, 2)
    assert [rows_run(rows) for rows in pairs] == list(pairs)
