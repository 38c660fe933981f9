"""Rates with their 95 % intervals."""

import math
from typing import Any

import numpy as np
import numpy.typing as npt

Flags = npt.NDArray[np.float64]
RESAMPLES = 10_000


def wilson(rate: float, count: int) -> list[float]:
    """Wilson's 95 % interval of a rate seen over `count` independent trials (Wilson, 1927)."""
    z = 1.96
    centre = rate + z * z / (2 * count)
    spread = z * math.sqrt(rate * (1 - rate) / count + z * z / (4 * count * count))
    scale = 1 + z * z / count
    return [round((centre - spread) / scale, 4), round((centre + spread) / scale, 4)]


def bootstrap(per_prompt: Flags) -> dict[str, Any]:
    """The mean over prompts and its 95 % percentile interval, prompts drawn with replacement."""
    rng = np.random.default_rng(0)
    rows = rng.integers(len(per_prompt), size=(RESAMPLES, len(per_prompt)))
    low, high = np.percentile(per_prompt[rows].mean(1), [2.5, 97.5])
    return {
        "mean": round(float(per_prompt.mean()), 6),
        "interval": [round(float(low), 6), round(float(high), 6)],
    }


def rate_over(per_prompt: Flags) -> dict[str, Any]:
    """`bootstrap`, but Wilson's interval over the prompts where all of them are right or wrong.

    Resampling equal values would claim certainty.
    """
    result = bootstrap(per_prompt)
    if result["mean"] in (0.0, 1.0):
        result["interval"] = wilson(result["mean"], len(per_prompt))
    return result
