"""Pictures on their way to the server: files, bytes, Pillow images."""

from __future__ import annotations

import os
from io import BytesIO
from pathlib import Path
from typing import Protocol, runtime_checkable

from easel.common.v1 import common_pb2


@runtime_checkable
class SavesItself(Protocol):
    """A Pillow image, told by its method so that Pillow need not be installed."""

    def save(self, fp: BytesIO, format: str) -> object: ...


Picture = str | os.PathLike[str] | bytes | SavesItself | common_pb2.Image
"""A path (``str`` or ``Path``), a whole JPEG, PNG or WebP file as bytes, a Pillow image, or a
ready message."""


def to_message(picture: Picture) -> common_pb2.Image:
    """Return ``picture`` as the contract has it.

    Raises ``OSError`` for a file that cannot be read, ``TypeError`` for what is no picture.
    """
    if isinstance(picture, common_pb2.Image):
        return picture
    if isinstance(picture, bytes):
        return common_pb2.Image(encoded=picture)
    if isinstance(picture, str | os.PathLike):
        return common_pb2.Image(encoded=Path(picture).read_bytes())
    if isinstance(picture, SavesItself):
        file = BytesIO()
        picture.save(file, format="PNG")
        return common_pb2.Image(encoded=file.getvalue())
    raise TypeError(f"not a picture: {type(picture).__name__} (path, bytes or Pillow image)")
