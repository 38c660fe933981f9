"""Loading, routing, evicting and unloading, over models that only tell their version."""

import asyncio
import gc
import weakref
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import pytest_asyncio

from services.core.card import ModelCard, ModelState
from services.core.errors import (
    Draining,
    EaselError,
    FailedPrecondition,
    InvalidInput,
    NotFound,
    NotReady,
    NotSupported,
    Overloaded,
)
from services.core.fleet import LoadOrder
from services.core.fleet.fleet import MAX_FAILED, MAX_WAITING_LOADS
from tests.unit.core.fleet.fake_fleet import Bench, FakeModel, until

READY = ModelState.READY


@pytest_asyncio.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    bench = await Bench(tmp_path, budget_bytes=100).open()
    yield bench
    await bench.fleet.drain(10.0)
    await bench.fleet.close()
    assert all(model.closed == model.loads for model in (bench.first, *bench.maker.made.values()))


async def watching(bench: Bench) -> tuple[list[tuple[str, ModelState]], asyncio.Task[None]]:
    """What a watcher is told, as it comes."""
    told: list[tuple[str, ModelState]] = []

    async def watch() -> None:
        async for card in bench.fleet.watch_models():
            told.append((f"{card.name}/{card.version}", card.state))

    task = asyncio.create_task(watch())
    await until(lambda: len(told) == len(bench.fleet.list_models()))
    return told, task


# Finding.


async def test_the_first_model_is_the_default(bench: Bench) -> None:
    for name, version in (("", ""), ("main", ""), ("main", "1"), ("", "1")):
        assert await bench.ask(name, version) == "1"
    assert bench.states() == {"main/1": READY}
    assert bench.shares() == {"main/1": 1.0}
    assert bench.fleet.get_model("", "").version == "1"


@pytest.mark.parametrize(("name", "version"), [("other", ""), ("", "2"), ("main", "2")])
async def test_what_is_not_there(bench: Bench, name: str, version: str) -> None:
    with pytest.raises(NotFound):
        bench.fleet.find(name, version)
    with pytest.raises(NotFound):
        bench.fleet.get_model(name, version)


async def test_several_models_at_once(bench: Bench) -> None:
    card = await bench.load("b", "other", "7")
    assert (card.name, card.version, card.state, card.traffic_share) == ("other", "7", READY, 1.0)
    assert (await bench.ask("other"), await bench.ask("main"), await bench.ask()) == ("7", "1", "1")
    assert bench.engines() == {"main/1", "other/7"}


async def test_the_version_is_that_of_the_files_unless_given(bench: Bench) -> None:
    assert (await bench.load("b", "", "")).version == "of-b"
    assert await bench.ask("b") == "of-b"


# Versions and traffic.


async def test_a_new_version_gets_no_traffic_by_itself(bench: Bench) -> None:
    await bench.load("b", "main", "2")
    assert await bench.ask() == "1"
    assert await bench.ask("", "2") == "2"
    assert bench.shares() == {"main/1": 1.0, "main/2": 0.0}


async def test_a_swap_drops_nothing(bench: Bench) -> None:
    bench.first.steps.clear()
    before = [asyncio.create_task(bench.ask()) for _ in range(5)]
    await until(lambda: bench.fleet.find("", "").engine.rows == 5)
    await bench.load("b", "main", "2", make_default=True)
    assert await bench.ask() == "2"
    unloading = asyncio.create_task(bench.fleet.unload_model("main", "1"))
    await until(lambda: bench.states()["main/1"] is ModelState.UNLOADING)
    with pytest.raises(NotFound, match="being unloaded"):
        bench.fleet.find("main", "1")
    assert await bench.ask() == "2"
    assert not bench.first.closed
    bench.first.steps.set()
    assert await asyncio.gather(*before) == ["1"] * 5
    assert (await unloading).state is ModelState.UNLOADED
    assert bench.states() == {"main/2": READY}
    assert bench.engines() == {"main/2"}


async def test_an_unloaded_model_is_not_left_to_a_collector_that_leaves_it_alone(
    bench: Bench,
) -> None:
    class Weights:
        def __init__(self) -> None:
            self.itself = self

    await bench.load("b", "other", "1")
    weights = Weights()
    gone = weakref.ref(weights)
    gc.freeze()
    try:
        del weights
        await bench.fleet.unload_model("other", "1")
        assert gone() is None
    finally:
        gc.unfreeze()


async def test_an_unload_waits_for_what_still_prepares(bench: Bench) -> None:
    await bench.load("b", "other", "1")
    member = bench.fleet.find("other", "")
    prepared = asyncio.Event()

    async def work() -> str:
        with member:
            await prepared.wait()
            ticket = member.engine.submit("work")
        answer: str = await ticket.result()
        return answer

    # Neither has begun when the model goes, and one never does.
    first, never_begun = (asyncio.ensure_future(work()) for _ in range(2))
    never_begun.cancel()
    unloading = asyncio.create_task(bench.fleet.unload_model("other", ""))
    await until(lambda: bench.states()["other/1"] is ModelState.UNLOADING)
    await until(lambda: member.in_use)
    prepared.set()
    assert await first == "1"
    await unloading
    assert "other/1" not in bench.states()


async def test_an_unload_and_the_end_wait_for_the_same(bench: Bench) -> None:
    await bench.load("b", "other", "1")
    prepared = asyncio.Event()

    async def prepare() -> None:
        with bench.fleet.find("other", ""):
            await prepared.wait()

    preparing = asyncio.create_task(prepare())
    await until(lambda: bench.fleet.find("other", "").in_use)
    unloading = asyncio.create_task(bench.fleet.unload_model("other", ""))
    draining = asyncio.create_task(bench.fleet.drain(60.0))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert not unloading.done()
    prepared.set()
    await asyncio.gather(preparing, unloading, draining)


async def test_a_canary(bench: Bench) -> None:
    await bench.load("b", "main", "2")
    cards = bench.fleet.set_traffic("main", {"1": 0.75, "2": 0.25})
    assert [card.traffic_share for card in cards] == [0.75, 0.25]
    bench.draws = [0.0, 0.7499, 0.75, 0.999]
    assert [await bench.ask(name) for name in ("", "main", "", "main")] == ["1", "1", "2", "2"]
    assert (await bench.ask("main", "1"), await bench.ask("", "2")) == ("1", "2")
    assert bench.fleet.get_model("main", "").version == "1"
    bench.fleet.set_traffic("", {"2": 1.0})
    assert await bench.ask() == "2"
    assert bench.shares() == {"main/1": 0.0, "main/2": 1.0}


@pytest.mark.parametrize(
    ("name", "shares", "error"),
    [
        ("main", {"1": 0.5}, InvalidInput),
        ("main", {}, InvalidInput),
        ("main", {"1": 0.5, "2": 0.5}, NotFound),
        ("main", {"": 1.0}, NotFound),
        ("other", {"1": 1.0}, NotFound),
    ],
)
async def test_traffic_that_cannot_be(
    bench: Bench, name: str, shares: dict[str, float], error: type[EaselError]
) -> None:
    with pytest.raises(error):
        bench.fleet.set_traffic(name, shares)
    assert bench.shares() == {"main/1": 1.0}


# The life of one.


async def test_every_state_is_seen(bench: Bench) -> None:
    told, watch = await watching(bench)

    def hold(model: FakeModel) -> None:
        model.gate.clear()
        model.warm.clear()

    bench.maker.prepare = hold
    loading = asyncio.create_task(bench.load("b", "main", "2"))
    await until(lambda: ("main/2", ModelState.LOADING) in told)
    with pytest.raises(NotReady, match="being loaded"):
        bench.fleet.find("main", "2")
    model = bench.maker.made["main", "2"]
    model.gate.set()
    await until(lambda: ("main/2", ModelState.WARMING_UP) in told)
    with pytest.raises(FailedPrecondition) as caught:
        bench.fleet.set_traffic("main", {"2": 1.0})
    assert caught.value.reason == "MODEL_NOT_READY"
    with pytest.raises(FailedPrecondition, match="warming up"):
        await bench.fleet.unload_model("main", "2")
    model.warm.set()
    await loading
    await bench.fleet.unload_model("main", "2")
    await until(lambda: told[-1] == ("main/2", ModelState.UNLOADED))
    assert told == [
        ("main/1", READY),
        ("main/2", ModelState.LOADING),
        ("main/2", ModelState.WARMING_UP),
        ("main/2", READY),
        ("main/2", ModelState.UNLOADING),
        ("main/2", ModelState.UNLOADED),
    ]
    await bench.fleet.drain(1.0)
    await watch


async def test_a_swap_is_told_of_both_versions(bench: Bench) -> None:
    told: list[ModelCard] = []

    async def watch() -> None:
        async for card in bench.fleet.watch_models():
            told.append(card)

    watcher = asyncio.create_task(watch())
    await until(lambda: len(told) == 1)
    await bench.load("b", "main", "2", make_default=True)
    await bench.fleet.drain(1.0)
    await watcher
    last = [(card.version, card.state, card.traffic_share) for card in told[-2:]]
    assert last == [("1", READY, 0.0), ("2", READY, 1.0)]


async def test_a_load_that_fails(bench: Bench) -> None:
    told, watch = await watching(bench)
    faults: list[Exception] = [FailedPrecondition("Only .bin files."), RuntimeError("secret")]

    def break_it(model: FakeModel) -> None:
        model.fault = faults.pop(0)

    bench.maker.prepare = break_it
    with pytest.raises(FailedPrecondition, match=r"Only \.bin"):
        await bench.load("b", "other", "1")
    assert bench.fleet.get_model("other", "1").error == "Only .bin files."
    with pytest.raises(FailedPrecondition, match="could not be loaded") as caught:
        bench.fleet.find("other", "")
    assert caught.value.reason == "MODEL_FAILED"
    failed = bench.maker.made["other", "1"]
    with pytest.raises(RuntimeError):
        await bench.load("c", "other", "1")
    assert "secret" not in bench.fleet.get_model("other", "1").error
    assert bench.engines() == {"main/1"}
    bench.maker.prepare = lambda _: None
    assert (await bench.load("d", "other", "1")).state is READY
    assert failed.closed == 1
    watch.cancel()
    assert [state for name, state in told if name == "other/1"].count(ModelState.FAILED) == 2
    assert bench.registry.get_sample_value("easel_model_loads_total", {"outcome": "failed"}) == 2.0


async def test_a_failed_load_can_be_forgotten_and_only_so_many_are_kept(bench: Bench) -> None:
    def break_it(model: FakeModel) -> None:
        model.fault = NotFound("Nothing there.")

    bench.maker.prepare = break_it
    for number in range(MAX_FAILED + 2):
        with pytest.raises(NotFound):
            await bench.load("b", "other", str(number))
    failed = [name for name, state in bench.states().items() if state is ModelState.FAILED]
    assert failed == [f"other/{number}" for number in range(2, MAX_FAILED + 2)]
    assert (await bench.fleet.unload_model("other", "5")).state is ModelState.UNLOADED
    assert "other/5" not in bench.states()


async def test_a_load_goes_on_without_its_caller(bench: Bench) -> None:
    bench.maker.finding.clear()
    loading = asyncio.create_task(bench.load("b", "other", "1"))
    await asyncio.sleep(0)
    loading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await loading
    bench.maker.finding.set()
    await until(lambda: bench.states().get("other/1") is READY)


# Loads that clash.


async def test_a_second_load_of_the_same_version(bench: Bench) -> None:
    bench.maker.finding.clear()
    first = asyncio.create_task(bench.load("b", "other", "1"))
    await asyncio.sleep(0)
    for version in ("1", ""):
        with pytest.raises(FailedPrecondition, match="under way") as caught:
            await bench.load("b", "other", version)
        assert caught.value.reason == "MODEL_LOADING"
    bench.maker.finding.set()
    await first
    with pytest.raises(FailedPrecondition, match="loaded already") as caught:
        await bench.load("c", "other", "1")
    assert caught.value.reason == "MODEL_EXISTS"
    assert await bench.ask("other") == "1"


async def test_a_version_that_turns_out_to_be_there(bench: Bench) -> None:
    await bench.load("b", "other", "of-c")
    with pytest.raises(FailedPrecondition, match="loaded already"):
        await bench.load("c", "other", "")


async def test_only_so_many_loads_wait(bench: Bench) -> None:
    bench.maker.finding.clear()
    loads = [
        asyncio.create_task(bench.load("b", "other", str(number)))
        for number in range(MAX_WAITING_LOADS + 1)
    ]
    await asyncio.sleep(0)
    with pytest.raises(Overloaded) as caught:
        await bench.load("b", "other", "one-more")
    assert caught.value.reason == "LOADS_WAITING"
    bench.maker.finding.set()
    await asyncio.gather(*loads)
    assert len(bench.states()) == MAX_WAITING_LOADS + 2


async def test_orders_are_checked_before_anything_is_looked_for(bench: Bench) -> None:
    bench.maker.finding.clear()
    for order in (LoadOrder(""), LoadOrder("b", backend="abacus")):
        with pytest.raises(InvalidInput):
            await bench.fleet.load_model(order)
    bench.maker.finding.set()


# Memory.


async def test_the_least_recently_used_makes_room(bench: Bench) -> None:
    bench.maker.sizes = {"b": 40, "c": 40, "d": 50}
    await bench.load("b", "b", "1")
    await bench.load("c", "c", "1")
    bench.use("c")
    bench.use("b")
    await bench.load("d", "d", "1")
    assert set(bench.states()) == {"main/1", "b/1", "d/1"}
    assert bench.maker.made["c", "1"].closed == 1
    assert bench.registry.get_sample_value("easel_model_evictions_total") == 1.0
    sizes = {
        engine: bench.registry.get_sample_value("easel_model_bytes", {"engine": engine})
        for engine in ("main/1", "b/1", "c/1", "d/1")
    }
    assert sizes == {"main/1": 10.0, "b/1": 40.0, "c/1": None, "d/1": 50.0}
    assert bench.engines() == {"main/1", "b/1", "d/1"}


@pytest.mark.parametrize(("size", "fits"), [(90, True), (91, False)])
async def test_the_default_model_never_makes_room(bench: Bench, size: int, fits: bool) -> None:
    bench.maker.sizes = {"b": size}
    if fits:
        await bench.load("b", "b", "1")
        return
    with pytest.raises(FailedPrecondition, match=r"main/1 .* traffic of the default model"):
        await bench.load("b", "b", "1")
    assert bench.states() == {"main/1": READY}


async def test_a_model_larger_than_the_budget(bench: Bench) -> None:
    bench.maker.sizes = {"b": 101, "c": 50}
    await bench.load("c", "c", "1")
    with pytest.raises(InvalidInput) as caught:
        await bench.load("b", "b", "1")
    error = caught.value
    assert (error.field, error.limit, error.given) == ("reference", "100 bytes", "101 bytes")
    assert set(bench.states()) == {"main/1", "c/1"}


async def test_one_that_is_larger_than_its_files(bench: Bench) -> None:
    bench.maker.sizes = {"b": 40}
    await bench.load("b", "b", "1")

    def grow(model: FakeModel) -> None:
        model.size = 60

    bench.maker.prepare = grow
    await bench.load("c", "c", "1")
    assert bench.states() == {"main/1": READY, "c/1": READY}

    def outgrow(model: FakeModel) -> None:
        model.size = 101

    bench.maker.prepare = outgrow
    with pytest.raises(InvalidInput, match="larger than"):
        await bench.load("d", "d", "1")
    assert bench.states() == {"main/1": READY, "c/1": READY, "d/1": ModelState.FAILED}


async def test_a_model_in_use_is_not_evicted(bench: Bench) -> None:
    bench.maker.sizes = {"b": 80, "c": 20}
    await bench.load("b", "b", "1")
    model = bench.maker.made["b", "1"]
    model.steps.clear()
    asked = asyncio.create_task(bench.ask("b"))
    await until(lambda: bench.fleet.find("b", "").engine.rows == 1)
    with pytest.raises(FailedPrecondition, match=r"b/1 \(80 bytes, in use\)") as caught:
        await bench.load("c", "c", "1")
    assert caught.value.reason == "MODELS_IN_USE"
    model.steps.set()
    assert await asked == "1"
    await bench.load("c", "c", "1")
    assert set(bench.states()) == {"main/1", "c/1"}


async def test_a_new_version_does_not_evict_the_one_that_serves_its_name(bench: Bench) -> None:
    bench.maker.sizes = {"b": 50, "c": 50}
    await bench.load("b", "b", "1")
    with pytest.raises(FailedPrecondition, match="traffic of its name"):
        await bench.load("c", "b", "2")
    assert await bench.ask("b") == "1"


async def test_a_version_without_traffic_makes_room(bench: Bench) -> None:
    bench.maker.sizes = {"b": 40, "c": 40, "d": 40}
    await bench.load("b", "b", "1")
    await bench.load("c", "b", "2", make_default=True)
    bench.fleet.find("b", "1").used_at = bench.now + 100.0
    await bench.load("d", "d", "1")
    assert set(bench.states()) == {"main/1", "b/2", "d/1"}


async def test_a_first_model_larger_than_the_budget(tmp_path: Path) -> None:
    small = Bench(tmp_path, budget_bytes=9)
    with pytest.raises(FailedPrecondition, match="10 bytes"):
        await small.open()
    await small.fleet.close()
    assert small.first.closed == 1
    await (await Bench(tmp_path, budget_bytes=10).open()).fleet.close()


def growth(model: FakeModel, more: int) -> tuple[Callable[[], int], Callable[[], None]]:
    """What ``enlarge`` gets for a model that is to be of ``more`` bytes than now, once."""
    size = model.size + more

    def load() -> None:
        model.gate.wait()
        if model.fault is not None:
            raise model.fault
        model.size = size

    return lambda: size - model.size, load


async def test_a_model_that_takes_more_makes_others_go(bench: Bench) -> None:
    bench.maker.sizes = {"b": 40, "c": 40}
    await bench.load("b", "b", "1")
    await bench.load("c", "c", "1")
    bench.use("c")
    needed, load = growth(bench.first, 50)
    await bench.fleet.enlarge(bench.fleet.find("", ""), needed, load)
    assert set(bench.states()) == {"main/1", "c/1"}
    value = bench.registry.get_sample_value("easel_model_bytes", {"engine": "main/1"})
    assert value == 60.0
    bench.maker.sizes = {"d": 41}
    with pytest.raises(FailedPrecondition, match="default model"):
        await bench.load("d", "d", "1")


async def test_what_is_there_by_its_turn_is_not_loaded_again(bench: Bench) -> None:
    needed, load = growth(bench.first, 60)
    bench.first.gate.clear()
    member = bench.fleet.find("", "")
    first = asyncio.create_task(bench.fleet.enlarge(member, needed, load))
    second = asyncio.create_task(bench.fleet.enlarge(member, needed, load))
    await until(lambda: member.in_use)
    first.cancel()
    bench.first.gate.set()
    await second
    assert (bench.first.size, member.bytes) == (70, 70)
    assert first.cancelled()


@pytest.mark.parametrize(("more", "fits"), [(90, True), (91, False)])
async def test_more_than_the_budget(bench: Bench, more: int, fits: bool) -> None:
    needed, load = growth(bench.first, more)
    call = bench.fleet.enlarge(bench.fleet.find("", ""), needed, load)
    if fits:
        await call
        return
    told = "main/1 takes 101 bytes of memory, and the budget is 100"
    with pytest.raises(FailedPrecondition, match=told):
        await call
    assert bench.first.size == 10


async def test_more_that_cannot_be_loaded(bench: Bench) -> None:
    needed, load = growth(bench.first, 5)
    bench.first.fault = FailedPrecondition("Broken.")
    member = bench.fleet.find("", "")
    with pytest.raises(FailedPrecondition, match="Broken"):
        await bench.fleet.enlarge(member, needed, load)
    assert member.bytes == 10
    assert not member.in_use


# Unloads that are refused.


async def test_what_has_traffic_is_not_unloaded(bench: Bench) -> None:
    with pytest.raises(FailedPrecondition, match="default model") as caught:
        await bench.fleet.unload_model("main", "1")
    assert caught.value.reason == "MODEL_HAS_TRAFFIC"
    await bench.load("b", "b", "1")
    await bench.load("b", "b", "2")
    bench.fleet.set_traffic("b", {"1": 0.5, "2": 0.5})
    with pytest.raises(FailedPrecondition, match="give it to another version"):
        await bench.fleet.unload_model("b", "2")
    bench.fleet.set_traffic("b", {"1": 1.0})
    await bench.fleet.unload_model("b", "2")
    await bench.fleet.unload_model("b", "")
    assert bench.states() == {"main/1": READY}
    with pytest.raises(NotFound):
        bench.fleet.find("b", "")


@pytest.mark.parametrize(
    ("name", "version", "error", "field"),
    [
        ("", "", InvalidInput, "name"),
        ("b", "", InvalidInput, "version"),
        ("other", "", NotFound, ""),
        ("b", "3", NotFound, ""),
    ],
)
async def test_what_cannot_be_unloaded(
    bench: Bench, name: str, version: str, error: type[EaselError], field: str
) -> None:
    await bench.load("b", "b", "1")
    await bench.load("b", "b", "2")
    with pytest.raises(error) as caught:
        await bench.fleet.unload_model(name, version)
    assert getattr(caught.value, "field", "") == field


async def test_an_unload_under_way(bench: Bench) -> None:
    await bench.load("b", "b", "1")
    model = bench.maker.made["b", "1"]
    model.steps.clear()
    asked = asyncio.create_task(bench.ask("b"))
    await until(lambda: bench.fleet.find("b", "").engine.rows == 1)
    unloading = asyncio.create_task(bench.fleet.unload_model("b", "1"))
    await until(lambda: bench.states()["b/1"] is ModelState.UNLOADING)
    with pytest.raises(FailedPrecondition, match="being unloaded"):
        await bench.fleet.unload_model("b", "1")
    with pytest.raises(FailedPrecondition, match="being unloaded already"):
        await bench.load("b", "b", "1")
    unloading.cancel()
    model.steps.set()
    assert await asked == "1"
    await until(lambda: "b/1" not in bench.states())


# The end.


async def test_a_drain_ends_watches_and_a_load_under_way(tmp_path: Path) -> None:
    bench = await Bench(tmp_path).open()
    _, watch = await watching(bench)
    bench.maker.prepare = lambda model: model.gate.clear()
    loading = asyncio.create_task(bench.load("b", "other", "1"))
    await until(lambda: bool(bench.maker.made))
    await bench.fleet.drain(1.0)
    await watch
    closing = asyncio.create_task(bench.fleet.close())
    bench.maker.made["other", "1"].gate.set()
    with pytest.raises(Draining):
        await loading
    await closing
    assert bench.maker.made["other", "1"].closed == 1
    assert bench.first.closed == 1
    with pytest.raises(Draining):
        await bench.load("b", "more", "1")


async def test_a_fleet_without_a_maker_loads_nothing_more(bench: Bench) -> None:
    bench.fleet._maker = None
    with pytest.raises(NotSupported):
        await bench.load("b", "other", "1")
