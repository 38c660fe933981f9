"""What a service's exit leads to. Pure: history and time in, decision out."""

from __future__ import annotations

import signal
from dataclasses import dataclass, replace
from typing import Final

# sysexits.h: EX_USAGE and EX_CONFIG, and Python's own code for a bad command line. Trying again
# reads the same settings and fails the same way.
PERMANENT_EXIT_CODES: Final = frozenset({2, 64, 78})


@dataclass(frozen=True, slots=True)
class RestartLimits:
    """Delays in seconds: doubling from first to last, from the first again after a healthy time."""

    first_delay_seconds: float = 0.5
    last_delay_seconds: float = 30.0
    healthy_seconds: float = 60.0
    failed_starts: int = 3


@dataclass(frozen=True, slots=True)
class History:
    """A service's past: exits since it was last healthy, starts in a row that never got ready."""

    exits: int = 0
    failed_starts: int = 0
    ready_at: float | None = None


@dataclass(frozen=True, slots=True)
class Restart:
    """Start it again ``delay_seconds`` from now."""

    delay_seconds: float
    reason: str


@dataclass(frozen=True, slots=True)
class GiveUp:
    """Starting it again is no use."""

    reason: str


def became_ready(history: History, now: float) -> History:
    return replace(history, failed_starts=0, ready_at=now)


def exited(
    history: History, now: float, code: int, limits: RestartLimits
) -> tuple[History, Restart | GiveUp]:
    """Decide on a service that ended with ``code`` (negative: minus the signal's number)."""
    reason = describe_exit(code)
    if history.ready_at is None:
        return _failed_start(history, code, f"{reason} before it was ready", limits)
    healthy = now - history.ready_at >= limits.healthy_seconds
    after = History(exits=1 if healthy else history.exits + 1)
    return after, Restart(delay_seconds(after.exits, limits), reason)


def delay_seconds(exits: int, limits: RestartLimits) -> float:
    """Return the delay after so many exits in a row (from 1)."""
    doublings = min(exits - 1, 60)  # keeps the power within a float's range
    return min(limits.first_delay_seconds * 2.0**doublings, limits.last_delay_seconds)


def describe_exit(code: int) -> str:
    """Return e.g. "exited with code 1" or "killed by SIGKILL"."""
    if code >= 0:
        return f"exited with code {code}"
    try:
        return f"killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"killed by signal {-code}"


def _failed_start(
    history: History, code: int, reason: str, limits: RestartLimits
) -> tuple[History, Restart | GiveUp]:
    after = History(exits=history.exits + 1, failed_starts=history.failed_starts + 1)
    if code in PERMANENT_EXIT_CODES:
        return after, GiveUp(reason)
    if after.failed_starts >= limits.failed_starts:
        return after, GiveUp(f"{reason}, {after.failed_starts} times in a row")
    return after, Restart(delay_seconds(after.exits, limits), reason)
