"""Logs of votes as files: CSV with a header, or JSON lines.

Each vote has ``model_a``, ``model_b`` and ``winner``, and may have ``judge`` and ``id``. The winner
is "model_a", "model_b" or "tie", as in the published logs of public arenas, or shorter "a", "b";
whatever begins with "tie" is one. Other columns are passed over.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Final, Literal

Winner = Literal["left", "right", "tie"]

_NEEDED: Final = ("model_a", "model_b", "winner")
_LEFT: Final = ("model_a", "a", "left")
_RIGHT: Final = ("model_b", "b", "right")


@dataclass(frozen=True, slots=True)
class Battle:
    """One vote. ``id`` makes it the same when it is sent again."""

    left: str
    right: str
    winner: Winner
    judge: str
    id: str


def read_battles(path: Path) -> list[Battle]:
    """All votes of a ``.csv`` file, or of a file of JSON lines.

    One without an id has one from the whole file's content and its line, so that the same file is
    not counted twice. Raises ``OSError``, and ``ValueError`` naming the line and what is wrong.
    """
    content = path.read_bytes()
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: the file is no UTF-8 from byte {error.start} on") from None
    source = sha256(content).hexdigest()[:16]
    rows = _csv(text, path) if path.suffix.lower() == ".csv" else _json_lines(text, path)
    return [_battle(row, f"{path}:{line}", f"{source}:{line}") for line, row in rows]


def _csv(text: str, path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    reader = csv.DictReader(text.splitlines(), strict=True)
    missing = [name for name in _NEEDED if name not in (reader.fieldnames or ())]
    if missing:
        raise ValueError(f"{path}:1: the header has no column {', '.join(missing)}")
    try:
        for row in reader:
            yield reader.line_num, row
    except csv.Error as error:
        raise ValueError(f"{path}:{reader.line_num}: {error}") from None


def _json_lines(text: str, path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    for line, written in enumerate(text.splitlines(), start=1):
        if not written.strip():
            continue
        try:
            row = json.loads(written)
        except ValueError as error:
            raise ValueError(f"{path}:{line}: no JSON: {error}") from None
        if not isinstance(row, dict):
            raise ValueError(f"{path}:{line}: no JSON object")
        yield line, row


def _battle(row: Mapping[str, Any], at: str, own_id: str) -> Battle:
    left, right, winner = (_text(row, name, at) for name in _NEEDED)
    if left == right:
        raise ValueError(f"{at}: {left!r} meets itself")
    judge, id = (str(row.get(name) or "").strip() for name in ("judge", "id"))
    return Battle(left, right, _winner(winner, at), judge, id or own_id)


def _text(row: Mapping[str, Any], name: str, at: str) -> str:
    value = row.get(name)
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"{at}: there is no {name}")
    return value.strip()


def _winner(text: str, at: str) -> Winner:
    word = text.casefold()
    if word in _LEFT:
        return "left"
    if word in _RIGHT:
        return "right"
    if word.startswith("tie"):
        return "tie"
    raise ValueError(f"{at}: winner {text!r} is none of model_a, model_b and tie")


def parts(battles: Iterable[Battle], size: int) -> Iterator[list[Battle]]:
    """As many at a time."""
    part: list[Battle] = []
    for battle in battles:
        part.append(battle)
        if len(part) == size:
            yield part
            part = []
    if part:
        yield part
