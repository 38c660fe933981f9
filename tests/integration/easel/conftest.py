from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.easel.fake_gateway import FakeGateway, fake_gateway
from tests.unit.easel.pictures import png


@pytest.fixture(scope="module")
def shared_gateway() -> Iterator[FakeGateway]:
    with fake_gateway() as gateway:
        yield gateway


@pytest.fixture
def gateway(shared_gateway: FakeGateway) -> FakeGateway:
    seen = shared_gateway.seen
    for notes in (seen.requests, seen.metadata, seen.deadlines):
        notes.clear()
    for event in (seen.hanging, seen.given_up):
        event.clear()
    shared_gateway.status.down = False
    shared_gateway.models.step_engine = True
    return shared_gateway


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    file = tmp_path / "small.png"
    file.write_bytes(png())
    return file


@pytest.fixture
def big_picture(tmp_path: Path) -> Path:
    file = tmp_path / "big.png"
    file.write_bytes(png(size=(200, 300)))
    return file
