"""The client's one error, read from a gRPC status and its ``google.rpc`` details."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Protocol, Self, TypeVar

import grpc
from google.protobuf.message import DecodeError, Message
from google.rpc import error_details_pb2, status_pb2

from easel.common.v1 import common_pb2

DETAILS_KEY: Final = "grpc-status-details-bin"
REQUEST_ID_KEY: Final = "x-request-id"
_CODES: Final = {code.value[0]: code for code in grpc.StatusCode}

M = TypeVar("M", bound=Message)


class _Status(Protocol):
    """What both a failed call and its exception offer."""

    def code(self) -> grpc.StatusCode: ...
    def details(self) -> str | None: ...
    def trailing_metadata(self) -> Iterable[tuple[str, str | bytes]] | None: ...


@dataclass(frozen=True, slots=True)
class FieldViolation:
    """A field of the request, as the contract names it, and what is wrong with it."""

    field: str
    description: str


@dataclass(frozen=True, slots=True)
class ItemError:
    """One item's failure inside an answer or a stream whose other items went well.

    ``retry_after`` is in seconds, None when trying again is no use.
    """

    code: grpc.StatusCode
    message: str
    reason: str = ""
    field: str = ""
    retry_after: float | None = None

    @classmethod
    def from_pb(cls, error: common_pb2.ItemError) -> Self:
        return cls(
            _CODES.get(error.code, grpc.StatusCode.UNKNOWN),
            error.message,
            error.reason,
            error.field,
            error.retry_after_seconds or None,
        )


class EaselClientError(Exception):
    """A call that failed.

    ``code`` is the gRPC status code and ``reason`` the server's UPPER_SNAKE_CASE word for it
    (empty when none was sent). ``violations`` names the fields at fault, ``limit`` and ``given``
    the bound and the offending value where there is a bound. ``retry_after`` is in seconds, None
    when the server gave none. ``request_id`` finds the call in the servers' logs.
    """

    def __init__(
        self,
        code: grpc.StatusCode,
        message: str,
        *,
        reason: str = "",
        violations: tuple[FieldViolation, ...] = (),
        limit: str | None = None,
        given: str | None = None,
        retry_after: float | None = None,
        request_id: str = "",
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.reason = reason
        self.violations = violations
        self.limit = limit
        self.given = given
        self.retry_after = retry_after
        self.request_id = request_id

    @classmethod
    def from_call(cls, call: _Status) -> Self:
        """Read a failed call; details that cannot be read are left out, never raised over."""
        metadata = dict(call.trailing_metadata() or ())
        status = _status(metadata.get(DETAILS_KEY))
        info = _detail(status, error_details_pb2.ErrorInfo)
        retry = _detail(status, error_details_pb2.RetryInfo)
        return cls(
            call.code(),
            call.details() or call.code().name.replace("_", " ").capitalize(),
            reason=info.reason if info else "",
            violations=_violations(status),
            limit=info.metadata.get("limit") if info else None,
            given=info.metadata.get("given") if info else None,
            retry_after=retry.retry_delay.ToNanoseconds() / 1e9 if retry else None,
            request_id=_request_id(status, metadata),
        )

    @classmethod
    def from_item(cls, error: ItemError) -> Self:
        """The same failure as an exception, for a caller who wants all items or none."""
        violations = (FieldViolation(error.field, error.message),) if error.field else ()
        return cls(
            error.code,
            error.message,
            reason=error.reason,
            violations=violations,
            retry_after=error.retry_after,
        )

    def as_json(self) -> dict[str, object]:
        """The error as plain JSON values; what the server did not say is left out."""
        facts: dict[str, object] = {
            "code": self.code.name,
            "reason": self.reason,
            "message": self.message,
            "fields": [violation.field for violation in self.violations],
            "limit": self.limit,
            "given": self.given,
            "retry_after_seconds": self.retry_after,
            "request_id": self.request_id,
        }
        return {name: fact for name, fact in facts.items() if fact not in (None, "", [])}


def _status(packed: str | bytes | None) -> status_pb2.Status:
    if not isinstance(packed, bytes):
        return status_pb2.Status()
    try:
        return status_pb2.Status.FromString(packed)
    except DecodeError:
        return status_pb2.Status()


def _detail(status: status_pb2.Status, kind: type[M]) -> M | None:
    for packed in status.details:
        found = kind()
        try:
            if packed.Unpack(found):
                return found
        except DecodeError:
            continue
    return None


def _violations(status: status_pb2.Status) -> tuple[FieldViolation, ...]:
    request = _detail(status, error_details_pb2.BadRequest)
    if request is None:
        return ()
    return tuple(FieldViolation(v.field, v.description) for v in request.field_violations)


def _request_id(status: status_pb2.Status, metadata: dict[str, str | bytes]) -> str:
    request = _detail(status, error_details_pb2.RequestInfo)
    if request is not None and request.request_id:
        return str(request.request_id)
    value = metadata.get(REQUEST_ID_KEY, "")
    return value if isinstance(value, str) else ""
