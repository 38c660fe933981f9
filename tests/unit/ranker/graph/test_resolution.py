"""What is said of matches."""

from __future__ import annotations

import pytest

from ranker.graph import resolution
from ranker.graph.bias import Attraction
from ranker.graph.index import Found, Term
from ranker.graph.knowledge import Knowledge
from ranker.graph.offers import Edge, Offer
from ranker.graph.ranking import Evidence, Means
from ranker.graph.resolution import Candidate
from tests.unit.ranker.graph.offering import offer

MEANS = Means(choice=0.1, success=0.5)


def found(model: str, relevance: float = 1.0, *intents: str) -> Found:
    given: Offer = offer(model, "c", intents=intents)
    return Found(given, 0, Edge(model, "c", "an intent"), relevance)


def test_evidence_orders_and_relevance_decides_without_it() -> None:
    liked, unknown, twin = found("liked", 0.6), found("unknown", 1.0), found("twin", 1.0)
    evidence = {liked.edge: Evidence(Attraction(80.0, 200.0, 200.0))}
    order = resolution.ordered([unknown, twin, liked], Knowledge(evidence, (1.0,), MEANS))
    assert [each.found.offer.model for each in order] == ["liked", "unknown", "twin"]
    assert order[1].score == order[2].score == 1.0


def test_alternatives_are_other_models_of_the_same_intent() -> None:
    candidates = [
        Candidate(each, Evidence(), 1.0)
        for each in (
            found("a", 1.0, "Classify an image", "more"),
            found("b", 1.0, "paint"),
            found("c", 1.0, "classify an image"),
            found("a", 1.0, "classify an image"),
            found("d", 1.0, "more"),
            found("e", 1.0, "more"),
            found("f", 1.0, "more"),
        )
    ]
    assert resolution.alternatives(candidates[:2], candidates) == [["c", "d", "e"], []]


@pytest.mark.parametrize(
    ("terms", "intent", "similarity", "expected"),
    [
        ([], "", None, ""),
        ([Term("paint", ("name",))], "", None, '"paint" in its name'),
        (
            [Term("a", ("name", "type")), Term("b", ("name", "intents", "model"))],
            "do it",
            0.456,
            '"a" in its name and type; "b" in its name, intents and model; '
            'closest to its intent "do it"; likeness of meaning 0.46',
        ),
    ],
)
def test_why_in_words(
    terms: list[Term], intent: str, similarity: float | None, expected: str
) -> None:
    assert resolution.why(terms, intent, similarity) == expected


@pytest.mark.parametrize(("weight", "abstains"), [(4.99, True), (5.0, False), (5.01, False)])
def test_success_is_told_from_enough_weight(weight: float, abstains: bool) -> None:
    told = resolution.success(
        Evidence(successes=weight - 1, failures=1.0, succeeded=9, failed=2), 5
    )
    assert told.abstained is abstains
    assert told.evidence == 11
    if abstains:
        assert (told.value, told.low, told.high) == (0.0, 0.0, 1.0)
    else:
        assert told.value == pytest.approx(weight / (weight + 2), abs=1e-4)
        assert 0.0 < told.low < told.value < told.high < 1.0
