"""Limits of Resolve and RecordOutcome."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from services.core.errors import InvalidInput

DEFAULT_MATCHES: Final = 10
MAX_COMMENT_CHARS: Final = 2000
_NAMED_TYPES: Final = 20


def check_query(query: str, max_bytes: int) -> None:
    size = len(query.encode("utf-8"))
    if size > max_bytes:
        raise InvalidInput("query", "The query is too long.", f"{max_bytes} bytes", f"{size} bytes")
    if not query.strip():
        raise InvalidInput("query", "A query is needed.", "at least 1 character", repr(query[:20]))
    _check_no_null(query, "query")


def count_matches(limit: int, most: int) -> int:
    """``limit``, or what 0 stands for."""
    if limit > most:
        raise InvalidInput("limit", "There are too many.", f"1 to {most}", limit)
    return limit or min(DEFAULT_MATCHES, most)


def check_type(type: str, types: Collection[str]) -> None:
    """Empty stands for all."""
    if type and type not in types:
        named = ", ".join(sorted(types)[:_NAMED_TYPES]) or "none, the catalogue is empty"
        raise InvalidInput("type", "No model of the catalogue has that type.", named, type[:100])


def check_position(position: int, count: int) -> None:
    if not 1 <= position <= count:
        raise InvalidInput("position", "The answer had no result there.", f"1 to {count}", position)


def check_comment(comment: str) -> None:
    if len(comment) > MAX_COMMENT_CHARS:
        raise InvalidInput(
            "comment",
            "The comment is too long.",
            f"{MAX_COMMENT_CHARS} characters",
            f"{len(comment)} characters",
        )
    _check_no_null(comment, "comment")


def _check_no_null(text: str, field: str) -> None:
    if "\0" in text:
        raise InvalidInput(field, "It has a null character.", given=f"at {text.index(chr(0))}")
