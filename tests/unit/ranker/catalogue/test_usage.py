"""When a model was released and how much it is used: read, written, checked."""

from __future__ import annotations

from datetime import UTC, date, datetime

import pytest

from easel.ranker.v1 import ranker_pb2
from ranker.catalogue import document
from ranker.catalogue.checks import MAX_USAGE, MAX_USAGE_COUNT, check_model
from ranker.catalogue.model import Usage
from ranker.catalogue.wire import model_from_pb, model_to_pb
from services.core.errors import InvalidInput
from tests.unit.ranker.catalogue.models import model

MEGABYTE = 2**20
HEAD = "easel_catalogue: 1\nmodels:\n  - id: vit\n    type: image-classifier\n"
COUNTED = Usage("downloads of 30 days", 12_345, "hub", datetime(2026, 11, 1, tzinfo=UTC))
USED = model(released=date(2020, 10, 22), usage=(COUNTED, Usage("likes", 0, "hub")))


def test_as_yaml() -> None:
    text = document.write([USED])

    assert 'released: "2020-10-22"' in text
    assert "count: 0" in text
    assert document.read(text, MEGABYTE).models == (USED,)


def test_as_a_message() -> None:
    message = model_to_pb(USED)

    assert message.released == "2020-10-22"
    assert model_from_pb(message, "model") == USED
    assert model_from_pb(ranker_pb2.CatalogueModel(id="a"), "model").released is None


@pytest.mark.parametrize(
    ("lines", "field", "message"),
    [
        ("released: 2020", "released", "a day such as 2026-11-25"),
        ("released: 2020-02-30", "released", "a day such as 2026-11-25"),
        ("released: 20201022", "released", "a day such as 2026-11-25"),
        ("usage: [{name: likes}]", "usage[0].count", "it is needed, and missing"),
        ("usage: [{name: likes, count: -1, source: s}]", "usage[0].count", "a whole number"),
        ("usage: [{name: likes, count: 1.5, source: s}]", "usage[0].count", "a whole number"),
        ("usage: [{name: likes, count: ~, source: s}]", "usage[0].count", "a text"),
        ("usage: [{name: likes, count: 1}]", "usage[0].source", "needs a source"),
        ("usage: [{name: '', count: 1, source: s}]", "usage[0].name", "it is needed, and empty"),
        ("usage: [{n: likes}]", "usage[0].n", "there is no such field"),
    ],
)
def test_documents_that_are_refused(lines: str, field: str, message: str) -> None:
    with pytest.raises(InvalidInput, match=message) as caught:
        document.read(f"{HEAD}    {lines}\n", MEGABYTE)
    assert caught.value.field == f"yaml.models[0].{field}"
    assert "Line 5" in caught.value.message


def test_counts_have_a_range_and_stand_once() -> None:
    check_model(model(usage=(Usage("likes", MAX_USAGE_COUNT, "s"),)))
    with pytest.raises(InvalidInput) as caught:
        check_model(model(usage=(Usage("likes", MAX_USAGE_COUNT + 1, "s"),)))
    assert (caught.value.field, caught.value.given) == ("model.usage[0].count", str(2**53 + 1))
    with pytest.raises(InvalidInput, match="'likes' stands there twice"):
        check_model(model(usage=(Usage("likes", 1, "s"), Usage("likes", 2, "s"))))


def test_so_many_counts_fit() -> None:
    counts = [Usage(f"count {number}", number, "s") for number in range(MAX_USAGE + 1)]
    check_model(model(usage=tuple(counts[:MAX_USAGE])))
    with pytest.raises(InvalidInput) as caught:
        check_model(model(usage=tuple(counts)))
    assert (caught.value.field, caught.value.limit) == ("model.usage", str(MAX_USAGE))


def test_another_record_has_none() -> None:
    with pytest.raises(InvalidInput) as caught:
        check_model(model(same_as="other", type="", released=date(2020, 1, 1)))
    assert caught.value.field == "model.released"


def test_a_day_in_a_message_is_checked() -> None:
    with pytest.raises(InvalidInput, match="no day") as caught:
        model_from_pb(ranker_pb2.CatalogueModel(id="a", released="yesterday"), "model")
    assert (caught.value.field, caught.value.limit) == ("model.released", "YYYY-MM-DD")
