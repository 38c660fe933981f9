"""Best-of-N as it runs: the generator forms the candidates, the judge scores them as they form,
and those that cannot win any more are stopped.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Coroutine, Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Protocol

from ranker.pictures.contest import Contest
from ranker.pictures.events import Event, Made, News, Previewed
from ranker.pictures.judging import Score
from services.core.errors import EaselError, ModelFault


class Generator(Protocol):
    """One request's candidates, forming."""

    def news(self) -> AsyncGenerator[News, None]:
        """Submits the request, and tells of its candidates until each has ended.

        Each ends with Made, Stopped or Broken. Raises EaselError when the request as a whole fails.
        """

    async def keep_only(self, indices: Sequence[int]) -> None:
        """Stops all candidates but these; each that was stopped in time tells so by Stopped."""

    async def cancel(self) -> None:
        """Stops everything at once; idempotent, and nothing to do once all have ended."""


class Judge(Protocol):
    """``pairwise``: pictures are compared with each other, by ``compare``; else one by one."""

    @property
    def pairwise(self) -> bool: ...

    async def score(self, image: bytes) -> Score:
        """Scores an encoded picture. Raises EaselError."""

    async def compare(
        self, images: Sequence[bytes], room: asyncio.Semaphore
    ) -> Sequence[Score | EaselError]:
        """Scores encoded pictures against each other. ``room`` bounds what is under way at a
        time."""


@dataclass(frozen=True, slots=True)
class _Judged:
    index: int
    step: int
    image: bytes
    outcome: Score | EaselError
    final: bool


@dataclass(frozen=True, slots=True)
class _Ended:
    """The generator has nothing more to tell, or something went wrong for all candidates."""

    error: Exception | None = None


class BestOf:
    """Runs one contest, once."""

    def __init__(
        self,
        contest: Contest,
        generator: Generator,
        judge: Judge,
        *,
        max_judging: int = 16,
        max_unread: int = 64,
    ) -> None:
        """``max_judging``: pictures at the judge at a time. ``max_unread``: news that wait for the
        caller to read on, before the generator is made to wait."""
        self._contest = contest
        self._generator = generator
        self._judge = judge
        self._judging = asyncio.Semaphore(max_judging)
        self._inbox: asyncio.Queue[News | _Judged | _Ended] = asyncio.Queue(max_unread)
        self._tasks: set[asyncio.Task[None]] = set()
        self._generating = True
        # Pictures of one step, or finished ones (None), until all that are to come have come.
        self._gathered: dict[int | None, list[Previewed | Made]] = {}

    async def run(self) -> AsyncGenerator[Event, None]:
        """Yields what happens, last the result. Closing it stops all candidates at once.

        Raises EaselError when the generator fails as a whole, or every candidate failed.
        """
        self._spawn(self._listen())
        try:
            while self._generating or not self._contest.is_over:
                events = self._handle(await self._inbox.get())
                keep = self._contest.keep()
                if keep is not None and self._generating:
                    await self._generator.keep_only(keep)
                for event in events:
                    yield event
            yield self._contest.result()
        finally:
            await self._close()

    def _handle(self, message: News | _Judged | _Ended) -> Iterator[Event]:
        if isinstance(message, _Ended):
            self._end(message)
            return iter(())
        if isinstance(message, _Judged):
            return self._contest.judged(
                message.index, message.step, message.image, message.outcome, final=message.final
            )
        events = self._contest.take(message)
        if isinstance(message, Previewed | Made) and self._contest.is_to_be_judged(message):
            if self._judge.pairwise:
                self._gathered.setdefault(_stage(message), []).append(message)
            else:
                self._spawn(self._score(message))
        self._compare_complete()
        return events

    def _compare_complete(self) -> None:
        """Has those pictures compared whose company is all there."""
        for stage in [each for each in self._gathered if not self._contest.is_owed(each)]:
            pictures = self._gathered.pop(stage)
            self._spawn(self._compare(pictures))

    def _end(self, ended: _Ended) -> None:
        self._generating = False
        if ended.error is not None:
            raise ended.error
        if not self._contest.is_made:
            raise ModelFault("The generator ended before its candidates did.")

    async def _listen(self) -> None:
        try:
            async with aclosing(self._generator.news()) as stream:
                async for news in stream:
                    await self._inbox.put(news)
            await self._inbox.put(_Ended())
        except Exception as error:
            await self._inbox.put(_Ended(error))

    async def _compare(self, pictures: Sequence[Previewed | Made]) -> None:
        try:
            images = [picture.image for picture in pictures]
            outcomes = await self._judge.compare(images, self._judging)
        except Exception as error:
            await self._inbox.put(_Ended(error))
            return
        for picture, outcome in zip(pictures, outcomes, strict=True):
            await self._inbox.put(_judged(picture, outcome))

    async def _score(self, picture: Previewed | Made) -> None:
        outcome: Score | EaselError
        try:
            async with self._judging:
                outcome = await self._judge.score(picture.image)
        except EaselError as error:
            outcome = error
        except Exception as error:
            await self._inbox.put(_Ended(error))
            return
        await self._inbox.put(_judged(picture, outcome))

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _close(self) -> None:
        running = list(self._tasks)
        for task in running:
            task.cancel()
        try:
            await self._generator.cancel()
        finally:
            await asyncio.gather(*running, return_exceptions=True)


def _stage(picture: Previewed | Made) -> int | None:
    """The step of a preview; None for a finished picture."""
    return picture.step if isinstance(picture, Previewed) else None


def _judged(picture: Previewed | Made, outcome: Score | EaselError) -> _Judged:
    final = isinstance(picture, Made)
    step = picture.steps if isinstance(picture, Made) else picture.step
    return _Judged(picture.index, step, picture.image, outcome, final)
