"""Arenas: contenders, prompts, pictures, pairs that were shown, judges, and the log of votes."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"

_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "arena_intent",
        sa.Column("id", _ID, nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_arena_intent"),
        sa.UniqueConstraint("name", name="uq_arena_intent_name"),
    )
    op.create_table(
        "arena_contender",
        sa.Column("id", _ID, nullable=False),
        sa.Column("intent", _ID, nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("settings", sa.LargeBinary(), nullable=True),
        sa.Column("withdrawn", sa.Boolean(), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_arena_contender"),
        sa.ForeignKeyConstraint(["intent"], ["arena_intent.id"], name="fk_arena_contender_intent"),
        sa.UniqueConstraint("intent", "name", name="uq_arena_contender_intent_name"),
    )
    op.create_table(
        "arena_prompt",
        sa.Column("id", _ID, nullable=False),
        sa.Column("intent", _ID, nullable=False),
        sa.Column("digest", sa.String(), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("standing", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_arena_prompt"),
        sa.ForeignKeyConstraint(["intent"], ["arena_intent.id"], name="fk_arena_prompt_intent"),
        sa.UniqueConstraint("intent", "digest", name="uq_arena_prompt_intent_digest"),
    )
    op.create_table(
        "arena_picture",
        sa.Column("id", _ID, nullable=False),
        sa.Column("contender", _ID, nullable=False),
        sa.Column("prompt", _ID, nullable=False),
        sa.Column("digest", sa.String(), nullable=False),
        sa.Column("size", sa.Integer(), nullable=False),
        sa.Column("generated", sa.Boolean(), nullable=False),
        sa.Column("encoded", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_arena_picture"),
        sa.ForeignKeyConstraint(
            ["contender"], ["arena_contender.id"], name="fk_arena_picture_contender"
        ),
        sa.ForeignKeyConstraint(["prompt"], ["arena_prompt.id"], name="fk_arena_picture_prompt"),
        sa.UniqueConstraint(
            "contender", "prompt", "digest", name="uq_arena_picture_contender_prompt_digest"
        ),
    )
    op.create_index("ix_arena_picture_prompt", "arena_picture", ["prompt"])
    op.create_index("ix_arena_picture_generated_size", "arena_picture", ["generated", "size"])
    op.create_table(
        "arena_pair",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("left", _ID, nullable=False),
        sa.Column("right", _ID, nullable=False),
        sa.Column("prompt", _ID, nullable=False),
        sa.Column("propensity", sa.Double(), nullable=False),
        sa.Column("expires_at", sa.BigInteger(), nullable=False),
        sa.Column("voted", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_arena_pair"),
        sa.ForeignKeyConstraint(["left"], ["arena_contender.id"], name="fk_arena_pair_left"),
        sa.ForeignKeyConstraint(["right"], ["arena_contender.id"], name="fk_arena_pair_right"),
        sa.ForeignKeyConstraint(["prompt"], ["arena_prompt.id"], name="fk_arena_pair_prompt"),
    )
    op.create_index("ix_arena_pair_voted_expires_at", "arena_pair", ["voted", "expires_at"])
    op.create_index("ix_arena_pair_prompt", "arena_pair", ["prompt"])
    op.create_table(
        "arena_judge",
        sa.Column("id", _ID, nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_arena_judge"),
        sa.UniqueConstraint("name", name="uq_arena_judge_name"),
    )
    op.create_table(
        "arena_vote",
        sa.Column("id", _ID, nullable=False),
        sa.Column("intent", _ID, nullable=False),
        sa.Column("left", _ID, nullable=False),
        sa.Column("right", _ID, nullable=False),
        sa.Column("vote", sa.SmallInteger(), nullable=False),
        sa.Column("judge", _ID, nullable=False),
        sa.Column("key", sa.String(), nullable=True),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_arena_vote"),
        sa.ForeignKeyConstraint(["intent"], ["arena_intent.id"], name="fk_arena_vote_intent"),
        sa.ForeignKeyConstraint(["left"], ["arena_contender.id"], name="fk_arena_vote_left"),
        sa.ForeignKeyConstraint(["right"], ["arena_contender.id"], name="fk_arena_vote_right"),
        sa.UniqueConstraint("intent", "key", name="uq_arena_vote_intent_key"),
    )
    op.create_index("ix_arena_vote_intent_id", "arena_vote", ["intent", "id"])
