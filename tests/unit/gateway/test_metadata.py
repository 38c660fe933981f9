"""What crosses the gateway and what stays on its hop."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.metadata import to_caller, to_upstream

HOP = (
    ":path", "content-type", "te", "user-agent", "grpc-timeout", "grpc-encoding",
    "grpc-accept-encoding", "grpc-previous-rpc-attempts", "x-request-id", "traceparent",
)  # fmt: skip
END_TO_END = ("authorization", "easel-tenant", "easel-priority", "easel-service", "x-data-bin")


@pytest.mark.parametrize("key", HOP)
def test_hop_keys_stay(key: str) -> None:
    assert to_upstream(((key, "1"),)) == ()
    assert to_caller(((key, "1"),)) == ()


@pytest.mark.parametrize("key", END_TO_END)
def test_end_to_end_keys_cross(key: str) -> None:
    assert to_upstream(((key, b"\0\xff"),)) == ((key, b"\0\xff"),)
    assert to_caller(((key, "1"),)) == ((key, "1"),)


def test_error_details_go_back_but_never_forth() -> None:
    details = ("grpc-status-details-bin", b"\x08\x03")
    assert to_caller((details,)) == (details,)
    assert to_upstream((details,)) == ()


def test_nothing() -> None:
    assert to_upstream(None) == to_caller(None) == ()


@given(st.lists(st.tuples(st.sampled_from(HOP + END_TO_END), st.text())))
def test_order_and_repeats_are_kept(metadata: list[tuple[str, str | bytes]]) -> None:
    expected = tuple(pair for pair in metadata if pair[0] in END_TO_END)
    assert to_upstream(metadata) == to_caller(metadata) == expected
