"""What every topic shares."""

from __future__ import annotations

from typing import Final

from sqlalchemy import Column, Integer, LargeBinary, Table

from ranker.database.schema import metadata

KEY: Final = Table(
    "ranker_key",
    metadata,
    # One row.
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("secret", LargeBinary, nullable=False),
)
