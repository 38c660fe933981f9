"""BM25 over documents of several fields: an inverted index in arrays.

A document's frequency of a term is summed over its fields, each times its weight, and its length is
that of all its fields together, in terms, as in SQLite's FTS5:

    score(d, q) = Σ_t idf(t) · f(t, d) · (k1 + 1) / (f(t, d) + k1 · (1 − b + b · |d| / mean |d|))
    idf(t)      = ln(1 + (N − n(t) + ½) / (n(t) + ½))

Robertson and Zaragoza, "The Probabilistic Relevance Framework: BM25 and Beyond" (2009). The idf is
Lucene's, never negative: a catalogue of two models has terms that most of its capabilities share.
A term that the query repeats counts once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

K1: Final = 1.2
B: Final = 0.75

Scores = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class _Postings:
    """Documents of all terms, term by term; those of term t lie at starts[t] to starts[t + 1]."""

    starts: npt.NDArray[np.int64]
    documents: npt.NDArray[np.int32]
    impacts: npt.NDArray[np.float64]


class Bm25:
    """An index that does not change. Documents are counted from 0, as they were given."""

    def __init__(
        self, documents: Iterable[Mapping[str, Sequence[str]]], weights: Mapping[str, float]
    ) -> None:
        """``documents`` have the terms of each field; every field needs a weight above 0."""
        numbers: dict[str, int] = {}
        owners: list[int] = []
        found: list[int] = []
        shares: list[float] = []
        lengths: list[int] = []
        for owner, fields in enumerate(documents):
            length = 0
            for field, terms in fields.items():
                found.extend([numbers.setdefault(term, len(numbers)) for term in terms])
                owners.extend([owner] * len(terms))
                shares.extend([weights[field]] * len(terms))
                length += len(terms)
            lengths.append(length)
        self.size = len(lengths)
        self._numbers = numbers
        self._postings, self._idf = _postings(
            np.asarray(found, np.int64),
            np.asarray(owners, np.int64),
            np.asarray(shares, np.float64),
            np.asarray(lengths, np.float64),
            len(numbers),
        )

    def idf(self, term: str) -> float:
        """0 for a term that no document has."""
        number = self._numbers.get(term)
        return 0.0 if number is None else float(self._idf[number])

    def scores(self, terms: Iterable[str]) -> Scores:
        """float64 [documents], 0 where none of the terms is."""
        scores = np.zeros(self.size)
        for term in set(terms):
            number = self._numbers.get(term)
            if number is not None:
                held = slice(*self._postings.starts[number : number + 2])
                # A document stands once in the postings of a term, so no sum is lost here.
                scores[self._postings.documents[held]] += self._postings.impacts[held]
        return scores


def _postings(
    terms: npt.NDArray[np.int64],
    owners: npt.NDArray[np.int64],
    shares: npt.NDArray[np.float64],
    lengths: npt.NDArray[np.float64],
    count: int,
) -> tuple[_Postings, Scores]:
    size = max(len(lengths), 1)
    pairs, places = np.unique(terms * size + owners, return_inverse=True)
    frequencies = np.bincount(places, weights=shares, minlength=len(pairs))
    number, document = pairs // size, pairs % size
    having = np.bincount(number, minlength=count)
    idf = np.log1p((len(lengths) - having + 0.5) / (having + 0.5))
    mean = float(lengths.mean()) if lengths.any() else 1.0
    norm = K1 * (1 - B + B * lengths / mean)
    norms = norm[document] if len(document) else np.zeros(0)
    impacts = idf[number] * frequencies * (K1 + 1) / (frequencies + norms)
    starts = np.append(0, np.cumsum(having)).astype(np.int64)
    return _Postings(starts, document.astype(np.int32), impacts), idf
