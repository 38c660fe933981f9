"""Limits of what is asked of an arena."""

from __future__ import annotations

from typing import Final

from services.core.errors import InvalidInput

MAX_NAME_BYTES: Final = 128
MAX_PROMPT_CHARS: Final = 10_000
MAX_PROMPTS: Final = 1000
MAX_PAIRS: Final = 10_000
MAX_IMPORTED: Final = 10_000
RESERVED: Final = "easel:"
"""How the names of the ranker's own judges begin."""


def check_name(text: str, field: str) -> str:
    """A name that is there and not too long, without surrounding spaces or control characters."""
    if not text:
        raise InvalidInput(field, "A name is needed.")
    return check_short(text, field)


def check_short(text: str, field: str) -> str:
    """As ``check_name``, and may be empty."""
    size = len(text.encode())
    if size > MAX_NAME_BYTES:
        limit = f"{MAX_NAME_BYTES} bytes"
        raise InvalidInput(field, "The name is too long.", limit, f"{size} bytes")
    if text != text.strip() or not text.isprintable():
        raise InvalidInput(
            field, "A name has no spaces around it and no control characters.", given=repr(text)
        )
    return text


def check_judge(text: str, field: str = "judge") -> str:
    """A judge's name, empty for nobody in particular."""
    if text.startswith(RESERVED):
        raise InvalidInput(field, "These names are for the ranker's own judges.", given=text)
    return check_short(text, field)


def check_prompt(text: str, field: str) -> str:
    if not text.strip():
        raise InvalidInput(field, "A prompt is needed.")
    if "\0" in text:
        raise InvalidInput(field, "A prompt has no character of code 0.")
    if len(text) > MAX_PROMPT_CHARS:
        limit, given = f"{MAX_PROMPT_CHARS} characters", f"{len(text)} characters"
        raise InvalidInput(field, "The prompt is too long.", limit, given)
    return text


def check_number(given: int, low: int, high: int, field: str) -> int:
    if not low <= given <= high:
        raise InvalidInput(field, "The number is out of range.", f"{low} to {high}", given)
    return given
