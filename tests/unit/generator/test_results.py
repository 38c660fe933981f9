"""What is kept, what is shared, and who stops what."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection
from dataclasses import dataclass, field, replace

import pytest
import pytest_asyncio
from PIL import Image
from prometheus_client import CollectorRegistry

from services.core.caller import Caller
from services.core.engine import Timing
from services.core.errors import EaselError, InvalidInput, Overloaded
from services.generator.events import (
    MAX_UNREAD_EVENTS,
    Admitted,
    Event,
    Finished,
    Previewed,
    Put,
    Stepped,
)
from services.generator.modes import Given, ImageToImage
from services.generator.request import Order, Reproducibility, Wish, resolve
from services.generator.results import Flight, Follower, Results, fingerprint
from services.generator.samplers import Sampler
from services.generator.studio import Job
from tests.unit.generator.fakes import loaded_model
from tests.unit.generator.workshop import Workshop, until

LIMITS = loaded_model().limits
KEY = b"k" * 32
ROOM = 1 << 20


def order(**asked: object) -> Order:
    wish = replace(Wish(prompt="a star", steps=3, seed=5), **asked)  # type: ignore[arg-type]
    return resolve(wish, LIMITS, draw_seed=int)


def begun(content: str, strength: float = 0.5) -> ImageToImage:
    given = Given("image", load=lambda: Image.new("RGB", (8, 8)), sha256=lambda: content)
    return ImageToImage(given, strength)


def test_a_fingerprint_has_256_bits_and_is_the_same_each_time() -> None:
    assert len(fingerprint(order())) == 32
    assert fingerprint(order(), "a") == fingerprint(order(), "a")
    assert fingerprint(order(mode=begun("ab"))) == fingerprint(order(mode=begun("ab")))


def test_what_makes_no_picture_another_is_not_in_it() -> None:
    assert fingerprint(order()) == fingerprint(order(id="x", omit_steps=True, in_step=True))
    assert fingerprint(order()) == fingerprint(order(guidance_scale=None, width=0))


@pytest.mark.parametrize(
    "asked",
    [
        {"prompt": "a stair"},
        {"negative_prompt": "x"},
        {"steps": 4},
        {"seed": 6},
        {"count": 2},
        {"guidance_scale": 2.0},
        {"guidance_rescale": 0.1},
        {"sampler": Sampler.EULER},
        {"width": 40},
        {"reproducibility": Reproducibility.EXACT},
        {"omit_metadata": True},
        {"mode": begun("ab")},
    ],
)
def test_everything_else_is(asked: dict[str, object]) -> None:
    assert fingerprint(order(**asked)) != fingerprint(order())


def test_the_maker_and_given_pictures_are_in_it() -> None:
    assert fingerprint(order(), "pytorch") != fingerprint(order(), "openvino")
    assert fingerprint(order(), "a", "b") != fingerprint(order(), "ab")
    assert fingerprint(order(mode=begun("ab"))) != fingerprint(order(mode=begun("cd")))
    assert fingerprint(order(mode=begun("ab"))) != fingerprint(order(mode=begun("ab", 0.7)))


def test_an_order_that_cannot_be_told_is_no_key() -> None:
    with pytest.raises(TypeError, match="object has no value"):
        fingerprint(replace(order(), mode=object()))  # type: ignore[arg-type]


@dataclass
class Script:
    """A job that tells its events one by one, each as soon as ``allow`` has room for it."""

    order: Order
    events: list[Event]
    allow: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(1000))
    error: EaselError | None = None
    told: int = 0
    cancelled: set[int] = field(default_factory=set)

    async def run(self, put: Put) -> None:
        for event in self.events:
            await self.allow.acquire()
            await put(event)
            self.told += 1
        if self.error is not None:
            raise self.error

    def cancel(self, indices: Collection[int] = ()) -> None:
        self.cancelled |= set(indices)


def finished(index: int = 0, size: int = 10) -> Finished:
    return Finished(index, b"x" * size, 5, Timing(queue_seconds=1.0), "ab", "{}", 8, 8)


def results(max_bytes: int = ROOM) -> tuple[Results, CollectorRegistry]:
    registry = CollectorRegistry()
    return Results(max_bytes, registry), registry


async def read(follower: Follower) -> list[Event]:
    """All events until the flight's end."""
    seen: list[Event] = []
    while True:
        follower.news.clear()
        seen += follower.unread()
        if any(isinstance(event, Finished) for event in seen):
            return seen
        follower.check()
        await follower.news.wait()


def outcomes(registry: CollectorRegistry) -> dict[str, float]:
    name = "easel_result_cache_requests_total"
    found = {
        each: registry.get_sample_value(name, {"outcome": each}) for each in ("hit", "join", "miss")
    }
    return {each: count for each, count in found.items() if count}


async def make(store: Results, key: bytes, script: Script) -> list[Event]:
    with store.following(key, Caller(), lambda: script) as follower:
        seen = await read(follower)
    await until(lambda: store.find(key) is not None)
    return seen


async def test_a_finished_order_is_kept_without_its_steps_and_times() -> None:
    store, _ = results()
    script = Script(order(), [Admitted(0, 3, 1.5, 5, 3), Stepped(0, 1, 3), finished()])
    assert len(await make(store, KEY, script)) == 3
    kept = store.find(KEY)
    assert kept is not None
    admitted, last = kept.events
    assert admitted == Admitted(0, 0, 0.0, 5, 3)
    assert isinstance(last, Finished)
    assert (last.cached, last.timing) == (True, Timing())


@pytest.mark.parametrize(("room", "keys"), [(1524, 2), (1523, 1)])
async def test_the_least_recently_used_makes_room(room: int, keys: int) -> None:
    store, registry = results(room)  # an entry takes 512 for itself, 2 for its record, and its data
    first, second, third = b"a" * 32, b"b" * 32, b"c" * 32
    await make(store, first, Script(order(), [finished(size=248)]))
    await make(store, second, Script(order(), [finished(size=248)]))
    assert (store.find(first) is not None, store.find(second) is not None) == (keys == 2, True)
    held = registry.get_sample_value("easel_result_cache_bytes")
    assert held == 762 * keys
    if keys == 2:
        assert store.find(first) is not None
        await make(store, third, Script(order(), [finished(size=248)]))
        assert store.find(second) is None
        assert store.find(first) is not None


async def landed(store: Results, script: Script, room: Callable[[Flight], bool]) -> None:
    with store.following(KEY, Caller(), lambda: script) as follower:
        flight = follower._flight
        follower.news.clear()
        while not flight.ended:
            list(follower.unread())
            await follower.news.wait()
            follower.news.clear()
    assert room(flight)


async def test_what_did_not_end_well_is_not_kept() -> None:
    for script in (
        Script(order(), [Admitted(0, 0, 0, 5, 3)]),
        Script(order(), [finished()], error=Overloaded(1.0)),
        Script(order(count=2), [finished()]),
    ):
        store, _ = results()
        await landed(store, script, lambda flight: flight.kept() is None)
        assert store.find(KEY) is None


async def test_what_is_too_large_is_neither_kept_nor_held() -> None:
    store, _ = results(max_bytes=2000)
    preview = Previewed(0, b"x" * 500, 1, 3, 8, 8)
    script = Script(order(), [*[preview] * 100, finished()])
    await landed(store, script, lambda flight: len(flight._events) <= MAX_UNREAD_EVENTS + 2)
    assert store.find(KEY) is None


async def test_equal_orders_under_way_share_one_flight() -> None:
    store, registry = results()
    script = Script(order(), [Admitted(0, 0, 1.0, 5, 3), finished()], asyncio.Semaphore(1))
    with (
        store.following(KEY, Caller(), lambda: script) as one,
        store.following(KEY, Caller(), lambda: Script(order(), [])) as other,
    ):
        readers = [asyncio.create_task(read(each)) for each in (one, other)]
        await until(lambda: script.told == 1)
        script.allow.release()
        assert [await reader for reader in readers] == [script.events] * 2
    assert outcomes(registry) == {"miss": 1, "join": 1}


@pytest.mark.parametrize(
    ("first", "second", "joined"),
    [
        (Caller(), Caller(), True),
        (Caller(), Caller(deadline=9.0), True),
        (Caller(deadline=9.0), Caller(deadline=9.0), True),
        (Caller(deadline=9.0), Caller(deadline=9.1), False),
        (Caller(deadline=9.0), Caller(), False),
        (Caller(priority=1), Caller(), True),
        (Caller(), Caller(priority=1), False),
        (Caller(tenant="a"), Caller(tenant="b"), True),
    ],
)
async def test_nobody_joins_what_would_serve_him_later(
    first: Caller, second: Caller, joined: bool
) -> None:
    store, registry = results()
    scripts = [Script(order(), [finished()]) for _ in range(2)]
    with (
        store.following(KEY, first, lambda: scripts[0]) as one,
        store.following(KEY, second, lambda: scripts[1]) as other,
    ):
        await asyncio.gather(read(one), read(other))
    assert outcomes(registry) == ({"miss": 1, "join": 1} if joined else {"miss": 2})


async def test_a_picture_is_stopped_when_nobody_wants_it_any_more() -> None:
    store, _ = results()
    script = Script(order(count=3), [finished()], asyncio.Semaphore(0))
    with store.following(KEY, Caller(), lambda: script) as one:
        with store.following(KEY, Caller(), lambda: Script(order(), [])) as other:
            one.leave([0, 1])
            assert script.cancelled == set()
            other.leave([1])
            assert script.cancelled == {1}
        assert script.cancelled == {0, 1}
        late = Script(order(count=3), [finished()])
        with store.following(KEY, Caller(), lambda: late) as third:
            assert third.order is late.order
            await read(third)
    assert script.cancelled == {0, 1, 2}
    script.allow.release()


async def test_the_quickest_reader_sets_the_pace() -> None:
    store, _ = results()
    many = [Stepped(0, step, 100) for step in range(100)]
    script = Script(order(), [*many, finished()])
    with store.following(KEY, Caller(), lambda: script) as slow:
        with store.following(KEY, Caller(), lambda: Script(order(), [])) as quick:
            await until(lambda: script.told == MAX_UNREAD_EVENTS)
            assert len(await read(quick)) == 101
        assert slow.read == 0
        assert len(await read(slow)) == 101


@pytest_asyncio.fixture
async def workshop() -> AsyncIterator[Workshop]:
    workshop = Workshop(results=Results(ROOM, CollectorRegistry()))
    async with workshop.open():
        yield workshop


async def told(workshop: Workshop, wish: Wish) -> list[Event]:
    seen: list[Event] = []

    async def put(event: Event) -> None:
        seen.append(event)

    await workshop.studio.job(wish, Caller()).run(put)
    return seen


WISH = Wish(prompt="a star", steps=4, seed=5, count=2, guidance_scale=1.0)


async def test_the_second_time_nothing_is_computed(workshop: Workshop) -> None:
    first = await told(workshop, WISH)
    steps = len(workshop.network.batches)
    again = await told(workshop, replace(WISH, id="another"))
    assert len(workshop.network.batches) == steps
    pictures = [{e.index: e for e in each if isinstance(e, Finished)} for each in (first, again)]
    for index in (0, 1):
        one, same = (each[index] for each in pictures)
        assert (one.data, one.record, one.cached) == (same.data, same.record, False)
        assert (same.cached, same.timing) == (True, Timing())


async def test_a_drawn_seed_and_a_verification_are_always_made(workshop: Workshop) -> None:
    for wish in (replace(WISH, seed=None), replace(WISH, seed=None)):
        before = len(workshop.network.batches)
        await told(workshop, wish)
        assert len(workshop.network.batches) > before
    await told(workshop, WISH)
    before = len(workshop.network.batches)
    assert not (await workshop.studio.picture(WISH, Caller())).cached
    assert len(workshop.network.batches) > before


async def test_a_cancel_only_leaves_until_it_is_the_last(workshop: Workshop) -> None:
    workshop.network.gate.clear()
    jobs = [workshop.studio.job(replace(WISH, id=name), Caller()) for name in "ab"]
    seen: list[list[Event]] = [[], []]

    async def run(number: int) -> None:
        async def put(event: Event) -> None:
            seen[number].append(event)

        await jobs[number].run(put)

    def kinds(number: int) -> list[str]:
        return [type(event).__name__ for event in seen[number]]

    running = [asyncio.create_task(run(number)) for number in (0, 1)]
    await until(lambda: all(kinds(number).count("Admitted") == 2 for number in (0, 1)))
    jobs[0].cancel()
    await running[0]
    assert kinds(0).count("Stopped") == 2
    workshop.network.gate.set()
    await running[1]
    assert kinds(1).count("Finished") == 2
    assert max(workshop.network.batches) == 2


async def test_the_last_cancel_stops_the_work(workshop: Workshop) -> None:
    workshop.network.gate.clear()
    wish = replace(WISH, steps=100)
    jobs = [workshop.studio.job(wish, Caller()) for _ in range(2)]
    running = [asyncio.create_task(_drained(job)) for job in jobs]
    await until(lambda: workshop.engine.report().rows == 2)
    for task in running:
        task.cancel()
    await asyncio.gather(*running, return_exceptions=True)
    workshop.network.gate.set()
    await until(lambda: workshop.engine.report().rows == 0)
    assert len(workshop.network.batches) < 100


async def _drained(job: Job) -> None:
    async for _ in job.events():
        pass


async def test_an_order_not_taken_on_tells_all_its_followers(workshop: Workshop) -> None:
    too_long = replace(WISH, prompt=" ".join(["word"] * 40))
    ended = await asyncio.gather(
        *(told(workshop, too_long) for _ in range(3)), return_exceptions=True
    )
    assert [type(error) for error in ended] == [InvalidInput] * 3
    assert len([e for e in await told(workshop, WISH) if isinstance(e, Finished)]) == 2
