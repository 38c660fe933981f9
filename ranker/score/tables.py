"""Where computed scores are kept, each with all that it was computed from."""

from __future__ import annotations

from typing import Final

from sqlalchemy import Column, Index, String, Table, Text

from ranker.database.schema import Moment, RowId, metadata

SCORE_LOG: Final = Table(
    "score_log",
    metadata,
    Column("id", RowId, primary_key=True),
    # An id of the catalogue; scores stay when a model goes.
    Column("model_id", String, nullable=False),
    Column("computed_at", Moment, nullable=False),
    Column("formula", String, nullable=False),
    # Canonical JSON, whose digests are part of a score's version.
    Column("rules", Text, nullable=False),
    Column("evidence", Text, nullable=False),
    Column("result", Text, nullable=False),
    Index("ix_score_log_model_id_id", "model_id", "id"),
)
