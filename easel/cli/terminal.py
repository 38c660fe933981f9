"""Pictures in the terminal: the inline protocols of kitty and iTerm2, else half blocks.

Protocols: https://sw.kovidgoyal.net/kitty/graphics-protocol/ and
https://iterm2.com/documentation-images.html
"""

from __future__ import annotations

import base64
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from enum import Enum
from importlib.util import find_spec
from io import BytesIO
from typing import TYPE_CHECKING, Any, Final

from easel.report import PillowMissingError

if TYPE_CHECKING:
    from PIL import Image

_KITTY_CHUNK: Final = 4096
_KITTY_ROWS: Final = 14
_PNG_START: Final = b"\x89PNG"
_MIN_COLUMNS: Final = 8
_MAX_COLUMNS: Final = 32
_GAP: Final = 2


class Graphics(Enum):
    """How a terminal shows pictures."""

    KITTY = "kitty"
    ITERM2 = "iterm2"
    HALF_BLOCKS = "half blocks"
    NONE = "none"


def detect(environment: Mapping[str, str], *, is_terminal: bool) -> Graphics:
    """Tell from the environment; inside tmux or screen only half blocks get through."""
    if not is_terminal or environment.get("TERM") == "dumb" or "NO_COLOR" in environment:
        return Graphics.NONE
    program = environment.get("TERM_PROGRAM", "")
    if "TMUX" in environment or environment.get("TERM", "").startswith("screen"):
        return Graphics.HALF_BLOCKS
    if "KITTY_WINDOW_ID" in environment or program == "ghostty":
        return Graphics.KITTY
    if program in ("iTerm.app", "WezTerm") or environment.get("LC_TERMINAL") == "iTerm2":
        return Graphics.ITERM2
    return Graphics.HALF_BLOCKS


def wants_pictures(show: bool | None, *, as_json: bool) -> bool:
    """Return whether to show pictures: as asked, else when a person is looking."""
    return not as_json and (sys.stdout.isatty() if show is None else show)


def wants_previews(previews: bool | None, show: bool | None, *, as_json: bool) -> bool:
    """Return whether to show pictures while they form: as asked, else as ``show`` says; never
    where stderr, which has the progress, shows none."""
    shown_by = detect(os.environ, is_terminal=sys.stderr.isatty())
    if as_json or shown_by is Graphics.NONE or find_spec("PIL") is None:
        return False
    return sys.stdout.isatty() and show is not False if previews is None else previews


def show_pictures(pictures: Sequence[bytes]) -> None:
    """Write encoded pictures to the terminal, side by side where that is possible.

    Raises ``PillowMissingError`` where the terminal needs half blocks.
    """
    graphics = detect(os.environ, is_terminal=sys.stdout.isatty())
    if graphics is Graphics.NONE or not pictures:
        return
    if graphics is Graphics.KITTY:
        sys.stdout.write(" ".join("".join(kitty(as_png(data))) for data in pictures) + "\n")
    elif graphics is Graphics.ITERM2:
        sys.stdout.write(" ".join(iterm2(data) for data in pictures) + "\n")
    else:
        columns = os.get_terminal_size(sys.stdout.fileno()).columns
        for line in half_blocks(pictures, columns):
            sys.stdout.write(line + "\n")
    sys.stdout.flush()


def kitty(png: bytes) -> Iterator[str]:
    """Yield the escape sequences that show a PNG file."""
    text = base64.b64encode(png).decode()
    chunks = [text[at : at + _KITTY_CHUNK] for at in range(0, len(text), _KITTY_CHUNK)]
    for number, chunk in enumerate(chunks):
        more = int(number < len(chunks) - 1)
        control = f"a=T,f=100,r={_KITTY_ROWS},m={more}" if number == 0 else f"m={more}"
        yield f"\x1b_G{control};{chunk}\x1b\\"


def iterm2(data: bytes) -> str:
    """Return the escape sequence that shows a picture file of any kind."""
    content = base64.b64encode(data).decode()
    facts = f"inline=1;size={len(data)};height={_KITTY_ROWS};preserveAspectRatio=1"
    return f"\x1b]1337;File={facts}:{content}\x07"


def half_blocks(pictures: Sequence[bytes], columns: int, side: int = _MAX_COLUMNS) -> Iterator[str]:
    """Yield lines of ▀ in 24-bit colour, two pixels a character, as many pictures a row as fit.

    ``side`` is the pictures' longer one, in characters across.
    """
    side = max(_MIN_COLUMNS, min(side, columns))
    abreast = max(1, (columns + _GAP) // (side + _GAP))
    opened = [_fitted(data, side) for data in pictures]
    for first in range(0, len(opened), abreast):
        yield from _strip(opened[first : first + abreast])
        yield ""


def preview_strip(pictures: Sequence[bytes], columns: int, rows: int) -> str:
    """Return one row of pictures as half blocks, for all of them as large as ``columns`` x ``rows``
    characters hold; "" where not even small ones fit."""
    if not pictures or 2 * rows < _MIN_COLUMNS:
        return ""
    width = (columns + _GAP) // len(pictures) - _GAP
    side = max(_MIN_COLUMNS, min(_MAX_COLUMNS, width, 2 * rows))
    fitting = (columns + _GAP) // (side + _GAP)
    return "\n".join(half_blocks(pictures[:fitting], columns, side)).rstrip("\n")


def as_png(data: bytes) -> bytes:
    """Return the picture as a PNG file. Raises ``PillowMissingError`` if it must convert it."""
    if data.startswith(_PNG_START):
        return data
    file = BytesIO()
    _pillow().open(BytesIO(data)).save(file, format="PNG")
    return file.getvalue()


def _pillow() -> Any:
    try:
        from PIL import Image
    except ImportError as error:
        raise PillowMissingError from error
    return Image


def _fitted(data: bytes, side: int) -> Image.Image:
    module = _pillow()
    picture: Image.Image = module.open(BytesIO(data)).convert("RGB")
    scale = side / max(picture.size)
    width = max(1, round(picture.width * scale))
    height = max(2, round(picture.height * scale / 2) * 2)
    smooth = module.Resampling.LANCZOS if scale < 1 else module.Resampling.NEAREST
    return picture.resize((width, height), smooth)


def _strip(pictures: Sequence[Image.Image]) -> Iterator[str]:
    height = max(picture.height for picture in pictures)
    for row in range(0, height, 2):
        yield (" " * _GAP).join(_line(picture, row) for picture in pictures)


def _line(picture: Image.Image, row: int) -> str:
    if row >= picture.height:
        return " " * picture.width
    pixels: Any = picture.load()
    cells = []
    for column in range(picture.width):
        (r, g, b), (x, y, z) = pixels[column, row], pixels[column, row + 1]
        cells.append(f"\x1b[38;2;{r};{g};{b};48;2;{x};{y};{z}m▀")
    return "".join(cells) + "\x1b[0m"
