"""Starts services, sees that they stay up, and stops them in order."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from threading import Event
from typing import Final, Never, Protocol

from easel.supervisor.plan import Plan, Service
from easel.supervisor.restarts import (
    GiveUp,
    History,
    Restart,
    RestartLimits,
    became_ready,
    exited,
)

_TICK_SECONDS: Final = 0.1


class State(Enum):
    """Of one service."""

    STARTING = "starting"
    READY = "ready"
    WAITING = "waiting"  # for its next start
    STOPPING = "stopping"
    STOPPED = "stopped"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Change:
    """A service came into ``state``; ``why`` it did, where that is not plain."""

    service: Service
    state: State
    why: str = ""


class ServiceFailedError(Exception):
    """A service that does not start, whatever is tried; with the end of its log."""

    def __init__(self, service: Service, reason: str, log_lines: Sequence[str]) -> None:
        super().__init__(f"{service.name} {reason}")
        self.service = service
        self.reason = reason
        self.log_lines = tuple(log_lines)


class Child(Protocol):
    """A process, real or pretended."""

    @property
    def pid(self) -> int: ...
    def poll(self) -> int | None: ...
    def is_ready(self) -> bool: ...
    def terminate(self) -> None: ...
    def kill(self) -> None: ...
    def last_lines(self, count: int = ...) -> list[str]: ...


@dataclass(slots=True)
class _Watched:
    service: Service
    child: Child | None = None
    state: State = State.STARTING
    history: History = field(default_factory=History)
    start_at: float = 0.0  # when it was started last, or is to be next


class Supervisor:
    """Looks after the services of a plan; single-threaded, driven by ``tick``.

    ``tell`` hears of every change, in this thread. ``pause`` sleeps for so many seconds at most.
    ``start_seconds`` is what a service gets to become ready in, each time that it is started, and
    ``stop_seconds`` what each group gets to stop in.
    """

    def __init__(
        self,
        plan: Plan,
        start: Callable[[Service], Child],
        *,
        tell: Callable[[Change], object] = lambda _: None,
        limits: RestartLimits | None = None,
        clock: Callable[[], float] = time.monotonic,
        pause: Callable[[float], object] = time.sleep,
        start_seconds: float = math.inf,
        stop_seconds: float = 30.0,
    ) -> None:
        self._start = start
        self._tell = tell
        self._limits = limits or RestartLimits()
        self._clock = clock
        self._pause = pause
        self._start_seconds = start_seconds
        self._stop_seconds = stop_seconds
        self._groups = [[_Watched(service) for service in group] for group in plan.groups]
        self._all = [watched for group in self._groups for watched in group]

    @property
    def ready(self) -> bool:
        """Every service is up."""
        return all(watched.state is State.READY for watched in self._all)

    def pids(self) -> dict[str, int]:
        """Process ids by service name, of those that run."""
        return {each.service.name: each.child.pid for each in self._all if each.child is not None}

    def tick(self) -> None:
        """Look at every service once: start what is due, note who is ready, deal with exits.

        Raises ``ServiceFailedError`` when one is given up.
        """
        for watched in self._all:
            self._look_at(watched)

    def run(
        self,
        stop: Event,
        *,
        on_ready: Callable[[], object] = lambda: None,
        hurry: Callable[[], bool] = lambda: False,
    ) -> None:
        """Tick until ``stop`` is set, then stop everything, also when a service is given up.

        ``on_ready`` is called once, when all are ready for the first time.
        """
        told = False
        try:
            while not stop.is_set():
                self.tick()
                if self.ready and not told:
                    told = True
                    on_ready()
                stop.wait(_TICK_SECONDS)
        finally:
            self.stop(hurry=hurry)

    def stop(self, hurry: Callable[[], bool] = lambda: False) -> None:
        """Stop from the outside in: a group only once those that call it are gone.

        What still runs after ``stop_seconds``, or once ``hurry`` says so, is killed.
        """
        for group in reversed(self._groups):
            running = [watched for watched in group if watched.child is not None]
            for watched in running:
                self._terminate(watched)
            deadline = self._clock() + self._stop_seconds
            while _running(running) and self._clock() < deadline and not hurry():
                self._pause(_TICK_SECONDS / 2)
            for watched in running:
                self._finish(watched)

    def _look_at(self, watched: _Watched) -> None:
        if watched.child is None:
            if self._clock() >= watched.start_at and watched.state is not State.FAILED:
                self._launch(watched)
            return
        code = watched.child.poll()
        if code is not None:
            self._exited(watched, watched.child, code)
        elif watched.state is State.STARTING:
            self._look_whether_ready(watched, watched.child)

    def _look_whether_ready(self, watched: _Watched, child: Child) -> None:
        now = self._clock()
        if child.is_ready():
            watched.history = became_ready(watched.history, now)
            self._change(watched, State.READY)
        elif now - watched.start_at >= self._start_seconds:
            self._give_up(watched, child, f"was not ready in {self._start_seconds:g} s")

    def _launch(self, watched: _Watched) -> None:
        watched.start_at = self._clock()
        watched.child = self._start(watched.service)
        self._change(watched, State.STARTING)

    def _exited(self, watched: _Watched, child: Child, code: int) -> None:
        now = self._clock()
        watched.history, decision = exited(watched.history, now, code, self._limits)
        watched.child = None
        match decision:
            case Restart(delay, reason):
                watched.start_at = now + delay
                self._change(watched, State.WAITING, f"{reason}; starts again in {delay:g} s")
            case GiveUp(reason):
                self._give_up(watched, child, reason)

    def _give_up(self, watched: _Watched, child: Child, reason: str) -> Never:
        self._change(watched, State.FAILED, reason)
        raise ServiceFailedError(watched.service, reason, child.last_lines())

    def _terminate(self, watched: _Watched) -> None:
        if watched.child is not None and watched.child.poll() is None:
            watched.child.terminate()
            self._change(watched, State.STOPPING)

    def _finish(self, watched: _Watched) -> None:
        child = watched.child
        if child is None:
            return
        why = ""
        if child.poll() is None:
            child.kill()
            why = "killed: it did not stop in time"
            while child.poll() is None:
                self._pause(_TICK_SECONDS / 10)
        watched.child = None
        self._change(watched, State.STOPPED, why)

    def _change(self, watched: _Watched, state: State, why: str = "") -> None:
        watched.state = state
        self._tell(Change(watched.service, state, why))


def _running(group: Sequence[_Watched]) -> bool:
    return any(watched.child is not None and watched.child.poll() is None for watched in group)
