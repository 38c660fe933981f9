"""The models that come along: both of the comparison page, every claim of it corrected."""

from __future__ import annotations

from importlib import resources
from math import prod
from pathlib import Path

import pytest

from ranker.catalogue import document
from ranker.catalogue.model import Claim, Model
from ranker.catalogue.names import fold
from ranker.graph.index import MatchIndex, Shelf
from ranker.graph.offers import Offer

ROOT = Path(__file__).parents[4]
TEXT = (resources.files("ranker.catalogue") / "shipped.yaml").read_text(encoding="utf-8")
DOCUMENT = document.read(TEXT, 2**20)
MODELS = {model.id: model for model in DOCUMENT.models}
VIT, DIFFUSION = MODELS["vit-large-patch16-384"], MODELS["stable-diffusion"]


def claim(model: Model, capability: str, name: str) -> Claim:
    found = model.capability(f"{model.id}/{capability}")
    assert found is not None
    (one,) = (each for each in found.claims if each.name == name)
    return one


def test_they_fit_together() -> None:
    DOCUMENT.check({}, len(MODELS))


def test_as_many_capabilities_as_the_page_has() -> None:
    assert len(VIT.capabilities) == 6
    assert len(DIFFUSION.capabilities) == 4


@pytest.mark.parametrize(
    ("model", "name"),
    [
        (VIT, "google/vit-large-patch16-384"),
        (VIT, "ViT-L/16-384"),
        (DIFFUSION, "stable diffusion"),
        (DIFFUSION, "runwayml/stable-diffusion-v1-5"),
    ],
)
def test_they_are_found_by_what_people_call_them(model: Model, name: str) -> None:
    assert fold(name) in map(fold, model.names)


@pytest.mark.parametrize(
    ("model", "capability", "name", "claimed", "measured"),
    [
        (VIT, "classify", "pre-training data", "14k classes", "21,843 classes"),
        (VIT, "classify", "top-1 accuracy on ImageNet-1k", "90.88 %", "85.1 to 85.2 %"),
        (VIT, "classify", "complexity of attention", "linear", "quadratic"),
        (VIT, "classify", "speed against convolutional networks", "comparable", "6.5 times fewer"),
        (VIT, "classify", "accuracy against convolutional networks", "82 to 84 %", "86.85 %"),
        (VIT, "load-anywhere", "frameworks", "TensorFlow", "PyTorch alone"),
        (VIT, "load-anywhere", "file format", "integrity checks", "no checksum"),
        (VIT, "fine-tune", "gradient checkpointing", "40 to 50 %", "no constant share"),
        (VIT, "embed", "normalisation", "L2-normalised", "they are not"),
        (VIT, "preprocess", "what is done to a picture", "center-crops", "exactly 384 x 384"),
        (VIT, "compress", "route to phones", "ONNX", "no longer kept"),
        (VIT, "compress", "latency", "200 to 400 ms", "3.4 ms"),
        (DIFFUSION, "text-to-image", "how text enters", "latent space", "77 vectors of 768"),
        (DIFFUSION, "text-to-image", "price", "Paid", "CreativeML OpenRAIL-M"),
        (DIFFUSION, "inpaint", "one architecture for both", "unified", "9 input channels"),
        (DIFFUSION, "inpaint", "the rest of the picture", "seamless", "pasted back"),
        (DIFFUSION, "stylize", "mechanism", "blended", "cross-attention"),
    ],
)
def test_what_the_page_has_wrong_is_put_right(
    model: Model, capability: str, name: str, claimed: str, measured: str
) -> None:
    found = claim(model, capability, name)
    assert claimed in found.claimed
    assert measured in found.measured
    assert found.source
    assert not found.verified


def test_numbers_follow_from_the_architecture() -> None:
    """Counted here by hand: 24 layers of width 1,024 over 577 tokens, 1,000 classes."""
    width, depth, tokens, classes = 1024, 24, 577, 1000
    linear = 4 * (width + 1) * width + (width + 1) * 4 * width + (4 * width + 1) * width
    layer = linear + 2 * 2 * width
    patches = (3 * 16 * 16 + 1) * width
    parameters = patches + width + tokens * width + depth * layer + 2 * width
    parameters += (width + 1) * classes
    attention = depth * 2 * prod((tokens, tokens, width))
    weights = depth * tokens * 12 * width**2 + (tokens - 1) * 3 * 16 * 16 * width + width * classes

    assert f"{parameters:,}" in claim(VIT, "classify", "parameters").measured
    assert f"{4 * parameters / 1e9:.3f} GB" in claim(VIT, "classify", "parameters").measured
    share = claim(VIT, "classify", "complexity of attention").measured
    assert f"{attention / (attention + weights):.1%}".replace("%", " %") in share
    assert f"{(attention + weights) / 1e9:.2f} billion" in share
    sizes = claim(VIT, "compress", "size").measured
    for factor in (2, 1):
        assert f"{factor * parameters / 1e9:.2f}".removesuffix("0") in sizes


def test_nothing_is_measured_without_a_source() -> None:
    for model in MODELS.values():
        for capability in model.capabilities:
            assert capability.intents, capability.id
            for each in capability.claims:
                assert each.source or not each.measured, (capability.id, each.name)
                assert not (each.verified and each.claimed and not each.measured)


def test_the_two_models_of_the_page_share_no_intent() -> None:
    def intents(model: Model) -> set[str]:
        return {intent for each in model.capabilities for intent in each.intents}

    assert not intents(VIT) & intents(DIFFUSION)
    assert intents(VIT) & intents(MODELS["demo-classifier"])
    assert intents(DIFFUSION) & intents(MODELS["demo-generator"])


def test_the_docs_count_right() -> None:
    claims = [
        each
        for model in (VIT, DIFFUSION)
        for capability in model.capabilities
        for each in capability.claims
        if each.claimed
    ]
    hold = sum(each.verified for each in claims)
    wrong = sum(bool(each.measured) and not each.verified for each in claims)
    unproven = len(claims) - hold - wrong
    told = (
        f"Of the page's {len(claims)} claims {hold} hold, {wrong} are wrong and {unproven} are "
        "unproven."
    )
    assert told in (ROOT / "docs" / "ranker.md").read_text()


def index() -> MatchIndex:
    shelf = Shelf()
    shelf.put(
        [
            Offer(
                model.id, each.id, model.type, each.name, each.description, tuple(each.intents),
                tuple(each.best_for), model.name, tuple(model.aliases),
            )
            for model in DOCUMENT.models
            for each in model.capabilities
        ]
    )  # fmt: skip
    return shelf.index(1)


@pytest.mark.parametrize(
    ("query", "capability"),
    [
        ("classify an image", "classify"),
        ("label my photos", "classify"),
        ("tell me what is on a photo", "classify"),
        ("what is on this photo?", "classify"),
        ("what is in this picture?", "classify"),
        ("object recognition", "classify"),
        ("find similar photos", "embed"),
        ("draw me a cat", "text-to-image"),
        ("paint a picture of a dog", "text-to-image"),
        ("remove the background", "inpaint"),
    ],
)
def test_they_are_found_by_what_people_ask_for(query: str, capability: str) -> None:
    first = index().search(query, 1)[0].edge
    assert first.capability == f"{first.model}/{capability}"


@pytest.mark.parametrize("query", ["classify an image", "label my photos", "tell what is shown"])
def test_the_classifier_is_found_as_one(query: str) -> None:
    found = index().search(query, 10, "image-classifier")
    assert {each.edge.capability for each in found} == {
        "demo-classifier/classify",
        "vit-large-patch16-384/classify",
    }
