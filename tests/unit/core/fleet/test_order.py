import pytest

from services.core.errors import InvalidInput
from services.core.fleet.order import MAX_NAME_CHARS, MAX_REFERENCE_CHARS, LoadOrder


@pytest.mark.parametrize(
    ("reference", "name"),
    [("demo", "demo"), ("org/vit", "vit"), ("org/vit@main", "vit"), ("/a/b/", "b")],
)
def test_the_name_is_the_references_last_part(reference: str, name: str) -> None:
    assert LoadOrder(reference).checked().name == name
    assert LoadOrder(reference, name="mine").checked().name == "mine"


@pytest.mark.parametrize(
    ("order", "field"),
    [
        (LoadOrder(""), "reference"),
        (LoadOrder("x" * (MAX_REFERENCE_CHARS + 1)), "reference"),
        (LoadOrder("x\0y"), "reference"),
        (LoadOrder("x\n"), "reference"),
        (LoadOrder("/"), "name"),
        (LoadOrder("x", name="x" * (MAX_NAME_CHARS + 1)), "name"),
        (LoadOrder("x", name="a/b"), "name"),
        (LoadOrder("x", name=".."), "name"),
        (LoadOrder("x", name="ä"), "name"),
        (LoadOrder("x", name="x\n"), "name"),
        (LoadOrder("x", version="x" * (MAX_NAME_CHARS + 1)), "version"),
        (LoadOrder("x", version="a b"), "version"),
    ],
)
def test_what_cannot_be_ordered(order: LoadOrder, field: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        order.checked()
    assert caught.value.field == field


def test_the_longest_that_can() -> None:
    longest = "x" * MAX_NAME_CHARS
    reference = "x" * MAX_REFERENCE_CHARS
    assert LoadOrder(reference, name=longest, version=longest).checked().name == longest
    assert LoadOrder("x", version="refs/pr/1").checked().version == "refs/pr/1"


@pytest.mark.parametrize(
    ("other", "clashes"),
    [
        (LoadOrder("org/vit", "vit", "1"), True),
        (LoadOrder("org/other", "vit", "1"), True),
        (LoadOrder("org/vit", "vit", "2"), False),
        (LoadOrder("org/vit", "other", "1"), False),
        (LoadOrder("org/vit", "vit"), True),
        (LoadOrder("org/other", "vit"), False),
    ],
)
def test_orders_of_the_same_version_clash(other: LoadOrder, clashes: bool) -> None:
    order = LoadOrder("org/vit", "vit", "1")
    assert order.clashes(other) is other.clashes(order) is clashes
