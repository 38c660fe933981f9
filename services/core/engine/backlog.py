"""How much admitted work is left, per key, and what batches of it may cost."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterator

from services.core.engine.cost import GROWTH, Fit, StepCost
from services.core.engine.limits import EngineLimits
from services.core.engine.stage import Stage

MAX_KEYS = 1024
"""Keys whose fits are remembered; of the idle ones, the least timed are forgotten first."""

RECOVER_AFTER = 256
"""Full batches without trouble before a memory cap is raised."""

RECOVERY = 1.25

QUICK_SECONDS = 150e-6
"""A step this short costs no more than waking the device's thread and being woken by it (100 to
200 µs of processor time on a virtual machine of two cores), and holds up the loop no longer than
other callbacks do."""

INSTANT_SECONDS = 50e-6
"""A step this short costs less than to queue a row for it and to wake whoever waits for it (some
55 µs a call of the same machine)."""

QUICK_AFTER = 32
"""Quick steps before a key is taken to be quick; a slower one takes back half of them, so that a
pause of the machine changes nothing and a model that became slow is soon back on its thread."""


class KeyLoad:
    """One key: its cost model, its caps, and the admitted work that is still ahead on it."""

    __slots__ = (
        "_clean",
        "_quick_steps",
        "cap_cost",
        "cost",
        "fit",
        "key",
        "limits",
        "memory_cost",
        "name",
        "remaining",
        "rows",
        "width",
    )

    def __init__(self, key: Hashable, limits: EngineLimits, name: str = "") -> None:
        self.key = key
        self.name = name
        self.limits = limits
        self.cost = StepCost()
        # Its own, or before the first sample one that was lent to it.
        self.fit: Fit | None = None
        # Largest cost a batch should have, 0 before the first sample; one row may always exceed it.
        self.cap_cost = 0.0
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

    def is_instant(self, cost: float) -> bool:
        """Whether a step of ``cost`` is so short that a queue for it does not pay."""
        return self.quick and self.fit is not None and self.fit.seconds(cost) < INSTANT_SECONDS

    def seconds(self, remaining: float, width: float, rows: int) -> float:
        """Predicted seconds for ``remaining`` cost spread over ``rows`` rows whose next steps cost
        ``width`` together; 0 for a key never timed.
        """
        if self.fit is None or rows == 0:
            return 0.0
        row = width / rows
        batch = max(row, min(width, self.cap_cost, row * self.limits.max_batch_rows))
        return self.fit.drain_seconds(remaining, batch)

    def observe(self, cost: float, seconds: float) -> None:
        """Learns from a batch of ``cost`` that took ``seconds``."""
        self.cost.observe(cost, seconds)
        if cost * GROWTH > self.memory_cost:
            self._clean += 1
            if self._clean >= RECOVER_AFTER:
                self._clean = 0
                self.memory_cost *= RECOVERY
        self._set_cap()

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
        self._set_cap()

    def _set_cap(self) -> None:
        fit = self.cost.fit
        if fit is None:
            return
        self.fit = fit
        cap = min(GROWTH * self.cost.largest, fit.cost_within(self.limits.max_step_seconds))
        if fit.known:
            cap = min(cap, fit.cost_for_share(self.limits.overhead_share))
        self.cap_cost = min(cap, self.memory_cost)


class Backlog:
    """The keys of one engine. Reading ``seconds`` is O(keys with work)."""

    def __init__(self, limits: EngineLimits) -> None:
        self._limits = limits
        self._loads: dict[Hashable, KeyLoad] = {}

    def __iter__(self) -> Iterator[KeyLoad]:
        # A copy, because the metrics' thread reads while the loop writes.
        return iter(list(self._loads.values()))

    def load(self, key: Hashable, name: str = "") -> KeyLoad:
        """The key's entry, made when missing.

        Until it is timed itself, it is taken to cost what the best known key of the stage ``name``
        does, so that a size never seen before is not admitted as if it were free.
        """
        load = self._loads.get(key)
        if load is None:
            if len(self._loads) >= MAX_KEYS:
                self._forget_idle()
            load = self._loads[key] = KeyLoad(key, self._limits, name)
            load.fit = self._fit_of(name)
        return load

    def _fit_of(self, name: str) -> Fit | None:
        timed = [load for load in self._loads.values() if load.name == name and load.cost.samples]
        best = max(timed, key=lambda load: load.cost.samples, default=None)
        return None if best is None else best.fit

    @property
    def seconds(self) -> float:
        """Predicted device seconds of all admitted work."""
        seconds = 0.0
        for load in self:
            if load.rows:
                seconds += load.seconds(load.remaining, load.width, load.rows)
        return seconds

    def enter(self, load: KeyLoad, stage: Stage, steps: int | None = None) -> None:
        """Counts a row's stage in, with ``steps`` of it to take; all of them when None."""
        load.rows += 1
        load.width += stage.cost
        load.remaining += stage.cost * (stage.steps if steps is None else steps)

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
        idle = [load for load in self._loads.values() if load.rows == 0]
        idle.sort(key=lambda load: load.cost.samples)
        for load in idle[: max(1, len(idle) // 2)]:
            del self._loads[load.key]
