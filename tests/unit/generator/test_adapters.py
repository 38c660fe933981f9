from __future__ import annotations

import math

import pytest

from services.core.errors import FailedPrecondition, InvalidInput
from services.generator.adapters import (
    MAX_ADAPTERS,
    MAX_NAME_BYTES,
    MAX_SCALE,
    AdapterUse,
    as_recorded,
    checked,
    pinned,
    versions,
)

MANY = tuple(AdapterUse(str(index)) for index in range(MAX_ADAPTERS + 1))


@pytest.mark.parametrize(
    "uses",
    [
        (),
        MANY[:-1],
        (AdapterUse("a", MAX_SCALE), AdapterUse("b", -MAX_SCALE)),
        (AdapterUse("a", 0.0),),
        (AdapterUse("x" * MAX_NAME_BYTES),),
    ],
)
def test_what_is_taken(uses: tuple[AdapterUse, ...]) -> None:
    assert checked(uses) == uses


@pytest.mark.parametrize(
    ("uses", "field", "limit", "given"),
    [
        (MANY, "adapters", "8", "9"),
        ((AdapterUse(""),), "adapters[0].name", "1 to 128 bytes", "0 bytes"),
        (
            (AdapterUse("x" * (MAX_NAME_BYTES + 1)),),
            "adapters[0].name",
            "128 bytes",
            "129 bytes",
        ),
        ((AdapterUse("a"), AdapterUse("a")), "adapters[1].name", "once", "a"),
        ((AdapterUse("é" * 64),) * 2, "adapters[1].name", "once", "é" * 64),
        ((AdapterUse("x" * 128),) * 2, "adapters[1].name", "once", "x" * 80),
        ((AdapterUse("a", 10.1),), "adapters[0].scale", "-10 to 10", "10.1"),
        ((AdapterUse("a"), AdapterUse("b", -10.1)), "adapters[1].scale", "-10 to 10", "-10.1"),
        ((AdapterUse("a", math.nan),), "adapters[0].scale", "-10 to 10", "nan"),
        ((AdapterUse("a", -math.inf),), "adapters[0].scale", "-10 to 10", "-inf"),
        ((AdapterUse("a", -0.1),), "adapters", "0", "-0.1"),
        ((AdapterUse("a", -1e-7),), "adapters", "0", "-1e-07"),
        ((AdapterUse("a", 0.5), AdapterUse("b", -1.0)), "adapters", "0", "-0.5"),
    ],
)
def test_what_is_refused(uses: tuple[AdapterUse, ...], field: str, limit: str, given: str) -> None:
    with pytest.raises(InvalidInput) as raised:
        checked(uses)
    assert (raised.value.field, raised.value.limit, raised.value.given) == (field, limit, given)


@pytest.mark.parametrize("scales", [(0.7, 0.1, -0.8), (0.1, 0.2, -0.3), (3.3, -1.1, -2.2)])
def test_decimals_that_add_up_to_nothing(scales: tuple[float, ...]) -> None:
    uses = tuple(AdapterUse(str(index), scale) for index, scale in enumerate(scales))
    assert checked(uses) == uses


def test_a_record_names_the_files() -> None:
    uses = (pinned(AdapterUse("ink", 0.5), "sha256:1"), pinned(AdapterUse("a b"), "sha256:2"))
    told = {"torch": "2", **versions(uses)}
    assert told == {"torch": "2", "adapter ink": "sha256:1", "adapter a b": "sha256:2"}
    asked = (AdapterUse("ink", 0.5), AdapterUse("a b"), AdapterUse("new"))
    assert as_recorded(asked, told) == (*uses, AdapterUse("new"))


def test_another_file_than_is_wanted() -> None:
    wanted = AdapterUse("ink", digest="sha256:1")
    assert pinned(wanted, "sha256:1") == wanted
    with pytest.raises(FailedPrecondition, match="'ink' is sha256:2 here, where sha256:1") as told:
        pinned(wanted, "sha256:2")
    assert told.value.reason == "OTHER_VERSION"
