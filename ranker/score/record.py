"""A score as it is kept: with all that it was computed from, so that it can be computed again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import date
from decimal import Decimal
from typing import Any

from ranker.score.components import Terms
from ranker.score.evidence import (
    Claims,
    Ecosystem,
    Evidence,
    Measurement,
    Outcomes,
    Standing,
)
from ranker.score.formula import FORMULA, Rules, Score, score
from ranker.score.weights import Weights


@dataclass(frozen=True, slots=True)
class Record:
    """One computed score. ``formula`` names the version of the computation; ``rules`` and
    ``evidence`` are canonical JSON of what went in, ``result`` of what came out."""

    model: str
    formula: str
    rules: str
    evidence: str
    result: str

    @property
    def rules_digest(self) -> str:
        return _digest(self.rules)

    @property
    def evidence_digest(self) -> str:
        return _digest(self.evidence)

    @property
    def version(self) -> str:
        """Names the formula, the weights and terms, and the evidence."""
        return f"{self.formula} rules:{self.rules_digest[:12]} evidence:{self.evidence_digest[:12]}"


class FormulaChangedError(Exception):
    """A score was computed by another version of the formula than this program has."""


def recorded(evidence: Evidence, rules: Rules, found: Score) -> Record:
    """Raises ``ValueError`` for evidence with a number that is not finite."""
    return Record(
        evidence.model,
        FORMULA,
        rules=_canonical(_rules_json(rules)),
        evidence=_canonical(_evidence_json(evidence)),
        result=_canonical(_score_json(found)),
    )


def recomputed(record: Record) -> Record:
    """The same score computed again from what the record says went in; equal to the record, or
    something has been tampered with. Raises ``FormulaChangedError``."""
    if record.formula != FORMULA:
        raise FormulaChangedError(
            f"the score of {record.model!r} was computed by {record.formula}; this is {FORMULA}"
        )
    evidence = evidence_of(record)
    rules = rules_of(record)
    return recorded(evidence, rules, score(evidence, rules))


def score_of(record: Record) -> Score:
    """The score that the record holds, computed from its evidence."""
    return score(evidence_of(record), rules_of(record))


def is_recomputed(record: Record) -> bool:
    """Whether the record computes to itself, to the last bit."""
    try:
        return recomputed(record) == record
    except (FormulaChangedError, LookupError, TypeError, ValueError, ArithmeticError):
        return False


def evidence_of(record: Record) -> Evidence:
    given = json.loads(record.evidence)
    return Evidence(
        model=given["model"],
        type=given["type"],
        as_of=date.fromisoformat(given["as_of"]),
        usage=tuple(Standing(**each) for each in given["usage"]),
        claims=Claims(**given["claims"]),
        measurements=tuple(Measurement(**each) for each in given["measurements"]),
        ecosystem=Ecosystem(**{name: tuple(each) for name, each in given["ecosystem"].items()}),
        outcomes=Outcomes(**given["outcomes"]),
        released=date.fromisoformat(given["released"]) if given["released"] else None,
    )


def rules_of(record: Record) -> Rules:
    given = json.loads(record.rules)
    return Rules(
        Weights(tuple((name, Decimal(weight)) for name, weight in given["weights"])),
        Terms(given["min_evidence"], given["half_life_days"]),
        Decimal(given["min_share"]),
    )


def _rules_json(rules: Rules) -> dict[str, Any]:
    return {
        "weights": [[name, str(weight)] for name, weight in rules.weights.by_component],
        "min_evidence": rules.terms.min_evidence,
        "half_life_days": rules.terms.half_life_days,
        "min_share": str(rules.min_share),
    }


def _evidence_json(evidence: Evidence) -> dict[str, Any]:
    released = evidence.released
    return {
        **asdict(evidence),
        "as_of": evidence.as_of.isoformat(),
        "released": released.isoformat() if released else None,
    }


def _score_json(found: Score) -> dict[str, Any]:
    total = found.total
    return {
        "total": {**asdict(total), "evidenced": str(total.evidenced)},
        "components": [
            {
                "name": each.name,
                "weight": str(each.weight),
                "points": each.points,
                "estimate": asdict(each.valued.estimate),
                "why": each.valued.why,
            }
            for each in found.components
        ],
    }


def _canonical(document: Mapping[str, Any]) -> str:
    return json.dumps(
        document, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
