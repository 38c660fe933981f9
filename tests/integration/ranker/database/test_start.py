"""A ranker whose database cannot be used does not start, and says why in one line."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from ranker.config import RankerSettings
from ranker.database import Database
from ranker.service import RankerApp
from services.core.config import load_settings
from services.core.server.app import EXIT_UNUSABLE, serve


async def start(**values: Any) -> int:
    targets = {"classifier_target": "127.0.0.1:1", "generator_target": "127.0.0.1:1"}
    settings = load_settings(RankerSettings, environ={}, **targets, **values)
    return await serve(RankerApp(settings, CollectorRegistry()))


async def test_a_database_of_a_newer_release(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "easel.db"
    await Database.open(f"sqlite:///{file}").close()
    with closing(sqlite3.connect(file)) as connection, connection:
        connection.execute("UPDATE easel_version SET version_num = '9999'")
    before = file.read_bytes()

    assert await start(data_dir=tmp_path) == EXIT_UNUSABLE
    assert file.read_bytes() == before
    assert "The database has version 9999" in caplog.text


async def test_a_server_that_is_away(caplog: pytest.LogCaptureFixture) -> None:
    url = "postgresql://someone:secret@127.0.0.1:1/easel"
    assert await start(database_url=url) == EXIT_UNUSABLE
    assert "The database cannot be used" in caplog.text
    assert "secret" not in caplog.text
