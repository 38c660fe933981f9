"""What goes to which stream: results to stdout, everything else to stderr."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Iterator
from typing import Final, Never

import typer
from rich.console import Console, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, TextColumn
from rich.table import Table
from rich.text import Text

from easel.cli.exits import ExitCode
from easel.cli.terminal import preview_strip

_FILE_COLUMNS: Final = 160


def out() -> Console:
    """Return the console of results. Made anew: stdout may be another one than at import."""
    # Rich takes 80 columns where there is no terminal, and breaks file names that programs read.
    known = sys.stdout.isatty() or "COLUMNS" in os.environ
    return Console(highlight=False, width=None if known else _FILE_COLUMNS)


def err() -> Console:
    """Return the console of progress and errors."""
    return Console(stderr=True, highlight=False)


def print_json(document: object) -> None:
    """Write one JSON document on one line of stdout."""
    sys.stdout.write(json.dumps(document, ensure_ascii=False) + "\n")
    sys.stdout.flush()


def fail(message: str, code: ExitCode) -> Never:
    """Say why on one line of stderr and end with ``code``."""
    sys.stderr.write(f"error: {message}\n")
    raise typer.Exit(code)


def table(*columns: str, right: Iterable[str] = (), whole: Iterable[str] = ()) -> Table:
    """Return an empty table; the columns named in ``right`` hold numbers, those in ``whole`` what
    is typed again, as names, and are broken last."""
    made = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    numbers, names = set(right), set(whole)
    for column in columns:
        made.add_column(
            column,
            justify="right" if column in numbers else "left",
            overflow="fold",
            no_wrap=column in names,
        )
    return made


class Bars(Progress):
    """Progress bars, and below them the latest preview of every picture that is under way."""

    def __init__(self, *columns: ProgressColumn, console: Console, disable: bool) -> None:
        self._previews: dict[int, bytes] = {}
        self._strip = Text()
        super().__init__(*columns, console=console, disable=disable)

    def preview(self, index: int, picture: bytes | None) -> None:
        """Show an encoded picture as that of ``index``, or with None none any more."""
        if picture:
            self._previews[index] = picture
        else:
            self._previews.pop(index, None)
        pictures = [self._previews[each] for each in sorted(self._previews)]
        columns, rows = self.console.size
        # Drawn once for each preview, not for each of the many refreshes.
        strip = preview_strip(pictures, columns, rows - len(self.tasks) - 2)
        self._strip = Text.from_ansi(strip, no_wrap=True)
        self.refresh()

    def get_renderables(self) -> Iterator[RenderableType]:
        yield from super().get_renderables()
        if self._strip:
            yield self._strip

    def stop(self) -> None:
        """Leave the bars as they are, without previews: the pictures themselves come next."""
        self._strip = Text()
        super().stop()


def bars(*, quiet: bool) -> Bars:
    """Return progress bars on stderr; nothing at all when ``quiet`` or not on a terminal."""
    console = err()
    return Bars(
        TextColumn("{task.description}"),
        BarColumn(bar_width=28),
        MofNCompleteColumn(),
        TextColumn("{task.fields[note]}"),
        console=console,
        disable=quiet or not console.is_terminal,
    )


def plain(text: str, style: str = "") -> Text:
    """Return text in which square brackets are just brackets."""
    return Text(text, style=style)
