"""The key of tickets; answers of the match graph, their outcomes, and what is counted from them."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.create_table(
        "ranker_key",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("secret", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_ranker_key"),
    )
    op.create_table(
        "graph_answer",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("query", sa.Text(), nullable=False),
        sa.Column("type", sa.String(), nullable=False),
        sa.Column("exploration", sa.Double(), nullable=False),
        sa.Column("catalogue_revision", sa.BigInteger(), nullable=False),
        sa.Column("shown", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_graph_answer"),
    )
    op.create_index("ix_graph_answer_at", "graph_answer", ["at"])
    op.create_table(
        "graph_outcome",
        sa.Column("answer", sa.String(), nullable=False),
        sa.Column("position", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("outcome", sa.String(), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("comment", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("answer", "position", "outcome", name="pk_graph_outcome"),
        sa.ForeignKeyConstraint(["answer"], ["graph_answer.id"], name="fk_graph_outcome_answer"),
    )
    op.create_table(
        "graph_edge",
        sa.Column("key", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("model", sa.String(), nullable=False),
        sa.Column("capability", sa.String(), nullable=False),
        sa.Column("intent", sa.Text(), nullable=False),
        sa.Column("succeeded", sa.BigInteger(), nullable=False),
        sa.Column("failed", sa.BigInteger(), nullable=False),
        sa.Column("success_weight", sa.Double(), nullable=False),
        sa.Column("failure_weight", sa.Double(), nullable=False),
        sa.Column("weighed_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("key", name="pk_graph_edge"),
    )
    op.create_index("ix_graph_edge_model", "graph_edge", ["model"])
    op.create_table(
        "graph_edge_place",
        sa.Column("edge", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("place", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("seen", sa.BigInteger(), nullable=False),
        sa.Column("chosen", sa.BigInteger(), nullable=False),
        sa.Column("seen_weight", sa.Double(), nullable=False),
        sa.Column("chosen_weight", sa.Double(), nullable=False),
        sa.Column("weighed_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("edge", "place", name="pk_graph_edge_place"),
    )
    op.create_table(
        "graph_place",
        sa.Column("place", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("seen", sa.BigInteger(), nullable=False),
        sa.Column("chosen", sa.BigInteger(), nullable=False),
        sa.Column("seen_weight", sa.Double(), nullable=False),
        sa.Column("chosen_weight", sa.Double(), nullable=False),
        sa.Column("upper_weight", sa.Double(), nullable=False),
        sa.Column("lower_weight", sa.Double(), nullable=False),
        sa.Column("weighed_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("place", name="pk_graph_place"),
    )
    op.create_table(
        "graph_state",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("half_life_seconds", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_graph_state"),
    )
