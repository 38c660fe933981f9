"""The one table from our errors to gRPC statuses, with ``google.rpc`` details, and back.

Every status that leaves a service carries ``ErrorInfo`` (domain ``easel``) and ``RequestInfo``;
``InvalidInput`` adds ``BadRequest``, ``Overloaded`` adds ``RetryInfo``. What is not ours to show
(faults of a model, exceptions outside our tree) becomes INTERNAL with fixed text.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any, Final, Never, TypeVar

import grpc
from google.protobuf.message import DecodeError, Message
from google.rpc import error_details_pb2, status_pb2

from services.core.errors import (
    Cancelled,
    DeadlineExceeded,
    Draining,
    EaselError,
    FailedPrecondition,
    InvalidInput,
    ModelFault,
    NotFound,
    NotReady,
    NotSupported,
    Overloaded,
    PermissionDenied,
    Unauthenticated,
)

DOMAIN: Final = "easel"
REQUEST_ID_KEY: Final = "x-request-id"
DETAILS_KEY: Final = "grpc-status-details-bin"
INTERNAL_MESSAGE: Final = "Internal error; the server's log has the details under this request id."
_INTERNAL_REASON: Final = "INTERNAL"
# All trailing metadata of a call must fit in 8 KiB, gRPC's default soft limit for headers.
_MAX_TEXT_CHARS: Final = 1024

STATUS_CODES: Final[Mapping[type[EaselError], grpc.StatusCode]] = MappingProxyType(
    {
        InvalidInput: grpc.StatusCode.INVALID_ARGUMENT,
        NotFound: grpc.StatusCode.NOT_FOUND,
        FailedPrecondition: grpc.StatusCode.FAILED_PRECONDITION,
        NotSupported: grpc.StatusCode.UNIMPLEMENTED,
        Unauthenticated: grpc.StatusCode.UNAUTHENTICATED,
        PermissionDenied: grpc.StatusCode.PERMISSION_DENIED,
        Overloaded: grpc.StatusCode.RESOURCE_EXHAUSTED,
        NotReady: grpc.StatusCode.UNAVAILABLE,
        Draining: grpc.StatusCode.UNAVAILABLE,
        DeadlineExceeded: grpc.StatusCode.DEADLINE_EXCEEDED,
        Cancelled: grpc.StatusCode.CANCELLED,
        ModelFault: grpc.StatusCode.INTERNAL,
    }
)

_ERRORS: Final[Mapping[grpc.StatusCode, type[EaselError]]] = MappingProxyType(
    {
        grpc.StatusCode.NOT_FOUND: NotFound,
        grpc.StatusCode.FAILED_PRECONDITION: FailedPrecondition,
        grpc.StatusCode.ABORTED: FailedPrecondition,
        grpc.StatusCode.ALREADY_EXISTS: FailedPrecondition,
        grpc.StatusCode.UNIMPLEMENTED: NotSupported,
        grpc.StatusCode.UNAUTHENTICATED: Unauthenticated,
        grpc.StatusCode.PERMISSION_DENIED: PermissionDenied,
        grpc.StatusCode.UNAVAILABLE: NotReady,
        grpc.StatusCode.DEADLINE_EXCEEDED: DeadlineExceeded,
        grpc.StatusCode.CANCELLED: Cancelled,
    }
)

M = TypeVar("M", bound=Message)


def status_code(error: BaseException) -> grpc.StatusCode:
    """Return the code for ``error``; INTERNAL for everything outside our tree."""
    for kind in type(error).__mro__:
        code = STATUS_CODES.get(kind)
        if code is not None:
            return code
    return grpc.StatusCode.INTERNAL


def to_status(error: BaseException, request_id: str) -> status_pb2.Status:
    """Return the ``google.rpc.Status`` that a caller may see for ``error``."""
    code = status_code(error)
    shown = (
        error if isinstance(error, EaselError) and code is not grpc.StatusCode.INTERNAL else None
    )
    status = status_pb2.Status(
        code=code.value[0], message=shown.message[:_MAX_TEXT_CHARS] if shown else INTERNAL_MESSAGE
    )
    for detail in _details(error, shown, request_id):
        status.details.add().Pack(detail)
    return status


def status_metadata(status: status_pb2.Status, request_id: str) -> tuple[tuple[str, Any], ...]:
    """Return the trailing metadata that carries ``status`` and the request's id."""
    return ((DETAILS_KEY, status.SerializeToString()), (REQUEST_ID_KEY, request_id))


async def abort(
    context: grpc.aio.ServicerContext[Any, Any], error: BaseException, request_id: str
) -> Never:
    """End the call with the status of ``error``; keeps trailing metadata set before."""
    status = to_status(error, request_id)
    kept = tuple(pair for pair in context.trailing_metadata() or () if pair[0] != REQUEST_ID_KEY)
    await context.abort(
        status_code(error), status.message, (*kept, *status_metadata(status, request_id))
    )


def from_rpc_error(error: grpc.RpcError) -> EaselError:
    """Return the error of our tree that an upstream's status stands for.

    Field violations, limits and the retry delay are kept. Texts are taken over only from
    statuses of our own domain: those written by gRPC itself name hosts and ports.
    """
    code = getattr(error, "code", lambda: grpc.StatusCode.UNKNOWN)()
    status = _packed_status(error)
    info = _detail(status, error_details_pb2.ErrorInfo) or error_details_pb2.ErrorInfo()
    ours = info.domain == DOMAIN
    message = status.message if ours else None
    reason = info.reason if ours and info.reason else None
    if code in (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.OUT_OF_RANGE):
        return _invalid_input(status, info, message, reason)
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED and _is_too_large(error):
        return InvalidInput("", "The message is larger than the upstream service accepts.")
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED:
        return Overloaded(_retry_seconds(status), message, reason=reason)
    if code is grpc.StatusCode.UNAVAILABLE and reason == Draining.default_reason:
        return Draining(message)
    kind = _ERRORS.get(code)
    return ModelFault(reason=reason) if kind is None else kind(message, reason=reason)


def _details(error: BaseException, shown: EaselError | None, request_id: str) -> Iterable[Message]:
    reason = error.reason if isinstance(error, EaselError) else _INTERNAL_REASON
    info = error_details_pb2.ErrorInfo(reason=reason, domain=DOMAIN)
    if isinstance(shown, InvalidInput):
        for key, value in (("limit", shown.limit), ("given", shown.given)):
            if value is not None:
                info.metadata[key] = value[:_MAX_TEXT_CHARS]
    yield info
    if isinstance(shown, InvalidInput):
        request = error_details_pb2.BadRequest()
        request.field_violations.add(
            field=shown.field, description=shown.message[:_MAX_TEXT_CHARS], reason=reason
        )
        yield request
    if isinstance(shown, Overloaded):
        retry = error_details_pb2.RetryInfo()
        retry.retry_delay.FromNanoseconds(int(max(shown.retry_after_seconds, 0.0) * 1e9))
        yield retry
    yield error_details_pb2.RequestInfo(request_id=request_id)


def _is_too_large(error: grpc.RpcError) -> bool:
    """Tell gRPC's own refusal of a message's size, which waiting will not cure, from overload."""
    details = getattr(error, "details", lambda: None)() or ""
    return "message larger than max" in details


def _packed_status(error: grpc.RpcError) -> status_pb2.Status:
    metadata = getattr(error, "trailing_metadata", lambda: None)() or ()
    for key, value in metadata:
        if key == DETAILS_KEY:
            try:
                return status_pb2.Status.FromString(value)
            except DecodeError:
                break
    return status_pb2.Status()


def _detail(status: status_pb2.Status, kind: type[M]) -> M | None:
    for packed in status.details:
        found = kind()
        try:
            if packed.Unpack(found):
                return found
        except DecodeError:
            return None
    return None


def _invalid_input(
    status: status_pb2.Status,
    info: error_details_pb2.ErrorInfo,
    message: str | None,
    reason: str | None,
) -> InvalidInput:
    request = _detail(status, error_details_pb2.BadRequest)
    violations = request.field_violations if request else ()
    return InvalidInput(
        violations[0].field if violations else "",
        message or "The upstream service refused the request.",
        info.metadata.get("limit"),
        info.metadata.get("given"),
        reason=reason,
    )


def _retry_seconds(status: status_pb2.Status) -> float:
    retry = _detail(status, error_details_pb2.RetryInfo)
    return retry.retry_delay.ToNanoseconds() / 1e9 if retry else 1.0
