"""What a service's models are to this protocol: tensors in, tensors out."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

from services.core.caller import Caller
from services.core.card import ModelState
from services.core.engine import Timing
from services.core.errors import InvalidInput
from services.inference.tensors import OutputTensor, Tensor, TensorSpec, shortened

Value = bool | int | float | str

PRIORITY_LEVELS: Final = 21
"""1 goes first, as the protocol has it: the engine's 10 to -10."""

DEFAULT_LEVEL: Final = 11
_CLASSES: Final = "classification"
_MAX_TIMEOUT_MICROSECONDS: Final = 2**62
# Answers are never split, so each is the final one and says so.
_WITHOUT_EFFECT: Final = "triton_enable_empty_final_response"


@dataclass(frozen=True, slots=True)
class OutputRequest:
    """A tensor to answer with; the best ``classes`` of it instead, where that is not 0.

    ``field`` is its path in the request.
    """

    name: str
    classes: int = 0
    field: str = "outputs[0]"


@dataclass(frozen=True, slots=True)
class InferRequest:
    """``outputs`` are all of the model's when empty. ``parameters`` are the model's own."""

    inputs: Sequence[Tensor]
    outputs: Sequence[OutputRequest] = ()
    id: str = ""
    model: str = ""
    version: str = ""
    parameters: Mapping[str, Value] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Inference:
    """What a request is answered with; ``timings`` has one for each item of its batch."""

    model: str
    version: str
    outputs: Sequence[OutputTensor]
    timings: Sequence[Timing]


@dataclass(frozen=True, slots=True)
class ModelDescription:
    """``max_batch`` items are taken in one request, at most. ``parameters`` are for people to
    read. ``device`` is "cpu", "cuda:N" or the like.
    """

    name: str
    version: str
    state: ModelState
    backend: str
    max_batch: int
    inputs: Sequence[TensorSpec]
    outputs: Sequence[TensorSpec]
    reason: str = ""
    device: str = ""
    bytes_in_memory: int = 0
    queue_delay_seconds: float = 0.0
    parameters: Mapping[str, str] = field(default_factory=dict)


class TensorModel(Protocol):
    """The models of one service."""

    def describe_all(self) -> Sequence[ModelDescription]: ...

    def describe(self, name: str, version: str) -> ModelDescription:
        """The default model, or version, for an empty text. Raises ``NotFound``."""

    def infer(self, request: InferRequest, caller: Caller) -> Awaitable[Inference]:
        """Raises ``InvalidInput``, ``NotFound``, and what the engine refuses with."""


def caller_of(
    parameters: Mapping[str, Value],
    caller: Caller,
    clock: Callable[[], float] = time.monotonic,
) -> tuple[Caller, Mapping[str, Value]]:
    """Who asks, with what the parameters say of that, and the parameters that are left.

    Raises ``InvalidInput`` for a ``priority`` or a ``timeout`` out of bounds.
    """
    left = {name: value for name, value in parameters.items() if name != _WITHOUT_EFFECT}
    level = _whole(left.pop("priority", 0), "parameters.priority", 0, PRIORITY_LEVELS)
    timeout = _whole(left.pop("timeout", 0), "parameters.timeout", 0, _MAX_TIMEOUT_MICROSECONDS)
    priority = DEFAULT_LEVEL - level if level else caller.priority
    deadline = caller.deadline
    if timeout:
        limit = clock() + timeout / 1e6
        deadline = limit if deadline is None else min(deadline, limit)
    return Caller(caller.tenant, priority, deadline), left


def classes_of(parameters: Mapping[str, Value], field: str) -> int:
    """How many classes an output is asked for; 0 for the tensor itself.

    Raises ``InvalidInput`` for a number below 0 and for other parameters.
    """
    for name in parameters:
        if name != _CLASSES:
            raise unknown_parameter(name, f"{field}.parameters", _CLASSES)
    return _whole(parameters.get(_CLASSES, 0), f"{field}.parameters.{_CLASSES}", 0, 2**63 - 1)


def unknown_parameter(name: str, field: str, *known: str) -> InvalidInput:
    """``field`` is where the parameter is; ``known`` those that may be there."""
    limit = ", ".join(known) or "none"
    given = shortened(name)
    message = f"The parameter {given!r} is not served here; known: {limit}."
    return InvalidInput(f"{field}.{given}", message, limit, given)


def _whole(value: Value, field: str, least: int, most: int) -> int:
    is_whole = isinstance(value, int) and not isinstance(value, bool)
    if not is_whole or not least <= value <= most:  # type: ignore[operator]  # it is a number
        name = field.rpartition(".")[2]
        given = shortened(repr(value))
        limit = f"{least} to {most}"
        raise InvalidInput(
            field, f"{name!r} is a whole number, {limit}, not {given}.", limit, given
        )
    return int(value)
