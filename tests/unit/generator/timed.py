"""Real rows of the generator on a clock that moves only with the steps of their network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from prometheus_client import CollectorRegistry

from services.core.engine import Engine, EngineLimits, EngineMetrics, InlineDevice, Ticket
from services.generator.diffusion import PictureWork, Result
from services.generator.lora import Outfit
from services.generator.model import GeneratorModel
from services.generator.network import Conditioning, Look, Pixels
from services.generator.request import Wish, resolve
from tests.unit.core.engine.fake_model import FakeClock
from tests.unit.generator.fakes import FakeNetwork, fake_model

CALL_SECONDS = 0.02
AREA = 64.0
"""Latents of a picture of the default size."""


@dataclass
class TimedNetwork(FakeNetwork):
    """A call takes 20 ms, and each row of 8 x 8 latents ``row_seconds`` more."""

    clock: FakeClock = field(default_factory=FakeClock)
    row_seconds: float = 0.01

    def encode(
        self, windows: torch.Tensor, skips: Sequence[int], outfits: Sequence[Outfit] | None = None
    ) -> Conditioning:
        self._take(0.0)
        return super().encode(windows, skips, outfits)

    def predict(self, look: Look) -> torch.Tensor:
        self._take(look.latents[:, 0].numel())
        return super().predict(look)

    def decode(self, latents: torch.Tensor) -> Pixels:
        self._take(latents[:, 0].numel())
        return super().decode(latents)

    def _take(self, latents: float) -> None:
        self.clock.now += CALL_SECONDS + self.row_seconds * latents / AREA


@dataclass
class TimedEngine:
    """A loaded engine; ``ended`` are the wishes' ids in the order in which they were done."""

    limits: EngineLimits = field(default_factory=EngineLimits)
    network: TimedNetwork = field(default_factory=TimedNetwork)
    ended: list[str] = field(default_factory=list)
    tickets: dict[str, Ticket[Result]] = field(default_factory=dict)
    model: GeneratorModel = field(init=False)
    engine: Engine[PictureWork, Result] = field(init=False)

    def __post_init__(self) -> None:
        self.model = fake_model(self.network)
        self.engine = Engine(
            self.model,
            limits=self.limits,
            metrics=EngineMetrics(CollectorRegistry(), "timed"),
            clock=self.clock,
            device=InlineDevice(),
        )
        self.engine.load()

    @property
    def clock(self) -> FakeClock:
        return self.network.clock

    def submit(
        self, wish: Wish, *, tenant: str = "", priority: int = 0, within: float | None = None
    ) -> Ticket[Result]:
        """A wish for one picture, ``within`` so many seconds."""
        (work,) = self.model.works(resolve(wish, self.model.limits, draw_seed=int))
        deadline = None if within is None else self.clock.now + within
        ticket = self.engine.submit(work, tenant=tenant, priority=priority, deadline=deadline)
        self.tickets[wish.id] = ticket
        return ticket

    async def tick(self) -> bool:
        stepped = await self.engine.tick()
        for name, ticket in self.tickets.items():
            if ticket.done and name not in self.ended:
                self.ended.append(name)
        return stepped

    async def run(self) -> None:
        """Until nothing is left to do."""
        while await self.tick():
            pass
