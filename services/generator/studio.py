"""Orders in, the lives of their pictures out: the service without its transport."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections.abc import AsyncGenerator, Callable, Collection, Coroutine, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from PIL import Image

from services.core import images
from services.core.caller import Caller
from services.core.engine import Engine, Output, Ticket, Timing
from services.core.errors import Cancelled, EaselError, FailedPrecondition, ModelFault
from services.core.pool import WorkerPool
from services.generator.credentials import Credentials
from services.generator.degrade import degraded, fewer_steps, shortened
from services.generator.diffusion import DENOISE, Picture, Result, Withheld
from services.generator.events import (
    MAX_UNREAD_EVENTS,
    Admitted,
    Blocked,
    Event,
    Failed,
    Finished,
    Previewed,
    Put,
    Stepped,
    Stopped,
)
from services.generator.modes import Stylize
from services.generator.outbox import Outbox
from services.generator.painter import Painter, Work
from services.generator.parameters import parameters_text
from services.generator.provenance import RECORD_KEY, Scribe, device_class
from services.generator.request import (
    ImageFormat,
    Order,
    Wish,
    check_indices,
    resolve,
    steps_taken,
)
from services.generator.results import Follower, Results, fingerprint

log = logging.getLogger("easel.generator")


class Studio:
    """Resolves wishes and runs jobs on one engine. Belongs to the engine's event loop."""

    def __init__(
        self,
        model: Painter,
        engine: Engine[Any, Result],
        *,
        prepare: WorkerPool,
        load: WorkerPool,
        finish: WorkerPool,
        scribe: Scribe,
        draw_seed: Callable[[], int],
        results: Results | None = None,
        credentials: Credentials | None = None,
        least_steps: int = 1,
    ) -> None:
        """``prepare`` and ``load`` make orders ready, ``load`` those for which weights may be read.
        ``results`` keep and share what is deterministic; ``credentials`` sign each picture.
        """
        self.model = model
        self.engine = engine
        self.prepare = prepare
        self.load = load
        self.finish = finish
        self.scribe = scribe
        self.least_steps = least_steps
        self._draw_seed = draw_seed
        self._results = results
        self.credentials = credentials

    def job(self, wish: Wish, caller: Caller) -> Job:
        """Raises ``InvalidInput`` where ``wish`` is outside the model's limits."""
        order = self._order(wish)
        if self._results is not None and deterministic(wish):
            return SharedJob(self, order, caller, self._results)
        return Job(self, order, caller)

    def pool_for(self, order: Order) -> WorkerPool:
        """Where it is made ready: weights take seconds to read, and orders that need none are not
        to wait for them.
        """
        named = order.adapters or order.controls
        # For which OpenVINO reads the U-Net itself, once.
        others = order.cache_interval > 1 or isinstance(order.mode, Stylize)
        return self.load if named or others else self.prepare

    @property
    def maker(self) -> tuple[str, ...]:
        """Who makes the pictures: the same order of another may look different."""
        effective = self.model.loaded.effective
        return (
            self.model.name.digest,
            effective.backend,
            effective.precision,
            device_class(effective),
        )

    async def picture(self, wish: Wish, caller: Caller) -> Finished:
        """The first picture of ``wish``, made now; raises the ``EaselError`` that it ended with."""
        events = Job(self, self._order(wish), caller).events()
        try:
            async for event in events:
                if isinstance(event, Failed):
                    raise event.error
                if isinstance(event, Blocked):
                    raise FailedPrecondition(event.reason, reason="BLOCKED")
                if isinstance(event, Finished):
                    return event
        finally:
            await events.aclose()
        raise ModelFault()

    def _order(self, wish: Wish) -> Order:
        return resolve(wish, self.model.limits, draw_seed=self._draw_seed)


class Job:
    """One order on its way. ``run`` it once; cancel what is no longer wanted at any time."""

    def __init__(self, studio: Studio, order: Order, caller: Caller) -> None:
        self.order = order
        self._studio = studio
        self._caller = caller
        self._unwanted: set[int] = set()
        self._tickets: dict[int, Ticket[Result]] = {}

    def cancel(self, indices: Collection[int] = (), *, field: str = "indices") -> None:
        """Stop the pictures named, or all of them; those that are finished stay so."""
        check_indices(field, indices, len(self.order.seeds))
        self._stop(set(indices) or set(range(len(self.order.seeds))))

    def keep_only(self, indices: Collection[int], *, field: str = "indices") -> None:
        check_indices(field, indices, len(self.order.seeds))
        self._stop(set(range(len(self.order.seeds))) - set(indices))

    def events(self) -> AsyncGenerator[Event, None]:
        """``run``, as an iterator; closing it cancels what is not finished."""
        outbox: Outbox[Event] = Outbox(MAX_UNREAD_EVENTS)
        outbox.spawn(self.run(outbox.put))
        return outbox.items()

    async def run(self, put: Put) -> None:
        """Hand every picture's events to ``put``, until the last one has ended.

        A picture's failure is an event; raises the ``EaselError`` that keeps the whole order from
        being taken on. When ``put`` waits, the pictures wait too.
        """
        try:
            await _all_of(await self._admit(put))
        except asyncio.CancelledError as left:
            # What cancelled a group and its frame hold on to each other (Python 3.11), and to this.
            raise left.with_traceback(None) from None
        finally:
            for ticket in self._tickets.values():
                ticket.cancel()

    def _stop(self, indices: Collection[int]) -> None:
        self._unwanted.update(indices)
        for index in indices:
            if index in self._tickets:
                self._tickets[index].cancel()

    async def _admit(self, put: Put) -> list[Coroutine[Any, Any, None]]:
        """The lives of the pictures, each the only one to hold its own."""
        started = time.perf_counter()
        studio, caller = self._studio, self._caller
        works = await self._works()
        # With its given pictures decoded.
        self.order = works[0].order
        tickets = studio.engine.submit_all(
            works,
            tenant=caller.tenant,
            priority=caller.priority,
            deadline=caller.deadline,
            in_step=self.order.in_step,
        )
        self._tickets = dict(enumerate(tickets))
        for ticket in tickets:
            ticket.timing.prepare_seconds = time.perf_counter() - started
        # What was cancelled while its prompt was read.
        self._stop(self._unwanted.copy())
        return [self._live(index, work, put) for index, work in enumerate(works)]

    async def _works(self) -> Sequence[Work]:
        """With fewer steps than asked for only where that is allowed and meets the deadline."""
        model, order = self._studio.model, self.order
        pool = self._studio.pool_for(order)
        works = await pool.run(model.works, order)
        while order.allow_degrade and not self._in_time(works, 1.0):
            steps = fewer_steps(
                order, self._studio.least_steps, partial(self._in_time_with, order, works)
            )
            if steps is None:
                break
            # Time has passed when their tables are there, so that it is looked at once more.
            order = degraded(order, steps)
            works = await pool.run(model.works, order)
        return works

    def _in_time_with(self, order: Order, works: Sequence[Work], steps: int) -> bool:
        share = steps_taken(order.mode, steps) / order.steps_taken
        return self._in_time(works, share)

    def _in_time(self, works: Sequence[Work], share: float) -> bool:
        engine, model, caller = self._studio.engine, self._studio.model, self._caller
        plans = [shortened(model.plan(work), DENOISE, share) for work in works]
        return engine.in_time(
            plans, tenant=caller.tenant, priority=caller.priority, deadline=caller.deadline
        )

    async def _live(self, index: int, work: Work, put: Put) -> None:
        ticket, steps = self._tickets[index], self.order.steps_taken
        try:
            if not ticket.cancelled:
                await put(Admitted(index, ticket.position, ticket.eta_seconds, work.seed, steps))
            await self._progress(index, work, put)
        except EaselError as error:
            error.with_traceback(None)  # it would hold on to the picture
            stopped = isinstance(error, Cancelled) and index in self._unwanted
            ended = Stopped(index, work.steps_done, steps) if stopped else Failed(index, error)
            await put(ended)
        except Exception:
            log.exception("a picture failed")
            await put(Failed(index, ModelFault()))
        finally:
            ticket.cancel()
            del self._tickets[index]

    async def _progress(self, index: int, work: Work, put: Put) -> None:
        ticket, steps, told = self._tickets[index], self.order.steps_taken, 0
        async for event in ticket:
            if isinstance(event, Output):
                await put(await self._shown(index, work, event.value, ticket))
            elif work.steps_done > told and not self.order.omit_steps:
                told = work.steps_done
                await put(Stepped(index, told, steps))

    async def _shown(
        self, index: int, work: Work, picture: Result, ticket: Ticket[Result]
    ) -> Previewed | Finished | Blocked:
        if isinstance(picture, Withheld):
            return Blocked(index, picture.reason)
        started = time.perf_counter()
        finish = self._studio.finish
        if not picture.final:
            return await finish.run(self._previewed, index, picture)
        finished = await finish.run(self._finished, index, work, picture, ticket.timing)
        ticket.timing.finish_seconds = time.perf_counter() - started
        return finished

    def _previewed(self, index: int, picture: Picture) -> Previewed:
        image, order = picture.image(), self.order
        data = _encoded(image, order.preview_output, {})
        return Previewed(index, data, picture.step, order.steps_taken, *image.size)

    def _finished(self, index: int, work: Work, picture: Picture, timing: Timing) -> Finished:
        order, studio, image, seed = self.order, self._studio, picture.image(), work.seed
        digest = hashlib.sha256(image.tobytes()).hexdigest()
        record = studio.scribe.record(order, seed, digest, studio.model.in_force(work))
        text = {
            images.PARAMETERS_KEY: parameters_text(order, seed, studio.model.name),
            RECORD_KEY: record,
        }
        data = _encoded(image, order.output, {} if order.omit_metadata else text)
        if studio.credentials is not None:
            told = "" if order.omit_metadata else record
            data = studio.credentials.sign(data, order.output.name, told)
        return Finished(index, data, seed, timing, digest, record, *image.size)


class SharedJob(Job):
    """A job whose pictures may have been made before, or be under way for others."""

    def __init__(self, studio: Studio, order: Order, caller: Caller, results: Results) -> None:
        super().__init__(studio, order, caller)
        self._results = results
        self._omit_steps = order.omit_steps
        self._follower: Follower | None = None
        self._steps: dict[int, int] = {}
        self._ended: set[int] = set()

    async def run(self, put: Put) -> None:
        studio = self._studio
        self.order, key = await studio.pool_for(self.order).run(self._pinned_and_key)
        kept = self._results.find(key)
        if kept is not None:
            self.order = kept.order
            for event in kept.events:
                await self._tell(put, event)
            return
        with self._results.following(key, self._caller, self._alone) as follower:
            self._follower = follower
            self._stop(self._unwanted.copy())
            await self._follow(put, follower)

    def _pinned_and_key(self) -> tuple[Order, bytes]:
        order = self._studio.model.pinned(self.order)
        return order, fingerprint(order, *self._studio.maker)

    def _alone(self) -> Job:
        return Job(self._studio, replace(self.order, id="", omit_steps=False), self._caller)

    def _stop(self, indices: Collection[int]) -> None:
        self._unwanted.update(indices)
        if self._follower is not None:
            self._follower.leave(indices)

    async def _follow(self, put: Put, follower: Follower) -> None:
        while len(self._ended) < len(self.order.seeds):
            follower.news.clear()
            for event in follower.unread():
                self.order = follower.order  # with its given pictures decoded
                await self._tell(put, event)
            for index in sorted(self._unwanted - self._ended):
                step = self._steps.get(index, 0)
                await self._tell(put, Stopped(index, step, self.order.steps_taken))
            if follower.behind or len(self._ended) == len(self.order.seeds):
                continue
            follower.check()
            await follower.news.wait()

    async def _tell(self, put: Put, event: Event) -> None:
        if event.index in self._ended:
            return
        match event:
            case Stepped():
                self._steps[event.index] = event.step
                if self._omit_steps:
                    return
            case Finished() | Stopped() | Blocked() | Failed():
                self._ended.add(event.index)
        await put(event)


def deterministic(wish: Wish) -> bool:
    """Whether what is made of it is the same each time: its seeds and all its steps are given."""
    seeded = wish.seed is not None or bool(wish.seeds)
    return seeded and not wish.allow_degrade


async def _all_of(lives: Sequence[Coroutine[Any, Any, None]]) -> None:
    async with asyncio.TaskGroup() as group:
        for life in lives:
            group.create_task(life)


def _encoded(image: Image.Image, output: ImageFormat, text: Mapping[str, str]) -> bytes:
    return images.encode(image, output.name, quality=output.quality, text=text)
