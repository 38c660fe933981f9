"""Scores against two other implementations: bm25s (Lucene's idf), and SQLite's FTS5 (fields)."""

from __future__ import annotations

import math
import random
import sqlite3
from collections.abc import Iterable, Mapping, Sequence

import bm25s
import numpy as np
import pytest

from ranker.graph.bm25 import K1, B, Bm25, Vocabulary

VOCABULARY = [f"w{number}" for number in range(60)]
FIELDS = {"name": 3.0, "intents": 2.0, "description": 1.0}


def indexed(documents: Iterable[Mapping[str, Sequence[str]]], weights: Mapping[str, float]) -> Bm25:
    vocabulary = Vocabulary()
    read = [vocabulary.document([each.get(field, []) for field in weights]) for each in documents]
    return Bm25(vocabulary, read, list(weights.values()))


def texts(count: int, chance: random.Random, longest: int = 30) -> list[list[str]]:
    """Word w0 is common, w59 rare."""
    return [
        [VOCABULARY[int(59 * chance.random() ** 2)] for _ in range(chance.randint(0, longest))]
        for _ in range(count)
    ]


def test_one_field_is_lucenes_bm25() -> None:
    corpus = [["w0", *words] for words in texts(300, random.Random(1))]
    theirs = bm25s.BM25(method="lucene", k1=K1, b=B, dtype="float64")
    theirs.index(corpus, show_progress=False)
    ours = indexed(({"text": words} for words in corpus), {"text": 1.0})
    for query in (["w0"], ["w59"], ["w3", "w17", "w50"], VOCABULARY[::7]):
        expected = theirs.get_scores(query) * (K1 + 1)  # which Lucene leaves out
        np.testing.assert_allclose(ours.scores(query), expected, rtol=1e-9, atol=1e-12)


def test_fields_weigh_as_in_fts5() -> None:
    chance = random.Random(2)
    columns = [texts(200, chance, 12) for _ in FIELDS]
    documents = [dict(zip(FIELDS, row, strict=True)) for row in zip(*columns, strict=True)]
    ours = indexed(documents, FIELDS)
    connection = sqlite3.connect(":memory:")
    connection.execute("CREATE VIRTUAL TABLE t USING fts5(name, intents, description)")
    connection.executemany(
        "INSERT INTO t(rowid, name, intents, description) VALUES (?, ?, ?, ?)",
        [(n, *(" ".join(doc[f]) for f in FIELDS)) for n, doc in enumerate(documents)],
    )
    asked = "SELECT rowid, -bm25(t, 3.0, 2.0, 1.0) FROM t WHERE t MATCH ?"
    for term in ("w20", "w40", "w55"):
        found = dict(connection.execute(asked, (term,)).fetchall())
        assert found
        # FTS5 leaves the 1 out of the logarithm; all else is the same.
        having = len(found)
        theirs_idf = math.log((200 - having + 0.5) / (having + 0.5))
        scores = ours.scores([term])
        assert set(np.flatnonzero(scores)) == set(found)
        for place, score in found.items():
            assert scores[place] / ours.idf(term) == pytest.approx(score / theirs_idf, rel=1e-9)
    connection.close()


def test_a_term_that_most_documents_have_still_counts() -> None:
    index = indexed([{"text": ["image"]}] * 3, {"text": 1.0})
    assert index.idf("image") == pytest.approx(math.log(1 + 0.5 / 3.5))
    assert (index.scores(["image"]) > 0).all()


def test_a_repeated_or_unknown_term_changes_nothing() -> None:
    index = indexed([{"text": ["a", "b"]}, {"text": ["b"]}], {"text": 1.0})
    np.testing.assert_array_equal(index.scores(["a", "a", "nowhere"]), index.scores(["a"]))
    assert index.idf("nowhere") == 0.0


@pytest.mark.parametrize("documents", [[], [{"text": []}], [{}, {"text": []}]])
def test_empty_documents_are_found_by_nothing(documents: list[dict[str, list[str]]]) -> None:
    index = indexed(documents, {"text": 1.0})
    assert index.scores(["a"]).tolist() == [0.0] * len(documents)


def test_a_document_tells_where_its_terms_stand() -> None:
    vocabulary = Vocabulary()
    document = vocabulary.document([["a", "b"], [], ["b", "c", "b"]])
    a, b, c = [number for term in "abc" if (number := vocabulary.number(term)) is not None]
    assert document.standing({b, a, 7}) == {a: [0], b: [0, 2]}
    assert document.standing({c}) == {c: [2]}
    assert document.standing(()) == {}


def test_documents_outlive_their_index() -> None:
    vocabulary = Vocabulary()
    old = [vocabulary.document([words]) for words in (["a"], ["a", "b"])]
    before = Bm25(vocabulary, old, [1.0])
    new = [old[1], vocabulary.document([["c"]])]
    after = Bm25(vocabulary, new, [1.0])
    fresh = indexed([{"text": ["a", "b"]}, {"text": ["c"]}], {"text": 1.0})
    for term in "abc":
        np.testing.assert_array_equal(after.scores([term]), fresh.scores([term]))
    assert before.scores(["c"]).tolist() == [0.0, 0.0]
    assert (before.idf("c"), Bm25(vocabulary, new[1:], [1.0]).idf("a")) == (0.0, 0.0)
