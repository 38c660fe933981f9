"""Decoding of failed calls: google.rpc details, foreign statuses, damaged metadata."""

from __future__ import annotations

from dataclasses import dataclass

import grpc
import pytest
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2
from hypothesis import given
from hypothesis import strategies as st

from easel.cli.exits import ExitCode, exit_code, one_line
from easel.client import EaselClientError, FieldViolation, ItemError
from easel.client.errors import DETAILS_KEY
from easel.common.v1 import common_pb2


@dataclass
class FakeCall:
    """A failed call as gRPC shows it."""

    status_code: grpc.StatusCode
    text: str
    metadata: tuple[tuple[str, str | bytes], ...] | None = None

    def code(self) -> grpc.StatusCode:
        return self.status_code

    def details(self) -> str:
        return self.text

    def trailing_metadata(self) -> tuple[tuple[str, str | bytes], ...] | None:
        return self.metadata


def failed(code: grpc.StatusCode, text: str, *details: Message) -> EaselClientError:
    status = status_pb2.Status(code=code.value[0], message=text)
    for detail in details:
        status.details.add().Pack(detail)
    return EaselClientError.from_call(
        FakeCall(code, text, ((DETAILS_KEY, status.SerializeToString()),))
    )


def test_a_bad_field_is_named_with_its_limit() -> None:
    error = failed(
        grpc.StatusCode.INVALID_ARGUMENT,
        "steps is out of range.",
        error_details_pb2.ErrorInfo(
            reason="INVALID_INPUT", domain="easel", metadata={"limit": "1 to 50", "given": "99"}
        ),
        error_details_pb2.BadRequest(
            field_violations=[
                error_details_pb2.BadRequest.FieldViolation(field="steps", description="too many")
            ]
        ),
        error_details_pb2.RequestInfo(request_id="abc"),
    )

    assert error.reason == "INVALID_INPUT"
    assert error.violations == (FieldViolation("steps", "too many"),)
    assert (error.limit, error.given, error.request_id) == ("1 to 50", "99", "abc")
    assert error.retry_after is None
    assert exit_code(error) is ExitCode.BAD_INPUT
    assert one_line(error, "x:1") == (
        "INVALID_ARGUMENT: steps: steps is out of range. (limit 1 to 50; given 99; request abc)"
    )


def test_an_overloaded_server_says_when_to_come_back() -> None:
    retry = error_details_pb2.RetryInfo()
    retry.retry_delay.FromNanoseconds(1_500_000_000)

    error = failed(grpc.StatusCode.RESOURCE_EXHAUSTED, "Full.", retry)

    assert error.retry_after == 1.5
    assert exit_code(error) is ExitCode.FAILED
    assert "try again in 1.5 s" in one_line(error, "x:1")


def test_a_connection_that_fails_names_the_target_and_not_grpc_internals() -> None:
    error = EaselClientError.from_call(
        FakeCall(grpc.StatusCode.UNAVAILABLE, "failed to connect to all addresses; ipv4:...")
    )

    assert exit_code(error) is ExitCode.UNAVAILABLE
    assert "nothing answers at host:9" in one_line(error, "host:9")
    assert "ipv4" not in one_line(error, "host:9")


def test_a_service_that_says_it_is_unavailable_is_quoted() -> None:
    info = error_details_pb2.ErrorInfo(reason="UPSTREAM_UNREACHABLE", domain="easel")
    error = failed(grpc.StatusCode.UNAVAILABLE, "The ranker cannot be reached.", info)

    assert one_line(error, "x:1") == "UNAVAILABLE: The ranker cannot be reached."


def test_the_request_id_of_plain_metadata_counts_where_there_are_no_details() -> None:
    call = FakeCall(grpc.StatusCode.INTERNAL, "Internal error.", (("x-request-id", "r1"),))

    assert EaselClientError.from_call(call).request_id == "r1"


@given(st.binary(max_size=200))
def test_damaged_details_never_hide_the_status(data: bytes) -> None:
    call = FakeCall(grpc.StatusCode.ABORTED, "text", ((DETAILS_KEY, data),))

    error = EaselClientError.from_call(call)

    assert (error.code, error.message) == (grpc.StatusCode.ABORTED, "text")


def test_only_what_is_known_is_in_the_json() -> None:
    error = EaselClientError(grpc.StatusCode.NOT_FOUND, "No such model.", reason="NOT_FOUND")

    assert error.as_json() == {
        "code": "NOT_FOUND",
        "reason": "NOT_FOUND",
        "message": "No such model.",
    }


@pytest.mark.parametrize(("number", "code"), [(3, "INVALID_ARGUMENT"), (999, "UNKNOWN")])
def test_an_item_error_has_a_status_code(number: int, code: str) -> None:
    error = ItemError.from_pb(common_pb2.ItemError(code=number, message="m", field="image"))

    assert error.code.name == code
    assert EaselClientError.from_item(error).violations == (FieldViolation("image", "m"),)
