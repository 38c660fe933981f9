"""Fewer steps, where a caller allows them, so that a deadline is met: pure functions.

A picture of fewer steps is not a worse picture of more, but another one: its sampler passes other
noise levels. So that is never done unasked, and the answer and its record say what was run.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

from services.core.engine import Stage
from services.generator.request import Order, steps_taken


def fewer_steps(order: Order, least: int, in_time: Callable[[int], bool]) -> int | None:
    """The most steps, from ``least`` to one less than ``order``'s, of which ``in_time`` holds.

    None where it holds of none. It must hold of fewer steps wherever it holds of more.
    """
    least = max(least, _least_for(order))
    if least >= order.steps or not in_time(least):
        return None
    low, high = least, order.steps - 1
    while low < high:
        middle = (low + high + 1) // 2
        if in_time(middle):
            low = middle
        else:
            high = middle - 1
    return low


def shortened(stages: Sequence[Stage], name: str, share: float) -> list[Stage]:
    """The plan with the first ``share`` (above 0, up to 1) of the steps of all the stages whose
    names begin with ``name``.
    """
    total = sum(stage.steps for stage in stages if stage.name.startswith(name))
    left, plan = math.ceil(total * share - 1e-9), []
    for stage in stages:
        if not stage.name.startswith(name):
            plan.append(stage)
        elif left > 0:
            plan.append(replace(stage, steps=min(stage.steps, left)))
            left -= stage.steps
    return plan


def degraded(order: Order, steps: int) -> Order:
    """``order`` with that many steps; its previews keep their share of the way."""
    taken = steps_taken(order.mode, steps)
    previews = {max(1, step * taken // order.steps_taken) for step in order.preview_steps}
    return replace(order, steps=steps, preview_steps=tuple(sorted(previews)), degraded=True)


def _least_for(order: Order) -> int:
    return next(steps for steps in range(1, order.steps + 1) if steps_taken(order.mode, steps))
