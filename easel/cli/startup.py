"""What people see of services while they start, run and stop."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import TracebackType
from typing import Final, Self

from rich.console import Console, RenderableType
from rich.live import Live
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from easel.supervisor import Change, Plan, State

_STYLES: Final = {
    State.STARTING: "cyan",
    State.READY: "green",
    State.WAITING: "yellow",
    State.STOPPING: "yellow",
    State.STOPPED: "dim",
    State.FAILED: "bold red",
}


class Board:
    """A live line for each service while the block lasts; plain lines where there is no terminal.

    ``tell`` may be called from any thread. ``settle`` ends the live lines: later changes are
    printed one by one.
    """

    def __init__(
        self, plan: Plan, console: Console, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._console = console
        self._clock = clock
        self._started = {service.name: clock() for service in plan.services()}
        self._lines: dict[str, tuple[RenderableType, Text]] = {}
        self._live = Live(console=console, transient=False, get_renderable=self._render)
        self._is_live = False

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._live.start()
            self._is_live = True
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.settle()

    def settle(self) -> None:
        if self._is_live:
            self._is_live = False
            self._live.stop()

    def tell(self, change: Change) -> None:
        """Show a change of a service."""
        name = change.service.name
        if change.state is State.STARTING:
            self._started[name] = self._clock()
        line = self._line(change)
        self._lines[name] = (self._mark(change.state), line)
        if not self._is_live:
            self._console.print(line)

    def _line(self, change: Change) -> Text:
        name = change.service.name
        text = Text.assemble(
            (f"{name:<11}", "bold"), (f"{change.state.value:<9}", _STYLES[change.state])
        )
        if change.state is State.READY:
            text.append(f"{self._clock() - self._started[name]:5.1f} s  ", style="dim")
            text.append(change.service.target)
        elif change.why:
            text.append(change.why)
        text.rstrip()
        return text

    def _render(self) -> RenderableType:
        grid = Table.grid()
        grid.add_column(width=2)
        grid.add_column(no_wrap=True)
        for mark, line in list(self._lines.values()):
            grid.add_row(mark, line)
        return grid

    def _mark(self, state: State) -> RenderableType:
        if state is State.STARTING:
            return Spinner("dots", style="cyan")
        return Text("✓" if state is State.READY else "•", style=_STYLES[state])
