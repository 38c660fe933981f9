"""What may stand in the catalogue, and how a fault is told."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from ranker.catalogue import checks
from ranker.catalogue.checks import check_beside, check_model
from ranker.catalogue.model import Model
from ranker.catalogue.names import fold
from services.core.errors import InvalidInput
from tests.unit.ranker.catalogue.models import NOW, capability, claim, model

Made = Callable[[int], Model]


def in_capability(**values: Any) -> Model:
    return model(capabilities=(capability(**values),))


def in_claim(**values: Any) -> Model:
    return in_capability(claims=(claim(**values),))


def texts(count: int) -> tuple[str, ...]:
    return tuple(f"text {number}" for number in range(count))


LIMITS: list[tuple[str, int, Made]] = [
    ("id", checks.MAX_ID_CHARS, lambda n: model(id="a" * n)),
    ("name", checks.MAX_NAME_CHARS, lambda n: model(name="a" * n)),
    ("type", checks.MAX_TYPE_CHARS, lambda n: model(type="a" * n)),
    ("licence", checks.MAX_ITEM_CHARS, lambda n: model(licence="a" * n)),
    ("price", checks.MAX_ITEM_CHARS, lambda n: model(price="a" * n)),
    ("provenance", checks.MAX_TEXT_CHARS, lambda n: model(provenance="a" * n)),
    ("aliases", checks.MAX_ALIASES, lambda n: model(aliases=texts(n))),
    ("aliases[0]", checks.MAX_NAME_CHARS, lambda n: model(aliases=("a" * n,))),
    ("versions", checks.MAX_VERSIONS, lambda n: model(versions=texts(n))),
    ("versions[0]", checks.MAX_NAME_CHARS, lambda n: model(versions=("a" * n,))),
    (
        "capabilities",
        checks.MAX_CAPABILITIES,
        lambda n: model(capabilities=tuple(capability(f"vit/c{i}") for i in range(n))),
    ),
    ("capabilities[0].id", checks.MAX_ID_CHARS, lambda n: in_capability(id=f"vit/{'a' * n}")),
    ("capabilities[0].name", checks.MAX_NAME_CHARS, lambda n: in_capability(name="a" * n)),
    (
        "capabilities[0].description",
        checks.MAX_TEXT_CHARS,
        lambda n: in_capability(description="a" * n),
    ),
    ("capabilities[0].intents", checks.MAX_LIST_ITEMS, lambda n: in_capability(intents=texts(n))),
    (
        "capabilities[0].requires[0]",
        checks.MAX_ITEM_CHARS,
        lambda n: in_capability(requires=("a" * n,)),
    ),
    (
        "capabilities[0].claims",
        checks.MAX_CLAIMS,
        lambda n: in_capability(claims=tuple(claim(name=text) for text in texts(n))),
    ),
    ("capabilities[0].claims[0].name", checks.MAX_NAME_CHARS, lambda n: in_claim(name="a" * n)),
    (
        "capabilities[0].claims[0].claimed",
        checks.MAX_CLAIM_CHARS,
        lambda n: in_claim(claimed="a" * n),
    ),
    (
        "capabilities[0].claims[0].source",
        checks.MAX_CLAIM_CHARS,
        lambda n: in_claim(source="a" * n),
    ),
]


@pytest.mark.parametrize(("place", "limit", "made"), LIMITS, ids=[each[0] for each in LIMITS])
def test_limits(place: str, limit: int, made: Made) -> None:
    check_model(made(limit - 1))
    check_model(made(limit))
    with pytest.raises(InvalidInput) as caught:
        check_model(made(limit + 1))
    assert caught.value.field == f"model.{place}"
    assert (caught.value.limit, caught.value.given) == (str(limit), str(limit + 1))


@pytest.mark.parametrize(
    ("place", "wrong"),
    [
        ("id", model(id="")),
        ("id", model(id="Vit")),
        ("id", model(id="-vit")),
        ("id", model(id="google/vit")),
        ("name", model(name=" ")),
        ("name", model(name="two\nlines")),
        ("name", model(name="nul \x00")),
        ("name", model(name="half a character \ud800")),
        ("type", model(type="")),
        ("type", model(type="An Image Classifier")),
        ("aliases[1]", model(aliases=("a", ""))),
        ("aliases[1]", model(aliases=("a", "a"))),
        ("aliases[1]", model(aliases=("Big ViT", "big  VIT"))),
        ("aliases[0]", model(aliases=("VIT",))),
        ("aliases[0]", model(aliases=("the vit",))),
        ("capabilities[0].id", in_capability(id="classify")),
        ("capabilities[0].id", in_capability(id="other/classify")),
        ("capabilities[0].id", in_capability(id="vit/")),
        ("capabilities[0].id", in_capability(id="vit/Classify")),
        ("capabilities[1].id", model(capabilities=(capability(), capability(name="Again")))),
        ("capabilities[0].name", in_capability(name="")),
        ("capabilities[0].intents[0]", in_capability(intents=("",))),
        ("capabilities[0].claims[0]", in_claim(claimed="")),
        ("capabilities[0].claims[0].name", in_claim(name="")),
        ("capabilities[0].claims[0].source", in_claim(measured="85 %")),
        ("capabilities[0].claims[0].measured_at", in_claim(measured_at=NOW)),
        ("capabilities[0].claims[0].verified", in_claim(verified=True)),
        ("licence", model(same_as="other", licence="MIT")),
        ("capabilities", model(same_as="other", capabilities=(capability(),))),
    ],
)
def test_faults_are_told_by_their_place(place: str, wrong: Model) -> None:
    with pytest.raises(InvalidInput) as caught:
        check_model(wrong)
    assert caught.value.field == f"model.{place}"


def test_what_is_right_is_taken() -> None:
    found = claim(measured="85.1 %", source="its README", measured_at=NOW, verified=True)
    check_model(in_capability(claims=(found, claim(claimed="", measured="1", source="x"))))
    check_model(model(provenance="two\nlines\tand a tab"))
    check_model(model(same_as="other", type="", aliases=("another name",)))


class FakeNames:
    def __init__(self, *models: Model) -> None:
        self._models = models

    def owner(self, key: str) -> str | None:
        owners = [each.id for each in self._models if key in map(fold, each.names)]
        return owners[0] if owners else None

    def same_as(self, id: str) -> str | None:
        return next((each.same_as for each in self._models if each.id == id), None)


def test_a_name_belongs_to_one() -> None:
    names = FakeNames(model("vit", aliases=("google/ViT",)))
    check_beside(model("vit", aliases=("google/vit",)), names)
    for other in (
        model("google-vit", aliases=("GOOGLE/vit",)),
        model("google-vit", name="google/vit"),
        model("google-vit", aliases=("VIT",)),
    ):
        with pytest.raises(InvalidInput, match="'vit' already") as caught:
            check_beside(other, names)
        assert caught.value.reason == "NAME_TAKEN"
        assert caught.value.field in ("model.aliases[0]", "model.name")


def test_same_as_leads_to_a_model() -> None:
    a, b, c = model("a"), model("b", same_as="a"), model("c", same_as="b")
    names = FakeNames(a, b, c)
    for record in (a, b, c):
        check_beside(record, names)
    with pytest.raises(InvalidInput, match="no record 'd'"):
        check_beside(model("e", same_as="d"), names)
    with pytest.raises(InvalidInput, match="a -> a") as caught:
        check_beside(replace(a, same_as="a"), names)
    assert (caught.value.field, caught.value.reason) == ("model.same_as", "SAME_AS_CYCLE")
    with pytest.raises(InvalidInput, match="a -> c -> b -> a"):
        check_beside(replace(a, same_as="c"), names)
