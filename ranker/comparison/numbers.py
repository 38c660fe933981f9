"""A report's fields by their paths in the answer: ``a.score.total_hundredths``, ``a_better.low``.

A sentence reads what it says through ``Reading``, which remembers every path; so a sentence cannot
rest on anything that it does not name.
"""

from __future__ import annotations

from collections.abc import Mapping

from ranker.comparison.better import Better
from ranker.comparison.report import Report
from ranker.comparison.side import Side
from ranker.score.estimate import Estimate
from ranker.score.formula import Component

Value = str | int | float | bool | tuple[str, ...]


class Reading:
    """Reads fields, and knows which."""

    def __init__(self, fields: Mapping[str, Value]) -> None:
        self._fields = fields
        self._read: dict[str, None] = {}

    @property
    def paths(self) -> tuple[str, ...]:
        """Every path that was read, in the order of first reading."""
        return tuple(self._read)

    def text(self, path: str) -> str:
        return str(self._value(path))

    def texts(self, path: str) -> tuple[str, ...]:
        found = self._value(path)
        if not isinstance(found, tuple):
            raise TypeError(f"{path} is {found!r}")
        return found

    def count(self, path: str) -> int:
        found = self._value(path)
        if not isinstance(found, int) or isinstance(found, bool):
            raise TypeError(f"{path} is {found!r}")
        return found

    def number(self, path: str) -> float:
        found = self._value(path)
        if not isinstance(found, float):
            raise TypeError(f"{path} is {found!r}")
        return found

    def yes(self, path: str) -> bool:
        found = self._value(path)
        if not isinstance(found, bool):
            raise TypeError(f"{path} is {found!r}")
        return found

    def estimate(self, path: str) -> Estimate:
        """Of one that does not abstain, the interval and the value are read too."""
        if self.yes(f"{path}.abstained"):
            return Estimate(0.0, 0.0, 1.0, self.count(f"{path}.evidence"), abstained=True)
        return Estimate(
            self.number(f"{path}.value"),
            self.number(f"{path}.low"),
            self.number(f"{path}.high"),
            self.count(f"{path}.evidence"),
        )

    def _value(self, path: str) -> Value:
        found = self._fields[path]
        self._read[path] = None
        return found


def fields(report: Report) -> Mapping[str, Value]:
    """Every field that a sentence may read."""
    found: dict[str, Value] = {
        "intent": report.intent,
        "verdict": report.verdict.name,
        "basis": report.basis.value,
        "min_evidence": report.min_evidence,
        "shared_intents": report.shared_intents,
        **_estimate("a_better", report.better.estimate),
        **_better("outcomes", report.outcomes),
        **_better("votes", report.votes),
    }
    for letter, side in (("a", report.a), ("b", report.b)):
        found |= _side(letter, side)
    return found


def component_path(letter: str, index: int) -> str:
    return f"{letter}.score.components[{index}]"


def _side(letter: str, side: Side) -> dict[str, Value]:
    total = side.scored.score.total
    claims = side.claims
    found: dict[str, Value] = {
        f"{letter}.name": side.name,
        f"{letter}.type": side.type,
        f"{letter}_intents": tuple(sorted(side.intents)),
        f"{letter}_claims.verified": claims.verified,
        f"{letter}_claims.contradicted": claims.contradicted,
        f"{letter}_claims.unmeasured": claims.unmeasured,
        f"{letter}.score.total.abstained": total.abstained,
        f"{letter}.score.total_hundredths": total.points,
        f"{letter}.score.low_hundredths": total.low,
        f"{letter}.score.high_hundredths": total.high,
        f"{letter}.score.evidenced": float(total.evidenced),
        f"{letter}.score.version": side.scored.version,
    }
    for index, component in enumerate(side.scored.score.components):
        found |= _component(component_path(letter, index), component)
    return found


def _component(path: str, component: Component) -> dict[str, Value]:
    return {
        f"{path}.name": component.name,
        f"{path}.weight": float(component.weight),
        f"{path}.points_hundredths": component.points,
        **_estimate(f"{path}.value", component.valued.estimate),
    }


def _better(path: str, better: Better) -> dict[str, Value]:
    found = {
        **_estimate(f"{path}.a_better", better.estimate),
        f"{path}.a_evidence": better.a_evidence,
        f"{path}.b_evidence": better.b_evidence,
    }
    if better.certainty is not None:
        found[f"{path}.certainty"] = better.certainty
    return found


def _estimate(path: str, estimate: Estimate) -> dict[str, Value]:
    return {
        f"{path}.value": estimate.value,
        f"{path}.low": estimate.low,
        f"{path}.high": estimate.high,
        f"{path}.evidence": estimate.evidence,
        f"{path}.abstained": estimate.abstained,
    }
