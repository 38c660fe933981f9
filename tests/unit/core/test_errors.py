"""Every class of the error tree."""

from __future__ import annotations

import inspect

import pytest

from services.core import errors
from services.core.errors import EaselError, InvalidInput, Overloaded


def _tree(cls: type[EaselError]) -> list[type[EaselError]]:
    return [cls, *(below for child in cls.__subclasses__() for below in _tree(child))]


def _own(cls: type[object]) -> bool:
    return cls.__module__ == errors.__name__


TREE = [cls for cls in dict.fromkeys(_tree(EaselError)) if _own(cls)]


def _make(cls: type[EaselError]) -> EaselError:
    if issubclass(cls, InvalidInput):
        return cls("field", "message")
    if issubclass(cls, Overloaded):
        return cls(1.0)
    return cls()


def test_every_error_of_the_module_is_in_the_tree() -> None:
    classes = [c for _, c in inspect.getmembers(errors, inspect.isclass) if _own(c)]
    assert set(classes) == set(TREE)


@pytest.mark.parametrize("cls", TREE)
def test_each_class_has_a_message_and_a_stable_reason(cls: type[EaselError]) -> None:
    error = _make(cls)
    assert error.message
    assert str(error) == error.message
    assert error.reason == cls.default_reason
    assert error.reason == error.reason.upper()


def test_reasons_tell_the_classes_apart() -> None:
    reasons = [cls.default_reason for cls in TREE]
    assert len(set(reasons)) == len(reasons)


@pytest.mark.parametrize("cls", TREE)
def test_the_tree_in_the_docstring_shows_each_class(cls: type[EaselError]) -> None:
    assert errors.__doc__ is not None
    assert cls.__name__ in errors.__doc__


def test_message_and_reason_can_be_given() -> None:
    error = errors.NotFound("no model 'x'", reason="MODEL_UNKNOWN")
    assert (error.message, error.reason) == ("no model 'x'", "MODEL_UNKNOWN")


def test_invalid_input_names_field_limit_and_given() -> None:
    error = InvalidInput("steps", "too many steps", limit=150, given=10**9)
    assert (error.field, error.limit, error.given) == ("steps", "150", "1000000000")
    assert InvalidInput("prompt", "is empty").limit is None


def test_overloaded_says_when_to_come_back() -> None:
    assert Overloaded(2.5).retry_after_seconds == 2.5
