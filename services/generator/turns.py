"""A call that pauses where it says, so that another thread runs it turn by turn."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

from services.core.errors import let_go

R = TypeVar("R")


class _GivenUp(BaseException):
    """Unwinds a call whose turns will not come."""


class Turns(Generic[R]):
    """``call`` gets ``pause``, and runs in a thread of its own from one pause to the next, only
    while ``take`` waits for it: two of them never compute at the same time.
    """

    def __init__(self, call: Callable[[Callable[[], None]], R]) -> None:
        self._call = call
        self._go, self._back = threading.Semaphore(0), threading.Semaphore(0)
        self._thread: threading.Thread | None = None
        self._given_up = False
        self._error: BaseException | None = None
        self._result: list[R] = []

    @property
    def ended(self) -> bool:
        return self._error is not None or bool(self._result)

    @property
    def result(self) -> R:
        """Once it has ended. Raises what the call raised."""
        if self._error is not None:
            raise self._error
        return self._result[0]

    def take(self) -> None:
        """Let the call run to its next pause, or its end; nothing after that. Blocks."""
        if self.ended:
            return
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="pipeline", daemon=True)
            self._thread.start()
        else:
            self._go.release()
        self._back.acquire()

    def give_up(self) -> None:
        """End a call that waits for its turn, from any thread; it unwinds by itself."""
        self._given_up = True
        self._go.release()

    def join(self) -> None:
        """Block until its thread has ended, after ``give_up`` or the last turn."""
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        try:
            self._result.append(self._call(self._pause))
        except _GivenUp:
            pass
        except BaseException as error:
            let_go(error)
            self._error = error
        finally:
            self._back.release()

    def _pause(self) -> None:
        self._back.release()
        self._go.acquire()
        if self._given_up:
            raise _GivenUp()
