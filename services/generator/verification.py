"""A picture against itself, made again."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from enum import Enum
from typing import Final

import numpy as np

from services.generator.network import Pixels

CLOSE_DIFFERENCE: Final = 2
"""Of 255: the most by which a channel of a close picture differs."""


class Verdict(Enum):
    EQUAL = "equal"
    CLOSE = "close"
    DIFFERENT = "different"


@dataclass(frozen=True, slots=True)
class Judgement:
    """``psnr_db`` is None without a difference to measure: nothing given, no pixel that differs,
    or another size. ``max_difference``, of 255, is None without pixels of that size.
    """

    verdict: Verdict
    explanation: str
    psnr_db: float | None = None
    max_difference: int | None = None


def judge_digest(recorded: str, made: str) -> Judgement:
    """By the pixels' digests alone, which tell nothing of how far apart two pictures are."""
    if recorded == made:
        return Judgement(Verdict.EQUAL, "The pixels made now have the recorded digest.")
    return Judgement(
        Verdict.DIFFERENT,
        "The pixels made now have another digest than the recorded one; "
        "give the picture to learn how far they are apart.",
    )


def judge_pixels(given: Pixels, made: Pixels, *, as_recorded: bool) -> Judgement:
    """By every pixel of two uint8 (H, W, 3); ``as_recorded``: ``made`` has the recorded digest."""
    if given.shape != made.shape:
        sizes = [f"{pixels.shape[1]}x{pixels.shape[0]}" for pixels in (given, made)]
        text = f"The picture given is {sizes[0]}, the one made now {sizes[1]}."
        return Judgement(Verdict.DIFFERENT, text)
    difference = np.abs(given.astype(np.int16) - made.astype(np.int16))
    most = int(difference.max())
    origin = "has the recorded digest" if as_recorded else "has another digest than the recorded"
    if most == 0:
        return Judgement(
            Verdict.EQUAL, f"Every pixel is equal; what was made now {origin}.", None, 0
        )
    verdict = Verdict.CLOSE if most <= CLOSE_DIFFERENCE else Verdict.DIFFERENT
    text = f"Channels differ by up to {most} of 255; what was made now {origin}."
    return Judgement(verdict, text, psnr_db(difference), most)


def judged_from(judgement: Judgement, moved: str) -> Judgement:
    """``judgement``, which tells too what has changed since the picture was made (``moved``, in
    words), where it is not the same any more.
    """
    if judgement.verdict is Verdict.EQUAL or not moved:
        return judgement
    told = f"{judgement.explanation} It was not made as here: {moved}."
    return replace(judgement, explanation=told)


def psnr_db(difference: np.ndarray[tuple[int, ...], np.dtype[np.int16]]) -> float:
    """10 log10 (255^2 / mean squared difference) of 8-bit pictures that differ."""
    return 10.0 * math.log10(255.0**2 / float(np.mean(np.square(difference, dtype=np.float64))))
