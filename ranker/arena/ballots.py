"""The votes of one intent in memory, grown as the log grows."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Final

import numpy as np

from ranker.arena.tally import Ints, Tally, tally

_COLUMNS: Final = 4


class Ballots:
    """Contenders are numbered from 0 in the order in which they were added, which is that of their
    ids. ``last`` is the id of the last vote."""

    def __init__(self) -> None:
        self.last = 0
        self.contenders: list[int] = []
        self._place: dict[int, int] = {}
        self._rows: list[Ints] = []

    def __len__(self) -> int:
        return sum(len(rows) for rows in self._rows)

    def add_contenders(self, ids: Sequence[int]) -> None:
        """Those that are new of ``ids``."""
        for id in ids:
            if id not in self._place:
                self._place[id] = len(self.contenders)
                self.contenders.append(id)

    def add(self, votes: Sequence[Sequence[int]]) -> None:
        """Votes in the log's order as (id, left, right, vote, judge), by ids of contenders."""
        if not votes:
            return
        values = chain.from_iterable(votes)
        rows = np.fromiter(values, np.int64, len(votes) * (_COLUMNS + 1)).reshape(len(votes), -1)
        numbers, inverse = np.unique(rows[:, 1:3], return_inverse=True)
        places = np.array([self._place[int(number)] for number in numbers], dtype=np.int64)
        rows[:, 1:3] = places[inverse.reshape(len(votes), 2)]
        self.last = int(rows[-1, 0])
        self._rows.append(rows[:, 1:].copy())

    def tally(self) -> Tally:
        self._rows = [self._joined()]
        left, right, vote, judge = self._rows[0].T
        return tally(len(self.contenders), left, right, vote, judge)

    def _joined(self) -> Ints:
        if not self._rows:
            return np.zeros((0, _COLUMNS), dtype=np.int64)
        return self._rows[0] if len(self._rows) == 1 else np.concatenate(self._rows)
