"""Numbers as text, the same in sentences, tables and charts."""

from __future__ import annotations

from ranker.score.estimate import UNIT, Estimate
from ranker.score.formula import HUNDREDTHS

NOTHING = "–"


def share(value: float) -> str:
    """A multiple of 1/10000, with as many digits as it has, and no sign of zero."""
    text = f"{round(value * UNIT) / UNIT:.4f}".rstrip("0").rstrip(".")
    return "0" if text == "-0" else text


def interval(low: float, high: float) -> str:
    return f"{share(low)} to {share(high)}"


def estimate(found: Estimate) -> str:
    """The value with its interval, or that there is too little evidence."""
    if found.abstained:
        return "too little evidence"
    return f"{share(found.value)} ({interval(found.low, found.high)})"


def points(hundredths: int) -> str:
    """Hundredths of a point, with both digits."""
    return f"{hundredths // HUNDREDTHS}.{hundredths % HUNDREDTHS:02d}"


def points_interval(low: int, high: int) -> str:
    return f"{points(low)} to {points(high)}"


def component(name: str) -> str:
    return name.replace("_", " ")


def count(number: int, noun: str) -> str:
    """ "1 vote", "2 votes"."""
    plural = f"{noun[:-1]}ies" if noun.endswith("y") else f"{noun}s"
    return f"{number} {noun if number == 1 else plural}"


def weight(number: float) -> str:
    """A sum of outcomes' weights, which fall with age, to four digits at most."""
    return f"{number:.2f}".rstrip("0").rstrip(".")
