"""Vectors as they come in, kept so that an interruption at any moment loses none.

The file is a line that says what it is, then frames: length and CRC-32 of a payload (unsigned,
32 bits, little-endian each), and the payload. The first payload is JSON with the recipe and the
columns; each of the others is one picture: the length of its name (16 bits), the name in UTF-8,
and its vectors. A frame that was cut off is dropped, with what follows it.
"""

from __future__ import annotations

import fcntl
import json
import struct
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, Final

from easel.vectors.recipe import ITEM_BYTES, Column, Recipe, Record

_MAGIC: Final = b"easel vectors, journal 1\n"
_FRAME: Final = struct.Struct("<II")
_NAME: Final = struct.Struct("<H")


class Journal:
    """An open journal; nobody else can open it meanwhile.

    ``recipe`` and ``columns`` are None and () until `begin`. ``names`` are the pictures in it.
    """

    def __init__(self, path: Path) -> None:
        """Open ``path``, made where there is none.

        Raises ``OSError``, and ``ValueError`` when another process has it open or it is none.
        """
        self.path = path
        self.recipe: Recipe | None = None
        self.columns: tuple[Column, ...] = ()
        self._places: dict[str, int] = {}
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        self._file: BinaryIO = path.open("r+b")
        try:
            self._lock()
            self._replay()
        except BaseException:
            self._file.close()
            raise

    @property
    def names(self) -> list[str]:
        return sorted(self._places)

    def begin(self, recipe: Recipe, columns: tuple[Column, ...]) -> None:
        """Say what is going to be written. Once, before the first `append`."""
        if self.recipe is not None:
            raise ValueError(f"{self.path}: begun already")
        header = {
            "recipe": json.loads(recipe.to_json()),
            "columns": [column.as_json() for column in columns],
        }
        self._write(json.dumps(header, ensure_ascii=False).encode())
        self.recipe, self.columns = recipe, columns

    def append(self, record: Record) -> None:
        """Write a picture's vectors; they are with the operating system when this returns."""
        name = record.name.encode()
        place = self._write(_NAME.pack(len(name)) + name + b"".join(record.values))
        self._places[record.name] = place

    def records(self, names: Iterable[str]) -> Iterator[Record]:
        """Yield what was written of each of ``names``."""
        for name in names:
            self._file.seek(self._places[name])
            payload = self._frame()
            if payload is None:
                raise ValueError(f"{self.path}: {name} cannot be read back")
            yield self._record(payload)
        self._file.seek(0, 2)

    def close(self) -> None:
        """Close the file; one without a picture is deleted, nothing would be lost with it."""
        if not self._places:
            self.path.unlink(missing_ok=True)
        self._file.close()

    def remove(self) -> None:
        """Delete the file, and close it."""
        self._places.clear()
        self.close()

    def _lock(self) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(f"{self.path}: another process is writing it") from None

    def _replay(self) -> None:
        """Find what is in the file, and cut off what was not written to its end."""
        start = self._file.read(len(_MAGIC))
        if start != _MAGIC:
            if not _MAGIC.startswith(start):
                raise ValueError(f"{self.path}: no journal of vectors; it was left as it is")
            self._file.seek(0)
            self._file.truncate()
            self._file.write(_MAGIC)
            self._file.flush()
            return
        while True:
            place = self._file.tell()
            payload = self._frame()
            if payload is None:
                break
            if self.recipe is None:
                self._read_header(payload)
            else:
                self._places[self._record(payload).name] = place
        self._file.seek(place)
        self._file.truncate()

    def _read_header(self, payload: bytes) -> None:
        header = json.loads(payload)
        self.recipe = Recipe.from_json(json.dumps(header["recipe"]))
        self.columns = tuple(
            Column(column["layer"], tuple(column["shape"])) for column in header["columns"]
        )

    def _record(self, payload: bytes) -> Record:
        assert self.recipe is not None
        (length,) = _NAME.unpack_from(payload)
        place = _NAME.size + length
        values = []
        for column in self.columns:
            size = column.size * ITEM_BYTES[self.recipe.dtype]
            values.append(payload[place : place + size])
            place += size
        return Record(payload[_NAME.size : _NAME.size + length].decode(), tuple(values))

    def _frame(self) -> bytes | None:
        """The payload at the file's place; None where there is no whole one."""
        head = self._file.read(_FRAME.size)
        if len(head) < _FRAME.size:
            return None
        length, checksum = _FRAME.unpack(head)
        payload = self._file.read(length)
        return payload if len(payload) == length and zlib.crc32(payload) == checksum else None

    def _write(self, payload: bytes) -> int:
        place = self._file.seek(0, 2)
        self._file.write(_FRAME.pack(len(payload), zlib.crc32(payload)) + payload)
        self._file.flush()
        return place
