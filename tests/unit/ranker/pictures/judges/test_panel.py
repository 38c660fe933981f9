"""Judges added up by weight and spread, and pictures compared with each other."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence

import numpy as np
import pytest

from ranker.pictures.judges.label import LabelJudge, log_odds
from ranker.pictures.judges.panel import PairwiseSeat, Panel, Seat
from ranker.pictures.judges.preference import win_rate
from ranker.pictures.judges.similarity import SimilarityJudge, look_at
from ranker.pictures.judges.text_image import TextImageJudge
from ranker.pictures.judging import Pixels, Score, Sight, TopLabel, Vector
from services.core.errors import EaselError, FailedPrecondition, InvalidInput, ModelFault
from tests.unit.ranker.pictures.judges.sights import FakeSight, at_once


class Brightness:
    async def score(self, sight: Sight) -> float:
        return float((await sight.pixels()).mean())


class Brighter:
    """Sure of what it sees; counts how many are compared at a time."""

    def __init__(self) -> None:
        self.asked = 0
        self.at_once = 0
        self.most_at_once = 0

    async def prefer(self, a: Sight, b: Sight) -> float:
        self.asked += 1
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        await asyncio.sleep(0)
        self.at_once -= 1
        one, other = float((await a.pixels()).mean()), float((await b.pixels()).mean())
        return 0.5 if one == other else float(one > other)


class Broken:
    async def score(self, sight: Sight) -> float:
        return math.nan

    def __init__(self) -> None:
        self.asked = 0

    async def prefer(self, a: Sight, b: Sight) -> float:
        self.asked += 1
        await asyncio.sleep(0)  # others have their turn
        raise ModelFault("It fell over.")


def room() -> asyncio.Semaphore:
    return asyncio.Semaphore(3)


def values(scores: Sequence[Score | EaselError]) -> list[float]:
    assert all(isinstance(score, Score) for score in scores)
    return [score.value for score in scores if isinstance(score, Score)]


async def test_the_sum_has_weights_and_spreads() -> None:
    sight = FakeSight({"": (0.0, 0.0)}, level=40)
    panel = Panel([Seat(LabelJudge(0), 2.0), Seat(Brightness(), -1.0, 10.0)], "")
    score = await panel.score(sight)
    assert score.parts == pytest.approx((math.log(0.5), 40.0))
    assert score.value == pytest.approx(2.0 * math.log(0.5) - 4.0)
    assert score.top == TopLabel(0, "0", 0.5)


async def test_evidence_is_told_of_a_judge_that_is_alone() -> None:
    sight = FakeSight({"": (0.0, 3.0)}, level=40)
    alone = Seat(LabelJudge(0), -2.0, 0.5, log_odds)
    score = await Panel([alone], "").score(sight)
    assert score.evidence == score.standing == pytest.approx(-2.0 * -3.0 / 0.5)
    both = await Panel([alone, Seat(Brightness())], "").score(sight)
    assert both.evidence is None
    assert both.standing == both.value


async def test_nobody_asks_the_classifier() -> None:
    score = await Panel([Seat(Brightness())], None).score(FakeSight(level=3))
    assert score == Score(3.0, None, (3.0,))


async def test_a_judge_that_answers_no_number() -> None:
    with pytest.raises(ModelFault, match="not finite"):
        await Panel([Seat(Broken())], None).score(FakeSight())


async def test_every_two_are_compared_once_and_not_all_at_a_time() -> None:
    judge = Brighter()
    panel = Panel([PairwiseSeat(judge, win_rate)], None)
    found = await panel.compare([FakeSight(level=level) for level in (5, 9, 5, 1)], room())
    assert values(found) == pytest.approx([0.5, 1.0, 0.5, 0.0])
    assert judge.asked == 6
    assert judge.most_at_once == 3


async def test_points_and_pairs_are_added_up_in_the_order_of_the_request() -> None:
    panel = Panel(
        [PairwiseSeat(Brighter(), win_rate, 3.0, 2.0), Seat(Brightness(), 1.0, 10.0)], None
    )
    found = await panel.compare([FakeSight(level=20), FakeSight(level=10)], room())
    assert [each.parts for each in found if isinstance(each, Score)] == [(1.0, 20.0), (0.0, 10.0)]
    assert values(found) == pytest.approx([1.5 + 2.0, 1.0])


async def test_a_picture_that_cannot_be_read_fails_by_itself() -> None:
    bad = FakeSight(error=InvalidInput("image", "No picture."))
    panel = Panel([PairwiseSeat(Brighter(), win_rate)], None)
    found = await panel.compare([FakeSight(level=1), bad, FakeSight(level=2)], room())
    assert isinstance(found[1], InvalidInput)
    assert values([found[0], found[2]]) == [0.0, 1.0]


async def test_a_comparison_that_fails_fails_all_who_were_compared() -> None:
    bad = FakeSight(error=InvalidInput("image", "No picture."))
    panel = Panel([PairwiseSeat(Broken(), win_rate)], None)
    found = await panel.compare([FakeSight(level=1), bad, FakeSight(level=2)], room())
    assert [type(each) for each in found] == [ModelFault, InvalidInput, ModelFault]


async def test_after_a_comparison_that_fails_the_rest_are_given_up() -> None:
    judge = Broken()
    pictures = [FakeSight(level=level) for level in range(5)]
    (first, *_) = await Panel([PairwiseSeat(judge, win_rate)], None).compare(
        pictures, asyncio.Semaphore(1)
    )
    assert isinstance(first, ModelFault)
    for _ in range(50):
        await asyncio.sleep(0)
    assert judge.asked <= 2, "of 10, one at a time"


async def test_pictures_that_are_compared_one_by_one() -> None:
    panel = Panel([Seat(Brightness())], None)
    assert values(await panel.compare([FakeSight(level=7)], room())) == [7.0]


# ---- similarity, and text ----


def embedded(*values: float) -> FakeSight:
    return FakeSight(embeddings={("m", -1): values})


async def test_similarity_is_the_mean_of_the_cosines() -> None:
    judge = await look_at([embedded(1.0, 0.0), embedded(0.0, 1.0)], "m", -1)
    assert await judge.score(embedded(0.6, 0.8)) == pytest.approx((0.6 + 0.8) / 2)
    assert await judge.score(embedded(-1.0, 0.0)) == pytest.approx(-0.5)


async def test_references_of_different_sizes() -> None:
    with pytest.raises(FailedPrecondition, match="differ in size"):
        await look_at([embedded(1.0, 0.0), embedded(1.0)], "m", -1)


async def test_a_model_that_was_exchanged_meanwhile() -> None:
    judge = await look_at([embedded(1.0, 0.0)], "m", -1)
    assert isinstance(judge, SimilarityJudge)
    with pytest.raises(ModelFault, match="changed their size"):
        await judge.score(embedded(1.0, 0.0, 0.0))


class Grey:
    """Embeds a picture by its brightness."""

    def embed(self, pixels: Pixels) -> Vector:
        angle = float(pixels.mean()) / 255.0 * math.pi / 2
        return np.array([math.cos(angle), math.sin(angle)])


async def test_text_and_picture() -> None:
    judge = TextImageJudge(Grey(), np.array([1.0, 0.0]), at_once)
    assert await judge.score(FakeSight(level=0)) == pytest.approx(1.0)
    assert await judge.score(FakeSight(level=255)) == pytest.approx(0.0, abs=1e-9)
