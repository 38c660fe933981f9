"""Parsing what a call carries, and sending it on."""

from __future__ import annotations

import time
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.core import log
from services.core.errors import InvalidInput
from services.core.server import call as calls
from services.core.server.call import NO_CALL, CallContext
from services.core.server.channel import call_options

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = f"00-{TRACE}-00f067aa0ba902b7-01"


def parsed(*pairs: tuple[str, str | bytes], remaining: float | None = None) -> CallContext:
    return calls.parse(pairs, method="/a.B/C", time_remaining=remaining, clock=lambda: 100.0)


def test_all_fields() -> None:
    call = parsed(
        ("x-request-id", "id-1"),
        ("easel-tenant", "acme"),
        ("easel-priority", "-7"),
        ("traceparent", PARENT),
        remaining=2.5,
    )
    assert (call.request_id, call.tenant, call.priority, call.method) == (
        *("id-1", "acme", -7),
        "/a.B/C",
    )
    assert call.deadline == 102.5
    assert call.remaining_seconds(101.0) == 1.5


def test_nothing_given() -> None:
    call = parsed()
    assert (call.tenant, call.priority, call.deadline) == ("", 0, None)
    assert len(call.request_id) == 32
    assert call.request_id != parsed().request_id
    assert calls.parse(None, method="m", time_remaining=None).deadline is None


def test_a_huge_time_is_no_deadline() -> None:
    assert parsed(remaining=9.22e18).deadline is None


def test_a_trace_is_continued_by_a_span_of_its_own() -> None:
    version, trace, span, flags = parsed(("traceparent", PARENT)).traceparent.split("-")
    assert (version, trace, flags) == ("00", TRACE, "01")
    assert span not in PARENT


@pytest.mark.parametrize(
    "bad",
    [
        "",
        "nonsense",
        PARENT.upper(),
        PARENT + "-x",
        f"ff-{TRACE}-00f067aa0ba902b7-01",
        f"00-{'0' * 32}-00f067aa0ba902b7-01",
        f"00-{TRACE}-{'0' * 16}-01",
    ],
)
def test_a_bad_trace_is_replaced_not_refused(bad: str) -> None:
    fresh = parsed(("traceparent", bad)).traceparent
    assert TRACE not in fresh
    assert len(fresh) == 55


def test_a_later_trace_version_is_understood() -> None:
    assert TRACE in parsed(("traceparent", f"01-{TRACE}-00f067aa0ba902b7-01-more")).traceparent


@pytest.mark.parametrize("priority", ["-10", "0", "10"])
def test_priorities_in_range(priority: str) -> None:
    assert parsed(("easel-priority", priority)).priority == int(priority)


@pytest.mark.parametrize("priority", ["-11", "11", "1.5", "", "high", "9" * 5000])
def test_other_priorities_are_refused(priority: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        parsed(("easel-priority", priority))
    assert caught.value.field == "easel-priority"
    assert caught.value.limit == "-10 to 10"


@pytest.mark.parametrize("key", ["x-request-id", "easel-tenant"])
@pytest.mark.parametrize("value", ["x" * 129, "tab\there", "naïve", b"bytes", "\x7f"])
def test_unusable_texts_are_refused(key: str, value: str | bytes) -> None:
    with pytest.raises(InvalidInput) as caught:
        parsed((key, value))
    assert caught.value.field == key
    assert parsed((key, "x" * 128))


@given(
    st.lists(
        st.tuples(
            st.sampled_from(
                ["x-request-id", "easel-tenant", "easel-priority", "traceparent", "other"]
            ),
            st.text() | st.binary(),
        )
    )
)
def test_any_metadata_parses_or_is_invalid(pairs: list[tuple[str, str | bytes]]) -> None:
    with suppress(InvalidInput):
        call = parsed(*pairs)
        assert call.request_id
        assert len(call.traceparent) == 55


def test_a_block_serves_a_call_and_ends() -> None:
    assert calls.current() is NO_CALL
    with calls.serving(CallContext(request_id="abc")):
        assert calls.current().request_id == log.REQUEST_ID.get() == "abc"
    assert calls.current() is NO_CALL
    assert log.REQUEST_ID.get() == ""


def test_options_outside_of_a_call_are_the_callers_own() -> None:
    assert call_options(3.0, [("a", "b")]) == (3.0, (("a", "b"),))


def test_options_carry_the_call_along() -> None:
    call = CallContext("id-1", "acme", 3, None, PARENT, "/a.B/C")
    with calls.serving(call):
        timeout, metadata = call_options(None, [("easel-tenant", "other")])
    assert timeout is None
    assert metadata == (
        ("easel-tenant", "other"),
        ("x-request-id", "id-1"),
        ("easel-priority", "3"),
        ("traceparent", PARENT),
    )


def test_the_shorter_time_wins_and_a_late_call_gets_none() -> None:
    now = time.monotonic()
    with calls.serving(CallContext(deadline=now + 100.0)):
        assert call_options(5.0)[0] == 5.0
        remaining = call_options(None)[0]
        assert remaining is not None
        assert 0.0 < remaining <= 100.0
    with calls.serving(CallContext(deadline=now - 1.0)):
        assert call_options(5.0)[0] == 0.0
