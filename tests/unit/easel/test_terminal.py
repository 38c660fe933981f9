"""Pictures in terminals, file names, and the counters' text format."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest
from rich.text import Text

from easel.cli.counters import by_method, parse
from easel.cli.files import suffix_of, write_new
from easel.cli.terminal import (
    Graphics,
    as_png,
    detect,
    half_blocks,
    iterm2,
    kitty,
    preview_strip,
)
from tests.unit.easel.pictures import png


@pytest.mark.parametrize(
    ("environment", "graphics"),
    [
        ({"KITTY_WINDOW_ID": "1"}, Graphics.KITTY),
        ({"TERM_PROGRAM": "ghostty"}, Graphics.KITTY),
        ({"TERM_PROGRAM": "iTerm.app"}, Graphics.ITERM2),
        ({"LC_TERMINAL": "iTerm2"}, Graphics.ITERM2),
        ({"KITTY_WINDOW_ID": "1", "TMUX": "/tmp/x"}, Graphics.HALF_BLOCKS),
        ({"TERM": "xterm-256color"}, Graphics.HALF_BLOCKS),
        ({"TERM": "dumb"}, Graphics.NONE),
        ({"NO_COLOR": "1"}, Graphics.NONE),
    ],
)
def test_the_environment_tells_the_protocol(
    environment: dict[str, str], graphics: Graphics
) -> None:
    assert detect(environment, is_terminal=True) is graphics
    assert detect(environment, is_terminal=False) is Graphics.NONE


def test_kitty_gets_the_file_in_chunks() -> None:
    data = bytes(range(256)) * 40

    sequences = list(kitty(data))

    payload = "".join(each.split(";", 1)[1].removesuffix("\x1b\\") for each in sequences)
    assert base64.b64decode(payload) == data
    assert ["m=1" in each.split(";")[0] for each in sequences] == [True] * 3 + [False]


def test_iterm2_gets_the_file_whole() -> None:
    assert base64.b64encode(b"data").decode() in iterm2(b"data")


def test_half_blocks_stand_side_by_side_while_they_fit() -> None:
    pictures = [png("red"), png("blue"), png("lime")]

    wide, narrow = list(half_blocks(pictures, 200)), list(half_blocks(pictures, 40))

    assert len(wide) == 16 + 1
    assert len(narrow) == 3 * (16 + 1)
    assert "\x1b[38;2;255;0;0;48;2;255;0;0m▀" in wide[0]
    assert all(line.endswith("\x1b[0m") for line in wide[:-1])


@pytest.mark.parametrize(
    ("count", "columns", "rows", "width", "lines"),
    [
        (1, 80, 20, 32, 16),  # no larger than a picture is shown at last
        (4, 80, 20, 4 * 18 + 3 * 2, 9),  # all in one row
        (2, 80, 6, 2 * 12 + 2, 6),  # as high as there is room
        (64, 80, 20, 8 * 8 + 7 * 2, 4),  # as many as can be told apart
        (1, 80, 3, 0, 0),
        (0, 80, 20, 0, 0),
    ],
)
def test_previews_are_one_row_that_fits(
    count: int, columns: int, rows: int, width: int, lines: int
) -> None:
    strip = Text.from_ansi(preview_strip([png()] * count, columns, rows))

    drawn = strip.plain.splitlines()
    assert (max(map(len, drawn), default=0), len(drawn)) == (width, lines)


def test_only_other_formats_are_converted() -> None:
    same = png()

    assert as_png(same) is same
    assert as_png(png(format="JPEG")).startswith(b"\x89PNG")


def test_a_file_is_never_replaced(tmp_path: Path) -> None:
    names = [write_new(tmp_path / "new", "7", ".png", bytes([n])).name for n in range(3)]

    assert names == ["7.png", "7-2.png", "7-3.png"]
    assert (tmp_path / "new" / "7.png").read_bytes() == b"\0"


@pytest.mark.parametrize(
    ("format", "suffix"), [("PNG", ".png"), ("JPEG", ".jpg"), ("WEBP", ".webp")]
)
def test_the_suffix_follows_the_bytes(format: str, suffix: str) -> None:
    assert suffix_of(png(format=format)) == suffix


METRICS = r"""
# HELP grpc_server_handled_total Calls ended, by code.
# TYPE grpc_server_handled_total counter
grpc_server_handled_total{grpc_code="OK",grpc_method="BestOf",grpc_service="a\"b"} 2.0
grpc_server_handled_total{grpc_code="Cancelled",grpc_method="BestOf",grpc_service="x"} 1.0
grpc_server_msg_sent_total{grpc_method="BestOf"} 1e+02
process_cpu_seconds_total 3.5
broken{
"""


def test_counters_are_summed_by_method() -> None:
    counted = by_method(parse(METRICS), ["BestOf", "Embed"])

    assert counted['grpc_server_handled_total{grpc_method="BestOf"}'] == 3.0
    assert counted['grpc_server_msg_sent_total{grpc_method="BestOf"}'] == 100.0
    assert counted['grpc_client_handled_total{grpc_method="BestOf"}'] == 0.0
    assert counted['grpc_server_handled_total{grpc_method="Embed"}'] == 0.0
