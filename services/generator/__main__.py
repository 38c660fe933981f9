"""Starts the generator service: ``python -m services.generator``."""

from __future__ import annotations

import sys
from functools import partial

from models import DEMO_GENERATOR
from services.core.config import ConfigError, load_settings
from services.core.reference import ModelFiles
from services.core.server.app import run
from services.generator import backends
from services.generator.config import GeneratorSettings
from services.generator.inversion import load_inversions
from services.generator.model import GeneratorModel, without_safety
from services.generator.network import Conditioning
from services.generator.originals.unpack import find
from services.generator.painter import FoundPainter, Painter
from services.generator.pipelines import PipelineModel, load_pipeline, needs_pipeline
from services.generator.prompt_cache import PromptCache
from services.generator.safety import load_checker
from services.generator.service import GeneratorApp
from services.generator.tiny_decoder import load_tiny


def main() -> int:
    try:
        settings = load_settings(GeneratorSettings)
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 2
    return run(application(settings))


def application(settings: GeneratorSettings) -> GeneratorApp:
    """The generator as it is served."""
    demo = settings.model == "demo"
    reference = str(DEMO_GENERATOR) if demo else settings.model
    name = settings.model_name or ("demo" if demo else "")
    cache: PromptCache[Conditioning] = PromptCache(settings.prompt_cache_mb * 2**20)
    model = FoundPainter(
        partial(find, reference, name=name, unpacked=settings.unpacked),
        partial(_painter, settings, cache),
    )
    return GeneratorApp(settings, model, prompt_cache=cache)


def _painter(
    settings: GeneratorSettings, cache: PromptCache[Conditioning], files: ModelFiles
) -> Painter:
    if needs_pipeline(files.directory):
        backends.check_pipeline(settings.wanted, settings.engine_only)
        return PipelineModel(
            lambda: files,
            partial(
                load_pipeline,
                backend=settings.backend,
                device=settings.device,
                precision=settings.precision,
                threads=settings.threads,
                checked=settings.safety_checker,
            ),
            defaults=settings.defaults,
            bounds=settings.bounds,
        )
    return GeneratorModel(
        lambda: files,
        partial(
            backends.load,
            wanted=settings.wanted,
            store=settings.store,
            threads=settings.threads,
            image_adapter=settings.image_adapter,
        ),
        load_safety=load_checker if settings.safety_checker else without_safety,
        defaults=settings.defaults,
        bounds=settings.bounds,
        adapters=settings.adapters,
        controls=settings.controls,
        load_inversions=partial(load_inversions, settings.embeddings_dir),
        load_tiny=partial(load_tiny, settings.preview_decoder),
        prompt_cache=cache,
        warm_up_seconds=settings.warm_up_seconds,
    )


if __name__ == "__main__":
    sys.exit(main())
