"""`easel scores`, and scores in words."""

from __future__ import annotations

from typing import Annotated, Final

import typer
from rich.table import Table
from rich.text import Text

from easel.cli import screen
from easel.cli.connection import TARGET, ApiKey, AsJson, Target, Timeout, connected
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


def scores(
    model: Annotated[str, typer.Argument(help="Its id, its name or an alias.")],
    target: Target = TARGET,
    api_key: ApiKey = None,
    timeout: Timeout = 10.0,
    as_json: AsJson = False,
) -> None:
    """List the scores that were told of a model, each computed again from its record."""
    with connected(target, api_key, timeout, as_json) as client:
        found = list(client.scores(model))
    if as_json:
        screen.print_json({"scores": [_as_json(each) for each in found]})
        return
    made = screen.table("computed at", "points", "interval", "again", "version", right=["points"])
    for each in found:
        at = each.score.computed_at.ToDatetime()
        again = ("the same", "green") if each.recomputed else ("not the same", "red")
        made.add_row(
            f"{at:%Y-%m-%d %H:%M:%S} UTC",
            *total(each.score),
            screen.plain(*again),
            screen.plain(each.score.version, "dim"),
        )
    screen.out().print(made)


def _as_json(found: ranker_pb2.LoggedScore) -> dict[str, object]:
    from google.protobuf.json_format import MessageToDict

    return MessageToDict(
        found, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )


def _share(value: float) -> str:
    return f"{value:.4f}".rstrip("0").rstrip(".")
