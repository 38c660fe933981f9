"""Catalogues and logs of any size, for the match graph to be measured on.

Words follow Zipf's law, as words do; each capability has a description of some forty of them, three
intents that other models serve too, and what it is best for. Answers show ten results; of each four
outcomes are told: two were chosen, and of those it is told how they ended.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any, Final

import numpy as np
from sqlalchemy import Connection, insert

from ranker.catalogue.tables import CAPABILITY, MODEL, NAME, REVISION
from ranker.database.schema import insert_into
from ranker.graph.exploration import propensity
from ranker.graph.ledger import new_edge, replace_counts
from ranker.graph.log import count_again
from ranker.graph.offers import Edge
from ranker.graph.tables import ANSWER, EDGE, OUTCOME, STATE

CAPABILITIES: Final = 6
RESULTS: Final = 10
TOLD: Final = 4
WORDS: Final = 20_000
EPSILON: Final = 0.1
HALF_LIFE: Final = 90.0 * 86_400
_BATCH: Final = 5_000
_TYPES: Final = ("image-classifier", "image-generator", "text-encoder", "speech", "detector")
_START: Final = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Size:
    """So many models, and outcomes in the log."""

    models: int
    outcomes: int

    @property
    def capabilities(self) -> int:
        return self.models * CAPABILITIES


class Words:
    """Draws words, the common ones often."""

    def __init__(self, seed: int) -> None:
        self.chance = np.random.default_rng(seed)
        syllables = [a + b for a in "bdfgklmnprst" for b in "aeiou"]
        self._words = ["".join(self.chance.choice(syllables, 3)) + str(n) for n in range(WORDS)]
        shares = 1.0 / np.arange(1, WORDS + 1)
        self._shares = np.cumsum(shares / shares.sum())

    def some(self, count: int) -> str:
        places = np.searchsorted(self._shares, self.chance.random(count))
        return " ".join(self._words[min(place, WORDS - 1)] for place in places.tolist())


def fill(connection: Connection, size: Size, seed: int = 0) -> list[str]:
    """An empty database with a catalogue, and with a log; returns intents to ask for."""
    words = Words(seed)
    intents = [words.some(4) for _ in range(max(20, size.models // 5))]
    edges = _fill_catalogue(connection, size, words, intents)
    _fill_log(connection, size, words, edges)
    return intents


def count(connection: Connection) -> None:
    """Make the counts from the log."""
    replace_counts(connection, count_again(connection, HALF_LIFE))


def _fill_catalogue(
    connection: Connection, size: Size, words: Words, intents: list[str]
) -> list[Edge]:
    names, models, capabilities, edges = [], [], [], []
    for number in range(size.models):
        id = f"model-{number:05}"
        models.append(_model_row(id, number, words))
        names.append({"key": id, "text": id, "model_id": id, "position": -2})
        for place in range(CAPABILITIES):
            own = [intents[n] for n in words.chance.integers(0, len(intents), 3).tolist()]
            capability = f"{id}/c{place}"
            capabilities.append(_capability_row(capability, id, place, own, words))
            edges.append(Edge(id, capability, own[0]))
    for table, rows in ((MODEL, models), (NAME, names), (CAPABILITY, capabilities)):
        for first in range(0, len(rows), _BATCH):
            connection.execute(insert(table), rows[first : first + _BATCH])
    revision = insert_into(connection, REVISION).values(id=1, number=1)
    connection.execute(revision.on_conflict_do_update(index_elements=["id"], set_={"number": 1}))
    return edges


def _model_row(id: str, number: int, words: Words) -> dict[str, Any]:
    return {
        "id": id,
        "name": f"{words.some(2)} {number}",
        "type": _TYPES[number % len(_TYPES)],
        "licence": "Apache-2.0",
        "price": "free",
        "provenance": words.some(8),
        "versions": [],
        "same_as": None,
        "updated_at": _START,
        "revision": 1,
    }


def _capability_row(
    id: str, model: str, place: int, intents: list[str], words: Words
) -> dict[str, Any]:
    return {
        "id": id,
        "model_id": model,
        "position": place,
        "name": words.some(3),
        "description": words.some(40),
        "intents": intents,
        "best_for": [words.some(6)],
        "limitations": [words.some(6)],
        "requires": [],
        "input_types": ["image"],
        "output_types": ["labels"],
        "claims": [],
    }


def _fill_log(connection: Connection, size: Size, words: Words, edges: list[Edge]) -> None:
    keys = [edge.key for edge in edges]
    rows = [new_edge(edge) for edge in edges]
    for first in range(0, len(rows), _BATCH):
        connection.execute(insert(EDGE), rows[first : first + _BATCH])
    connection.execute(insert(STATE), {"id": 1, "half_life_seconds": HALF_LIFE})
    answers = _answers(size.outcomes // TOLD, words, keys)
    while some := list(islice(answers, _BATCH)):
        connection.execute(insert(ANSWER), [answer for answer, _ in some])
        connection.execute(insert(OUTCOME), [each for _, told in some for each in told])


def _answers(
    count: int, words: Words, keys: list[int]
) -> Iterator[tuple[dict[str, Any], list[dict[str, Any]]]]:
    chance = words.chance
    likely = [propensity(place, place, RESULTS, EPSILON) for place in range(1, RESULTS + 1)]
    for number in range(count):
        shown = chance.integers(0, len(keys), RESULTS).tolist()
        at = _START + timedelta(seconds=30 * number)
        answer = {
            "id": secrets.token_hex(16),
            "at": at,
            "query": "a query",
            "type": "",
            "exploration": EPSILON,
            "catalogue_revision": 1,
            "shown": [
                [keys[edge], base, p]
                for base, (edge, p) in enumerate(zip(shown, likely, strict=True), 1)
            ],
        }
        first = int(chance.integers(1, RESULTS))
        told = [
            {
                "answer": answer["id"],
                "position": position,
                "outcome": outcome,
                "at": at + timedelta(minutes=5),
                "comment": "",
            }
            for position in (first, first + 1)
            for outcome in ("chosen", "succeeded" if chance.random() < 0.8 else "failed")
        ]
        yield answer, told
