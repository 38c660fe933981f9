"""The image index: collections, pictures with labels and attributes, and their vectors."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

_NUMBER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_BYTEWISE = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    op.create_table(
        "image_collection",
        sa.Column("number", _NUMBER, nullable=False),
        sa.Column("name", _BYTEWISE, nullable=False),
        sa.Column("origin", sa.Text(), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("number", name="pk_image_collection"),
        sa.UniqueConstraint("name", name="uq_image_collection_name"),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "image",
        sa.Column("number", _NUMBER, nullable=False),
        sa.Column("collection", _NUMBER, nullable=False),
        sa.Column("id", _BYTEWISE, nullable=False),
        sa.Column("indexed_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("number", name="pk_image"),
        sa.UniqueConstraint("collection", "id", name="uq_image_collection_id"),
        sa.ForeignKeyConstraint(
            ["collection"],
            ["image_collection.number"],
            name="fk_image_collection",
            ondelete="CASCADE",
        ),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "image_label",
        sa.Column("image", _NUMBER, nullable=False),
        sa.Column("label", sa.Integer(), nullable=False),
        sa.Column("collection", _NUMBER, nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("score", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("image", "label", name="pk_image_label"),
        _of_image("image_label"),
    )
    op.create_index(
        "ix_image_label_collection_name_image_score",
        "image_label",
        ["collection", "name", "image", "score"],
    )
    op.create_table(
        "image_attribute",
        sa.Column("image", _NUMBER, nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("collection", _NUMBER, nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("image", "name", name="pk_image_attribute"),
        _of_image("image_attribute"),
    )
    op.create_index(
        "ix_image_attribute_collection_name_value_image",
        "image_attribute",
        ["collection", "name", "value", "image"],
    )
    op.create_table(
        "image_vector",
        sa.Column("image", _NUMBER, nullable=False),
        sa.Column("vector", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("image", name="pk_image_vector"),
        _of_image("image_vector"),
    )


def _of_image(table: str) -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint(
        ["image"], ["image.number"], name=f"fk_{table}_image", ondelete="CASCADE"
    )
