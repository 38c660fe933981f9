"""Lists in pages: how much is in one, and where the next begins."""

from __future__ import annotations

import base64
import binascii
from typing import Final

from services.core.errors import InvalidInput

DEFAULT_SIZE: Final = 100
MAX_SIZE: Final = 1000

_SHOWN_CHARS: Final = 100


def page_size(asked: int) -> int:
    """0 stands for ``DEFAULT_SIZE``. Raises ``InvalidInput``."""
    if asked > MAX_SIZE:
        raise InvalidInput("page_size", "The page is too large.", MAX_SIZE, asked)
    return asked or DEFAULT_SIZE


def token_of(last: str) -> str:
    """What a list by text goes on from: behind ``last``, in URL-safe characters."""
    return base64.urlsafe_b64encode(last.encode()).decode().rstrip("=")


def last_of(token: str) -> str:
    """What ``token_of`` was told; empty for the first page. Raises ``InvalidInput``."""
    try:
        padded = token.encode("ascii") + b"=" * (-len(token) % 4)
        last = base64.b64decode(padded, altchars=b"-_", validate=True).decode()
    except (binascii.Error, UnicodeError):
        raise unknown_token(token) from None
    if "\0" in last:  # no id has one, nor does every database take it
        raise unknown_token(token)
    return last


def unknown_token(token: str) -> InvalidInput:
    return InvalidInput(
        "page_token",
        "It is no `next_page_token` of an earlier answer.",
        given=token[:_SHOWN_CHARS],
    )
