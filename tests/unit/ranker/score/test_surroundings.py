"""What is looked for around a model, and found in what the services tell."""

from __future__ import annotations

import pytest

from ranker.score.evidence import Ecosystem
from ranker.score.surroundings import DEFAULT_ECOSYSTEM, Sought, check_ecosystem, ecosystem

FACTS = {
    "state": "ready",
    "modes": "text_to_image, inpaint",
    "latency_seconds[denoise/openvino]": "0.2",
    "backend@classifier/2": "openvino",
    "precision": "",
}


@pytest.mark.parametrize(
    ("item", "there"),
    [
        ("state=ready", True),
        ("state=loading", False),
        ("modes=inpaint", True),
        ("modes=paint", False),
        ("modes", True),
        ("latency_seconds", True),
        ("latency", False),
        ("backend", True),
        ("precision", False),
        ("digest", False),
    ],
)
def test_what_is_there(item: str, there: bool) -> None:
    assert Sought.of(item).is_in(FACTS) is there


def test_what_is_missing_is_so_only_where_all_could_tell() -> None:
    items = ("state=ready", "digest")

    assert ecosystem(items, FACTS, certain=False) == Ecosystem(("state=ready",), ("digest",))
    assert ecosystem(items, None, certain=True) == Ecosystem((), items)
    assert ecosystem(items, None, certain=False) == Ecosystem((), (), items)


def test_the_defaults_can_be_used() -> None:
    check_ecosystem(DEFAULT_ECOSYSTEM)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"image-classifier": ["digest"]}, "a list for 'default'"),
        ({"default": []}, "default: the list is empty"),
        ({"default": ["digest", "digest"]}, "default: 'digest' stands there twice"),
        ({"default": ["=ready"]}, "default: '=ready' does not read as FACT or FACT=VALUE"),
        ({"default": ["state="]}, "default: 'state=' does not read as FACT or FACT=VALUE"),
    ],
)
def test_lists_that_cannot_be_used(given: dict[str, list[str]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_ecosystem(given)
