"""Destinations as they are written on the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from easel.vectors.faiss_index import FaissFile
from easel.vectors.milvus import Milvus
from easel.vectors.parquet import ParquetFile
from easel.vectors.sink import Store

_MILVUS: Final = "milvus:"


def destination(text: str, *, collection: str = "easel", token: str = "") -> Store:
    """Return what FILE.parquet, FILE.index, FILE.faiss or milvus:URI names.

    Raises ``ValueError`` for anything else, ``ExtraMissingError`` where its library is missing.
    """
    if text.startswith(_MILVUS):
        return Milvus(text.removeprefix(_MILVUS), collection, token)
    path = Path(text)
    if path.suffix == ".parquet":
        return ParquetFile(path)
    if path.suffix in (".index", ".faiss"):
        return FaissFile(path)
    raise ValueError(f"--to: {text!r} is none of FILE.parquet, FILE.index (FAISS) and milvus:URI")
