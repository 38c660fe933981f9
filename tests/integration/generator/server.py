"""The generator's application over a fake network, and how to wait for it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from services.core.config import load_settings
from services.core.reference import ModelFiles
from services.generator.config import GeneratorSettings
from services.generator.controlnet import LoadControl, load_control
from services.generator.service import GeneratorApp
from tests.unit.generator.fakes import FILES, FakeChecker, FakeNetwork, fake_model


def fake_app(
    network: FakeNetwork,
    checker: FakeChecker | None = None,
    *,
    clock: Callable[[], float] = time.monotonic,
    load_control: LoadControl = load_control,
    files: ModelFiles = FILES,
    **settings: object,
) -> GeneratorApp:
    """``clock``: the engine's; where it is a ``TimedNetwork``'s, which rows share a batch hangs on
    no pause of the machine.
    """
    loaded = load_settings(GeneratorSettings, environ={}, **settings)
    model = fake_model(
        network,
        checker,
        loaded.adapters,
        controls=loaded.controls,
        load_control=load_control,
        cache_bytes=2**20,
        tiny=loaded.preview_decoder,
        embeddings=loaded.embeddings_dir,
        files=files,
    )
    return GeneratorApp(loaded, model, prompt_cache=model.prompt_cache, clock=clock)


async def until(holds: Callable[[], bool]) -> None:
    """Let the loop run until something holds that nothing announces."""
    while not holds():  # noqa: ASYNC110
        await asyncio.sleep(0.001)
