"""Exit codes, and errors as the one line that people read."""

from __future__ import annotations

from enum import IntEnum
from typing import Final

import grpc

from easel.client import EaselClientError, ItemError

EPILOG: Final = (
    "Exit codes: 0 done, 1 the call failed, 2 wrong usage or input, "
    "3 service unavailable, 130 interrupted."
)


class ExitCode(IntEnum):
    OK = 0
    FAILED = 1
    BAD_INPUT = 2
    UNAVAILABLE = 3
    INTERRUPTED = 130


_BY_STATUS: Final = {
    grpc.StatusCode.INVALID_ARGUMENT: ExitCode.BAD_INPUT,
    grpc.StatusCode.OUT_OF_RANGE: ExitCode.BAD_INPUT,
    grpc.StatusCode.NOT_FOUND: ExitCode.BAD_INPUT,
    grpc.StatusCode.UNAVAILABLE: ExitCode.UNAVAILABLE,
}


def exit_code(error: EaselClientError | ItemError) -> ExitCode:
    return _BY_STATUS.get(error.code, ExitCode.FAILED)


def one_line(error: EaselClientError, target: str) -> str:
    """Return the error with its field, limit and what was given, as far as they are known."""
    if error.code is grpc.StatusCode.UNAVAILABLE and not error.reason:
        return f"nothing answers at {target}; `easel up` starts the services, --target names others"
    facts = [
        f"limit {error.limit}" if error.limit is not None else "",
        f"given {error.given}" if error.given is not None else "",
        f"try again in {error.retry_after:.1f} s" if error.retry_after else "",
        f"request {error.request_id}" if error.request_id else "",
    ]
    fields = ", ".join(violation.field for violation in error.violations if violation.field)
    known = "; ".join(fact for fact in facts if fact)
    text = f"{error.code.name}: {fields}: {error.message}" if fields else _coded(error)
    return f"{_flat(text)} ({known})" if known else _flat(text)


def item_line(error: ItemError) -> str:
    """Return the failure of one item."""
    named = f"{error.field}: {error.message}" if error.field else error.message
    return _flat(f"{error.code.name}: {named}")


def _coded(error: EaselClientError) -> str:
    return f"{error.code.name}: {error.message}"


def _flat(text: str) -> str:
    return " ".join(text.split())
