"""Picture files: read by name or from stdin, written without ever replacing one."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

STDIN: Final = "-"
PICTURE_SUFFIXES: Final = (".jpg", ".jpeg", ".png", ".webp")


@dataclass(frozen=True, slots=True)
class PictureFile:
    """A picture on disk; ``name`` is what it is called in results, with / between its parts."""

    name: str
    path: Path


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


def pictures_under(directory: Path) -> tuple[list[PictureFile], list[str]]:
    """Return all pictures below ``directory`` by suffix, named from there on, and the names of
    the other files; both sorted. Links are followed; what is hidden is left out.

    Raises ``OSError`` naming a folder that cannot be read, ``ValueError`` for a name that is no
    UTF-8.
    """
    found: list[PictureFile] = []
    others: list[str] = []
    for folder, folders, files in os.walk(directory, onerror=_raise, followlinks=True):
        inner = sorted(each for each in folders if not each.startswith("."))
        folders[:] = [each for each in inner if not _leads_back(Path(folder, each))]
        for file in sorted(each for each in files if not each.startswith(".")):
            path = Path(folder, file)
            name = _checked(path.relative_to(directory).as_posix())
            if path.suffix.lower() in PICTURE_SUFFIXES:
                found.append(PictureFile(name, path))
            else:
                others.append(name)
    return sorted(found, key=lambda each: each.name), sorted(others)


def named_pictures(names: Sequence[str]) -> tuple[list[PictureFile], list[str]]:
    """Return the pictures of files (named as given) and of directories (named from there on).

    Raises as `pictures_under`, and ``ValueError`` for two pictures of one name.
    """
    found: list[PictureFile] = []
    others: list[str] = []
    for name in names:
        path = Path(name)
        if path.is_dir():
            pictures, rest = pictures_under(path)
            found += pictures
            others += rest
        else:
            path.open("rb").close()
            found.append(PictureFile(_checked(path.as_posix()), path))
    first: dict[str, Path] = {}
    for picture in found:
        if picture.name in first:
            both = f"{first[picture.name]} and {picture.path}"
            raise ValueError(f"{both} would both be called {picture.name!r}")
        first[picture.name] = picture.path
    return found, others


def _leads_back(folder: Path) -> bool:
    """Whether it is a link to a folder that it lies in."""
    return folder.is_symlink() and folder.parent.resolve().is_relative_to(folder.resolve())


def _raise(error: OSError) -> None:
    raise error


def _checked(name: str) -> str:
    try:
        name.encode()
    except UnicodeEncodeError:
        raise ValueError(f"{name!r}: the name is no UTF-8") from None
    return name
