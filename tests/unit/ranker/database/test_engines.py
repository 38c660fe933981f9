"""Addresses of databases."""

from __future__ import annotations

import pytest

from ranker.database.engines import is_in_memory, parse_url


@pytest.mark.parametrize(
    ("text", "driver"),
    [
        ("sqlite://", "sqlite"),
        ("sqlite:////var/lib/easel/easel.db", "sqlite"),
        ("postgresql://someone:secret@host/easel", "postgresql+psycopg"),
        ("postgresql+psycopg://host/easel", "postgresql+psycopg"),
    ],
)
def test_one_driver_for_each_kind(text: str, driver: str) -> None:
    assert parse_url(text).drivername == driver


@pytest.mark.parametrize(
    "text",
    ["", "easel.db", "mysql://someone:secret@host/easel", "postgresql+asyncpg://:secret@host/x"],
)
def test_what_is_none_is_refused_without_its_password(text: str) -> None:
    with pytest.raises(ValueError, match="must be") as caught:
        parse_url(text)
    assert "secret" not in str(caught.value)


def test_memory() -> None:
    assert is_in_memory(parse_url("sqlite://"))
    assert is_in_memory(parse_url("sqlite:///:memory:"))
    assert not is_in_memory(parse_url("sqlite:///easel.db"))
    assert not is_in_memory(parse_url("postgresql://host/easel"))
