"""Scores of models, in words."""

from __future__ import annotations

from typing import Final

from rich.table import Table
from rich.text import Text

from easel.cli import screen
from easel.ranker.v1 import ranker_pb2

TOO_LITTLE: Final = "too little evidence"
NOTHING: Final = "–"
_FULL_HUNDREDTHS: Final = 10_000


def points(hundredths: int) -> str:
    """Hundredths of a point, with both digits."""
    return f"{hundredths // 100}.{hundredths % 100:02d}"


def estimate(found: ranker_pb2.Estimate) -> str:
    """A value of 0 to 1 with its interval, or that there is too little evidence."""
    if found.abstained:
        return TOO_LITTLE
    return f"{_share(found.value)} ({_share(found.low)} to {_share(found.high)})"


def part(component: ranker_pb2.ScoreComponent) -> tuple[Text, Text]:
    """Its points of those it could have, and its value."""
    most = points(round(component.weight * _FULL_HUNDREDTHS))
    got = NOTHING if component.value.abstained else points(component.points_hundredths)
    return screen.plain(f"{got} of {most}"), screen.plain(estimate(component.value))


def total(score: ranker_pb2.Score) -> tuple[Text, Text]:
    """The points of 100, and their interval or that there is no score."""
    interval = f"{points(score.low_hundredths)} to {points(score.high_hundredths)}"
    told = f"no score: {interval}" if score.total.abstained else interval
    whole = points(_FULL_HUNDREDTHS)
    return screen.plain(f"{points(score.total_hundredths)} of {whole}"), screen.plain(told)


def parts(score: ranker_pb2.Score) -> Table:
    """All parts and the total, each with what it rests on."""
    made = screen.table("score", "points", "value", "evidence", right=["points"])
    for component in score.components:
        inputs = "; ".join(f"{name}: {text}" for name, text in component.inputs.items() if text)
        made.add_row(
            component.name.replace("_", " "),
            *part(component),
            screen.plain(component.why or inputs, "dim"),
        )
    made.add_row("total", *total(score), screen.plain(score.version, "dim"), style="bold")
    return made


def _share(value: float) -> str:
    return f"{value:.4f}".rstrip("0").rstrip(".")
