"""Where the catalogue is kept."""

from __future__ import annotations

from typing import Final

from sqlalchemy import JSON, BigInteger, Column, ForeignKey, Integer, String, Table, Text

from ranker.database.schema import Moment, metadata

MODEL: Final = Table(
    "catalogue_model",
    metadata,
    Column("id", String, primary_key=True),
    Column("name", String, nullable=False),
    Column("type", String, nullable=False, index=True),
    Column("licence", String, nullable=False),
    Column("price", String, nullable=False),
    Column("provenance", Text, nullable=False),
    Column("versions", JSON, nullable=False),
    # A day as YYYY-MM-DD.
    Column("released", String, nullable=True),
    # [{name, count, source, measured_at}]
    Column("usage", JSON, nullable=False),
    # The model that this is another record of; it has no capabilities of its own then.
    Column("same_as", ForeignKey("catalogue_model.id"), nullable=True, index=True),
    Column("updated_at", Moment, nullable=False),
    # The catalogue's revision at which it changed last.
    Column("revision", BigInteger, nullable=False, index=True),
)

NAME: Final = Table(
    "catalogue_name",
    metadata,
    # Case folded: ids, names and aliases of all models are told apart by it.
    Column("key", String, primary_key=True),
    Column("text", String, nullable=False),
    Column(
        "model_id",
        ForeignKey("catalogue_model.id", ondelete="CASCADE"),
        nullable=False,
        index=True,
    ),
    # In the order in which a model's aliases were given; ids and names come before, at -2 and -1.
    Column("position", Integer, nullable=False),
)

CAPABILITY: Final = Table(
    "catalogue_capability",
    metadata,
    # <model's id>/<its own name>
    Column("id", String, primary_key=True),
    Column(
        "model_id",
        ForeignKey("catalogue_model.id", ondelete="CASCADE"),
        nullable=False,
        index=True,
    ),
    Column("position", Integer, nullable=False),
    Column("name", String, nullable=False),
    Column("description", Text, nullable=False),
    # Lists of texts: what it serves, what it is best for, limits, needs, input and output types.
    Column("intents", JSON, nullable=False),
    Column("best_for", JSON, nullable=False),
    Column("limitations", JSON, nullable=False),
    Column("requires", JSON, nullable=False),
    Column("input_types", JSON, nullable=False),
    Column("output_types", JSON, nullable=False),
    # [{name, claimed, measured, source, measured_at, verified}]
    Column("claims", JSON, nullable=False),
)

REVISION: Final = Table(
    "catalogue_revision",
    metadata,
    # One row, whose number every change of the catalogue raises.
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("number", BigInteger, nullable=False),
)
