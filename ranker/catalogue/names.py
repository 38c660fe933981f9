"""How a model is found by what people call it, and what is offered when nothing is found."""

from __future__ import annotations

import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable
from difflib import SequenceMatcher
from functools import lru_cache
from typing import Final

NEAREST: Final = 3
"""Names offered for one that is not there."""

_MIN_LIKENESS: Final = 0.5
_CANDIDATES: Final = 30
_MAX_CHARS: Final = 200


def fold(text: str) -> str:
    """What two names have in common when they are one: letter case, width and blanks left out."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


class NameIndex:
    """Finds the names most like a given one among many; it holds them by their letter triples."""

    def __init__(self, names: Iterable[str]) -> None:
        self._names = sorted(set(names))
        self._with: defaultdict[str, list[int]] = defaultdict(list)
        for index, name in enumerate(self._names):
            for triple in _triples(fold(name)):
                self._with[triple].append(index)

    def nearest(self, text: str, count: int = NEAREST) -> list[str]:
        """The most alike first; none that has nothing to do with ``text``."""
        wanted = fold(text[:_MAX_CHARS])
        shared = Counter(
            index for triple in _triples(wanted) for index in self._with.get(triple, ())
        )
        scored = [
            (_likeness(wanted, fold(self._names[index])), self._names[index])
            for index, _ in shared.most_common(_CANDIDATES)
        ]
        scored.sort(key=lambda pair: (-pair[0], pair[1]))
        return [name for likeness, name in scored[:count] if likeness >= _MIN_LIKENESS]


@lru_cache(maxsize=1)
def index_of(names: tuple[str, ...]) -> NameIndex:
    """The index of these names: of many it takes most of a second, and they seldom change."""
    return NameIndex(names)


def _triples(text: str) -> set[str]:
    padded = f"  {text} "
    return {padded[start : start + 3] for start in range(len(padded) - 2)}


def _likeness(wanted: str, name: str) -> float:
    """0 to 1; a name that holds all of what was asked for is alike, however long it is."""
    if wanted in name:
        return max(0.9, len(wanted) / len(name))
    return SequenceMatcher(None, wanted, name, autojunk=False).ratio()
