"""When models were released, and how much they are used."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    op.add_column("catalogue_model", sa.Column("released", sa.String(), nullable=True))
    op.add_column(
        "catalogue_model", sa.Column("usage", sa.JSON(), nullable=False, server_default="[]")
    )
