"""Search of a small catalogue."""

from __future__ import annotations

import pytest

from ranker.graph.index import POOL, RRF_K, Found, MatchIndex, Shelf, Term
from ranker.graph.offers import Offer
from tests.unit.ranker.graph.offering import CATALOGUE, Subjects, indexed, offer


def names(found: list[Found]) -> list[tuple[str, str]]:
    return [(each.offer.model, each.offer.capability) for each in found]


@pytest.fixture
def index() -> MatchIndex:
    return indexed(revision=3)


def test_the_best_capability_of_each_model(index: MatchIndex) -> None:
    found = index.search("classifying images", 10)
    assert names(found) == [
        ("resnet", "classification"),  # says the same in fewer words
        ("vit", "classification"),
        ("stable-diffusion", "text-to-image"),
    ]
    assert found[0].relevance == 1.0 > found[1].relevance > found[2].relevance > 0.0
    assert found[0].similarity is None


def test_no_more_models_than_asked_for(index: MatchIndex) -> None:
    assert len(index.search("image", 2)) == 2


def test_only_of_the_type(index: MatchIndex) -> None:
    assert index.types == ("classifier", "generator")
    assert names(index.search("classify an image", 10, "generator")) == [
        ("stable-diffusion", "text-to-image")
    ]
    assert names(index.search("inpainting", 10, "classifier")) == []


def test_by_the_names_of_a_model(index: MatchIndex) -> None:
    assert names(index.search("ViT-L/16", 1))[0][0] == "vit"


def test_the_intent_is_the_one_that_is_most_like_the_query(index: MatchIndex) -> None:
    found = index.search("find images that are similar", 1)[0]
    assert found.edge.intent == "find similar images"
    assert (found.edge.model, found.edge.capability) == ("vit", "embedding")
    unlike = index.search("convolutions", 1)[0]
    assert unlike.edge.intent == ""


def test_why_names_words_and_fields(index: MatchIndex) -> None:
    query = "Classifying my photographs"
    found = index.search(query, 2)
    first, second = index.why(query, found)
    assert first == [
        Term("classifying", ("intents", "type")),
        Term("photographs", ("best for",)),
    ]
    assert second == [Term("classifying", ("intents", "type"))]
    assert index.why("nothing here", found) == [[], []]
    assert index.why("the label of a LABEL", found) == [[Term("label", ("intents",))], []]


@pytest.mark.parametrize("query", ["the of", "zzz", "?!"])
def test_nothing_is_found_by_words_that_are_nowhere(index: MatchIndex, query: str) -> None:
    assert index.search(query, 10) == []


def test_an_empty_catalogue() -> None:
    index = indexed(())
    assert (index.search("image", 10), index.types, len(index)) == ([], (), 0)


def test_meaning_finds_what_words_do_not() -> None:
    query = "erase a stranger"
    assert indexed().search(query, 3) == []
    found = indexed(meaning=Subjects()).search(query, 3)
    assert names(found)[0] == ("stable-diffusion", "inpainting")
    assert found[0].similarity == pytest.approx(1.0)


def test_words_and_meaning_are_fused_by_rank() -> None:
    index = indexed(meaning=Subjects())
    found = index.search("convolutions label", 3)
    # The first two are first and second by words, and second and first by meaning.
    assert names(found)[:2] == [("resnet", "classification"), ("vit", "classification")]
    assert [each.relevance for each in found[:2]] == [1.0, 1.0]
    assert found[0].similarity == pytest.approx(1.0)
    # The next model is found by meaning alone, behind the other capability of vit.
    both, alone = 1 / (RRF_K + 1) + 1 / (RRF_K + 2), 1 / (RRF_K + 4)
    assert found[2].relevance == pytest.approx(alone / both)


def test_all_texts_are_embedded_once() -> None:
    meaning = Subjects()
    index = indexed(meaning=meaning)
    index.search("label", 1)
    index.search("paint", 1)
    assert meaning.texts == len(CATALOGUE) + 2


def test_equal_ones_stand_in_the_order_of_their_ids() -> None:
    many = [offer(f"m{number:05}", "c", name="same") for number in range(2 * POOL)]
    found = indexed(many[::-1]).search("same", 3)
    assert [each.offer.model for each in found] == ["m00000", "m00001", "m00002"]


@pytest.mark.parametrize("models", [1, 2, 3, 4, 5])
def test_a_model_with_more_capabilities_than_the_pool_hides_no_other(models: int) -> None:
    index = indexed([*flood(), *CATALOGUE])
    found = index.search("classify an image", models)
    expected = ["flood", "resnet", "vit", "stable-diffusion"]
    assert [each.offer.model for each in found] == expected[:models]
    assert found == sorted(found, key=lambda each: -each.relevance)


def test_nor_is_any_hidden_from_meaning() -> None:
    index = indexed([*flood(), *CATALOGUE], meaning=Subjects())
    found = index.search("classify an image", 4)
    assert {each.offer.model for each in found} == {"flood", "resnet", "vit", "stable-diffusion"}
    assert found[0].offer.model == "flood"
    assert found[0].relevance == 1.0 > found[-1].relevance > 0.0


def flood() -> list[Offer]:
    """Of one model, and before all others for some query."""
    return [offer("flood", f"c{n}", name="classify an image") for n in range(POOL + 200)]


def test_edges_have_keys_of_63_bits() -> None:
    index = indexed()
    keys = {found.edge.key for found in index.search("image", 5)}
    assert len(keys) == 3
    assert all(0 <= key < 2**63 for key in keys)


def test_a_changed_catalogue_reads_what_changed_alone() -> None:
    meaning = Subjects()
    shelf = Shelf(meaning)
    shelf.put(CATALOGUE)
    before = shelf.index(1)
    shelf.put([offer("resnet", "detection", name="find faces", intents=("find faces",))])
    shelf.keep_only(["resnet", "vit"])
    after = shelf.index(2)
    assert meaning.texts == len(CATALOGUE) + 1
    assert (len(before), len(after)) == (5, 3)
    assert (before.revision, after.revision) == (1, 2)
    assert names(after.search("find faces", 1)) == [("resnet", "detection")]
    assert after.types == ("classifier",)


def test_an_index_grown_in_steps_is_one_made_at_once() -> None:
    shelf = Shelf()
    shelf.put(CATALOGUE[3:])
    shelf.put([offer("vit", "wrong")])
    shelf.index(1)
    shelf.put(CATALOGUE[:3])
    grown, once = shelf.index(2), indexed()
    for query in ("classify images", "remove an object", "vit", "wrong"):
        assert grown.search(query, 10) == once.search(query, 10)
