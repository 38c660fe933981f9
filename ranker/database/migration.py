"""Brings a database to the version that this release needs, or refuses it untouched.

Versions are numbered files under ``migrations/versions``; Alembic runs them, in one transaction.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import Column, Connection, MetaData, String, Table, inspect, select

from services.core.errors import FailedPrecondition

MIGRATIONS: Final = Path(__file__).with_name("migrations")
VERSION_TABLE: Final = "easel_version"
_VERSION: Final = Table(VERSION_TABLE, MetaData(), Column("version_num", String(32)))


def newest_version() -> str:
    """What this release brings a database to, such as ``0003``."""
    head = ScriptDirectory.from_config(_config()).get_current_head()
    assert head is not None, "there are migrations"
    return head


def check_version(connection: Connection) -> str | None:
    """The database's version, None for one that is empty; changes nothing.

    Raises ``FailedPrecondition`` for one of a newer release, or of another program.
    """
    inspector = inspect(connection)
    if not inspector.has_table(VERSION_TABLE):
        # A PostgreSQL database may be shared; a file may not.
        if connection.dialect.name == "sqlite" and inspector.get_table_names():
            raise FailedPrecondition(
                "The database is another program's: it has tables, and none that tells a version "
                "of Easel. It was left as it is.",
                reason="DATABASE_FOREIGN",
            )
        return None
    version = connection.scalar(select(_VERSION.c.version_num))
    if version is not None and version not in _known_versions():
        raise FailedPrecondition(
            f"The database has version {version}, and this release knows versions up to "
            f"{newest_version()}: it was written by a newer one. It was left as it is.",
            reason="DATABASE_NEWER",
        )
    return version


def migrate(connection: Connection) -> None:
    """Bring the database to ``newest_version`` within the transaction of ``connection``.

    Raises ``FailedPrecondition`` as ``check_version`` does.
    """
    if check_version(connection) != newest_version():
        command.upgrade(_config(connection), "head")


def _known_versions() -> set[str]:
    scripts = ScriptDirectory.from_config(_config())
    return {script.revision for script in scripts.walk_revisions()}


def _config(connection: Connection | None = None) -> Config:
    config = Config(attributes={"connection": connection})
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    return config
