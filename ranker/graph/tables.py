"""Where the match graph is kept: the log of answers and outcomes, and what was counted from it.

The counts could be computed again from the log, and a test does; they are kept so that an answer
need not. Weights are sums whose events weigh less with their age, worth what they say at
``weighed_at`` (seconds since 1970); the other numbers are plain counts.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import (
    JSON,
    BigInteger,
    Column,
    Double,
    ForeignKey,
    Integer,
    String,
    Table,
    Text,
)

from ranker.database.schema import Moment, metadata

ANSWER: Final = Table(
    "graph_answer",
    metadata,
    Column("id", String, primary_key=True),
    Column("at", Moment, nullable=False, index=True),
    Column("query", Text, nullable=False),
    Column("type", String, nullable=False),
    Column("exploration", Double, nullable=False),
    Column("catalogue_revision", BigInteger, nullable=False),
    # From place 1: [[edge, place that the ranking gave, propensity of the place it was shown at]]
    Column("shown", JSON, nullable=False),
)

OUTCOME: Final = Table(
    "graph_outcome",
    metadata,
    Column("answer", ForeignKey("graph_answer.id"), primary_key=True),
    Column("position", Integer, primary_key=True, autoincrement=False),
    # chosen, succeeded, failed
    Column("outcome", String, primary_key=True),
    Column("at", Moment, nullable=False),
    Column("comment", Text, nullable=False),
)

EDGE: Final = Table(
    "graph_edge",
    metadata,
    Column("key", BigInteger, primary_key=True, autoincrement=False),
    Column("model", String, nullable=False, index=True),
    Column("capability", String, nullable=False),
    Column("intent", Text, nullable=False),
    Column("succeeded", BigInteger, nullable=False),
    Column("failed", BigInteger, nullable=False),
    Column("success_weight", Double, nullable=False),
    Column("failure_weight", Double, nullable=False),
    Column("weighed_at", Double, nullable=False),
)

EDGE_PLACE: Final = Table(
    "graph_edge_place",
    metadata,
    Column("edge", BigInteger, primary_key=True, autoincrement=False),
    Column("place", Integer, primary_key=True, autoincrement=False),
    Column("seen", BigInteger, nullable=False),
    Column("chosen", BigInteger, nullable=False),
    Column("seen_weight", Double, nullable=False),
    Column("chosen_weight", Double, nullable=False),
    Column("weighed_at", Double, nullable=False),
)

PLACE: Final = Table(
    "graph_place",
    metadata,
    # Of all edges. Place 0 has the ends: successes as chosen, all of them as seen.
    Column("place", Integer, primary_key=True, autoincrement=False),
    Column("seen", BigInteger, nullable=False),
    Column("chosen", BigInteger, nullable=False),
    Column("seen_weight", Double, nullable=False),
    Column("chosen_weight", Double, nullable=False),
    # Choices over propensities among results that might have stood here or at the next place: of
    # those chosen here, and of those chosen there.
    Column("upper_weight", Double, nullable=False),
    Column("lower_weight", Double, nullable=False),
    Column("weighed_at", Double, nullable=False),
)

STATE: Final = Table(
    "graph_state",
    metadata,
    # One row: how the weights were made.
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("half_life_seconds", Double, nullable=False),
)
