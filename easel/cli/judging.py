"""The options that say what pictures are judged by."""

from __future__ import annotations

from typing import Annotated, Final

import typer

from easel.cli.files import check_readable, read_pictures
from easel.client import Judge

JudgeLabel = Annotated[
    str | None,
    typer.Option("--label", help="Judge by this label; found in the prompt if no judge is named."),
]
JudgeLike = Annotated[
    list[str] | None,
    typer.Option("--like", help="Judge by likeness to this picture; repeat it for more."),
]
JudgeText = Annotated[
    str | None,
    typer.Option("--text", help="Judge by how well this text fits; the prompt if empty."),
]
JudgeReward = Annotated[
    list[str] | None, typer.Option("--reward", help="Judge by this plug-in; repeat it for more.")
]
JudgeWeight = Annotated[
    list[str] | None,
    typer.Option("--weight", help="JUDGE=NUMBER, of label, like, text or a plug-in; repeat it."),
]
_LABEL: Final = "label"
_LIKE: Final = "like"
_TEXT: Final = "text"


def read_judges(
    label: str | None,
    like: list[str] | None,
    text: str | None,
    reward: list[str] | None,
    weight: list[str] | None,
) -> list[Judge]:
    """Return the judges that were named, in the order label, like, text, plug-ins; none for the
    ranker's own. Raises ``ValueError`` for a weight of none of them, ``OSError`` for a picture
    that cannot be read."""
    weights = _weights(weight or [])
    named = [*([_LABEL] if label or _LABEL in weights else []), *([_LIKE] if like else [])]
    named += [*([_TEXT] if text is not None else []), *(reward or [])]
    if stray := [name for name in weights if name not in named]:
        known = ", ".join(named) or "none is named"
        raise ValueError(f"--weight: there is no judge {stray[0]!r}; there are: {known}")
    check_readable(like or [])
    judges = []
    for name in named:
        given = weights.get(name)
        if name == _LABEL:
            judges.append(Judge.label(label or "", weight=given))
        elif name == _LIKE:
            pictures = [data for _, data in read_pictures(like or [])]
            judges.append(Judge.like(pictures, weight=given))
        elif name == _TEXT:
            judges.append(Judge.text(text or "", weight=given))
        else:
            judges.append(Judge.reward(name, weight=given))
    return judges


def _weights(told: list[str]) -> dict[str, float]:
    weights: dict[str, float] = {}
    for each in told:
        name, equals, number = each.partition("=")
        if name in weights:
            raise ValueError(f"--weight: {name!r} is given twice")
        try:
            weights[name] = float(number)
        except ValueError:
            equals = ""
        if not (name and equals):
            raise ValueError(f"--weight: {each!r} is not JUDGE=NUMBER, e.g. label=2")
    return weights
