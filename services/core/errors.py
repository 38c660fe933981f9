# ruff: noqa: N818  (the names are the words of the contract; a suffix would say nothing)
"""Every error this project raises on purpose, as one tree with no status codes in it.

::

    EaselError                 reason, message
    ├── InvalidInput           + field, limit, given: the caller can correct the request
    ├── NotFound               the named thing does not exist
    ├── FailedPrecondition     the request is fine, the state of the system is not
    ├── NotSupported           in the contract, but not served yet
    ├── Unauthenticated        who is calling is not known
    ├── PermissionDenied       who is calling is known, and may not
    ├── Overloaded             + retry_after_seconds: refused before any work was done
    ├── NotReady               the model is not loaded yet
    │   └── Draining           the service is going away; another one can answer
    ├── DeadlineExceeded       the caller's deadline passed, or cannot be met
    ├── Cancelled              the caller gave up
    └── ModelFault             a step failed; details are in the log, never in the answer
        └── OutOfMemory        the device could not hold the batch; raised by models

``services.core.server.status`` is the one table that turns these into transport statuses.
"""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from typing import ClassVar


class EaselError(Exception):
    """Base of the tree.

    ``message`` is safe to show to the caller: no paths, no internals.
    ``reason`` is a stable UPPER_SNAKE_CASE word for programs (``google.rpc.ErrorInfo.reason``);
    each class has its own default.
    """

    default_reason: ClassVar[str] = "ERROR"
    default_message: ClassVar[str] = "The request failed."

    def __init__(self, message: str | None = None, *, reason: str | None = None) -> None:
        self.message = self.default_message if message is None else message
        self.reason = self.default_reason if reason is None else reason
        super().__init__(self.message)


class InvalidInput(EaselError):
    """A field of the request is outside what is accepted.

    ``field`` is the dotted path in the request; ``limit`` and ``given`` are the bound and the
    offending value as text, where there is a bound.
    """

    default_reason = "INVALID_INPUT"

    def __init__(
        self,
        field: str,
        message: str,
        limit: object | None = None,
        given: object | None = None,
        *,
        reason: str | None = None,
    ) -> None:
        super().__init__(message, reason=reason)
        self.field = field
        self.limit = None if limit is None else str(limit)
        self.given = None if given is None else str(given)


class NotFound(EaselError):
    """The named thing does not exist."""

    default_reason = "NOT_FOUND"
    default_message = "Not found."


class FailedPrecondition(EaselError):
    """The request is well formed, but the system is not in the state it needs."""

    default_reason = "FAILED_PRECONDITION"
    default_message = "The system is not in the state this request needs."


class NotSupported(EaselError):
    """Part of the contract, but not served by this server."""

    default_reason = "NOT_SUPPORTED"
    default_message = "This server does not support that yet."


class Unauthenticated(EaselError):
    """No valid credentials came with the request."""

    default_reason = "UNAUTHENTICATED"
    default_message = "Valid credentials are required."


class PermissionDenied(EaselError):
    """The credentials are valid, but do not allow this."""

    default_reason = "PERMISSION_DENIED"
    default_message = "The credentials do not allow this."


class Overloaded(EaselError):
    """Refused before any work was done; worth another try after ``retry_after_seconds`` (> 0)."""

    default_reason = "OVERLOADED"
    default_message = "The server has more work than it can take on."

    def __init__(
        self,
        retry_after_seconds: float,
        message: str | None = None,
        *,
        reason: str | None = None,
    ) -> None:
        super().__init__(message, reason=reason)
        self.retry_after_seconds = retry_after_seconds


class NotReady(EaselError):
    """The model is not loaded and warm yet."""

    default_reason = "NOT_READY"
    default_message = "The model is not ready yet."


class Draining(NotReady):
    """The service finishes what it has and takes nothing new."""

    default_reason = "DRAINING"
    default_message = "The server is shutting down."


class DeadlineExceeded(EaselError):
    """The caller's deadline passed before the answer was ready."""

    default_reason = "DEADLINE_EXCEEDED"
    default_message = "The deadline passed before the answer was ready."


class Cancelled(EaselError):
    """The caller, or the server while closing, gave the work up."""

    default_reason = "CANCELLED"
    default_message = "The request was cancelled."


class ModelFault(EaselError):
    """A step of the model failed; the cause is chained and logged, never sent to the caller."""

    default_reason = "MODEL_FAULT"
    default_message = "The model failed on this request."


class OutOfMemory(ModelFault):
    """The device could not hold the batch.

    A model that raises this from ``step`` promises that every row's state is as it was before the
    call, so that the engine may step the same rows again in smaller batches.
    """

    default_reason = "OUT_OF_MEMORY"
    default_message = "The device ran out of memory on this request."


def with_causes(error: BaseException) -> Iterator[BaseException]:
    """``error``, what caused it, and what it came in the middle of, and so on; each once."""
    due, seen = [error], set[int]()
    while due:
        each = due.pop()
        if id(each) not in seen:  # causes may go round in a circle
            seen.add(id(each))
            yield each
            due += [cause for cause in (each.__cause__, each.__context__) if cause is not None]


def drop_frames(error: BaseException) -> None:
    """Parts ``error`` and its causes from the frames that they came through, which hold what was
    asked for and what was under way. Where it came from is not known any more: log it first.
    """
    for each in with_causes(error):
        each.__traceback__ = None


def let_go(error: BaseException) -> None:
    """Empties the frames that ``error`` and its causes came through: they hold on to what was
    computed, and callers hold on to the error. It would end a coroutine that is suspended in one.
    """
    for each in with_causes(error):
        traceback.clear_frames(each.__traceback__)
