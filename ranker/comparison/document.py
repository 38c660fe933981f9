"""A comparison arranged once, for every way to print it: cells are final texts here."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from ranker.catalogue.model import Capability, Claim
from ranker.comparison import text
from ranker.comparison.better import Better, OnIntent, Verdict
from ranker.comparison.report import Report
from ranker.comparison.sentences import Sentence, sentences
from ranker.comparison.side import Side
from ranker.score.estimate import Estimate
from ranker.score.formula import FULL, Component

PLAIN_VERDICTS: Final = {
    Verdict.NOT_SEPARABLE: "not separable",
    Verdict.NOT_COMPARABLE: "not comparable",
}


@dataclass(frozen=True, slots=True)
class Table:
    """``kinds`` has a word for each row that a page may colour by, or nothing."""

    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    kinds: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Range:
    """A value with its interval on a scale of 0 to ``full``; None for too little evidence, which
    may lie anywhere up to ``most``. The texts are what the table beside the chart says too."""

    label: str
    side: str
    value: float | None
    low: float
    high: float
    most: float
    full: float
    text: str


@dataclass(frozen=True, slots=True)
class Chart:
    """``middle`` is a value that is marked across, None for no mark. ``bars`` fill from 0."""

    title: str
    ranges: tuple[Range, ...]
    ends: tuple[str, str]
    middle: float | None = None
    bars: bool = False


@dataclass(frozen=True, slots=True)
class Section:
    title: str
    notes: tuple[str, ...] = ()
    chart: Chart | None = None
    table: Table | None = None
    parts: tuple[Section, ...] = ()


@dataclass(frozen=True, slots=True)
class Document:
    title: str
    verdict: str
    names: tuple[str, str]
    sentences: tuple[Sentence, ...]
    sections: tuple[Section, ...]
    footnotes: tuple[str, ...] = field(default=())


def document(report: Report) -> Document:
    a, b = report.a.name, report.b.name
    compared = report.verdict is not Verdict.NOT_COMPARABLE
    return Document(
        title=f"{a} and {b}",
        verdict=_verdict(report),
        names=(a, b),
        sentences=sentences(report),
        sections=(
            *([_evidence(report)] if compared else []),
            _scores(report),
            _features(report),
            _capabilities(report.a),
            _capabilities(report.b),
        ),
        footnotes=tuple(_footnotes(report)),
    )


def _verdict(report: Report) -> str:
    if report.verdict is Verdict.A_BETTER:
        return f"{report.a.name} is better"
    if report.verdict is Verdict.B_BETTER:
        return f"{report.b.name} is better"
    return PLAIN_VERDICTS[report.verdict]


def _evidence(report: Report) -> Section:
    a, b = report.a.name, report.b.name
    sources = (("outcomes of use", report.outcomes), ("votes of the arena", report.votes))
    ranges = tuple(_probability(name, better) for name, better in sources)
    rows = [
        (
            name,
            str(better.a_evidence),
            str(better.b_evidence),
            text.estimate(better.estimate),
            text.NOTHING if better.certainty is None else text.share(better.certainty),
        )
        for name, better in sources
    ]
    head = (
        "evidence",
        f"of {a}",
        f"of {b}",
        f"{a} does better, with probability",
        "that it does at all, with probability",
    )
    return Section(
        "Which does better",
        notes=(
            f"The probability that one use of {a} ends better than one of {b} for the same intent, "
            "equal ends counting half, with its 95 % interval. All of it above 0.5, or all below, "
            "separates the two.",
        ),
        chart=Chart(f"{a} does better", ranges, ("0", "1"), middle=0.5),
        table=Table(head, tuple(rows)),
        parts=(_intents(report),),
    )


def _intents(report: Report) -> Section:
    a, b = report.a.name, report.b.name
    head = ("intent", f"outcomes of {a}", f"success of {a}", f"outcomes of {b}", f"success of {b}")
    rows = tuple(_intent(each) for each in report.intents)
    return Section("For each intent", table=Table((*head, "counted"), rows))


def _intent(each: OnIntent) -> tuple[str, ...]:
    return (
        each.intent,
        str(each.a.recorded),
        text.estimate(each.a_success),
        str(each.b.recorded),
        text.estimate(each.b_success),
        "yes" if each.counted else "no",
    )


def _probability(name: str, better: Better) -> Range:
    found = better.estimate
    value = None if found.abstained else found.value
    return Range(name, "a", value, found.low, found.high, 1.0, 1.0, text.estimate(found))


def _scores(report: Report) -> Section:
    a, b = report.a, report.b
    pairs = list(zip(a.scored.score.components, b.scored.score.components, strict=True))
    rows = [(text.component(mine.name), *_valued(mine), *_valued(other)) for mine, other in pairs]
    rows.append(("total", *_total(a), *_total(b)))
    head = tuple(
        part for name in (a.name, b.name) for part in (f"points of {name}", f"value of {name}")
    )
    ranges = tuple(
        _part(letter, component)
        for pair in pairs
        for letter, component in zip("ab", pair, strict=True)
    )
    notes = [
        "Five parts, each valued 0 to 1 with its 95 % interval and weighed; their points add up to "
        "the total. A part with too little evidence adds none, and the total's interval leaves all "
        "of its points open.",
    ]
    return Section(
        "Scores",
        notes=tuple(notes),
        chart=Chart("Points of each part", ranges, ("0", _longest(ranges)), bars=True),
        table=Table(("part", *head), tuple(rows)),
        parts=(_reasons(a), _reasons(b)),
    )


def _valued(component: Component) -> tuple[str, str]:
    return f"{_points(component)} of {text.points(component.most)}", text.estimate(
        component.valued.estimate
    )


def _points(component: Component) -> str:
    return text.NOTHING if component.abstained else text.points(component.points)


def _total(side: Side) -> tuple[str, str]:
    total = side.scored.score.total
    interval = text.points_interval(total.low, total.high)
    return f"{text.points(total.points)} of {text.points(FULL)}", (
        f"no score: {interval}" if total.abstained else interval
    )


def _part(letter: str, component: Component) -> Range:
    found: Estimate = component.valued.estimate
    most = component.most
    value = None if found.abstained else float(component.points)
    low, high = found.low * most, found.high * most
    told = f"{_points(component)} of {text.points(most)}"
    return Range(text.component(component.name), letter, value, low, high, most, most, told)


def _longest(ranges: Sequence[Range]) -> str:
    return text.points(int(max(each.most for each in ranges)))


def _reasons(side: Side) -> Section:
    rows = tuple(_reason(component) for component in side.scored.score.components)
    return Section(
        f"What the score of {side.name} rests on",
        table=Table(("part", "evidence", "inputs"), rows),
    )


def _reason(component: Component) -> tuple[str, str, str]:
    inputs = "; ".join(
        f"{name}: {value}" for name, value in component.valued.inputs.items() if value
    )
    why = component.valued.why
    told = f"{why[0].upper()}{why[1:]}." if why else inputs
    return (
        text.component(component.name),
        str(component.valued.estimate.evidence),
        told or text.NOTHING,
    )


def _features(report: Report) -> Section:
    rows = tuple(
        (row.feature, row.a or text.NOTHING, row.b or text.NOTHING, row.source)
        for row in report.features
    )
    head = ("feature", report.a.name, report.b.name, "source")
    return Section("Side by side", table=Table(head, rows))


def _capabilities(side: Side) -> Section:
    count = text.count(len(side.capabilities), "capability")
    return Section(
        f"What is said of {side.name}, and what was found: {count}",
        parts=tuple(_capability(each) for each in side.capabilities),
    )


def _capability(capability: Capability) -> Section:
    notes = []
    if capability.intents:
        notes.append(f"Serves: {', '.join(capability.intents)}.")
    if capability.limitations:
        notes.append(f"Limits: {'; '.join(capability.limitations)}.")
    claims = capability.claims
    head = ("claim", "claimed", "measured", "found", "source")
    return Section(
        capability.name,
        notes=tuple(notes),
        table=Table(
            head, tuple(_claim(each) for each in claims), tuple(_found(each) for each in claims)
        )
        if claims
        else None,
    )


def _claim(claim: Claim) -> tuple[str, ...]:
    day = f", {claim.measured_at:%Y-%m-%d}" if claim.measured_at else ""
    return (
        claim.name,
        claim.claimed or text.NOTHING,
        claim.measured or text.NOTHING,
        _found(claim),
        f"{claim.source or text.NOTHING}{day}",
    )


def _found(claim: Claim) -> str:
    if not claim.claimed:
        return "measured"
    if claim.verified:
        return "holds"
    return "wrong" if claim.measured else "unproven"


def _footnotes(report: Report) -> Iterator[str]:
    for side in (report.a, report.b):
        moment = side.scored.computed_at.strftime("%Y-%m-%d %H:%M UTC")
        yield f"Score of {side.name}: {side.scored.version}, {moment}."
