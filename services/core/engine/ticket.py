"""The caller's side of a row: its result, its events, its cancel."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar, cast

from services.core.errors import Cancelled, EaselError

if TYPE_CHECKING:
    from services.core.engine.admission import Forecast
    from services.core.engine.row import Row

Out = TypeVar("Out")
Result = TypeVar("Result")


@dataclass(slots=True)
class Timing:
    """Where a row's time went, in seconds; it grows while the row is under way.

    The engine fills ``queue_seconds`` (admission to first step), ``compute_seconds`` (the whole of
    every step the row was in), ``batch_rows`` (the largest batch it shared) and ``steps``. Whoever
    prepares inputs and finishes outputs fills the other two.
    """

    queue_seconds: float = 0.0
    prepare_seconds: float = 0.0
    compute_seconds: float = 0.0
    finish_seconds: float = 0.0
    batch_rows: int = 0
    steps: int = 0


@dataclass(frozen=True, slots=True)
class Progress:
    """``step`` of ``steps`` are done over all the row's stages named ``stage``."""

    stage: str
    step: int
    steps: int


@dataclass(frozen=True, slots=True)
class Output(Generic[Out]):
    """Something a step put out; ``final`` for the row's last."""

    value: Out
    final: bool


class RowOwner(Protocol):
    """What a ticket asks of the engine behind it."""

    def cancel_row(self, row: Row[Any, Any]) -> None: ...
    def resume_row(self, row: Row[Any, Any]) -> None: ...
    def forecast_row(self, row: Row[Any, Any]) -> Forecast: ...


class Ticket(Generic[Out]):
    """A row's handle. Every method belongs to the event loop of the engine.

    ``row`` is None for one that was done before its ticket was there.

    Await ``result()``, or iterate for events, or both; ``then()`` is ``result()`` without a task.
    Iterating holds the row back when ``EngineLimits.max_undelivered`` outputs wait for the reader;
    the other two lift that.
    """

    __slots__ = (
        "_error",
        "_last",
        "_outputs",
        "_owner",
        "_read",
        "_reader",
        "_row",
        "_unheld",
        "_waiters",
        "done",
        "id",
        "tenant",
        "timing",
    )

    def __init__(
        self, owner: RowOwner, row: Row[Any, Out] | None, row_id: int, tenant: str
    ) -> None:
        self.id = row_id
        self.tenant = tenant
        self.timing = Timing()
        self.done = False
        self._owner = owner
        self._row = row
        self._error: EaselError | None = None
        self._last: Out | None = None
        self._outputs: deque[Out] | None = None
        self._reader: asyncio.Future[None] | None = None
        self._waiters: list[Callable[[], None]] | None = None
        self._read = False
        self._unheld = False

    @property
    def position(self) -> int:
        """Rows not yet started that go before this one; 0 when it is next or under way."""
        return 0 if self.done else self._owner.forecast_row(self._live).position

    @property
    def eta_seconds(self) -> float:
        """Predicted seconds until the final output; counts 0 for work never timed before."""
        return 0.0 if self.done else self._owner.forecast_row(self._live).seconds

    @property
    def steps_done(self) -> int:
        return self.timing.steps

    @property
    def cancelled(self) -> bool:
        """Whether it was given up; while its last step is on the device, not yet ``done``."""
        given_up = self._error if self.done else self._live.dropped
        return isinstance(given_up, Cancelled)

    async def result(self) -> Out:
        """The final output. Raises the ``EaselError`` that ended the row instead."""
        if not self.done:
            waiter = asyncio.get_running_loop().create_future()
            self._when_done(partial(_wake, waiter))
            await waiter
        return self._outcome()

    def then(self, finish: Callable[[Out], Result]) -> asyncio.Future[Result]:
        """What ``finish`` makes of the final output, or the error that either ended with.

        ``finish`` is called as soon as the output is there and must be quick. Cancelling the
        future gives the row up.
        """
        future: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        if self.done:
            self._settle(future, finish)
        else:
            future.add_done_callback(self._given_up)
            self._when_done(partial(self._settle, future, finish))
        return future

    def __aiter__(self) -> AsyncIterator[Progress | Output[Out]]:
        """Progress, conflated to the latest, and every output not yet read; ends after the final.

        One reader at a time. Raises the ``EaselError`` that ended the row, after the outputs that
        came before it.
        """
        self._read = True
        return _Events(self)

    def cancel(self) -> None:
        """Gives the row up; it raises ``Cancelled`` now, or after the step that it is in.

        No-op on a finished row.
        """
        if not self.done:
            self._owner.cancel_row(self._live)

    # The engine's side.

    def put(self, value: Out) -> None:
        """Takes an output that is not the final one; ``wake_reader`` tells of it."""
        if self._unheld and not self._read:
            return
        if self._outputs is None:
            self._outputs = deque()
        self._outputs.append(value)

    def behind(self, limit: int) -> bool:
        """Whether the reader has ``limit`` outputs or more to catch up with."""
        return self._outputs is not None and len(self._outputs) >= limit and not self._unheld

    def finish(self, value: Out | None, error: EaselError | None) -> None:
        """Settles the ticket; the engine calls it once."""
        self._last = value
        self._error = error
        self.done = True
        self.wake_reader()
        if self._waiters is not None:
            for waiter in self._waiters:
                waiter()
            self._waiters = None

    def wake_reader(self) -> None:
        if self._reader is not None:
            _wake(self._reader)

    # The reader's side.

    @property
    def _live(self) -> Row[Any, Any]:
        assert self._row is not None, "a row that was stepped alone is done"
        return self._row

    def _when_done(self, waiter: Callable[[], None]) -> None:
        self._stop_holding()
        if self._waiters is None:
            self._waiters = []
        self._waiters.append(waiter)

    def _settle(self, future: asyncio.Future[Result], finish: Callable[[Out], Result]) -> None:
        if future.done():
            return
        try:
            future.set_result(finish(self._outcome()))
        except Exception as error:
            future.set_exception(error)

    def _given_up(self, future: asyncio.Future[Any]) -> None:
        if future.cancelled():
            self.cancel()

    def _stop_holding(self) -> None:
        # Nobody may ever read the events of a caller who only wants the result, so from here on
        # outputs must neither hold the row back nor pile up.
        self._unheld = True
        if self._outputs:
            if not self._read:
                self._outputs.clear()
            self._owner.resume_row(self._live)

    def _outcome(self) -> Out:
        if self._error is not None:
            raise self._error
        return cast(Out, self._last)

    def _next_output(self) -> Output[Out] | None:
        if not self._outputs:
            return None
        value = self._outputs.popleft()
        self._owner.resume_row(self._live)
        return Output(value, final=False)

    async def _news(self) -> None:
        self._reader = asyncio.get_running_loop().create_future()
        try:
            await self._reader
        finally:
            self._reader = None


class _Events(Generic[Out]):
    """One pass over a ticket's events."""

    __slots__ = ("_ended", "_seen", "_ticket")

    def __init__(self, ticket: Ticket[Out]) -> None:
        self._ticket = ticket
        self._seen = 0
        self._ended = False

    def __aiter__(self) -> _Events[Out]:
        return self

    async def __anext__(self) -> Progress | Output[Out]:
        while not self._ended:
            event = self._ready()
            if event is not None:
                return event
            await self._ticket._news()
        raise StopAsyncIteration

    def _ready(self) -> Progress | Output[Out] | None:
        ticket = self._ticket
        if ticket.timing.steps != self._seen and ticket._row is not None:
            self._seen = ticket.timing.steps
            return Progress(*ticket._live.progress())
        output = ticket._next_output()
        if output is None and ticket.done:
            self._ended = True
            return Output(ticket._outcome(), final=True)
        return output


def _wake(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)
