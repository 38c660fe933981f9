import numpy as np
import pytest

from services.generator.verification import Verdict, judge_digest, judge_pixels, judged_from

GREY = np.full((4, 6, 3), 100, dtype=np.uint8)


def test_digests_are_equal_or_not() -> None:
    assert judge_digest("a", "a").verdict is Verdict.EQUAL
    different = judge_digest("a", "b")
    assert different.verdict is Verdict.DIFFERENT
    assert different.psnr_db is None


@pytest.mark.parametrize(
    ("by", "verdict"),
    [(0, Verdict.EQUAL), (1, Verdict.CLOSE), (2, Verdict.CLOSE), (3, Verdict.DIFFERENT)],
)
def test_two_of_255_is_close(by: int, verdict: Verdict) -> None:
    other = GREY.copy()
    other[1, 2, 0] -= by
    for one, two in ((GREY, other), (other, GREY)):
        judgement = judge_pixels(one, two, as_recorded=True)
        assert (judgement.verdict, judgement.max_difference) == (verdict, by)
        assert (judgement.psnr_db is None) == (by == 0)


def test_psnr_is_in_decibels() -> None:
    judgement = judge_pixels(GREY, GREY + 1, as_recorded=False)
    assert judgement.psnr_db == pytest.approx(48.1308, abs=1e-4)
    assert "another digest" in judgement.explanation


def test_black_against_white_does_not_overflow() -> None:
    white, black = np.full_like(GREY, 255), np.zeros_like(GREY)
    judgement = judge_pixels(white, black, as_recorded=True)
    assert (judgement.psnr_db, judgement.max_difference) == (0.0, 255)


def test_another_size_is_different() -> None:
    judgement = judge_pixels(GREY, GREY[:2], as_recorded=True)
    assert judgement.verdict is Verdict.DIFFERENT
    assert "6x4" in judgement.explanation
    assert judgement.max_difference is None


def test_what_has_changed_is_told_where_pictures_differ() -> None:
    equal, other = judge_digest("a", "a"), judge_digest("a", "b")
    assert judged_from(equal, "dtype bfloat16 there, float32 here") is equal
    assert judged_from(other, "") is other
    told = judged_from(other, "dtype bfloat16 there, float32 here").explanation
    assert (
        told == f"{other.explanation} It was not made as here: dtype bfloat16 there, float32 here."
    )
