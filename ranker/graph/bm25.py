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
from typing import Any, Final

import numpy as np
import numpy.typing as npt

K1: Final = 1.2
B: Final = 0.75

Scores = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Document:
    """A document's terms by their numbers, and the weight of the field that each stands in."""

    numbers: npt.NDArray[np.int32]
    weights: npt.NDArray[np.float32]


class Vocabulary:
    """Numbers of terms. It grows, and what has a number keeps it: documents outlive an index."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._numbers)

    def document(
        self, fields: Mapping[str, Sequence[str]], weights: Mapping[str, float]
    ) -> Document:
        """The terms of each field; every field needs a weight above 0."""
        own = self._numbers
        found = [own.setdefault(term, len(own)) for terms in fields.values() for term in terms]
        counted = [weights[field] for field, terms in fields.items() for _ in terms]
        return Document(np.asarray(found, np.int32), np.asarray(counted, np.float32))

    def number(self, term: str) -> int | None:
        return self._numbers.get(term)


@dataclass(frozen=True, slots=True)
class _Postings:
    """Documents of all terms, term by term; those of term t lie at starts[t] to starts[t + 1]."""

    starts: npt.NDArray[np.int64]
    documents: npt.NDArray[np.int32]
    impacts: npt.NDArray[np.float64]


class Bm25:
    """An index that does not change. Documents are counted from 0, as they were given."""

    def __init__(self, vocabulary: Vocabulary, documents: Sequence[Document]) -> None:
        self.size = len(documents)
        self._vocabulary = vocabulary
        self._terms = len(vocabulary)
        self._postings, self._idf = _postings(documents, self._terms)

    def idf(self, term: str) -> float:
        """0 for a term that no document has."""
        number = self._number(term)
        return 0.0 if number is None else float(self._idf[number])

    def scores(self, terms: Iterable[str]) -> Scores:
        """float64 [documents], 0 where none of the terms is."""
        scores = np.zeros(self.size)
        for term in set(terms):
            number = self._number(term)
            if number is not None:
                held = slice(*self._postings.starts[number : number + 2])
                # A document stands once in the postings of a term, so no sum is lost here.
                scores[self._postings.documents[held]] += self._postings.impacts[held]
        return scores

    def _number(self, term: str) -> int | None:
        """None for what no document has, though documents of another index may."""
        number = self._vocabulary.number(term)
        if number is None or number >= self._terms:
            return None
        starts = self._postings.starts
        return number if starts[number] < starts[number + 1] else None


def _postings(documents: Sequence[Document], terms: int) -> tuple[_Postings, Scores]:
    lengths = np.asarray([len(each.numbers) for each in documents], np.int64)
    owners = np.repeat(np.arange(len(documents)), lengths)
    numbers = _joined([each.numbers for each in documents], np.int64)
    shares = _joined([each.weights for each in documents], np.float64)
    size = max(len(documents), 1)
    pairs, places = np.unique(numbers * size + owners, return_inverse=True)
    frequencies = np.bincount(places, weights=shares, minlength=len(pairs))
    number, document = pairs // size, pairs % size
    having = np.bincount(number, minlength=terms)
    idf = np.log1p((len(documents) - having + 0.5) / (having + 0.5))
    mean = float(lengths.mean()) if lengths.any() else 1.0
    norms = K1 * (1 - B + B * lengths / mean)
    own = norms[document] if len(document) else np.zeros(0)
    impacts = idf[number] * frequencies * (K1 + 1) / (frequencies + own)
    starts = np.append(0, np.cumsum(having)).astype(np.int64)
    return _Postings(starts, document.astype(np.int32), impacts), idf


def _joined(parts: Sequence[npt.NDArray[Any]], dtype: type) -> npt.NDArray[Any]:
    return np.concatenate([np.zeros(0, dtype), *parts]).astype(dtype)
