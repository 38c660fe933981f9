"""Keys as they are given in a setting."""

from __future__ import annotations

import pytest

from ranker.database.keys import parse_key


def test_hexadecimal_digits_are_a_key() -> None:
    assert parse_key("0f" * 32) == bytes([15] * 32)
    assert len(parse_key("ab" * 48)) == 48


@pytest.mark.parametrize(
    ("text", "message"), [("ab" * 31, "at least 64 hexadecimal digits, not 62"), ("xyz", "must be")]
)
def test_what_is_no_key_is_refused_without_telling_it(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        parse_key(text)
    assert text not in str(caught.value)
