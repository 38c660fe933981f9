"""A fleet of fake models, whose loads wait for a gate and fail when told."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from prometheus_client import CollectorRegistry

from services.core.card import ModelCard, ModelKind, ModelState
from services.core.engine import EngineLimits, EngineReport, Stage
from services.core.errors import InvalidInput
from services.core.fleet import Fleet, LoadOrder
from services.core.reference import ModelFiles

STAGE = Stage("step", "k")


class FakeModel:
    """Answers its own version. ``gate`` holds loads, ``steps`` each step, until they are set."""

    def __init__(self, files: ModelFiles, size: int) -> None:
        self.files = files
        self.size = size
        self.gate = threading.Event()
        self.warm = threading.Event()
        self.steps = threading.Event()
        self.fault: Exception | None = None
        self.loads = 0
        self.closed = 0
        for event in (self.gate, self.warm, self.steps):
            event.set()

    def load(self) -> None:
        self.loads += 1
        self.gate.wait()
        if self.fault is not None:
            raise self.fault

    def warm_up(self) -> Iterable[Sequence[str]]:
        self.warm.wait()
        return [["warm"]]

    def plan(self, work: str) -> Sequence[Stage]:
        return [STAGE]

    def step(self, stage: Stage, works: Sequence[str]) -> Sequence[str]:
        self.steps.wait()
        return [self.files.version for _ in works]

    def close(self) -> None:
        self.closed += 1


def described(model: FakeModel, report: EngineReport) -> ModelCard:
    return ModelCard(
        model.files.name,
        ModelKind.CLASSIFIER,
        ModelState.READY,
        model.files.version,
        model.files.digest,
        bytes_in_memory=model.size,
    )


@dataclass
class FakeMaker:
    """Makes models of the size that ``sizes`` says for the reference, and keeps them in ``made``.

    ``on_disk`` is the size of their one weight file; ``prepare`` gets each model as it is made.
    """

    directory: Path
    sizes: dict[str, int] = field(default_factory=dict)
    made: dict[tuple[str, str], FakeModel] = field(default_factory=dict)
    prepare: Callable[[FakeModel], object] = lambda _: None
    finding: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self.finding.set()

    def builder(self, order: LoadOrder) -> Callable[[ModelFiles], FakeModel]:
        if order.backend:
            raise InvalidInput("backend", "No backends here.", "none", order.backend)

        def build(files: ModelFiles) -> FakeModel:
            model = FakeModel(files, self.sizes.get(order.reference, 0))
            self.prepare(model)
            self.made[files.name, files.version] = model
            return model

        return build

    def find(self, order: LoadOrder) -> ModelFiles:
        self.finding.wait()
        directory = self.directory / order.reference.replace("/", "-")
        directory.mkdir(exist_ok=True)
        size = self.sizes.get(order.reference, 0)
        (directory / "model.safetensors").write_bytes(b"\0" * size)
        return ModelFiles(order.name, f"of-{order.reference}", directory, "sha256:00")


class Bench:
    """A fleet whose default is ``main/1`` of 10 bytes. ``draws`` are what the split gets."""

    def __init__(self, directory: Path, budget_bytes: int | None = None) -> None:
        self.first = FakeModel(ModelFiles("main", "1", directory, "sha256:11"), 10)
        self.maker = FakeMaker(directory)
        self.registry = CollectorRegistry()
        self.draws: list[float] = []
        self.now = 0.0
        self.fleet: Fleet[FakeModel] = Fleet(
            lambda: (self.first.files, self.first),
            described,
            kind=ModelKind.CLASSIFIER,
            limits=EngineLimits(),
            registry=self.registry,
            maker=self.maker,
            budget_bytes=budget_bytes,
            draw=lambda: self.draws.pop(0),
            clock=self._clock,
        )

    def _clock(self) -> float:
        self.now += 1.0
        return self.now

    async def open(self) -> Bench:
        await asyncio.to_thread(self.fleet.load)
        await self.fleet.start()
        return self

    async def load(
        self, reference: str, name: str, version: str, *, make_default: bool = False
    ) -> ModelCard:
        order = LoadOrder(reference, name, version, make_default=make_default)
        return await self.fleet.load_model(order)

    async def ask(self, name: str = "", version: str = "") -> str:
        """The version that answers."""
        member = self.fleet.find(name, version)
        member.used_at = self._clock()
        answer: str = await member.engine.submit("work").result()
        return answer

    def use(self, name: str) -> None:
        self.fleet.find(name, "").used_at = self._clock()

    def states(self) -> dict[str, ModelState]:
        return {f"{card.name}/{card.version}": card.state for card in self.fleet.list_models()}

    def shares(self) -> dict[str, float]:
        return {
            f"{card.name}/{card.version}": card.traffic_share for card in self.fleet.list_models()
        }

    def engines(self) -> set[str]:
        """Those that the metrics have series of."""
        return {
            sample.labels["engine"]
            for family in self.registry.collect()
            for sample in family.samples
            if "engine" in sample.labels
        }


async def until(holds: Callable[[], bool]) -> None:
    """Let the loop run until something holds that a thread makes so."""
    while not holds():  # noqa: ASYNC110
        await asyncio.sleep(0)
