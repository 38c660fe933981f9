"""What may be asked of judges."""

from __future__ import annotations

import math
from typing import Any

import pytest

from ranker.pictures.judges.spec import (
    MAX_LAYER,
    MAX_SPREAD,
    MAX_WEIGHT,
    JudgeSpec,
    RewardSpec,
    SimilaritySpec,
    check_specs,
)
from services.core.errors import InvalidInput


def check(*specs: JudgeSpec) -> None:
    check_specs(specs, max_references=2)


def test_within_the_limits() -> None:
    check()
    check(
        JudgeSpec(weight=MAX_WEIGHT, spread=MAX_SPREAD),
        JudgeSpec(weight=-MAX_WEIGHT, spread=1e-9),
        JudgeSpec(weight=0.0),
        JudgeSpec(SimilaritySpec((1,), layer=MAX_LAYER)),
        JudgeSpec(SimilaritySpec((1, 2), layer=-MAX_LAYER)),
        JudgeSpec(RewardSpec("a")),
    )


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        ({"weight": math.nan}, "weight"),
        ({"weight": math.inf}, "weight"),
        ({"weight": -MAX_WEIGHT - 1.0}, "weight"),
        ({"spread": 0.0}, "spread"),
        ({"spread": -1.0}, "spread"),
        ({"spread": math.nan}, "spread"),
        ({"spread": MAX_SPREAD * 1.01}, "spread"),
        ({"kind": SimilaritySpec(())}, "similarity.references"),
        ({"kind": SimilaritySpec((1, 2, 3))}, "similarity.references"),
        ({"kind": SimilaritySpec((1,), layer=MAX_LAYER + 1)}, "similarity.layer"),
        ({"kind": SimilaritySpec((1,), layer=-MAX_LAYER - 1)}, "similarity.layer"),
        ({"kind": RewardSpec("")}, "reward.name"),
    ],
)
def test_beyond_them(spec: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        check(JudgeSpec(), JudgeSpec(**spec))
    assert caught.value.field == f"judges[1].{field}"


def test_weights_that_judge_nothing() -> None:
    with pytest.raises(InvalidInput, match="All weights are 0") as caught:
        check(JudgeSpec(weight=0.0), JudgeSpec(weight=-0.0))
    assert caught.value.field == "judges"


@pytest.mark.parametrize(
    ("spread", "alone", "divisor"),
    [(None, True, 1.0), (None, False, 0.1), (0.5, True, 0.5), (0.5, False, 0.5)],
)
def test_a_judge_that_is_alone_keeps_its_unit(
    spread: float | None, alone: bool, divisor: float
) -> None:
    assert JudgeSpec(spread=spread).divisor(0.1, alone=alone) == divisor
