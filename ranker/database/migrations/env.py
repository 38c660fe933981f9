"""Runs migrations on the connection that ``ranker.database.migration`` gives."""

from __future__ import annotations

from alembic import context

from ranker.database.migration import VERSION_TABLE

context.configure(
    connection=context.config.attributes["connection"],
    version_table=VERSION_TABLE,
    # SQLite alters little in place; a batch copies the table there.
    render_as_batch=True,
)
context.run_migrations()
