"""Picture files: read by name or from stdin, written without ever replacing one."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

STDIN: Final = "-"


def read_pictures(names: list[str]) -> Iterator[tuple[str, bytes]]:
    """Yield (name, bytes); ``-`` is stdin. Raises ``OSError`` naming the file."""
    for name in names:
        yield name, sys.stdin.buffer.read() if name == STDIN else Path(name).read_bytes()


def check_readable(names: list[str]) -> None:
    """Raises ``OSError`` for the first that is no readable file, before any is sent."""
    for name in names:
        if name != STDIN:
            Path(name).open("rb").close()


def write_new(directory: Path, stem: str, suffix: str, data: bytes) -> Path:
    """Write ``stem`` + ``suffix`` in ``directory``, or ``stem-2``, ... where that is taken."""
    directory.mkdir(parents=True, exist_ok=True)
    number = 1
    while True:
        name = f"{stem}{suffix}" if number == 1 else f"{stem}-{number}{suffix}"
        try:
            with (directory / name).open("xb") as file:
                file.write(data)
        except FileExistsError:
            number += 1
            continue
        return directory / name


def suffix_of(data: bytes) -> str:
    """Return the file name suffix that fits the encoded picture's first bytes."""
    if data.startswith(b"\xff\xd8"):
        return ".jpg"
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return ".webp"
    return ".png"
