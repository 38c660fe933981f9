"""What tests of every level share."""

from __future__ import annotations

import signal
from collections.abc import Generator, Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests import postgres

DATABASES = ("memory", "file", "postgresql")

# What a shell puts in the background does not hear Ctrl-C, nor does what that starts: here it would
# be the commands that tests interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(optionalhook=True, wrapper=True)
def pytest_xdist_auto_num_workers() -> Generator[None, int, int]:
    """One more than xdist finds cores: tests wait for something at times."""
    cores = yield
    return cores + 1


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """A PostgreSQL server of the session; ends with it."""
    if find_spec("pgserver") is None:
        pytest.skip("there is no PostgreSQL among the packages for this Python")
    with postgres.running_postgres() as url:
        yield url


@pytest.fixture
def postgres_database(postgres_url: str) -> Iterator[str]:
    """The URL of an empty PostgreSQL database."""
    with postgres.new_database(postgres_url) as url:
        yield url


@pytest.fixture(params=DATABASES)
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty database, of each kind that the ranker keeps things in."""
    if request.param == "memory":
        return "sqlite://"
    if request.param == "file":
        return f"sqlite:///{tmp_path / 'easel.db'}"
    url: str = request.getfixturevalue("postgres_database")
    return url
