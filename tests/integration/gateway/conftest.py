"""Two fake model services and a gateway before them."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.integration.gateway.fakes import Door, FakeService, gateway, serving


@pytest.fixture
async def classifier() -> AsyncIterator[FakeService]:
    async with serving(FakeService("classifier")) as fake:
        yield fake


@pytest.fixture
async def generator() -> AsyncIterator[FakeService]:
    async with serving(FakeService("generator")) as fake:
        yield fake


@pytest.fixture
async def door(classifier: FakeService, generator: FakeService) -> AsyncIterator[Door]:
    async with gateway(
        classifier_target=classifier.target, generator_target=generator.target
    ) as opened:
        yield opened
