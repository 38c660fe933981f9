"""The catalogue as it is searched: by words, and by meaning where there is a model for it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np
import numpy.typing as npt

from ranker.graph import text
from ranker.graph.bm25 import Bm25, Document, Scores, Vocabulary
from ranker.graph.offers import Edge, Offer

WEIGHTS: Final[Mapping[str, float]] = {
    "name": 3.0,
    "intents": 3.0,
    "best for": 2.0,
    "description": 1.0,
    "model": 2.0,
    "type": 1.0,
}
"""How much a term counts in each field. Fields are numbered in this order."""

FIELDS: Final = tuple(WEIGHTS)

RRF_K: Final = 60
"""Reciprocal rank fusion: Cormack, Clarke and Büttcher (SIGIR 2009), and their constant."""

POOL: Final = 1000
"""Capabilities that are looked at further, by words and by meaning each, at first."""

Vectors = npt.NDArray[np.float32]


class Meaning(Protocol):
    """Texts as vectors of length 1; float32 [texts, dimensions]. Both block."""

    def embed_queries(self, texts: Sequence[str]) -> Vectors: ...

    def embed_documents(self, texts: Sequence[str]) -> Vectors: ...


@dataclass(frozen=True, slots=True)
class Entry:
    """An offer as it was read for search."""

    offer: Offer
    document: Document
    vector: Vectors | None = None


@dataclass(frozen=True, slots=True)
class Found:
    """A capability that a query found, the best one of its model.

    ``relevance`` is above 0, 1 for the first. ``similarity`` is the cosine to the query, None
    without a model of meaning. ``place`` is its own in the index.
    """

    offer: Offer
    place: int
    edge: Edge
    relevance: float
    similarity: float | None = None


@dataclass(frozen=True, slots=True)
class Term:
    """A word of the query, and the fields of the capability that it stands in."""

    word: str
    fields: tuple[str, ...]


class Shelf:
    """Reads offers for search, and has them by model, so that an index of a changed catalogue reads
    what changed alone. Blocking, and for one thread at a time."""

    def __init__(self, meaning: Meaning | None = None) -> None:
        self._meaning = meaning
        self._vocabulary = Vocabulary()
        self._entries: dict[str, list[Entry]] = {}

    def put(self, offers: Sequence[Offer]) -> None:
        """In the place of what was there of their models."""
        for model in {offer.model for offer in offers}:
            self._entries[model] = []
        vectors = self._vectors(offers)
        for offer, vector in zip(offers, vectors, strict=True):
            document = self._vocabulary.document(_terms(offer))
            self._entries[offer.model].append(Entry(offer, document, vector))

    def keep_only(self, models: Sequence[str]) -> None:
        """Drop those of all other models."""
        kept = set(models)
        self._entries = {model: own for model, own in self._entries.items() if model in kept}

    def index(self, revision: int) -> MatchIndex:
        entries = [each for model in sorted(self._entries) for each in self._entries[model]]
        return MatchIndex(entries, self._vocabulary, revision, self._meaning)

    def _vectors(self, offers: Sequence[Offer]) -> Sequence[Vectors | None]:
        if self._meaning is None or not offers:
            return [None] * len(offers)
        return list(self._meaning.embed_documents([offer.sentence() for offer in offers]))


class MatchIndex:
    """All offers of one revision of the catalogue; it does not change. Any thread may search."""

    def __init__(
        self,
        entries: Sequence[Entry],
        vocabulary: Vocabulary,
        revision: int = 0,
        meaning: Meaning | None = None,
    ) -> None:
        self.revision = revision
        self._offers = [each.offer for each in entries]
        self._documents = [each.document for each in entries]
        self._vocabulary = vocabulary
        self._bm25 = Bm25(vocabulary, self._documents, list(WEIGHTS.values()))
        types = sorted({offer.type for offer in self._offers})
        self._types = {name: code for code, name in enumerate(types)}
        codes = [self._types[offer.type] for offer in self._offers]
        self._codes = np.asarray(codes, np.int32)
        self._intents: dict[str, dict[str, float]] = {}
        self._meaning = meaning
        vectors = [each.vector for each in entries if each.vector is not None]
        self._vectors = np.stack(vectors) if vectors else None

    @property
    def types(self) -> tuple[str, ...]:
        return tuple(self._types)

    def __len__(self) -> int:
        return len(self._offers)

    def search(self, query: str, models: int, type: str = "") -> list[Found]:
        """The best capability of each of at most ``models`` models, best first.

        ``type`` has to be one of ``types``, or empty for all.
        """
        if not self._offers:
            return []
        terms = tuple(dict.fromkeys(text.terms(query)))
        rankings, similarities = self._rankings(query, terms, type)
        pool = max(POOL, 10 * models)
        relevance, places = _best_of_models(rankings, self._offers, models, pool)
        best = float(relevance[places[0]]) if places else 1.0
        return [
            Found(
                offer := self._offers[place],
                place,
                Edge(offer.model, offer.capability, self.intent(offer, terms)),
                float(relevance[place]) / best,
                None if similarities is None else float(similarities[place]),
            )
            for place in places
        ]

    def intent(self, offer: Offer, terms: Sequence[str]) -> str:
        """The intent of the offer that is most like the query, by the cosine of both's terms
        weighted by idf; empty where none shares a term."""
        best, found = 0.0, ""
        for intent in offer.intents:
            own = self._intent(intent)
            likeness = math.fsum(own.get(term, 0.0) for term in terms)
            if likeness > best:
                best, found = likeness, intent
        return found

    def _intent(self, intent: str) -> dict[str, float]:
        """What each of its terms adds to its likeness to a query."""
        known = self._intents.get(intent)
        if known is None:
            weights = {term: self._bm25.idf(term) ** 2 for term in text.terms(intent)}
            length = math.sqrt(math.fsum(weights.values())) or 1.0
            known = {term: weight / length for term, weight in weights.items()}
            self._intents[intent] = known
        return known

    def why(self, query: str, found: Sequence[Found]) -> list[list[Term]]:
        """Of each, the words of the query that it has, and where; in the query's order."""
        asked: dict[int, str] = {}
        for word in text.words(query):
            number = self._vocabulary.number(text.stem(word))
            if number is not None and word not in text.STOP_WORDS:
                asked.setdefault(number, word)
        return [_standing(asked, self._documents[each.place]) for each in found]

    def _rankings(
        self, query: str, terms: Sequence[str], type: str
    ) -> tuple[list[Scores], Vectors | None]:
        """Scores by words, and by meaning with its similarities; 0 is outside."""
        by_words = self._bm25.scores(terms)
        outside = self._codes != self._types[type] if type else None
        if outside is not None:
            by_words[outside] = 0.0
        if self._meaning is None or self._vectors is None:
            return [by_words], None
        similarities: Vectors = self._vectors @ self._meaning.embed_queries([query])[0]
        by_meaning = np.asarray(similarities, np.float64) + 2.0  # above 0, which is outside
        if outside is not None:
            by_meaning[outside] = 0.0
        return [by_words, by_meaning], similarities


def _best_of_models(
    rankings: Sequence[Scores], offers: Sequence[Offer], models: int, pool: int
) -> tuple[Scores, list[int]]:
    """The relevance of all, and the best place of each of ``models`` models, best first: of fewer
    only where fewer are in a ranking."""
    relevance = rankings[0] if len(rankings) == 1 else _fused(rankings, pool)
    places = _first(relevance, pool)
    found: dict[str, int] = {}
    for place in places.tolist():
        found.setdefault(offers[place].model, place)
        if len(found) == models:
            break
    if len(found) < models and len(places) == pool < len(offers):
        # A few models fill the pool, which is rare: others may be behind it.
        return _best_of_models(rankings, offers, models, len(offers))
    return relevance, list(found.values())


def _fused(rankings: Sequence[Scores], pool: int) -> Scores:
    """Σ 1 / (k + rank) over the rankings that have it among their first ``pool``."""
    total = np.zeros_like(rankings[0])
    for scores in rankings:
        places = _first(scores, pool)
        total[places] += 1.0 / (RRF_K + np.arange(1, len(places) + 1))
    return total


def _first(scores: Scores, count: int) -> npt.NDArray[np.int64]:
    """The places of the ``count`` largest scores above 0, best first; equal ones as they stand."""
    places = np.flatnonzero(scores)
    if len(places) > count:
        # Equal ones at the border are told apart by their place, as they are everywhere.
        border = np.partition(scores[places], -count)[-count]
        above, level = places[scores[places] > border], places[scores[places] == border]
        places = np.concatenate([above, level[: count - len(above)]])
    return np.asarray(places[np.lexsort((places, -scores[places]))], np.int64)


def _standing(asked: Mapping[int, str], document: Document) -> list[Term]:
    where = document.standing(asked)
    return [
        Term(word, tuple(FIELDS[field] for field in where[number]))
        for number, word in asked.items()
        if number in where
    ]


def _terms(offer: Offer) -> list[list[str]]:
    """Of each of ``FIELDS``."""
    contents = offer.fields()
    return [text.terms(contents[field]) for field in FIELDS]
