"""Step caching: which evaluations run the whole U-Net, and which its outer layers alone.

DeepCache (Ma et al., 2024, arXiv 2312.00858): from one step to the next the deep features of a
U-Net hardly change, its outer layers' do. A row of interval n runs everything in its first and then
in every nth evaluation, and keeps what the last layer is handed from below; in between the outer
layers run with that.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

from services.core.errors import InvalidInput

MAX_INTERVAL: Final = 10


class Leg(NamedTuple):
    """Consecutive evaluations of one kind."""

    whole: bool
    evaluations: int


def checked_interval(given: int) -> int:
    """1 (off) where nothing was given. Raises ``InvalidInput`` beyond ``MAX_INTERVAL``."""
    interval = given or 1
    if not 1 <= interval <= MAX_INTERVAL:
        raise InvalidInput(
            "cache_interval", "cache_interval is out of range.", f"1 to {MAX_INTERVAL}", given
        )
    return interval


def legs(begin: int, end: int, interval: int) -> Iterator[Leg]:
    """The legs of evaluations ``begin`` up to ``end``, of a row whose first one is 0."""
    if interval == 1:
        if begin < end:
            yield Leg(True, end - begin)
        return
    while begin < end:
        whole = begin % interval == 0
        until = begin + 1 if whole else (begin // interval + 1) * interval
        yield Leg(whole, min(until, end) - begin)
        begin = until
