"""The confusion matrix as a picture: a row a label, its pictures shaded by what they were said
to be."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING, Any, Final

from easel.evaluation.confusion import Confusion
from easel.evaluation.rate import Rate
from easel.report import PillowMissingError

if TYPE_CHECKING:
    from PIL import Image, ImageDraw, ImageFont

MAX_LABELS: Final = 1000
OTHER: Final = "any other"
_GAP: Final = 24
_HEADER_PX: Final = 116
_MATRIX_PX: Final = 960
_MAX_CELL_PX: Final = 48
_NAMED_CELL_PX: Final = 9
_COUNTED_CELL_PX: Final = 26
_MAX_NAME_PX: Final = 220
_MIN_WIDTH_PX: Final = 760
_SCALE_PX: Final = 110
_PAPER: Final = (250, 250, 247)
_INK: Final = (28, 30, 33)
_MUTED: Final = (104, 108, 114)
_EMPTY: Final = (237, 238, 233)
_RIGHT: Final = ((209, 231, 226), (15, 104, 96))
_WRONG: Final = ((252, 222, 200), (176, 42, 14))

Colour = tuple[int, int, int]


def require_pillow() -> None:
    """Raises ``PillowMissingError`` where nothing can be drawn."""
    _pillow()


def draw_matrix(confusion: Confusion, labels: Sequence[str], title: str) -> bytes:
    """Return a PNG file.

    Rows are the labels that pictures had, columns what was said of them, both in the model's
    order; of more than `MAX_LABELS` those with the most mistakes. The last column holds what was
    said and is no row. Raises ``PillowMissingError``, and ``ValueError`` of no pictures.
    """
    if not confusion.cells:
        raise ValueError("no pictures were counted")
    image_module, _ = _pillow()
    grid = _Grid.of(confusion)
    layout = _Layout.of(grid, [_name(index, labels) for index in grid.columns])
    picture: Image.Image = image_module.new("RGB", layout.size, _PAPER)
    _draw_header(picture, title, _about(confusion, grid))
    _draw_cells(picture, grid, layout)
    if layout.named:
        _draw_names(picture, grid, layout)
    file = BytesIO()
    picture.save(file, format="PNG", optimize=True)
    return file.getvalue()


@dataclass(frozen=True)
class _Grid:
    """Counts by place; ``columns`` are label indices, None for all that are no row."""

    rows: list[int]
    columns: list[int | None]
    counts: dict[tuple[int, int], int]
    totals: list[int]
    left_out: int

    @classmethod
    def of(cls, confusion: Confusion) -> _Grid:
        rates = sorted(confusion.labels(), key=lambda each: each.found.correct - each.found.total)
        rows = sorted(each.index for each in rates[:MAX_LABELS])
        place = {index: number for number, index in enumerate(rows)}
        counts: dict[tuple[int, int], int] = {}
        for (wanted, said), count in confusion.cells.items():
            if wanted in place:
                cell = place[wanted], place.get(said, len(rows))
                counts[cell] = counts.get(cell, 0) + count
        columns: list[int | None] = list(rows)
        if any(column == len(rows) for _, column in counts):
            columns.append(None)
        totals = [0] * len(rows)
        for (row, _), count in counts.items():
            totals[row] += count
        return cls(rows, columns, counts, totals, len(rates) - len(rows))


@dataclass(frozen=True)
class _Layout:
    """Where things are, in pixels."""

    cell: int
    left: int
    size: tuple[int, int]
    names: list[str]
    named: bool

    @classmethod
    def of(cls, grid: _Grid, names: list[str]) -> _Layout:
        cell = max(1, min(_MAX_CELL_PX, _MATRIX_PX // len(grid.columns)))
        named = cell >= _NAMED_CELL_PX
        margin = 0
        if named:
            font = _font(_name_size(cell))
            margin = min(_MAX_NAME_PX, math.ceil(max(font.getlength(name) for name in names))) + 8
        left = _GAP + margin
        width = max(_MIN_WIDTH_PX, left + cell * len(grid.columns) + _GAP)
        height = _HEADER_PX + cell * len(grid.rows) + margin + _GAP
        return cls(cell, left, (width, height), names, named)

    def corner(self, row: int, column: int) -> tuple[int, int]:
        return self.left + column * self.cell, _HEADER_PX + row * self.cell


def _about(confusion: Confusion, grid: _Grid) -> str:
    labels = len(confusion.wanted)
    pictures = f"{confusion.cells.total():,} pictures of {labels:,} label{'s' * (labels > 1)}"
    left_out = f", the {len(grid.rows):,} with most mistakes shown" if grid.left_out else ""
    return f"top-1 {_rate(confusion.top_1)} · {pictures}{left_out}"


def _rate(rate: Rate) -> str:
    low, high = rate.interval
    return f"{rate.share or 0:.1%} ({low:.1%} to {high:.1%})"


def _name(index: int | None, labels: Sequence[str]) -> str:
    return OTHER if index is None else labels[index]


def _draw_header(picture: Image.Image, title: str, about: str) -> None:
    pen = _pen(picture)
    room = picture.width - 2 * _GAP
    pen.text((_GAP, 16), _cut(title, 24, room), fill=_INK, font=_font(24))
    pen.text((_GAP, 50), _cut(about, 15, room), fill=_MUTED, font=_font(15))
    left = _GAP
    for text, ramp in (("right", _RIGHT), ("wrong", _WRONG)):
        pen.text((left, 80), text, fill=_INK, font=_font(13))
        left += math.ceil(_font(13).getlength(text)) + 8
        for x in range(_SCALE_PX):
            colour = _shade(ramp, (x + 1) / _SCALE_PX)
            pen.line((left + x, 82, left + x, 94), fill=colour)
        left += _SCALE_PX + 20
    note = "share of the row, 0 to 100 % · rows: folders, columns: answers"
    pen.text((left, 80), _cut(note, 13, picture.width - _GAP - left), fill=_MUTED, font=_font(13))


def _draw_cells(picture: Image.Image, grid: _Grid, layout: _Layout) -> None:
    pen = _pen(picture)
    cell = layout.cell
    left, top = layout.corner(0, 0)
    right, bottom = layout.corner(len(grid.rows), len(grid.columns))
    pen.rectangle((left, top, right - 1, bottom - 1), fill=_EMPTY)
    rim = 1 if cell >= _NAMED_CELL_PX else 0
    if rim:
        for number in range(max(len(grid.rows), len(grid.columns)) + 1):
            x, y = layout.corner(number, number)
            if number <= len(grid.columns):
                pen.line((x - 1, top, x - 1, bottom - 1), fill=_PAPER)
            if number <= len(grid.rows):
                pen.line((left, y - 1, right - 1, y - 1), fill=_PAPER)
    for (row, column), count in grid.counts.items():
        share = count / grid.totals[row]
        x, y = layout.corner(row, column)
        ramp = _RIGHT if row == column else _WRONG
        pen.rectangle((x, y, x + cell - 1 - rim, y + cell - 1 - rim), fill=_shade(ramp, share))
        if cell >= _COUNTED_CELL_PX:
            ink = (255, 255, 255) if share > 0.3 else _INK
            centre = (x + (cell - rim) / 2, y + (cell - rim) / 2)
            pen.text(centre, _short(count), fill=ink, font=_font(cell // 3), anchor="mm")


def _draw_names(picture: Image.Image, grid: _Grid, layout: _Layout) -> None:
    image_module, _ = _pillow()
    pen = _pen(picture)
    size = _name_size(layout.cell)
    middle = layout.cell // 2
    for row in range(len(grid.rows)):
        x, y = layout.corner(row, 0)
        name = _cut(layout.names[row], size, _MAX_NAME_PX)
        pen.text((x - 8, y + middle), name, fill=_INK, font=_font(size), anchor="rm")
    for column, name in enumerate(layout.names):
        x, y = layout.corner(len(grid.rows), column)
        # Written lying and turned: Pillow writes no other way.
        shown = _cut(name, size, _MAX_NAME_PX)
        strip: Image.Image = image_module.new(
            "RGB", (math.ceil(_font(size).getlength(shown)) + 2, size + 6), _PAPER
        )
        ink = _MUTED if grid.columns[column] is None else _INK
        box = (strip.width - 1, strip.height // 2)
        _pen(strip).text(box, shown, fill=ink, font=_font(size), anchor="rm")
        turned = strip.transpose(image_module.Transpose.ROTATE_90)
        picture.paste(turned, (x + middle - turned.width // 2, y + 8), _ink_of(turned))


def _ink_of(strip: Image.Image) -> Image.Image:
    """Where something is written: strips of small cells overlap."""
    from PIL import ImageChops

    image_module, _ = _pillow()
    paper = image_module.new("RGB", strip.size, _PAPER)
    difference = ImageChops.difference(strip, paper).convert("L")
    return difference.point(lambda value: 255 if value else 0)


def _shade(ramp: tuple[Colour, Colour], share: float) -> Colour:
    """By the square root of ``share``: a rare mistake must still be seen."""
    pale, full = ramp
    weight = math.sqrt(share)
    red, green, blue = (
        round(start + (end - start) * weight) for start, end in zip(pale, full, strict=True)
    )
    return red, green, blue


def _short(count: int) -> str:
    return str(count) if count < 10_000 else f"{count / 1000:.0f}k"


def _name_size(cell: int) -> int:
    return max(9, min(14, cell - 2))


def _pillow() -> tuple[Any, Any]:
    try:
        from PIL import Image, ImageDraw
    except ImportError as error:
        raise PillowMissingError from error
    return Image, ImageDraw


def _pen(picture: Image.Image) -> ImageDraw.ImageDraw:
    _, draw_module = _pillow()
    pen: ImageDraw.ImageDraw = draw_module.Draw(picture)
    return pen


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    from PIL import ImageFont

    return ImageFont.load_default(size)


def _cut(text: str, size: int, room: float) -> str:
    font = _font(size)
    if font.getlength(text) <= room:
        return text
    while text and font.getlength(f"{text}…") > room:
        text = text[:-1]
    return f"{text.rstrip()}…"
