"""A best-of on disk: `result.json`, a contact sheet and a page that needs nothing else.

`result.json` ranks every candidate from 1: finished pictures first, then those that were stopped,
then those that failed, with a score of null. Equal scores share a rank.
"""

from __future__ import annotations

import base64
import html
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from PIL import Image, ImageDraw, ImageFont

_GAP: Final = 16
_CAPTION_HEIGHT: Final = 66
_HEADER_HEIGHT: Final = 84
_MIN_TILE: Final = 224
_MAX_COLUMNS: Final = 4
_PAPER: Final = (250, 250, 247)
_INK: Final = (28, 30, 33)
_MUTED: Final = (112, 116, 122)
_WINNER: Final = (176, 122, 0)
_TILE: Final = (226, 227, 222)


class PillowMissingError(Exception):
    """Drawing was asked for, and Pillow is not installed."""

    def __init__(self) -> None:
        super().__init__("pictures need Pillow, which is not installed: pip install 'easel[ui]'")


@dataclass(frozen=True, slots=True)
class Candidate:
    """One candidate: ``rank`` from 1; ``score`` None for one that failed; ``file`` relative to the
    report, "" where there is none; ``pruned_at_step`` None for a finished picture."""

    rank: int
    seed: int
    score: float | None
    label: str
    file: str
    pruned_at_step: int | None


@dataclass(frozen=True, slots=True)
class Compute:
    """UNet steps that the candidates took together, and those that pruning left out."""

    row_steps_spent: int
    row_steps_saved: int

    @property
    def saved_share(self) -> float:
        """0 to 1."""
        total = self.row_steps_spent + self.row_steps_saved
        return self.row_steps_saved / total if total else 0.0


@dataclass(frozen=True, slots=True)
class Result:
    """A best-of as it is written to `result.json`; ``metrics`` are the gateway's counters."""

    prompt: str
    n: int
    candidates: Sequence[Candidate]
    compute: Compute
    seconds: float
    metrics: Mapping[str, float]

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def write_report(result: Result, pictures: Mapping[str, bytes], directory: Path) -> list[Path]:
    """Write `result.json`, the pictures, `contact-sheet.png` and `report.html`.

    ``pictures`` are PNG files by the candidates' ``file``. Raises ``PillowMissingError``.
    """
    directory.mkdir(parents=True, exist_ok=True)
    sheet = contact_sheet(result, pictures)
    text = json.dumps(result.as_json(), indent=2)
    files: dict[str, bytes] = {
        **pictures,
        "contact-sheet.png": sheet,
        "result.json": f"{text}\n".encode(),
        "report.html": page(result, pictures).encode(),
    }
    for name, content in files.items():
        (directory / name).write_bytes(content)
    return [directory / name for name in files]


def remove_earlier(directory: Path) -> None:
    """Remove the pictures that an earlier `result.json` in ``directory`` lists, nothing else."""
    try:
        earlier = json.loads((directory / "result.json").read_text())
        files = [candidate["file"] for candidate in earlier["candidates"]]
    except (OSError, ValueError, KeyError, TypeError):
        return
    for name in files:
        if isinstance(name, str) and name and Path(name).name == name:
            (directory / name).unlink(missing_ok=True)


def contact_sheet(result: Result, pictures: Mapping[str, bytes]) -> bytes:
    """Draw all candidates, best first, with their scores; small pictures are enlarged in whole
    steps, so that every pixel of them stays a sharp square. Returns a PNG file."""
    image_module, draw_module = _pillow()
    opened = {name: _opened(data) for name, data in pictures.items()}
    side = _tile_side([picture.size for picture in opened.values()])
    columns = min(_MAX_COLUMNS, max(2, len(result.candidates)))
    rows = max(1, math.ceil(len(result.candidates) / columns))
    size = (
        _GAP + columns * (side + _GAP),
        _HEADER_HEIGHT + rows * (side + _CAPTION_HEIGHT + _GAP),
    )
    sheet: Image.Image = image_module.new("RGB", size, _PAPER)
    draw: ImageDraw.ImageDraw = draw_module.Draw(sheet)
    _draw_header(draw, result, size[0])
    for number, candidate in enumerate(result.candidates):
        left = _GAP + number % columns * (side + _GAP)
        top = _HEADER_HEIGHT + number // columns * (side + _CAPTION_HEIGHT + _GAP)
        _draw_picture(sheet, draw, opened.get(candidate.file), (left, top), side)
        _draw_frame(draw, candidate, (left, top), side)
        _draw_caption(draw, candidate, (left, top + side), side)
    file = BytesIO()
    sheet.save(file, format="PNG", optimize=True)
    return file.getvalue()


def page(result: Result, pictures: Mapping[str, bytes]) -> str:
    """Return the report as one HTML file: no scripts, nothing fetched, light and dark."""
    compute = result.compute
    winner = result.candidates[0] if result.candidates else None
    facts = [
        (f"{result.n}", "candidates"),
        (f"{result.seconds:.1f} s", "from prompt to ranking"),
        (f"{compute.saved_share:.0%}", "of the steps saved by pruning"),
        (score_text(winner.score) if winner else "–", "best score (log-probability)"),
    ]
    return _PAGE.format(
        style=_STYLE,
        prompt=html.escape(result.prompt),
        facts="".join(f"<li><b>{value}</b><span>{name}</span></li>" for value, name in facts),
        figures="".join(_figure(candidate, pictures) for candidate in result.candidates),
        rows="".join(_row(candidate) for candidate in result.candidates),
        spent=compute.row_steps_spent,
        saved=compute.row_steps_saved,
        total=compute.row_steps_spent + compute.row_steps_saved,
        spent_percent=f"{100 * (1 - compute.saved_share):.1f}",
        metrics="".join(
            f"<tr><td><code>{html.escape(name)}</code></td><td class=n>{value:g}</td></tr>"
            for name, value in result.metrics.items()
        ),
    )


def score_text(score: float | None) -> str:
    """Return a score with three digits that say something: good ones are very close to 0."""
    return "–" if score is None else f"{score:.3g}"


def fate(candidate: Candidate) -> str:
    """Return "finished", "failed" or the step it was stopped at."""
    if candidate.score is None:
        return "failed"
    if candidate.pruned_at_step is None:
        return "finished"
    return f"stopped at step {candidate.pruned_at_step}"


def _pillow() -> tuple[Any, Any]:
    try:
        from PIL import Image, ImageDraw
    except ImportError as error:
        raise PillowMissingError from error
    return Image, ImageDraw


def _opened(data: bytes) -> Image.Image:
    image_module, _ = _pillow()
    picture: Image.Image = image_module.open(BytesIO(data)).convert("RGB")
    return picture


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    from PIL import ImageFont

    return ImageFont.load_default(size)


def _tile_side(sizes: Sequence[tuple[int, int]]) -> int:
    longest = max((max(size) for size in sizes), default=_MIN_TILE)
    return longest * max(1, math.ceil(_MIN_TILE / longest))


def _draw_header(draw: ImageDraw.ImageDraw, result: Result, width: int) -> None:
    saved = f"{result.compute.saved_share:.0%} of {_total_steps(result)} steps saved"
    about = f"best of {result.n} · {result.seconds:.1f} s · {saved}"
    room = width - 2 * _GAP
    draw.text((_GAP, 14), _cut(draw, result.prompt, _font(26), room), fill=_INK, font=_font(26))
    draw.text((_GAP, 50), _cut(draw, about, _font(16), room), fill=_MUTED, font=_font(16))


def _total_steps(result: Result) -> int:
    return result.compute.row_steps_spent + result.compute.row_steps_saved


def _draw_picture(
    sheet: Image.Image,
    draw: ImageDraw.ImageDraw,
    picture: Image.Image | None,
    corner: tuple[int, int],
    side: int,
) -> None:
    image_module, _ = _pillow()
    left, top = corner
    draw.rectangle((left, top, left + side - 1, top + side - 1), fill=_TILE)
    if picture is None:
        draw.text((left + 12, top + 10), "no picture", fill=_MUTED, font=_font(16))
        return
    scale = max(1, side // max(picture.size))
    size = (picture.width * scale, picture.height * scale)
    grown = picture.resize(size, image_module.Resampling.NEAREST)
    sheet.paste(grown, (left + (side - size[0]) // 2, top + (side - size[1]) // 2))


def _draw_frame(
    draw: ImageDraw.ImageDraw, candidate: Candidate, corner: tuple[int, int], side: int
) -> None:
    if candidate.rank == 1 and fate(candidate) == "finished":
        left, top = corner
        draw.rectangle((left - 4, top - 4, left + side + 3, top + side + 3), None, _WINNER, 4)


def _draw_caption(
    draw: ImageDraw.ImageDraw, candidate: Candidate, corner: tuple[int, int], side: int
) -> None:
    left, top = corner
    finished = fate(candidate) == "finished"
    ink = (_WINNER if candidate.rank == 1 else _INK) if finished else _MUTED
    first = f"#{candidate.rank}  {candidate.label or 'no label'}"
    score, seed = score_text(candidate.score), f"{fate(candidate)} · seed {candidate.seed}"
    score_width = int(draw.textlength(score, font=_font(18)))
    room = side - score_width - 10
    draw.text((left, top + 9), _cut(draw, first, _font(18), room), fill=ink, font=_font(18))
    draw.text((left + side - score_width, top + 9), score, fill=ink, font=_font(18))
    draw.text((left, top + 35), _cut(draw, seed, _font(14), side), fill=_MUTED, font=_font(14))


def _cut(
    draw: ImageDraw.ImageDraw,
    text: str,
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
    room: int,
) -> str:
    if draw.textlength(text, font=font) <= room:
        return text
    text = text[: max(1, room // 2)]  # no letter is narrower than 2 pixels
    while text and draw.textlength(f"{text}…", font=font) > room:
        text = text[:-1]
    return f"{text.rstrip()}…"


def _figure(candidate: Candidate, pictures: Mapping[str, bytes]) -> str:
    data = pictures.get(candidate.file)
    label, state = html.escape(candidate.label or "no label"), fate(candidate)
    source = f"data:image/png;base64,{base64.b64encode(data).decode()}" if data else ""
    alt = f"candidate {candidate.rank}: {label}"
    image = f'<img src="{source}" alt="{alt}">' if data else "<div class=none>no picture</div>"
    kind = "kept" if state == "finished" else "pruned"
    best = " best" if candidate.rank == 1 and kind == "kept" else ""
    return (
        f'<figure class="{kind}{best}">{image}<figcaption>'
        f"<b>#{candidate.rank} {label}</b><span>{score_text(candidate.score)}</span>"
        f"<small>{state}</small></figcaption></figure>"
    )


def _row(candidate: Candidate) -> str:
    name = html.escape(candidate.file)
    link = f'<a href="{name}">{name}</a>' if name else "–"
    cells = (
        f"<td class=n>{candidate.rank}</td><td class=n>{score_text(candidate.score)}</td>"
        f"<td>{html.escape(candidate.label)}</td><td>{fate(candidate)}</td>"
        f"<td class=n>{candidate.seed}</td><td>{link}</td>"
    )
    kind = "" if fate(candidate) == "finished" else ' class="pruned"'
    return f"<tr{kind}>{cells}</tr>"


_STYLE: Final = """
:root { color-scheme: light dark; --paper: #fafaf7; --card: #fff; --ink: #1c1e21; --muted: #6d7178;
  --line: #e2e3de; --accent: #b07a00; --saved: #d9dad4; }
@media (prefers-color-scheme: dark) { :root { --paper: #15171a; --card: #1d2024; --ink: #e8e9ea;
  --muted: #989da5; --line: #30343a; --accent: #e6b03c; --saved: #3a3f46; } }
* { box-sizing: border-box }
body { margin: 0 auto; padding: 2.5rem 1.25rem 4rem; max-width: 68rem; background: var(--paper);
  color: var(--ink); font: 16px/1.5 system-ui, -apple-system, "Segoe UI", sans-serif }
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0 0 .25rem; letter-spacing: -.01em }
h2 { font-size: 1.1rem; margin: 2.5rem 0 .75rem }
p { margin: .25rem 0; color: var(--muted) }
.facts { display: flex; flex-wrap: wrap; gap: .75rem; list-style: none; margin: 1.5rem 0 2rem;
  padding: 0 }
.facts li { flex: 1 1 10rem; background: var(--card); border: 1px solid var(--line);
  border-radius: 10px; padding: .8rem 1rem }
.facts b { display: block; font-size: 1.5rem; font-variant-numeric: tabular-nums }
.facts span { color: var(--muted); font-size: .85rem }
.sheet { display: grid; grid-template-columns: repeat(auto-fill, minmax(13rem, 1fr)); gap: 1rem }
figure { margin: 0; background: var(--card); border: 1px solid var(--line); border-radius: 10px;
  overflow: hidden }
figure img, .none { display: block; width: 100%; aspect-ratio: 1; object-fit: contain;
  background: var(--line); image-rendering: pixelated }
.none { display: grid; place-items: center; color: var(--muted) }
figcaption { display: grid; grid-template-columns: 1fr auto; gap: 0 .75rem; padding: .6rem .8rem }
figcaption span { font-variant-numeric: tabular-nums }
figcaption small { color: var(--muted); grid-column: 1 / -1 }
.best { border-color: var(--accent); box-shadow: 0 0 0 2px var(--accent) }
.best b { color: var(--accent) }
figure.pruned img { opacity: .6 }
.bar { display: flex; height: 1.5rem; border-radius: 6px; overflow: hidden;
  background: var(--saved) }
.bar i { background: var(--accent) }
.table { overflow-x: auto }
table { border-collapse: collapse; width: 100%; font-size: .92rem }
th, td { text-align: left; padding: .4rem .75rem .4rem 0; border-bottom: 1px solid var(--line) }
th { color: var(--muted); font-weight: 500 }
.n { text-align: right; font-variant-numeric: tabular-nums }
tr.pruned td { color: var(--muted) }
a { color: inherit } code { font-size: .88em }
"""

_PAGE: Final = """<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{prompt} – Easel</title><style>{style}</style></head><body>
<h1>{prompt}</h1>
<p>Candidates grown side by side, judged as they formed, the weak ones stopped early.</p>
<ul class="facts">{facts}</ul>
<div class="sheet">{figures}</div>
<h2>Compute</h2>
<div class="bar" role="img" aria-label="{spent} of {total} steps run">
<i style="width:{spent_percent}%"></i></div>
<p>{spent} denoising steps run, {saved} saved by pruning, of {total} without it.</p>
<h2>Candidates</h2>
<div class="table"><table><thead><tr><th class="n">rank</th><th class="n">score</th><th>label</th>
<th>fate</th><th class="n">seed</th><th>file</th></tr></thead><tbody>{rows}</tbody></table></div>
<h2>The gateway’s counters</h2>
<div class="table"><table><tbody>{metrics}</tbody></table></div>
</body></html>
"""
