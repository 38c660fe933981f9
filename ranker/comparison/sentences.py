"""The verdict in words. Every sentence is made from fields that it names, and from nothing else.

A sentence says "better", "higher" or "leads" only of intervals that do not meet; what abstains is
said to abstain; of two types the scores are not compared, for each is weighed by its own rules.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from ranker.comparison import text
from ranker.comparison.better import EVEN, Basis, Verdict
from ranker.comparison.numbers import Reading, component_path, fields
from ranker.comparison.report import Report
from ranker.score.estimate import Estimate

SIDES: Final = ("a", "b")


@dataclass(frozen=True, slots=True)
class Sentence:
    """``fields`` are the paths, in the answer, of all that it was made from."""

    text: str
    fields: tuple[str, ...]


def sentences(report: Report) -> tuple[Sentence, ...]:
    """The verdict, what it rests on first."""
    values = fields(report)
    count = len(report.a.scored.score.components)
    writers: list[Callable[[Reading], str]] = [
        _intents,
        *([] if report.verdict is Verdict.NOT_COMPARABLE else [_outcomes, _votes, _verdict]),
        *(_score(side) for side in SIDES),
        _scores,
        *(_component(index) for index in range(count)),
        *(_claims(side) for side in SIDES),
    ]
    found = [_sentence(writer, Reading(values)) for writer in writers]
    return tuple(sentence for sentence in found if sentence.text)


def _sentence(writer: Callable[[Reading], str], read: Reading) -> Sentence:
    return Sentence(writer(read), read.paths)


def _intents(read: Reading) -> str:
    a, b = _names(read)
    asked, shared = read.text("intent"), read.texts("shared_intents")
    if shared and asked:
        return f"{a} and {b} both serve the intent “{asked}”; evidence of that intent alone counts."
    if shared:
        listed = ", ".join(f"“{each}”" for each in shared)
        return f"{a} and {b} share {text.count(len(shared), 'intent')}: {listed}."
    if asked:
        return f"{a} and {b} do not both serve the intent “{asked}”: they are not comparable on it."
    return (
        f"{a} serves {text.count(len(read.texts('a_intents')), 'intent')}, {b} "
        f"{len(read.texts('b_intents'))}, and none is of both: they are not comparable, and "
        "neither is the better one."
    )


def _outcomes(read: Reading) -> str:
    a, b = _names(read)
    mine, other = read.count("outcomes.a_evidence"), read.count("outcomes.b_evidence")
    counts = f"{text.count(mine, 'outcome')} of {a} and {other} of {b}"
    found = read.estimate("outcomes.a_better")
    if found.abstained:
        least = read.count("min_evidence")
        return (
            f"For these intents {counts} are recorded; with less than {least} of each for one and "
            "the same intent, outcomes say nothing about which is better."
        )
    certainty = read.number("outcomes.certainty")
    return (
        f"By {counts}, a use of {a} ends better than one of {b} with probability "
        f"{_found(found)}, those that end alike counting half; that {a} does better at all has "
        f"probability {text.share(certainty)}."
    )


def _votes(read: Reading) -> str:
    a, b = _names(read)
    mine, other = read.count("votes.a_evidence"), read.count("votes.b_evidence")
    found = read.estimate("votes.a_better")
    if found.abstained:
        if mine == other == 0:
            return f"The arena has no votes on {a} or {b}."
        return (
            f"The arena has {text.count(mine, 'vote')} on {a} and {other} on {b}, which is too few "
            "for a probability."
        )
    return (
        f"By the arena's votes, {mine} on {a} and {other} on {b}, a picture of {a} is preferred to "
        f"one of {b} with probability {_found(found)}, ties counting half."
    )


def _verdict(read: Reading) -> str:
    a, b = _names(read)
    verdict, basis = read.text("verdict"), read.text("basis")
    if basis == Basis.NONE.value:
        return f"There is not enough evidence to say which of {a} and {b} is better."
    found = read.estimate("a_better")
    if verdict == Verdict.NOT_SEPARABLE.name:
        if found.low <= EVEN <= found.high:
            return (
                f"{a} and {b} are not separable: the interval {_interval(found)} has "
                f"{text.share(EVEN)} in it."
            )
        votes = read.estimate("votes.a_better")
        return (
            f"{a} and {b} are not separable: outcomes and votes contradict each other, with the "
            f"intervals {_interval(found)} and {_interval(votes)}."
        )
    better, worse = (a, b) if verdict == Verdict.A_BETTER.name else (b, a)
    where = "above" if verdict == Verdict.A_BETTER.name else "below"
    return (
        f"{better} is better than {worse} by its {basis}: all of the interval {_interval(found)} "
        f"is {where} {text.share(EVEN)}."
    )


def _score(side: str) -> Callable[[Reading], str]:
    def write(read: Reading) -> str:
        name = read.text(f"{side}.name")
        evidenced = text.points(_hundredths(read.number(f"{side}.score.evidenced")))
        points = text.points(read.count(f"{side}.score.total_hundredths"))
        if read.yes(f"{side}.score.total.abstained"):
            return (
                f"{name} has no score: parts that weigh {evidenced} of 100 points have evidence, "
                f"and it came to {points} of them, which is too little to judge the whole by."
            )
        return (
            f"{name} scores {points} points of the {evidenced} that have evidence, so "
            f"{_limits(read, side)} of 100."
        )

    return write


def _limits(read: Reading, side: str) -> str:
    low = read.count(f"{side}.score.low_hundredths")
    high = read.count(f"{side}.score.high_hundredths")
    return text.points_interval(low, high)


def _scores(read: Reading) -> str:
    a, b = _names(read)
    mine, other = read.text("a.type"), read.text("b.type")
    if mine != other:
        return (
            f"Their scores are not compared: {a} is of the type {mine}, {b} of the type {other}, "
            "and each type is weighed by its own rules."
        )
    a_silent, b_silent = (read.yes(f"{side}.score.total.abstained") for side in SIDES)
    if a_silent or b_silent:
        return "Without a score of each, the scores are not compared."
    lows = [read.count(f"{side}.score.low_hundredths") for side in SIDES]
    highs = [read.count(f"{side}.score.high_hundredths") for side in SIDES]
    told = [text.points_interval(low, high) for low, high in zip(lows, highs, strict=True)]
    if lows[0] > highs[1]:
        return f"{a} scores higher than {b}: {told[0]} against {told[1]}."
    if lows[1] > highs[0]:
        return f"{b} scores higher than {a}: {told[1]} against {told[0]}."
    return f"Their scores are not separable: {told[0]} and {told[1]} overlap."


def _component(index: int) -> Callable[[Reading], str]:
    def write(read: Reading) -> str:
        a, b = _names(read)
        if read.text("a.type") != read.text("b.type"):
            return ""
        part = text.component(read.text(f"{component_path('a', index)}.name"))
        mine, other = (read.estimate(f"{component_path(side, index)}.value") for side in SIDES)
        if mine.abstained and other.abstained:
            return f"On {part} there is too little evidence of either."
        if mine.abstained or other.abstained:
            known, found = (b, other) if mine.abstained else (a, mine)
            missing = a if mine.abstained else b
            return (
                f"On {part} {known} has {_found(found)}; of {missing} there is too little evidence."
            )
        if mine.low > other.high:
            return f"{a} leads on {part}: {_found(mine)} against {_found(other)}."
        if other.low > mine.high:
            return f"{b} leads on {part}: {_found(other)} against {_found(mine)}."
        return f"On {part} they are not separable: {_found(mine)} and {_found(other)}."

    return write


def _claims(side: str) -> Callable[[Reading], str]:
    def write(read: Reading) -> str:
        name = read.text(f"{side}.name")
        verified, contradicted, unmeasured = (
            read.count(f"{side}_claims.{kind}")
            for kind in ("verified", "contradicted", "unmeasured")
        )
        total = verified + contradicted + unmeasured
        if not total:
            return f"Nothing is claimed of {name}."
        return (
            f"Of {text.count(total, 'claim')} about {name}, measurements bear out {verified} and "
            f"contradict {contradicted}; {unmeasured} {'was' if unmeasured == 1 else 'were'} not "
            "measured."
        )

    return write


def _names(read: Reading) -> tuple[str, str]:
    return read.text("a.name"), read.text("b.name")


def _found(found: Estimate) -> str:
    return f"{text.share(found.value)} ({_interval(found)})"


def _interval(found: Estimate) -> str:
    return text.interval(found.low, found.high)


def _hundredths(share: float) -> int:
    """A weight as the points it could give, in hundredths."""
    return round(share * 10_000)
