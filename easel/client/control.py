"""Pictures that steer where things go."""

from __future__ import annotations

from dataclasses import dataclass

from easel.client.picture import Picture, to_message
from easel.generator.v1 import generator_pb2


@dataclass(frozen=True)
class Control:
    """A ControlNet that the server has, and the picture that it reads.

    It acts with ``scale`` (1 when None) from the share ``start`` of the steps to the share ``end``
    (the last when None).
    """

    name: str
    image: Picture
    scale: float | None = None
    start: float = 0.0
    end: float | None = None

    def to_pb(self) -> generator_pb2.Control:
        """Raises ``OSError`` for a file that cannot be read."""
        return generator_pb2.Control(
            name=self.name,
            image=to_message(self.image),
            scale=self.scale,
            start=self.start,
            end=self.end,
        )
