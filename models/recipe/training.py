"""A training loop that counts in steps and can be stopped and taken up again anywhere.

Whatever is random in a step is drawn from a generator seeded by the step's number, so the state
of a run is its weights, its optimizer and its step: a resumed run ends with the same weights as
one that was never stopped.
"""

import math
import os
import random
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

StepLoss = Callable[[int], Tensor]


def randomness(*key: int) -> tuple[torch.Generator, random.Random]:
    """The random numbers of this key, the same on every call."""
    source = random.Random(":".join(map(str, key)))
    return torch.Generator().manual_seed(source.getrandbits(63)), source


def cosine(step: int, steps: int, warm: int, hold: float = 0.0) -> float:
    """Learning-rate factor: a linear rise over `warm` steps, a hold, then a cosine to 0.005.

    `hold` is the part of all steps, 0 to 1, after which the fall begins.
    """
    rise = min(1.0, (step + 1) / warm)
    fallen = max(0.0, (step / steps - hold) / (1 - hold))
    return rise * (0.5 * (1 + math.cos(math.pi * fallen)) + 0.005)


class Average:
    """An exponential moving average of weights, quick at first and then slow."""

    def __init__(self, parameters: Iterable[nn.Parameter], slowest: float = 0.999) -> None:
        self.parameters = list(parameters)
        self.slowest = slowest
        self.values = [p.detach().clone() for p in self.parameters]

    def update(self, step: int) -> None:
        """Takes in the weights after this step."""
        decay = min(self.slowest, (1 + step) / (20 + step))
        torch._foreach_lerp_(self.values, [p.detach() for p in self.parameters], 1 - decay)

    def swap(self) -> None:
        """Exchanges the weights in use with their average; a second call undoes it."""
        with torch.no_grad():
            for parameter, value in zip(self.parameters, self.values, strict=True):
                used = parameter.clone()
                parameter.copy_(value)
                value.copy_(used)


@dataclass
class Run:
    """One training run: what is trained, for how many steps, and where it is saved.

    `rate` gives the learning-rate factor of a step. With `average` the averaged weights are left
    in the modules when the run ends. `share` is called between backward and the optimizer and
    may combine gradients between processes; only the run that `leads` saves and prints. `watch` is
    called with the number of steps done whenever the run has been saved before its end.
    """

    name: str
    checkpoint: Path
    modules: Mapping[str, nn.Module]
    optimizer: torch.optim.Optimizer
    steps: int
    rate: Callable[[int], float]
    average: Average | None = None
    share: Callable[[list[nn.Parameter]], None] | None = None
    leads: bool = True
    save_every: int = 250
    watch: Callable[[int], None] | None = None
    seconds: float = field(default=0.0, init=False)

    def train(self, loss_of: StepLoss, stop_at: int | None = None) -> None:
        """Runs the steps not yet done, or those before `stop_at`."""
        first = self._restore()
        last = min(self.steps, stop_at or self.steps)
        for group in self.optimizer.param_groups:
            group.setdefault("base_lr", group["lr"])
        progress = Progress(self.name, self.steps, first, shown=self.leads)
        for module in self.modules.values():
            module.train()
        for step in range(first, last):
            began = time.perf_counter()
            loss = self._step(step, loss_of)
            self.seconds += time.perf_counter() - began
            progress.note(step + 1, loss)
            self._keep(step + 1, last)
        if self.average and last == self.steps:
            self.average.swap()

    def _step(self, step: int, loss_of: StepLoss) -> float:
        factor = self.rate(step)
        for group in self.optimizer.param_groups:
            group["lr"] = group["base_lr"] * factor
        parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        loss = loss_of(step)
        self.optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        if self.share:
            self.share(parameters)
        nn.utils.clip_grad_norm_(parameters, 1.0)
        self.optimizer.step()
        if self.average:
            self.average.update(step + 1)
        return loss.item()

    def _keep(self, done: int, last: int) -> None:
        if not self.leads or (done % self.save_every and done != last):
            return
        self._save(done)
        if self.watch and done != self.steps:
            self.watch(done)

    def _save(self, done: int) -> None:
        state: dict[str, Any] = {
            "step": done,
            "seconds": self.seconds,
            "modules": {name: module.state_dict() for name, module in self.modules.items()},
            "optimizer": self.optimizer.state_dict(),
            "average": self.average.values if self.average else [],
        }
        unfinished = self.checkpoint.with_suffix(".tmp")
        torch.save(state, unfinished)
        os.replace(unfinished, self.checkpoint)

    def _restore(self) -> int:
        if not self.checkpoint.exists():
            return 0
        state = torch.load(self.checkpoint, weights_only=True)
        for name, module in self.modules.items():
            module.load_state_dict(state["modules"][name])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.average:
            self.average.values = state["average"]
        self.seconds = state["seconds"]
        return int(state["step"])


class Progress:
    """Prints the step, the smoothed loss, the speed and the time left, every few seconds."""

    def __init__(self, name: str, steps: int, first: int, shown: bool = True) -> None:
        self.name, self.steps, self.first, self.shown = name, steps, first, shown
        self.began = self.spoke = time.monotonic()
        self.loss = math.nan

    def note(self, done: int, loss: float) -> None:
        """Takes in one step's loss."""
        self.loss = loss if math.isnan(self.loss) else 0.98 * self.loss + 0.02 * loss
        now = time.monotonic()
        if not self.shown or (now - self.spoke < 10 and done != self.steps):
            return
        self.spoke = now
        speed = (done - self.first) / (now - self.began)
        left = (self.steps - done) / speed
        print(
            f"{self.name}: step {done}/{self.steps} loss {self.loss:.4f} "
            f"{speed:.2f} it/s eta {left:.0f} s",
            flush=True,
        )
