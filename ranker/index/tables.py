"""The index's tables: collections, and what is known of their pictures.

A picture's ``number`` is never used again, so it tells an id's newest vector from what it replaced.
``image_vector`` is used where the database is SQLite; on PostgreSQL each collection has a table of
vectors of its own, made with it.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import (
    BigInteger,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    Table,
    Text,
    UniqueConstraint,
)

from ranker.database.schema import Moment, RowId, metadata

# Ordered by its bytes in every database, whatever language PostgreSQL was set up for.
_Bytewise: Final = Text().with_variant(Text(collation="C"), "postgresql")

collections: Final = Table(
    "image_collection",
    metadata,
    Column("number", RowId, primary_key=True),
    Column("name", _Bytewise, nullable=False, unique=True),
    Column("origin", Text, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("created_at", Moment, nullable=False),
    sqlite_autoincrement=True,
)

images: Final = Table(
    "image",
    metadata,
    Column("number", RowId, primary_key=True),
    Column(
        "collection", RowId, ForeignKey(collections.c.number, ondelete="CASCADE"), nullable=False
    ),
    Column("id", _Bytewise, nullable=False),
    Column("indexed_at", Moment, nullable=False),
    UniqueConstraint("collection", "id"),
    sqlite_autoincrement=True,
)

labels: Final = Table(
    "image_label",
    metadata,
    Column("image", RowId, ForeignKey(images.c.number, ondelete="CASCADE"), primary_key=True),
    Column("label", Integer, primary_key=True),
    Column("collection", RowId, nullable=False),
    Column("name", Text, nullable=False),
    Column("score", Float, nullable=False),
    Index(None, "collection", "name", "image", "score"),
)

attributes: Final = Table(
    "image_attribute",
    metadata,
    Column("image", RowId, ForeignKey(images.c.number, ondelete="CASCADE"), primary_key=True),
    Column("name", Text, primary_key=True),
    Column("collection", RowId, nullable=False),
    Column("value", Text, nullable=False),
    Index(None, "collection", "name", "value", "image"),
)

vectors: Final = Table(
    "image_vector",
    metadata,
    Column("image", RowId, ForeignKey(images.c.number, ondelete="CASCADE"), primary_key=True),
    Column("vector", LargeBinary, nullable=False),
)
