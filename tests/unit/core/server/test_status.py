"""The table walks the whole tree, and a status survives the way there and back."""

from __future__ import annotations

from collections.abc import Iterator

import grpc
import pytest
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2
from hypothesis import given
from hypothesis import strategies as st

from services.core import errors
from services.core.errors import EaselError, InvalidInput, ModelFault, Overloaded
from services.core.server import status


def subclasses(kind: type[EaselError]) -> Iterator[type[EaselError]]:
    for child in kind.__subclasses__():
        if child.__module__ == errors.__name__:
            yield child
            yield from subclasses(child)


ALL = sorted(subclasses(EaselError), key=lambda kind: kind.__name__)


def made(kind: type[EaselError]) -> EaselError:
    if issubclass(kind, InvalidInput):
        return kind("image.data", "too big", "5 bytes", "6 bytes")
    if issubclass(kind, Overloaded):
        return kind(2.5)
    if kind is errors.Draining:  # told from NotReady by its reason
        return kind("shown")
    return kind("shown", reason="WHY")


def sent(error: BaseException) -> grpc.aio.AioRpcError:
    packed = status.to_status(error, "id-1")
    return grpc.aio.AioRpcError(
        status.status_code(error),
        grpc.aio.Metadata(),
        grpc.aio.Metadata(*status.status_metadata(packed, "id-1")),
        packed.message,
    )


def details(packed: status_pb2.Status) -> dict[str, Message]:
    found: dict[str, Message] = {}
    for kind in (
        error_details_pb2.ErrorInfo,
        error_details_pb2.BadRequest,
        error_details_pb2.RetryInfo,
        error_details_pb2.RequestInfo,
    ):
        for detail in packed.details:
            message = kind()
            if detail.Unpack(message):
                found[kind.__name__] = message
    return found


@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.__name__)
def test_every_error_has_a_status(kind: type[EaselError]) -> None:
    assert any(parent in status.STATUS_CODES for parent in kind.__mro__)
    error = made(kind)
    packed = status.to_status(error, "id-1")
    assert packed.code == status.status_code(error).value[0]
    info = details(packed)["ErrorInfo"]
    assert isinstance(info, error_details_pb2.ErrorInfo)
    assert (info.domain, info.reason) == ("easel", error.reason)
    request = details(packed)["RequestInfo"]
    assert isinstance(request, error_details_pb2.RequestInfo)
    assert request.request_id == "id-1"


@pytest.mark.parametrize(
    "kind",
    [kind for kind in ALL if not issubclass(kind, ModelFault)],
    ids=lambda kind: kind.__name__,
)
def test_there_and_back(kind: type[EaselError]) -> None:
    before = made(kind)
    after = status.from_rpc_error(sent(before))
    assert type(after) is kind
    assert vars(after) == vars(before)


@pytest.mark.parametrize(
    "error",
    [ValueError("/secret/path"), ModelFault("/secret/path"), errors.OutOfMemory("/secret/path")],
    ids=lambda error: type(error).__name__,
)
def test_faults_show_fixed_text_only(error: Exception) -> None:
    packed = status.to_status(error, "id-1")
    assert status.status_code(error) is grpc.StatusCode.INTERNAL
    assert packed.message == status.INTERNAL_MESSAGE
    assert b"secret" not in packed.SerializeToString()
    assert type(status.from_rpc_error(sent(error))) is ModelFault


def test_invalid_input_names_the_field() -> None:
    bad = details(status.to_status(InvalidInput("steps", "too many", 100, 10**9), "id"))
    request = bad["BadRequest"]
    assert isinstance(request, error_details_pb2.BadRequest)
    assert request.field_violations[0].field == "steps"
    assert request.field_violations[0].description == "too many"


def test_overloaded_says_when_to_come_back() -> None:
    retry = details(status.to_status(Overloaded(1.25), "id"))["RetryInfo"]
    assert isinstance(retry, error_details_pb2.RetryInfo)
    assert retry.retry_delay.ToTimedelta().total_seconds() == 1.25


def test_texts_of_grpc_itself_are_not_taken_over() -> None:
    error = grpc.aio.AioRpcError(
        grpc.StatusCode.UNAVAILABLE,
        grpc.aio.Metadata(),
        grpc.aio.Metadata(),
        "failed to connect to ipv4:10.1.2.3:50051",
    )
    after = status.from_rpc_error(error)
    assert isinstance(after, errors.NotReady)
    assert "10.1.2.3" not in after.message


@pytest.mark.parametrize("code", list(grpc.StatusCode), ids=lambda code: code.name)
def test_every_code_becomes_an_error_of_ours(code: grpc.StatusCode) -> None:
    metadata = grpc.aio.Metadata((status.DETAILS_KEY, b"\xff\xff"))
    error = grpc.aio.AioRpcError(code, grpc.aio.Metadata(), metadata)
    assert isinstance(status.from_rpc_error(error), EaselError)


@given(st.text(max_size=3000), st.text(max_size=3000))
def test_details_fit_into_headers(message: str, given_text: str) -> None:
    packed = status.to_status(InvalidInput("field", message, "limit", given_text), "id")
    assert len(packed.SerializeToString()) < 16 * 1024
