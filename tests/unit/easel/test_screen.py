"""Progress bars with previews, on a terminal of the test's own."""

from __future__ import annotations

from io import StringIO

from rich.console import Console
from rich.progress import TextColumn

from easel.cli.screen import Bars
from tests.unit.easel.pictures import png

RED = "38;2;255;0;0;48;2;255;0;0"
BLUE = "38;2;0;0;255;48;2;0;0;255"


def bars_on(file: StringIO) -> Bars:
    console = Console(
        file=file, force_terminal=True, width=80, height=24, color_system="truecolor", _environ={}
    )
    # Refreshed by the tests alone.
    bars = Bars(TextColumn("{task.description}"), console=console, disable=False)
    bars.live.auto_refresh = False
    return bars


def shown(bars: Bars, file: StringIO) -> str:
    file.truncate(file.seek(0))
    bars.refresh()
    return file.getvalue()


def test_the_latest_preview_of_each_picture_is_below_the_bars() -> None:
    file = StringIO()
    with bars_on(file) as bars:
        bars.add_task("picture 1")
        assert "▀" not in shown(bars, file)

        bars.preview(0, png("red"))
        first = shown(bars, file)
        bars.preview(1, png("blue"))
        both = shown(bars, file)
        bars.preview(0, None)
        last = shown(bars, file)

    assert first.index("picture 1") < first.index(RED)
    assert RED in both
    assert BLUE in both
    assert RED not in last
    assert BLUE in last


def test_bars_stay_and_previews_go_at_the_end() -> None:
    file = StringIO()
    with bars_on(file) as bars:
        bars.add_task("picture 1")
        bars.preview(0, png("red"))
        file.truncate(file.seek(0))

    assert "picture 1" in file.getvalue()
    assert "▀" not in file.getvalue()
