"""How much admitted work is left, per key, and what batches of it may cost."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterator

from services.core.engine.cost import GROWTH, Fit, StepCost
from services.core.engine.limits import EngineLimits
from services.core.engine.stage import Stage

MAX_KEYS = 1024
"""Keys whose fits are remembered; the longest idle ones are forgotten first."""

RECOVER_AFTER = 256
"""Full batches without trouble before a memory cap is raised."""

RECOVERY = 1.25

QUICK_SECONDS = 50e-6
"""A step this short costs less than waking the device's thread and being woken by it (on a small
virtual machine more than 100 µs of processor time), and holds up the loop no longer than other
callbacks do."""

QUICK_AFTER = 32
"""Quick steps before a key is taken to be quick; a slower one takes back half of them, so that a
pause of the machine changes nothing and a model that became slow is soon back on its thread."""


class KeyLoad:
    """One key: its cost model, its caps, and the admitted work that is still ahead on it."""

    __slots__ = (
        "_clean",
        "_quick_steps",
        "cost",
        "key",
        "limits",
        "memory_cost",
        "remaining",
        "rows",
        "width",
    )

    def __init__(self, key: Hashable, limits: EngineLimits) -> None:
        self.key = key
        self.limits = limits
        self.cost = StepCost()
        self.memory_cost = math.inf
        self.rows = 0
        self.width = 0.0
        self.remaining = 0.0
        self._clean = 0
        self._quick_steps = 0

    @property
    def quick(self) -> bool:
        """Whether the model's steps are so short that a thread for them does not pay."""
        return self._quick_steps >= QUICK_AFTER

    @property
    def fit(self) -> Fit | None:
        return self.cost.fit

    @property
    def cap_cost(self) -> float:
        """Largest cost a batch should have; one row may always exceed it.

        0 before the first sample.
        """
        fit = self.cost.fit
        if fit is None:
            return 0.0
        cap = min(GROWTH * self.cost.largest, fit.cost_within(self.limits.max_step_seconds))
        if fit.known:
            cap = min(cap, fit.cost_for_share(self.limits.overhead_share))
        return min(cap, self.memory_cost)

    def seconds(self, remaining: float, width: float, rows: int) -> float:
        """Predicted seconds for ``remaining`` cost spread over ``rows`` rows whose next steps cost
        ``width`` together; 0 for a key never timed.
        """
        fit = self.cost.fit
        if fit is None or rows == 0:
            return 0.0
        row = width / rows
        batch = max(row, min(width, self.cap_cost, row * self.limits.max_batch_rows))
        return fit.drain_seconds(remaining, batch)

    def observe(self, cost: float, seconds: float) -> None:
        """Learns from a batch of ``cost`` that took ``seconds``."""
        self.cost.observe(cost, seconds)
        if cost * GROWTH > self.memory_cost:
            self._clean += 1
            if self._clean >= RECOVER_AFTER:
                self._clean = 0
                self.memory_cost *= RECOVERY

    def took(self, step_seconds: float) -> None:
        """Counts a step by the model's own time, without the way to the device and back."""
        if step_seconds < QUICK_SECONDS:
            self._quick_steps = min(self._quick_steps + 1, 2 * QUICK_AFTER)
        else:
            self._quick_steps //= 2

    def out_of_memory(self, cost: float) -> None:
        """A batch of ``cost`` did not fit: no batch is larger than half of it from here on."""
        self.memory_cost = min(self.memory_cost, cost) / 2.0
        self._clean = 0


class Backlog:
    """The keys of one engine. Reading ``seconds`` is O(keys with work)."""

    def __init__(self, limits: EngineLimits) -> None:
        self._limits = limits
        self._loads: dict[Hashable, KeyLoad] = {}

    def __iter__(self) -> Iterator[KeyLoad]:
        # A copy, because the metrics' thread reads while the loop writes.
        return iter(list(self._loads.values()))

    def load(self, key: Hashable) -> KeyLoad:
        """The key's entry, made when missing."""
        load = self._loads.get(key)
        if load is None:
            if len(self._loads) >= MAX_KEYS:
                self._forget_idle()
            load = self._loads[key] = KeyLoad(key, self._limits)
        return load

    @property
    def seconds(self) -> float:
        """Predicted device seconds of all admitted work."""
        return sum(load.seconds(load.remaining, load.width, load.rows) for load in self)

    def enter(self, load: KeyLoad, stage: Stage) -> None:
        """Counts a row's whole stage in."""
        load.rows += 1
        load.width += stage.cost
        load.remaining += stage.cost * stage.steps

    def leave(self, load: KeyLoad, stage: Stage, steps: int) -> None:
        """Counts a row's stage out, with ``steps`` of it not taken."""
        load.rows -= 1
        if load.rows == 0:
            # Exactly zero, whatever the sums of floats have drifted to.
            load.width = load.remaining = 0.0
        else:
            load.width -= stage.cost
            load.remaining -= stage.cost * steps

    def _forget_idle(self) -> None:
        idle = [key for key, load in self._loads.items() if load.rows == 0]
        for key in idle[: max(1, len(idle) // 2)]:
            del self._loads[key]
