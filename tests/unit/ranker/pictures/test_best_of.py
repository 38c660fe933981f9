"""The contest as it runs, over a generator and a judge made for the test."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing

import pytest

from ranker.pictures.best_of import BestOf
from ranker.pictures.contest import Contest
from ranker.pictures.events import (
    Admitted,
    Broken,
    Event,
    Failed,
    Finished,
    Made,
    News,
    Previewed,
    Pruned,
    Result,
    Scored,
    Started,
    Stepped,
    Stopped,
)
from ranker.pictures.judging import Score, TopLabel
from ranker.pictures.schedule import Round
from services.core.errors import EaselError, ModelFault, NotReady

STEPS = 10
TOP = TopLabel(0, "red star", 0.5)


class FakeGenerator:
    """Steps its rows one after the other; at the steps named it waits to be told whom to keep."""

    def __init__(
        self, rows: int, previews: Sequence[int] = (), *, patience: dict[int, int] | None = None
    ) -> None:
        self.alive = set(range(rows))
        self.row_steps = 0
        self.kept: list[tuple[int, ...]] = []
        self.cancelled = False
        self.ended = asyncio.Event()
        self.error_at: dict[int, EaselError] = {}
        self._rows = rows
        self._previews = previews
        self._patience = patience or {}
        self._stopped: list[int] = []
        self._told = asyncio.Event()

    async def news(self) -> AsyncGenerator[News, None]:
        try:
            for index in range(self._rows):
                yield Admitted(index, 1000 + index, STEPS, 0.5)
            for step in range(1, STEPS + 1):
                async for each in self._step(step):
                    yield each
            for index in sorted(self.alive):
                yield Made(index, STEPS, b"final %d" % index, origin=f"origin {index}")
        finally:
            self.ended.set()

    async def _step(self, step: int) -> AsyncGenerator[News, None]:
        if step in self.error_at:
            raise self.error_at[step]
        for index in sorted(self.alive):
            self.row_steps += 1
            yield Stepped(index, step)
            if step in self._previews:
                yield Previewed(index, step, b"%d %d" % (step, index))
        while len(self.alive) > self._patience.get(step, self._rows):
            self._told.clear()
            await self._told.wait()
        for index in self._stopped:
            yield Stopped(index, step)
        self._stopped.clear()

    async def keep_only(self, indices: Sequence[int]) -> None:
        self.kept.append(tuple(indices))
        self._stopped += sorted(self.alive - set(indices))
        self.alive &= set(indices)
        self._told.set()

    async def cancel(self) -> None:
        self.cancelled = True
        self.alive.clear()


class FakeJudge:
    """Scores by a table, most at a time counted."""

    def __init__(self, value: Callable[[bytes], float | EaselError]) -> None:
        self._value = value
        self.seen: list[bytes] = []
        self.at_once = 0
        self.most_at_once = 0
        self.pairwise = False
        self.compared: list[list[bytes]] = []

    async def compare(
        self, images: Sequence[bytes], room: asyncio.Semaphore
    ) -> list[Score | EaselError]:
        """As ``score`` does, each less the mean of all."""
        self.compared.append(sorted(images))
        values = [self._value(image) for image in images]
        sound = [value for value in values if not isinstance(value, EaselError)]
        return [
            value if isinstance(value, EaselError) else Score(value - sum(sound) / len(sound), TOP)
            for value in values
        ]

    async def score(self, image: bytes) -> Score:
        self.seen.append(image)
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        await asyncio.sleep(0)
        self.at_once -= 1
        value = self._value(image)
        if isinstance(value, EaselError):
            raise value
        return Score(value, TOP)


class SilentJudge:
    """Never answers."""

    pairwise = False

    def __init__(self) -> None:
        self.asked = asyncio.Event()

    async def compare(
        self, images: Sequence[bytes], room: asyncio.Semaphore
    ) -> list[Score | EaselError]:
        raise AssertionError("it is not pairwise")

    async def score(self, image: bytes) -> Score:
        self.asked.set()
        answer: asyncio.Future[Score] = asyncio.get_running_loop().create_future()
        return await answer


def by_index(image: bytes) -> float:
    """The larger the index the better."""
    return float(image.split()[-1]) - 10.0


async def collect(best_of: BestOf) -> list[Event]:
    return [event async for event in best_of.run()]


def of(events: list[Event], kind: type[Event]) -> list[Event]:
    return [event for event in events if isinstance(event, kind)]


async def test_losers_are_stopped_and_survivors_ranked() -> None:
    rounds = (Round(0.5, 4), Round(0.8, 2))
    generator = FakeGenerator(8, (5, 8), patience={5: 4, 8: 2})
    judge = FakeJudge(by_index)
    events = await collect(BestOf(Contest(8, STEPS, rounds), generator, judge))

    assert isinstance(events[0], Started)
    assert events[0].seeds == tuple(range(1000, 1008))
    result = events[-1]
    assert isinstance(result, Result)
    assert [each.index for each in result.candidates] == [7, 6, 5, 4, 3, 2, 1, 0]
    assert [each.pruned_at_step for each in result.candidates] == [None] * 2 + [8] * 2 + [5] * 4
    assert [each.image for each in result.candidates][:3] == [b"final 7", b"final 6", b"8 5"]
    assert generator.row_steps == result.row_steps_spent == 8 * 5 + 4 * 3 + 2 * 2
    assert result.row_steps_saved == 8 * STEPS - result.row_steps_spent
    assert len(judge.seen) == 8 + 4 + 2
    assert generator.kept[-1] == (6, 7)


async def test_every_event_comes_in_its_order() -> None:
    generator = FakeGenerator(2, (5,), patience={5: 1})
    contest = Contest(2, STEPS, (Round(0.5, 1),))
    events = await collect(BestOf(contest, generator, FakeJudge(by_index)))
    scored = [event for event in events if isinstance(event, Scored)]
    assert [(each.step, each.image, each.final) for each in scored[:2]] == [
        (5, b"5 0", False),
        (5, b"5 1", False),
    ]
    (pruned,) = of(events, Pruned)
    assert events.index(pruned) > events.index(scored[0])
    (finished,) = of(events, Finished)
    assert events.index(finished) == events.index(scored[2]) + 1
    assert isinstance(finished, Finished)
    assert finished.origin == "origin 1"


async def test_without_rounds_all_finish_and_nothing_is_saved() -> None:
    generator = FakeGenerator(3)
    events = await collect(BestOf(Contest(3, STEPS, ()), generator, FakeJudge(by_index)))
    result = events[-1]
    assert isinstance(result, Result)
    assert (result.row_steps_spent, result.row_steps_saved) == (30, 0)
    assert generator.kept == []


async def test_the_judge_gets_no_more_than_its_bound() -> None:
    judge = FakeJudge(by_index)
    best_of = BestOf(Contest(9, STEPS, ()), FakeGenerator(9), judge, max_judging=2)
    await collect(best_of)
    assert (judge.most_at_once, len(judge.seen)) == (2, 9)


async def test_a_tiny_inbox_is_enough() -> None:
    generator = FakeGenerator(4, (5,), patience={5: 2})
    contest = Contest(4, STEPS, (Round(0.5, 2),))
    events = await collect(BestOf(contest, generator, FakeJudge(by_index), max_unread=1))
    assert isinstance(events[-1], Result)


async def test_one_that_cannot_be_judged_fails_and_the_rest_go_on() -> None:
    def value(image: bytes) -> float | EaselError:
        return NotReady("Away.") if image == b"5 3" else by_index(image)

    generator = FakeGenerator(4, (5,), patience={5: 2})
    contest = Contest(4, STEPS, (Round(0.5, 2),))
    events = await collect(BestOf(contest, generator, FakeJudge(value)))
    result = events[-1]
    assert isinstance(result, Result)
    assert [(each.index, each.rank) for each in result.candidates] == [
        (2, 1),
        (1, 2),
        (0, 3),
        (3, 0),
    ]
    assert len(of(events, Failed)) == 1
    assert generator.row_steps == result.row_steps_spent == 4 * 5 + 2 * 5


async def test_a_judge_that_is_away_stops_all_rows_and_is_the_error() -> None:
    generator = FakeGenerator(4, (5,), patience={5: 0})
    contest = Contest(4, STEPS, (Round(0.5, 2),))
    with pytest.raises(NotReady, match="Away"):
        await collect(BestOf(contest, generator, FakeJudge(lambda _: NotReady("Away."))))
    assert generator.row_steps == 20


async def test_the_generators_error_ends_it() -> None:
    generator = FakeGenerator(2)
    generator.error_at[3] = NotReady("Gone.")
    with pytest.raises(NotReady, match="Gone"):
        await collect(BestOf(Contest(2, STEPS, ()), generator, FakeJudge(by_index)))
    assert generator.cancelled


async def test_a_fault_of_the_judge_is_not_swallowed() -> None:
    def value(image: bytes) -> float:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await collect(BestOf(Contest(2, STEPS, ()), FakeGenerator(2), FakeJudge(value)))


class EndingEarly(FakeGenerator):
    async def news(self) -> AsyncGenerator[News, None]:
        yield Admitted(0, 1, STEPS)


async def test_a_generator_that_ends_early_is_a_fault() -> None:
    with pytest.raises(ModelFault, match="ended before"):
        await collect(BestOf(Contest(1, STEPS, ()), EndingEarly(1), FakeJudge(by_index)))


class Refusing(FakeGenerator):
    async def news(self) -> AsyncGenerator[News, None]:
        for index in range(2):
            yield Broken(index, NotReady("Full."))


async def test_all_refused_is_the_error() -> None:
    with pytest.raises(NotReady, match="Full"):
        await collect(BestOf(Contest(2, STEPS, ()), Refusing(2), FakeJudge(by_index)))


async def test_closing_stops_everything() -> None:
    generator, judge = FakeGenerator(4, (5,), patience={5: 2}), SilentJudge()
    before = asyncio.all_tasks()
    best_of = BestOf(Contest(4, STEPS, (Round(0.5, 2),)), generator, judge)
    async with aclosing(best_of.run()) as events:
        assert isinstance(await anext(events), Started)
    assert generator.cancelled
    await generator.ended.wait()
    assert asyncio.all_tasks() == before


async def test_cancelling_its_reader_stops_everything() -> None:
    generator, judge = FakeGenerator(4, (5,), patience={5: 2}), SilentJudge()
    best_of = BestOf(Contest(4, STEPS, (Round(0.5, 2),)), generator, judge)
    before = asyncio.all_tasks()
    reader = asyncio.create_task(collect(best_of))
    await judge.asked.wait()
    reader.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reader
    assert generator.cancelled
    assert asyncio.all_tasks() == before


# ---- pictures that are compared with each other ----


def comparing(value: Callable[[bytes], float | EaselError]) -> FakeJudge:
    judge = FakeJudge(value)
    judge.pairwise = True
    return judge


async def test_a_rounds_pictures_are_compared_once_all_are_there() -> None:
    rounds = (Round(0.5, 3), Round(0.8, 2))
    generator = FakeGenerator(5, (5, 8), patience={5: 3, 8: 2})
    judge = comparing(by_index)
    events = await collect(BestOf(Contest(5, STEPS, rounds), generator, judge))
    result = events[-1]
    assert isinstance(result, Result)
    assert [each.index for each in result.candidates] == [4, 3, 2, 1, 0]
    assert [each.pruned_at_step for each in result.candidates] == [None, None, 8, 5, 5]
    assert judge.seen == []
    assert judge.compared == [
        [b"5 0", b"5 1", b"5 2", b"5 3", b"5 4"],
        [b"8 2", b"8 3", b"8 4"],
        [b"final 3", b"final 4"],
    ]
    # Scores of another round are of another company.
    assert [each.score.value for each in result.candidates if each.score] == [0.5, -0.5, -1, -1, -2]


class Breaking(FakeGenerator):
    """Candidate 0 breaks down when the others' previews are there."""

    async def _step(self, step: int) -> AsyncGenerator[News, None]:
        if step == 5:
            for index in (1, 2):
                yield Previewed(index, 5, b"5 %d" % index)
            self.alive.discard(0)
            yield Broken(0, NotReady("Gone."))
            return
        async for each in super()._step(step):
            yield each


async def test_one_that_breaks_down_is_not_waited_for() -> None:
    judge = comparing(by_index)
    contest = Contest(3, STEPS, (Round(0.5, 2),))
    events = await collect(BestOf(contest, Breaking(3), judge))
    assert judge.compared == [[b"5 1", b"5 2"], [b"final 1", b"final 2"]]
    result = events[-1]
    assert isinstance(result, Result)
    assert [(each.index, each.rank) for each in result.candidates] == [(2, 1), (1, 2), (0, 0)]


class Withholding(FakeGenerator):
    """Shows no preview of candidate 0."""

    async def _step(self, step: int) -> AsyncGenerator[News, None]:
        async for each in super()._step(step):
            if not (isinstance(each, Previewed) and each.index == 0):
                yield each


async def test_a_preview_that_never_comes_is_waited_for_until_its_step_is_past() -> None:
    judge = comparing(by_index)
    contest = Contest(3, STEPS, (Round(0.5, 2),))
    events = await collect(BestOf(contest, Withholding(3, (5,)), judge))
    assert judge.compared[0] == [b"5 1", b"5 2"]
    assert isinstance(events[-1], Result)


async def test_one_that_cannot_be_compared_fails_and_the_rest_go_on() -> None:
    def value(image: bytes) -> float | EaselError:
        return ModelFault("Unreadable.") if image == b"5 2" else by_index(image)

    contest = Contest(3, STEPS, (Round(0.5, 2),))
    generator = FakeGenerator(3, (5,), patience={5: 2})
    events = await collect(BestOf(contest, generator, comparing(value)))
    result = events[-1]
    assert isinstance(result, Result)
    assert [(each.index, each.rank) for each in result.candidates] == [(1, 1), (0, 2), (2, 0)]


async def test_a_fault_of_a_comparison_is_not_swallowed() -> None:
    def value(image: bytes) -> float:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await collect(BestOf(Contest(2, STEPS, ()), FakeGenerator(2), comparing(value)))
