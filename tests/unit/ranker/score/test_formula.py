"""Parts that add up, intervals that hold what they must, scores that can be computed again."""

from __future__ import annotations

from dataclasses import replace
from datetime import date
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ranker.score.components import COMPONENTS, Terms
from ranker.score.evidence import Claims, Ecosystem, Evidence, Measurement, Outcomes, standing
from ranker.score.formula import FULL, Rules, Score, score
from ranker.score.record import FormulaChangedError, recomputed, recorded, score_of
from ranker.score.weights import DEFAULT_WEIGHTS, Weights
from tests.unit.ranker.score.evidence import EVIDENCE, RULES

TODAY = date(2026, 11, 26)
RULE = Rules(Weights.of(DEFAULT_WEIGHTS["default"]), Terms(5, 730.0), Decimal("0.5"))
KNOWN = Evidence(
    "vit",
    "classifier",
    TODAY,
    usage=(standing("downloads", 50, [1, 2, 50, 50, 60, 70, 80, 90, 100]),),
    claims=Claims(verified=9, contradicted=3, unmeasured=2),
    measurements=(Measurement("top-1", 42_580, 50_000),),
    ecosystem=Ecosystem(("onnx", "safetensors", "grpc"), ("coreml",)),
    outcomes=Outcomes(18.0, 6.0, 30),
    released=date(2024, 11, 26),
)


def printed(hundredths: int) -> Decimal:
    return Decimal(f"{hundredths // 100}.{hundredths % 100:02d}")


@given(EVIDENCE, RULES)
def test_what_is_printed_adds_up(evidence: Evidence, rules: Rules) -> None:
    found = score(evidence, rules)

    assert sum(printed(each.points) for each in found.components) == printed(found.total.points)
    assert sum(each.weight for each in found.components) == 1
    assert [each.name for each in found.components] == list(COMPONENTS)


@given(EVIDENCE, RULES)
def test_points_are_weight_times_value_as_they_are_told(evidence: Evidence, rules: Rules) -> None:
    for each in score(evidence, rules).components:
        exact = each.weight * Decimal(repr(each.valued.estimate.value)) * FULL
        assert abs(each.points - exact) <= Decimal("0.5")
        assert each.points <= each.most


@given(EVIDENCE, RULES)
def test_intervals_hold_their_values(evidence: Evidence, rules: Rules) -> None:
    found = score(evidence, rules)
    total = found.total

    assert 0 <= total.low <= total.points <= total.high <= FULL
    for each in found.components:
        estimate = each.valued.estimate
        assert 0 <= estimate.low <= estimate.value <= estimate.high <= 1
        assert estimate.abstained == bool(each.valued.why)
        if estimate.abstained:
            assert (each.points, estimate.value, estimate.low, estimate.high) == (0, 0, 0, 1)


@given(EVIDENCE, RULES)
def test_all_that_an_abstaining_part_could_be_is_left_open(
    evidence: Evidence, rules: Rules
) -> None:
    found = score(evidence, rules)
    silent = [each for each in found.components if each.abstained]

    assert found.total.high - found.total.points >= sum(each.most for each in silent)
    assert found.total.evidenced == 1 - sum(each.weight for each in silent)
    assert found.total.abstained == (found.total.evidenced < rules.min_share)


@given(EVIDENCE, RULES)
def test_a_record_computes_to_itself_bit_for_bit(evidence: Evidence, rules: Rules) -> None:
    found = score(evidence, rules)
    record = recorded(evidence, rules, found)

    assert recomputed(record) == record
    assert score_of(record) == found


def test_a_record_of_another_formula() -> None:
    record = replace(recorded(KNOWN, RULE, score(KNOWN, RULE)), formula="easel-score/0")

    with pytest.raises(FormulaChangedError, match=r"'vit' was computed by easel-score/0; this is"):
        recomputed(record)


def test_a_record_that_was_tampered_with() -> None:
    record = recorded(KNOWN, RULE, score(KNOWN, RULE))
    other = replace(record, evidence=record.evidence.replace('"verified":9', '"verified":12'))

    assert other != record
    assert recomputed(other).result != other.result


def test_versions_tell_evidence_and_rules_apart() -> None:
    one = recorded(KNOWN, RULE, score(KNOWN, RULE))
    later = replace(KNOWN, as_of=date(2026, 11, 27))
    other_rules = replace(RULE, terms=Terms(6, 730.0))

    versions = {
        one.version,
        recorded(later, RULE, score(later, RULE)).version,
        recorded(KNOWN, other_rules, score(KNOWN, other_rules)).version,
    }

    assert len(versions) == 3
    assert one.version.startswith("easel-score/1 rules:")


def part(found: Score, name: str) -> tuple[float, float, float, int]:
    estimate = found.by_name[name].valued.estimate
    assert not estimate.abstained
    return estimate.value, estimate.low, estimate.high, estimate.evidence


def test_a_score_by_hand() -> None:
    found = score(KNOWN, RULE)

    # 2 below and 1 equal of 8; Wilson's interval of 2.5 of 8.
    assert part(found, "adoption") == (0.3125, 0.1024, 0.6443, 8)
    # The mean of 9 of 12 and of 42580 of 50000.
    assert part(found, "quality")[0] == round((0.75 + 0.8516) / 2, 4)
    assert part(found, "ecosystem") == (0.75, 0.75, 0.75, 4)
    # Beta(19, 7).
    assert part(found, "match_graph")[0] == round(19 / 26, 4)
    assert part(found, "freshness")[:1] == (0.5,)
    assert found.total.points == sum(
        [469, round(0.3 * 8008), round(0.15 * 7500), round(0.3 * 7308), 500]
    )
    assert not found.total.abstained


def test_nothing_known_is_no_score() -> None:
    found = score(Evidence("new", "classifier", TODAY), RULE)

    assert found.total.abstained
    assert (found.total.points, found.total.low, found.total.high) == (0, 0, FULL)
    assert [each.valued.why for each in found.components] == [
        "no count of its use is known",
        "0 of its claims were measured; at least 5 are needed",
        "nothing around it could be looked at",
        "0 outcomes were recorded, weighing 0; at least 5 are needed",
        "the day of its release is not known",
    ]


@pytest.mark.parametrize(("judged", "abstained"), [(4, True), (5, False), (6, False)])
def test_the_least_evidence(judged: int, abstained: bool) -> None:
    evidence = Evidence(
        "x",
        "t",
        TODAY,
        usage=(standing("likes", 1, sorted([1, *range(judged)])),),
        claims=Claims(judged - 1, 1),
        outcomes=Outcomes(float(judged), 0.0, judged),
    )
    found = score(evidence, RULE).by_name

    for name in ("adoption", "quality", "match_graph"):
        assert found[name].abstained is abstained


def test_old_outcomes_weigh_too_little() -> None:
    evidence = Evidence("x", "t", TODAY, outcomes=Outcomes(4.0, 0.9, 1000))

    found = score(evidence, RULE).by_name["match_graph"]

    assert found.abstained
    assert found.valued.why == "1000 outcomes were recorded, weighing 4.9; at least 5 are needed"


@pytest.mark.parametrize(("percent", "abstained"), [(39, False), (40, False), (41, True)])
def test_the_least_share_of_the_weight(percent: int, abstained: bool) -> None:
    evidence = Evidence("x", "t", TODAY, claims=Claims(5, 5), released=TODAY)
    rules = replace(RULE, min_share=Decimal(percent) / 100)

    assert score(evidence, rules).total.abstained is abstained


def test_what_could_not_be_seen_widens_the_ecosystem() -> None:
    seen = Ecosystem(("a", "b"), ("c",), ("d",))
    found = score(Evidence("x", "t", TODAY, ecosystem=seen), RULE)

    assert part(found, "ecosystem") == (0.6667, 0.5, 0.75, 3)


@pytest.mark.parametrize(("days", "value"), [(0, 1.0), (365, 0.7071), (730, 0.5), (-3, 1.0)])
def test_freshness_halves(days: int, value: float) -> None:
    released = date.fromordinal(TODAY.toordinal() - days)
    found = score(Evidence("x", "t", TODAY, released=released), RULE)

    got, low, high, _ = part(found, "freshness")
    assert got == value
    assert low < got <= high


@given(st.integers(0, 10**9), st.lists(st.integers(0, 10**9), max_size=30))
def test_a_standing_is_the_order_of_the_logarithms(value: int, others: list[int]) -> None:
    found = standing("downloads", value, sorted([value, *others]))

    assert found.below == sum(other < value for other in others)
    assert found.equal == sum(other == value for other in others)
    assert found.peers == len(others)
