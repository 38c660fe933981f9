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

from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

K1: Final = 1.2
B: Final = 0.75

Scores = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Document:
    """A document's terms by their numbers, and the number of the field that each stands in."""

    numbers: npt.NDArray[np.int32]
    fields: npt.NDArray[np.int8]

    def standing(self, numbers: Container[int]) -> dict[int, list[int]]:
        """Those of ``numbers`` that it has, and the fields that each stands in, in their order."""
        found: dict[int, dict[int, None]] = {}
        for number, field in zip(self.numbers.tolist(), self.fields.tolist(), strict=True):
            if number in numbers:
                found.setdefault(number, {})[field] = None
        return {number: list(fields) for number, fields in found.items()}


class Vocabulary:
    """Numbers of terms. It grows, and what has a number keeps it: documents outlive an index."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._numbers)

    def document(self, fields: Sequence[Sequence[str]]) -> Document:
        """The terms of each field; fields are counted from 0, as they are given."""
        own = self._numbers
        found = [own.setdefault(term, len(own)) for terms in fields for term in terms]
        standing = [field for field, terms in enumerate(fields) for _ in terms]
        return Document(np.asarray(found, np.int32), np.asarray(standing, np.int8))

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

    def __init__(
        self, vocabulary: Vocabulary, documents: Sequence[Document], weights: Sequence[float]
    ) -> None:
        """``weights``: what a term counts in each field, above 0."""
        self.size = len(documents)
        self._vocabulary = vocabulary
        self._terms = len(vocabulary)
        self._postings, self._idf = _postings(documents, self._terms, weights)

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


def _postings(
    documents: Sequence[Document], terms: int, weights: Sequence[float]
) -> tuple[_Postings, Scores]:
    lengths = np.asarray([len(each.numbers) for each in documents], np.int64)
    owners = np.repeat(np.arange(len(documents)), lengths)
    numbers = _joined([each.numbers for each in documents], np.int64)
    fields = _joined([each.fields for each in documents], np.int64)
    shares = np.asarray(weights, np.float64)[fields]
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
