"""No sentence contradicts a number: random models and evidence, and what may be said of them.

What a sentence says is read back from its words, and held against the report by rules that are
written here a second time, from the numbers alone.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

import pytest
from hypothesis import example, given, settings

from ranker.comparison.better import Basis, Better, Verdict
from ranker.comparison.numbers import Value, fields
from ranker.comparison.report import Evidence, Report, compare
from ranker.comparison.sentences import Sentence, sentences
from ranker.score.estimate import Estimate, abstained
from ranker.score.evidence import Outcomes
from ranker.score.formula import Component
from tests.unit.ranker.comparison.sides import INTENTS, MIN_EVIDENCE, lopsided, reports, side

A, B = "⟦first⟧", "⟦second⟧"
NUMBER = re.compile(r"(?<![\w⟦])-?\d+(?:\.\d+)?")
NAME = f"({A}|{B})"
SHARE = r"(\d(?:\.\d+)?)"
FOUND = rf"{SHARE} \({SHARE} to {SHARE}\)"
COUNTED = re.compile(rf"(\d+)(?: outcomes?| votes?)? o[fn] {NAME}")
PREFERRED = re.compile(
    rf"a (?:use|picture) of {NAME} (?:ends better than|is preferred to) one of {NAME} "
    rf"with probability {FOUND}"
)
CERTAIN = re.compile(rf"that {NAME} does better at all has probability {SHARE}")
CLAIMED = re.compile(
    rf"Of (\d+) claims? about {NAME}, measurements bear out (\d+) and contradict (\d+); "
    r"(\d+) (?:was|were) not measured\."
)
SCORED = re.compile(rf"{NAME} scores (\d+\.\d\d) points of the (\d+\.\d\d) that have evidence")
POINTS = re.compile(r"(\d+\.\d\d) to (\d+\.\d\d)")
PART = r"([a-z ]+)"
LEADS = re.compile(rf"{NAME} leads on {PART}: {FOUND} against {FOUND}\.")
LEVEL = re.compile(rf"On {PART} they are not separable: {FOUND} and {FOUND}\.")
ALONE = re.compile(rf"On {PART} {NAME} has {FOUND}; of {NAME} there is too little evidence\.")
NEITHER = re.compile(rf"On {PART} there is too little evidence of either\.")
GOOD, BAD = Outcomes(90.0, 10.0, 100), Outcomes(30.0, 70.0, 100)


def named(report: Report) -> Report:
    """With names that cannot be mistaken for words of a sentence, nor intents for numbers."""
    return replace(report, a=replace(report.a, name=A), b=replace(report.b, name=B))


def said(report: Report) -> list[str]:
    return [sentence.text for sentence in sentences(report)]


def component(report: Report, letter: str, words: str) -> Component:
    scored = report.a.scored if letter == A else report.b.scored
    return scored.score.by_name[words.replace(" ", "_")]


def other(letter: str) -> str:
    return B if letter == A else A


@settings(deadline=None)
@given(reports())
@example(lopsided(GOOD, Outcomes(30.0, 40.0, 70), Better(Estimate(0.6, 0.55, 0.7, 200), 120, 80)))
@example(lopsided(Outcomes(3.0, 0.0, 3), Outcomes(4.0, 0.0, 4), Better(abstained(3), 1, 2)))
def test_no_sentence_contradicts_a_number(report: Report) -> None:
    _who_leads_is_ahead_with_all_of_the_interval(report)
    _who_scores_higher_does(report)
    _who_is_better_is_so_by_an_interval_beyond_a_half(report)
    _every_number_in_a_sentence_is_that_of_a_field_it_names(report)
    _counts_and_probabilities_are_those_of_the_model_beside_them(report)
    _claims_are_counted_as_what_they_are(report)
    _what_is_said_on_a_part_is_of_the_model_it_names(report)
    _points_are_those_of_the_model_they_are_said_of(report)
    _a_mirrored_report_names_the_same_winners(report)
    _the_other_order_is_computed_as_the_mirror(report)


def _who_leads_is_ahead_with_all_of_the_interval(report: Report) -> None:
    report = named(report)
    for text in said(report):
        if found := re.match(rf"({A}|{B}) leads on ([a-z ]+): ", text):
            mine = component(report, found[1], found[2]).valued.estimate
            theirs = component(report, other(found[1]), found[2]).valued.estimate
            assert not mine.abstained
            assert not theirs.abstained
            assert mine.low > theirs.high
            assert report.a.type == report.b.type
        if found := re.match(r"On ([a-z ]+) they are not separable", text):
            mine = component(report, A, found[1]).valued.estimate
            theirs = component(report, B, found[1]).valued.estimate
            assert not mine.abstained
            assert not theirs.abstained
            assert mine.low <= theirs.high
            assert theirs.low <= mine.high


def _who_scores_higher_does(report: Report) -> None:
    report = named(report)
    totals = {A: report.a.scored.score.total, B: report.b.scored.score.total}
    for text in said(report):
        if found := re.match(rf"({A}|{B}) scores higher than", text):
            assert totals[found[1]].low > totals[other(found[1])].high
            assert not totals[A].abstained
            assert not totals[B].abstained
            assert report.a.type == report.b.type
        if found := re.match(rf"({A}|{B}) (has no score|scores \d)", text):
            assert totals[found[1]].abstained is (found[2] == "has no score")
        if text.startswith("Their scores are not separable"):
            assert totals[A].low <= totals[B].high
            assert totals[B].low <= totals[A].high


def _who_is_better_is_so_by_an_interval_beyond_a_half(report: Report) -> None:
    report = named(report)
    texts = said(report)
    better = [text for text in texts if " is better than " in text]
    estimate = report.better.estimate

    if report.verdict is Verdict.A_BETTER:
        assert [text.startswith(f"{A} is better than {B} ") for text in better] == [True]
        assert estimate.low > 0.5
    elif report.verdict is Verdict.B_BETTER:
        assert [text.startswith(f"{B} is better than {A} ") for text in better] == [True]
        assert estimate.high < 0.5
    else:
        assert better == []
    if better:
        assert not estimate.abstained
        assert report.shared_intents
    if report.verdict is Verdict.NOT_COMPARABLE:
        assert not report.shared_intents
        assert sum("not comparable" in text for text in texts) == 1
        assert not any("probability" in text for text in texts)
    else:
        assert report.shared_intents
        assert not any("not comparable" in text for text in texts)
    if any("not enough evidence" in text for text in texts):
        assert report.outcomes.estimate.abstained
        assert report.votes.estimate.abstained
    if any("contradict each other" in text for text in texts):
        assert {report.outcomes.side, report.votes.side} == {Verdict.A_BETTER, Verdict.B_BETTER}


def _every_number_in_a_sentence_is_that_of_a_field_it_names(report: Report) -> None:
    report = named(report)
    values = fields(report)
    for sentence in sentences(report):
        told = {float(each) for each in NUMBER.findall(_without_intents(sentence, report))}
        assert told <= _numbers(sentence, values), sentence


def _without_intents(sentence: Sentence, report: Report) -> str:
    return re.sub("“[^”]*”", "", sentence.text)


def _numbers(sentence: Sentence, values: Mapping[str, Value]) -> set[float]:
    """What the fields of a sentence may be told as; a half and the whole are no findings."""
    found = {0.5, 100.0, 0.0, 1.0}
    claims: dict[str, int] = {}
    for path in sentence.fields:
        value = values[path]
        if isinstance(value, tuple):
            found.add(float(len(value)))
        elif isinstance(value, int | float) and not isinstance(value, bool):
            found |= {float(value), value / 100, round(value * 100, 2)}
            if "_claims." in path:
                claims[path[0]] = claims.get(path[0], 0) + int(value)
    return found | {float(count) for count in claims.values()}


def _resting_on(report: Report, path: str) -> list[str]:
    """The sentences made from any field whose path begins so."""
    return [
        sentence.text
        for sentence in sentences(report)
        if any(field.startswith(path) for field in sentence.fields)
    ]


def _counts_and_probabilities_are_those_of_the_model_beside_them(report: Report) -> None:
    report = named(report)
    for source, better in (("outcomes", report.outcomes), ("votes", report.votes)):
        counts = {A: better.a_evidence, B: better.b_evidence}
        of_each = {A: better, B: better.mirrored}
        for text in _resting_on(report, f"{source}.a_evidence"):
            told = {name: int(count) for count, name in COUNTED.findall(text)}
            assert told == counts or (" no votes " in text and not any(counts.values())), text
            preferred, certain = PREFERRED.search(text), CERTAIN.search(text)
            assert (preferred is None) is better.estimate.abstained, text
            assert (certain is None) is (preferred is None or source == "votes"), text
            if preferred:
                assert preferred[2] == other(preferred[1])
                assert _told(preferred.groups()[2:]) == _spread(of_each[preferred[1]].estimate)
            if certain:
                assert float(certain[2]) == of_each[certain[1]].certainty


def _claims_are_counted_as_what_they_are(report: Report) -> None:
    report = named(report)
    for path, name, claims in (
        ("a_claims", A, report.a.claims),
        ("b_claims", B, report.b.claims),
    ):
        (text,) = _resting_on(report, path)
        counts = [claims.verified, claims.contradicted, claims.unmeasured]
        if not any(counts):
            assert text == f"Nothing is claimed of {name}."
            continue
        found = CLAIMED.fullmatch(text)
        assert found, text
        assert found[2] == name
        assert [int(found[group]) for group in (1, 3, 4, 5)] == [sum(counts), *counts]


def _what_is_said_on_a_part_is_of_the_model_it_names(report: Report) -> None:
    report = named(report)
    for text in _resting_on(report, "a.score.components"):
        told: dict[str, tuple[float, ...]] = {}
        if found := LEADS.fullmatch(text):
            leader, part, *shares = found.groups()
            told = {leader: _told(shares[:3]), other(leader): _told(shares[3:])}
        elif found := LEVEL.fullmatch(text):
            part, *shares = found.groups()
            told = {A: _told(shares[:3]), B: _told(shares[3:])}
        elif found := ALONE.fullmatch(text):
            part, known, *shares, missing = found.groups()
            assert missing == other(known), text
            told = {known: _told(shares)}
        else:
            found = NEITHER.fullmatch(text)
            assert found, text
            part = found[1]
        values = {name: component(report, name, part).valued.estimate for name in (A, B)}
        assert told == {
            name: _spread(value) for name, value in values.items() if not value.abstained
        }, text


def _points_are_those_of_the_model_they_are_said_of(report: Report) -> None:
    report = named(report)
    totals = {A: report.a.scored.score.total, B: report.b.scored.score.total}
    limits = {name: (total.low, total.high) for name, total in totals.items()}
    for text in said(report):
        told = [(_hundredths(low), _hundredths(high)) for low, high in POINTS.findall(text)]
        if found := SCORED.match(text):
            total = totals[found[1]]
            assert _hundredths(found[2]) == total.points
            assert _hundredths(found[3]) == round(total.evidenced * 10_000)
            assert told == [limits[found[1]]], text
        elif found := re.match(f"{NAME} scores higher than {NAME}: ", text):
            assert found[2] == other(found[1])
            assert told == [limits[found[1]], limits[found[2]]], text
        elif text.startswith("Their scores are not separable"):
            assert told == [limits[A], limits[B]], text


def _told(shares: Sequence[str]) -> tuple[float, ...]:
    return tuple(map(float, shares))


def _spread(estimate: Estimate) -> tuple[float, ...]:
    return estimate.value, estimate.low, estimate.high


def _hundredths(points: str) -> int:
    return int(points.replace(".", ""))


def _a_mirrored_report_names_the_same_winners(report: Report) -> None:
    turned = report.mirrored

    assert turned.mirrored == report
    one, two = said(named(report)), said(named(turned))
    claims = re.compile(rf"({A}|{B}) (is better than|leads on [a-z ]+|scores higher)")
    winners = {found.groups() for text in one if (found := claims.match(text))}
    turned_winners = {found.groups() for text in two if (found := claims.match(text))}
    assert {(other(name), what) for name, what in turned_winners} == winners


def _the_other_order_is_computed_as_the_mirror(report: Report) -> None:
    counts = {
        (side.id, each.intent): outcomes
        for each in report.intents
        for side, outcomes in ((report.a, each.a), (report.b, each.b))
    }
    votes = report.votes if report.shared_intents else Better(report.votes.estimate, 0, 0)
    found = compare(
        report.b,
        report.a,
        Evidence(counts, votes.mirrored),
        intent=report.intent,
        min_evidence=MIN_EVIDENCE,
    )

    assert found == report.mirrored
    a, b = report.better.estimate, found.better.estimate
    if not a.abstained:
        assert round(a.value * 10_000) + round(b.value * 10_000) == 10_000
        assert round(a.low * 10_000) + round(b.high * 10_000) == 10_000


def test_equal_evidence_leads_nowhere() -> None:
    a, b = side("vit"), side("deit")
    outcomes = {(each.id, INTENTS[0]): GOOD for each in (a, b)}

    report = compare(a, b, Evidence(outcomes), min_evidence=5)

    assert report.verdict is Verdict.NOT_SEPARABLE
    assert report.better.estimate.value == 0.5
    text = " ".join(said(report))
    for word in ("leads", "higher", "is better", "stronger"):
        assert word not in text
    assert "VIT and DEIT are not separable" in text


def test_outcomes_separate() -> None:
    a, b = side("vit"), side("deit")
    outcomes = {(a.id, INTENTS[0]): GOOD, (b.id, INTENTS[0]): BAD}

    report = compare(a, b, Evidence(outcomes), min_evidence=5)

    assert report.verdict is Verdict.A_BETTER
    # 1/2 + (91/102 - 31/102) / 2
    assert report.better.estimate.value == 0.7941
    assert report.outcomes.certainty == 0.9999
    assert "VIT is better than DEIT by its outcomes" in " ".join(said(report))


def test_an_intent_pools_with_no_other() -> None:
    """Simpson's paradox: the better one on each intent has the worse sum."""
    a, b = side("vit"), side("deit")
    outcomes = {
        (a.id, INTENTS[0]): Outcomes(93.0, 7.0, 100),
        (a.id, INTENTS[1]): Outcomes(730.0, 270.0, 1000),
        (b.id, INTENTS[0]): Outcomes(870.0, 130.0, 1000),
        (b.id, INTENTS[1]): Outcomes(60.0, 40.0, 100),
    }

    report = compare(a, b, Evidence(outcomes), min_evidence=5)

    assert 823 / 1100 < 930 / 1100
    assert report.verdict is Verdict.A_BETTER


def test_outcomes_and_votes_that_contradict_each_other() -> None:
    a, b = side("deit"), side("vit")
    outcomes = {(a.id, INTENTS[0]): GOOD, (b.id, INTENTS[0]): BAD}
    votes = Better(Estimate(0.2, 0.1, 0.3, 200), 120, 80)

    report = compare(a, b, Evidence(outcomes, votes), min_evidence=5)

    assert report.verdict is Verdict.NOT_SEPARABLE
    assert "outcomes and votes contradict each other" in " ".join(said(report))


def test_votes_decide_where_there_are_no_outcomes() -> None:
    votes = Better(Estimate(0.2, 0.1, 0.3, 200), 120, 80)

    report = compare(side("deit"), side("vit"), Evidence({}, votes), min_evidence=5)

    assert (report.verdict, report.basis) == (Verdict.B_BETTER, Basis.VOTES)
    assert "VIT is better than DEIT by its votes" in " ".join(said(report))


@pytest.mark.parametrize(("count", "counts"), [(4, False), (5, True), (6, True)])
def test_the_least_evidence_of_each(count: int, counts: bool) -> None:
    a, b = side("vit"), side("deit")
    outcomes = {(a.id, INTENTS[0]): GOOD, (b.id, INTENTS[0]): Outcomes(count, 0.0, count)}

    report = compare(a, b, Evidence(outcomes), min_evidence=5)

    assert [each.counted for each in report.intents] == [counts, False]
    assert report.better.estimate.abstained is not counts


def test_no_intent_of_both() -> None:
    a, b = side("vit"), side("sd", type="generator", intents=INTENTS[2:])

    report = compare(a, b, Evidence({}, Better(Estimate(0.9, 0.8, 0.95, 9), 5, 4)), min_evidence=5)

    assert report.verdict is Verdict.NOT_COMPARABLE
    assert report.better.estimate.abstained
    text = " ".join(said(report))
    assert "VIT serves 2 intents, SD 1, and none is of both: they are not comparable" in text
    assert "Their scores are not compared: VIT is of the type classifier" in text


def test_the_intent_that_is_asked_for() -> None:
    a, b = side("vit"), side("deit")
    outcomes = {(a.id, INTENTS[0]): GOOD, (b.id, INTENTS[0]): BAD}

    one = compare(a, b, Evidence(outcomes), intent="Classify a  PICTURE", min_evidence=5)
    other = compare(a, b, Evidence(outcomes), intent=INTENTS[1], min_evidence=5)
    neither = compare(a, b, Evidence(outcomes), intent="paint", min_evidence=5)

    assert one.shared_intents == (INTENTS[0],)
    assert one.verdict is Verdict.A_BETTER
    assert other.verdict is Verdict.NOT_SEPARABLE
    assert other.better.estimate.abstained
    assert neither.verdict is Verdict.NOT_COMPARABLE
    assert "do not both serve the intent “paint”" in said(neither)[0]


def test_a_model_and_itself() -> None:
    with pytest.raises(ValueError, match="'vit' is both models"):
        compare(side("vit"), side("vit"), Evidence({}), min_evidence=5)
