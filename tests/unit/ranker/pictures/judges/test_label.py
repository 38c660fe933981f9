"""Log-probabilities from logits, and labels found."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ranker.pictures.judges.label import LabelJudge, LabelSet, log_odds, log_probability
from services.core.errors import InvalidInput, ModelFault
from tests.unit.ranker.pictures.judges.sights import FakeSight

_LOGITS = st.lists(st.floats(-500, 500), min_size=1, max_size=12)


@given(_LOGITS)
def test_probabilities_add_up_to_one(logits: list[float]) -> None:
    total = math.fsum(math.exp(log_probability(logits, at)) for at in range(len(logits)))
    assert total == pytest.approx(1.0, abs=1e-12)


@given(_LOGITS, st.data())
def test_a_larger_logit_is_never_worse(logits: list[float], data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(logits) - 1))
    raised = [value + (place == at) for place, value in enumerate(logits)]
    assert log_probability(logits, at) <= log_probability(raised, at) <= 0.0


def test_no_false_ties_where_float32_probabilities_are_one() -> None:
    sure, surer = log_probability([40.0, 0.0], 0), log_probability([41.0, 0.0], 0)
    assert sure < surer < 0.0
    assert sure == pytest.approx(-math.exp(-40.0), rel=1e-12)


def test_no_false_ties_where_probabilities_underflow() -> None:
    assert log_probability([-1000.0, 0.0], 0) == pytest.approx(-1000.0)
    assert log_probability([-3e38, 3e38], 0) == pytest.approx(-6e38)


def test_one_label_is_certain() -> None:
    assert log_probability([3.0], 0) == 0.0


def test_multi_label_is_a_sigmoid() -> None:
    found = log_probability([2.0, 5.0], 0, multi_label=True)
    assert found == pytest.approx(math.log(1 / (1 + math.exp(-2.0))))


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_numbers_that_are_none_are_a_fault(bad: float) -> None:
    with pytest.raises(ModelFault):
        log_probability([1.0, bad], 0)


def test_found_by_name_or_prompt() -> None:
    labels = LabelSet(("red star", "blue star"))
    assert labels.find("Blue Star", "a red star", field="x") == 1
    assert labels.find("", "a red star", field="x") == 0


def test_unknown_label_names_its_judge() -> None:
    with pytest.raises(InvalidInput) as caught:
        LabelSet(("cat",)).find("dog", "a cat", field="judges[3].label.label")
    assert caught.value.field == "judges[3].label.label"


async def test_the_judge_asks_its_own_model() -> None:
    sight = FakeSight({"m": (2.0, 5.0), "": (0.0, 0.0)})
    assert await LabelJudge(1, "m").score(sight) == pytest.approx(log_probability([2.0, 5.0], 1))
    sigmoid = await LabelJudge(0, "m", multi_label=True).score(sight)
    assert sigmoid == pytest.approx(-math.log1p(math.exp(-2.0)))
    assert await LabelJudge(0).score(sight) == pytest.approx(math.log(0.5))


@given(st.floats(-700, 30))
def test_log_odds_come_back_from_log_probabilities(odds: float) -> None:
    log_probability = -math.log1p(math.exp(-odds)) if odds > -700 else odds
    assert log_odds(log_probability) == pytest.approx(odds, rel=1e-9, abs=1e-9)


def test_log_odds_have_no_end_and_keep_the_order() -> None:
    values = [-800.0, -1.0, -1e-300, -5e-324, 0.0]
    found = [log_odds(value) for value in values]
    assert all(map(math.isfinite, found))
    assert found == sorted(found)
    assert found[0] == pytest.approx(-800.0)
