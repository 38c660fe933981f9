import pytest

from services.core.errors import FailedPrecondition, InvalidInput
from services.core.fleet.memory import Resident, to_evict


def resident(name: str, size: int, used_at: float, stays: str = "") -> Resident:
    return Resident(name, "1", size, used_at, stays)


OLD, NEW = resident("old", 40, 1.0), resident("new", 40, 2.0)


@pytest.mark.parametrize(
    ("needed", "going"), [(19, []), (20, []), (21, [OLD]), (60, [OLD]), (61, [OLD, NEW])]
)
def test_the_least_recently_used_go_and_no_more_than_must(
    needed: int, going: list[Resident]
) -> None:
    assert list(to_evict([NEW, OLD], needed, 100)) == going


def test_what_must_stay_is_passed_over() -> None:
    in_use = resident("in use", 40, 0.5, "in use")
    assert to_evict([in_use, NEW], 50, 100) == (NEW,)


def test_what_takes_no_memory_is_left() -> None:
    failed = resident("failed", 0, 0.0)
    assert to_evict([failed, OLD, NEW], 30, 100) == (OLD,)


@pytest.mark.parametrize(("needed", "fits"), [(99, True), (100, True), (101, False)])
def test_a_model_that_would_not_fit_alone(needed: int, fits: bool) -> None:
    if fits:
        assert to_evict([OLD], needed, 100) == (OLD,)
        return
    with pytest.raises(InvalidInput) as caught:
        to_evict([OLD], needed, 100)
    error = caught.value
    assert (error.field, error.limit, error.given) == ("reference", "100 bytes", "101 bytes")


def test_what_is_in_the_way_is_named() -> None:
    busy = [resident(f"m{n}", 10, float(n), "in use") for n in range(10)]
    with pytest.raises(FailedPrecondition, match=r"m0/1 \(10 bytes, in use\).* and 2 more") as held:
        to_evict(busy, 1, 100)
    assert held.value.reason == "MODELS_IN_USE"
