"""What a request's parameters mean, and those that are refused."""

from __future__ import annotations

import pytest

from services.core.caller import Caller
from services.core.errors import InvalidInput
from services.inference.model import Value, caller_of, classes_of

NOW = 100.0
CALLER = Caller("tenant", 3, None)


def told(**parameters: Value) -> Caller:
    caller, left = caller_of(parameters, CALLER, clock=lambda: NOW)
    assert left == {}
    return caller


def test_without_parameters_the_call_says_all() -> None:
    assert told() == CALLER
    assert told(triton_enable_empty_final_response=True) == CALLER
    assert told(priority=0, timeout=0) == CALLER


@pytest.mark.parametrize(("level", "priority"), [(1, 10), (11, 0), (21, -10)])
def test_a_priority_level(level: int, priority: int) -> None:
    assert told(priority=level) == Caller("tenant", priority, None)


def test_a_timeout_is_a_deadline() -> None:
    assert told(timeout=500_000).deadline == NOW + 0.5


@pytest.mark.parametrize(("deadline", "expected"), [(NOW + 0.25, NOW + 0.25), (NOW + 9, NOW + 0.5)])
def test_the_earlier_deadline_holds(deadline: float, expected: float) -> None:
    caller, _ = caller_of({"timeout": 500_000}, Caller("", 0, deadline), clock=lambda: NOW)
    assert caller.deadline == expected


@pytest.mark.parametrize(
    "parameters",
    [
        {"priority": 22},
        {"priority": -1},
        {"priority": True},
        {"priority": "1"},
        {"timeout": -1},
        {"timeout": 2**63},
        {"timeout": 1.5},
    ],
)
def test_parameters_out_of_bounds(parameters: dict[str, Value]) -> None:
    ((name, value),) = parameters.items()
    with pytest.raises(InvalidInput) as caught:
        caller_of(parameters, CALLER)
    assert caught.value.field == f"parameters.{name}"
    assert caught.value.limit is not None
    assert caught.value.limit in caught.value.message
    assert caught.value.given == repr(value)


def test_what_is_the_models_is_left() -> None:
    _, left = caller_of({"fit": "pad", "timeout": 1}, CALLER)
    assert left == {"fit": "pad"}


@pytest.mark.parametrize("count", [0, 1, 2**40])
def test_classes(count: int) -> None:
    assert classes_of({"classification": count}, "outputs[2]") == count


def test_no_classes() -> None:
    assert classes_of({}, "outputs[2]") == 0


@pytest.mark.parametrize(
    ("parameters", "field"),
    [
        ({"classification": -1}, "outputs[2].parameters.classification"),
        ({"classification": "5"}, "outputs[2].parameters.classification"),
        ({"shared_memory_region": "x"}, "outputs[2].parameters.shared_memory_region"),
        ({"x" * 1000: 1}, f"outputs[2].parameters.{'x' * 100}"),
    ],
)
def test_other_parameters_of_outputs(parameters: dict[str, Value], field: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        classes_of(parameters, "outputs[2]")
    assert caught.value.field == field
