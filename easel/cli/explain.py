"""`easel explain`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Final

import typer

from easel.cli import screen
from easel.cli.classifying import Fit, Model
from easel.cli.connection import TARGET, ApiKey, AsJson, Target, Timeout, connected
from easel.cli.files import check_readable, read_pictures, write_new
from easel.cli.generate import show_or_say
from easel.cli.terminal import wants_pictures
from easel.client import Explanation

_FORMATS: Final = {".png": "png", ".jpg": "jpeg", ".jpeg": "jpeg", ".webp": "webp"}
_SHADES: Final = " ░▒▓█"
# A row of a larger grid is no longer taken in at a glance, nor fits the terminal.
_MAX_COLUMNS: Final = 40


def explain(
    file: Annotated[str, typer.Argument(help="A JPEG, PNG or WebP file; - is stdin.")],
    method: Annotated[str, typer.Option(help="rollout or gradient.")] = "",
    label: Annotated[str, typer.Option(help="Of this label; the best one when left out.")] = "",
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Write the heat map over the picture: .png, .jpg, .webp."),
    ] = None,
    quality: Annotated[int | None, typer.Option(help="1 to 100, for .jpg and .webp.")] = None,
    fit: Fit = "",
    show: Annotated[
        bool | None,
        typer.Option(
            "--show/--no-show",
            help="Show the heat map in the terminal (default: when stdout is one).",
            show_default=False,
        ),
    ] = None,
    model: Model = "",
    target: Target = TARGET,
    api_key: ApiKey = None,
    timeout: Timeout = None,
    as_json: AsJson = False,
) -> None:
    """Show which parts of a picture spoke for a label."""
    shown = wants_pictures(show, as_json=as_json)
    with connected(target, api_key, timeout, as_json) as client:
        check_readable([file])
        [(_, data)] = read_pictures([file])
        found = client.explain(
            data,
            method=method,
            label=label,
            overlay=out is not None or shown,
            format="" if out is None else _format_of(out),
            quality=quality,
            fit=fit,
            model=model,
        )
        written = None
        if out is not None and found.heat_map is not None:
            written = write_new(out.parent, out.stem, out.suffix, found.heat_map)
    if as_json:
        screen.print_json(_as_json(file, found, written))
        return
    _print_explanation(found, written)
    if shown and found.heat_map is not None:
        show_or_say([found.heat_map], asked=bool(show))


def _format_of(out: Path) -> str:
    """Raises ``ValueError`` for a suffix that is no picture's."""
    suffix = out.suffix.lower()
    if suffix not in _FORMATS:
        raise ValueError(f"--out: {out.name!r} ends in none of {', '.join(_FORMATS)}")
    return _FORMATS[suffix]


def _print_explanation(found: Explanation, written: Path | None) -> None:
    table = screen.table("label", "probability", "patches", "file", right=["probability"])
    table.add_row(
        screen.plain(found.label.name, "bold"),
        f"{found.label.score:.4f}",
        f"{found.rows}×{found.columns}",
        screen.plain("" if written is None else str(written)),
    )
    screen.out().print(table)
    if found.columns <= _MAX_COLUMNS:
        for row in _shaded(found):
            screen.out().print(screen.plain(row))


def _shaded(found: Explanation) -> list[str]:
    """The grid in characters of rising darkness, relative to the largest relevance."""
    largest = max(found.relevance)
    darkest = len(_SHADES) - 1
    return [
        "".join(_SHADES[round(value / largest * darkest)] * 2 for value in row)
        for row in found.grid()
    ]


def _as_json(file: str, found: Explanation, written: Path | None) -> dict[str, object]:
    return {
        "file": file,
        "label": {"index": found.label.index, "name": found.label.name, "score": found.label.score},
        "rows": found.rows,
        "columns": found.columns,
        "relevance": found.grid(),
        "heat_map": None if written is None else str(written),
        "model": found.model,
        "timing": asdict(found.timing),
    }
