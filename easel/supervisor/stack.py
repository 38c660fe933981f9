"""A whole plan for as long as a ``with`` block lasts."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Event, Thread

from easel.supervisor.plan import Plan, Service
from easel.supervisor.process import ChildProcess
from easel.supervisor.supervisor import Change, Child, Supervisor


class _Run:
    """A supervisor at work in a thread, with what ended it."""

    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor
        self._settled = Event()
        self._stop = Event()
        self._thread = Thread(target=self._run, name="supervisor")
        self.error: Exception | None = None

    def start(self) -> None:
        """Return when all services are ready, or one was given up (``error``)."""
        self._thread.start()
        self._settled.wait()

    def end(self) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        try:
            self._supervisor.run(self._stop, on_ready=self._settled.set)
        except Exception as error:
            self.error = error
        finally:
            self._settled.set()


@contextmanager
def running(
    plan: Plan,
    *,
    start: Callable[[Service], Child] = ChildProcess.start,
    tell: Callable[[Change], object] = lambda _: None,
    start_seconds: float = math.inf,
) -> Iterator[Supervisor]:
    """Run the services of ``plan``: all ready inside the block, all gone after it.

    ``tell`` is called in another thread. Raises ``ServiceFailedError`` when one does not start, or
    not in ``start_seconds``.
    """
    supervisor = Supervisor(plan, start, tell=tell, start_seconds=start_seconds)
    run = _Run(supervisor)
    try:
        run.start()
        if run.error is not None:
            raise run.error
        yield supervisor
    finally:
        run.end()
