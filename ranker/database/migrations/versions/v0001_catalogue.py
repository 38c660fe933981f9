"""Models, their names and their capabilities."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.create_table(
        "catalogue_model",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("type", sa.String(), nullable=False),
        sa.Column("licence", sa.String(), nullable=False),
        sa.Column("price", sa.String(), nullable=False),
        sa.Column("provenance", sa.Text(), nullable=False),
        sa.Column("versions", sa.JSON(), nullable=False),
        sa.Column("same_as", sa.String(), nullable=True),
        sa.Column("updated_at", sa.BigInteger(), nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_catalogue_model"),
        sa.ForeignKeyConstraint(
            ["same_as"], ["catalogue_model.id"], name="fk_catalogue_model_same_as"
        ),
    )
    op.create_index("ix_catalogue_model_type", "catalogue_model", ["type"])
    op.create_index("ix_catalogue_model_same_as", "catalogue_model", ["same_as"])
    op.create_index("ix_catalogue_model_revision", "catalogue_model", ["revision"])
    op.create_table(
        "catalogue_name",
        sa.Column("key", sa.String(), nullable=False),
        sa.Column("text", sa.String(), nullable=False),
        sa.Column("model_id", sa.String(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("key", name="pk_catalogue_name"),
        sa.ForeignKeyConstraint(
            ["model_id"],
            ["catalogue_model.id"],
            name="fk_catalogue_name_model_id",
            ondelete="CASCADE",
        ),
    )
    op.create_index("ix_catalogue_name_model_id", "catalogue_name", ["model_id"])
    op.create_table(
        "catalogue_capability",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("model_id", sa.String(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("intents", sa.JSON(), nullable=False),
        sa.Column("best_for", sa.JSON(), nullable=False),
        sa.Column("limitations", sa.JSON(), nullable=False),
        sa.Column("requires", sa.JSON(), nullable=False),
        sa.Column("input_types", sa.JSON(), nullable=False),
        sa.Column("output_types", sa.JSON(), nullable=False),
        sa.Column("claims", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_catalogue_capability"),
        sa.ForeignKeyConstraint(
            ["model_id"],
            ["catalogue_model.id"],
            name="fk_catalogue_capability_model_id",
            ondelete="CASCADE",
        ),
    )
    op.create_index("ix_catalogue_capability_model_id", "catalogue_capability", ["model_id"])
    op.create_table(
        "catalogue_revision",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_catalogue_revision"),
    )
