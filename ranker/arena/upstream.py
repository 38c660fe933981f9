"""The generator as the arena sees it: what makes a contender's pictures."""

from __future__ import annotations

from contextlib import aclosing
from typing import Final

from easel.generator.v1 import generator_pb2
from ranker.pictures.events import Broken, Made
from ranker.pictures.upstream import GeneratorClient
from services.core.errors import InvalidInput, ModelFault

# What changes from picture to picture, or is the arena's own.
_NOT_SETTINGS: Final = (
    "id",
    "prompt",
    "seed",
    "seeds",
    "count",
    "preview",
    "output",
    "allow_degrade",
    "controls",
    "image_to_image",
    "inpaint",
    "stylize",
)


class Painter:
    """Makes pictures of contenders by their settings, which are a request's bytes."""

    def __init__(self, generator: GeneratorClient) -> None:
        self._generator = generator

    async def settings(self, given: generator_pb2.GenerateRequest) -> bytes:
        """What is kept of a contender, with its model and version by name.

        Raises ``InvalidInput`` for a field that is not of the settings, ``NotFound`` for a model
        that the generator does not have, ``NotReady``.
        """
        for name in _NOT_SETTINGS:
            field = given.DESCRIPTOR.fields_by_name[name]
            told = getattr(given, name) if field.is_repeated or not field.has_presence else None
            if told or (told is None and given.HasField(name)):  # type: ignore[arg-type]
                raise InvalidInput(
                    f"contender.generate.{name}",
                    "It is not of a contender's settings, and must be left out.",
                )
        model = await self._generator.model(given.model, given.model_version)
        kept = generator_pb2.GenerateRequest()
        kept.CopyFrom(given)
        kept.model, kept.model_version = model.ref.name, model.ref.version
        return kept.SerializeToString(deterministic=True)

    async def paint(self, settings: bytes, prompt: str, seed: int) -> bytes:
        """One picture, encoded. Raises what became of it instead."""
        request = generator_pb2.GenerateRequest.FromString(settings)
        request.prompt, request.seed, request.count = prompt, seed, 1
        request.omit_steps = request.omit_metadata = True
        model = await self._generator.model(request.model, request.model_version)
        stream = self._generator.open(request, model)
        made: bytes | None = None
        try:
            async with aclosing(stream.news()) as news:
                async for event in news:
                    if isinstance(event, Broken):
                        raise event.error
                    if isinstance(event, Made):
                        made = event.image
        finally:
            if made is None:
                await stream.cancel()
        if made is None:
            raise ModelFault("The generator ended without the picture.")
        return made
