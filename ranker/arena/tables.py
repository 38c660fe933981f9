"""Where arenas are kept: who takes part, what was shown, and the log of votes."""

from __future__ import annotations

from typing import Final

from sqlalchemy import (
    Boolean,
    Column,
    Double,
    ForeignKey,
    Index,
    LargeBinary,
    SmallInteger,
    String,
    Table,
    Text,
    UniqueConstraint,
)
from sqlalchemy import Integer as Int

from ranker.database.schema import Moment, RowId, metadata

INTENT: Final = Table(
    "arena_intent",
    metadata,
    Column("id", RowId, primary_key=True),
    Column("name", String, nullable=False, unique=True),
    # Raised by every change of who can meet whom.
    Column("revision", Int, nullable=False),
)

CONTENDER: Final = Table(
    "arena_contender",
    metadata,
    Column("id", RowId, primary_key=True),
    Column("intent", ForeignKey("arena_intent.id"), nullable=False),
    Column("name", String, nullable=False),
    # What makes its pictures, as the generator's request; null where they are given.
    Column("settings", LargeBinary, nullable=True),
    Column("withdrawn", Boolean, nullable=False),
    Column("at", Moment, nullable=False),
    UniqueConstraint("intent", "name"),
)

PROMPT: Final = Table(
    "arena_prompt",
    metadata,
    Column("id", RowId, primary_key=True),
    Column("intent", ForeignKey("arena_intent.id"), nullable=False),
    # Of the text: an index of long ones is more than some databases take.
    Column("digest", String, nullable=False),
    Column("text", Text, nullable=False),
    # One for everybody's pairs, not one that a caller brought.
    Column("standing", Boolean, nullable=False),
    UniqueConstraint("intent", "digest"),
)

PICTURE: Final = Table(
    "arena_picture",
    metadata,
    Column("id", RowId, primary_key=True),
    Column("contender", ForeignKey("arena_contender.id"), nullable=False),
    Column("prompt", ForeignKey("arena_prompt.id"), nullable=False, index=True),
    Column("digest", String, nullable=False),
    Column("size", Int, nullable=False),
    # Made here, and could be made again; others were given.
    Column("generated", Boolean, nullable=False),
    Column("encoded", LargeBinary, nullable=False),
    UniqueConstraint("contender", "prompt", "digest"),
    Index(None, "generated", "size"),
)

PAIR: Final = Table(
    "arena_pair",
    metadata,
    # Nothing that tells what it is of.
    Column("id", String, primary_key=True),
    Column("left", ForeignKey("arena_contender.id"), nullable=False),
    Column("right", ForeignKey("arena_contender.id"), nullable=False),
    Column("prompt", ForeignKey("arena_prompt.id"), nullable=False, index=True),
    # The chance that it was these two, whichever on the left.
    Column("propensity", Double, nullable=False),
    Column("expires_at", Moment, nullable=False),
    # Kept with its vote; the others are forgotten some time after they expire.
    Column("voted", Boolean, nullable=False),
    Index(None, "voted", "expires_at"),
)

JUDGE: Final = Table(
    "arena_judge",
    metadata,
    # From 1: 0 is nobody in particular.
    Column("id", RowId, primary_key=True),
    Column("name", String, nullable=False, unique=True),
)

VOTE: Final = Table(
    "arena_vote",
    metadata,
    # Writers exclude each other, so that whoever has read up to a number has read all before it.
    Column("id", RowId, primary_key=True),
    Column("intent", ForeignKey("arena_intent.id"), nullable=False),
    Column("left", ForeignKey("arena_contender.id"), nullable=False),
    Column("right", ForeignKey("arena_contender.id"), nullable=False),
    # 1 the left one, 2 the right one, 3 a tie.
    Column("vote", SmallInteger, nullable=False),
    # A judge's id or 0.
    Column("judge", RowId, nullable=False),
    # What makes it the same vote when it comes again: its pair's, or its importer's; or null.
    Column("key", String, nullable=True),
    Column("at", Moment, nullable=False),
    UniqueConstraint("intent", "key"),
    Index(None, "intent", "id"),
)
