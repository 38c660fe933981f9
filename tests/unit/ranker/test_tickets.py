"""What is given out to be given back."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ranker.tickets import MAX_TICKET_CHARS, Signer
from services.core.errors import FailedPrecondition, InvalidInput

NOW = datetime(2026, 11, 1, tzinfo=UTC)
LATER = NOW + timedelta(days=7)
SIGNER = Signer(bytes(range(32)), "answers")


@given(st.binary(max_size=64))
def test_a_ticket_gives_its_payload_back(payload: bytes) -> None:
    ticket = SIGNER.sign(payload, LATER)
    assert SIGNER.read(ticket, NOW) == payload
    assert ticket.isascii()
    assert ticket[0].isalnum()  # no option of a command line
    assert "=" not in ticket


def test_the_same_key_elsewhere_takes_it() -> None:
    assert Signer(bytes(range(32)), "answers").read(SIGNER.sign(b"x", LATER), NOW) == b"x"


@pytest.mark.parametrize(
    "signer", [Signer(bytes(32), "answers"), Signer(bytes(range(32)), "votes")]
)
def test_of_another_key_or_purpose_it_is_forged(signer: Signer) -> None:
    with pytest.raises(InvalidInput) as caught:
        SIGNER.read(signer.sign(b"x", LATER), NOW)
    assert (caught.value.field, caught.value.reason) == ("token", "TOKEN_FORGED")


def test_every_changed_character_is_noticed() -> None:
    ticket = SIGNER.sign(b"an answer", LATER)
    for place, letter in enumerate(ticket):
        changed = ticket[:place] + ("A" if letter != "A" else "B") + ticket[place + 1 :]
        with pytest.raises(InvalidInput, match="not made here"):
            SIGNER.read(changed, NOW)


@pytest.mark.parametrize("ticket", ["x", "abcd", "ä" * 40, "====", "a b", "A" * 22, "+" * 60])
def test_what_is_no_ticket_is_forged(ticket: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        SIGNER.read(ticket, NOW)
    assert caught.value.reason == "TOKEN_FORGED"


def test_one_ticket_has_one_spelling() -> None:
    ticket = SIGNER.sign(b"12", LATER)  # its last character has bits that mean nothing
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    others = [ticket[:-1] + letter for letter in alphabet if letter != ticket[-1]]
    for other in (*others, ticket + "=", ticket + "\n"):
        with pytest.raises(InvalidInput):
            SIGNER.read(other, NOW)


def test_it_expires_at_its_second() -> None:
    ticket = SIGNER.sign(b"x", LATER)
    assert SIGNER.read(ticket, LATER - timedelta(microseconds=1)) == b"x"
    with pytest.raises(FailedPrecondition, match="expired at 2026-11-08T00:00:00") as caught:
        SIGNER.read(ticket, LATER)
    assert caught.value.reason == "TOKEN_EXPIRED"


def test_none_and_too_long() -> None:
    with pytest.raises(InvalidInput, match="is needed"):
        SIGNER.read("", NOW)
    with pytest.raises(InvalidInput, match="not made here"):
        SIGNER.read("A" * MAX_TICKET_CHARS, NOW)
    with pytest.raises(InvalidInput) as caught:
        SIGNER.read("A" * (MAX_TICKET_CHARS + 1), NOW)
    assert (caught.value.limit, caught.value.given) == ("1024 characters", "1025")


def test_a_short_key_is_refused() -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        Signer(bytes(31), "answers")
