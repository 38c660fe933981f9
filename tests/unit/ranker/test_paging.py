"""Page sizes and tokens, and every way to get them wrong."""

from __future__ import annotations

import base64

import pytest

from ranker.paging import last_of, page_size, token_of
from services.core.errors import InvalidInput


@pytest.mark.parametrize(("asked", "size"), [(0, 100), (1, 1), (999, 999), (1000, 1000)])
def test_a_page_has_as_many_as_are_asked_for(asked: int, size: int) -> None:
    assert page_size(asked) == size


def test_a_page_has_a_limit() -> None:
    with pytest.raises(InvalidInput) as raised:
        page_size(1001)
    error = raised.value
    assert (error.field, error.limit, error.given) == ("page_size", "1000", "1001")


@pytest.mark.parametrize("last", ["", "a", "ab", "abc", "vit/large", "ä\u2028🎨"])
def test_a_token_leads_on_from_where_it_was_made(last: str) -> None:
    token = token_of(last)
    assert last_of(token) == last
    assert all(letter.isalnum() or letter in "-_" for letter in token)


@pytest.mark.parametrize("token", ["§", "a", "====", "gICA", "a b", "x" * 5])
def test_what_is_no_token(token: str) -> None:
    with pytest.raises(InvalidInput) as raised:
        last_of(token)
    assert (raised.value.field, raised.value.given) == ("page_token", token)


def test_no_id_has_a_null_character() -> None:
    with pytest.raises(InvalidInput):
        last_of(base64.urlsafe_b64encode(b"a\0b").decode())
