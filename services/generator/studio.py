"""Orders in, the lives of their pictures out: the service without its transport."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Coroutine, Mapping
from dataclasses import dataclass
from typing import Any

from PIL import Image

from services.core import images
from services.core.caller import Caller
from services.core.engine import Engine, Output, Ticket, Timing
from services.core.errors import Cancelled, EaselError, FailedPrecondition, ModelFault
from services.core.pool import WorkerPool
from services.generator.diffusion import Picture, PictureWork, Result, Withheld
from services.generator.model import GeneratorModel
from services.generator.outbox import Outbox
from services.generator.parameters import parameters_text
from services.generator.provenance import RECORD_KEY, Scribe
from services.generator.request import (
    ImageFormat,
    Order,
    Wish,
    check_indices,
    resolve,
)

MAX_UNREAD_EVENTS = 16

log = logging.getLogger("easel.generator")


@dataclass(frozen=True, slots=True)
class Admitted:
    index: int
    position: int
    eta_seconds: float
    seed: int
    steps: int


@dataclass(frozen=True, slots=True)
class Stepped:
    index: int
    step: int
    steps: int


@dataclass(frozen=True, slots=True)
class Previewed:
    """``data``: an image file."""

    index: int
    data: bytes
    step: int
    steps: int
    width: int
    height: int


@dataclass(frozen=True, slots=True)
class Finished:
    """``data``: an image file; ``record``: how it was made, as ``Scribe`` writes it;
    ``pixel_sha256``: hex, of its RGB pixels before they were encoded, row-major.
    """

    index: int
    data: bytes
    seed: int
    timing: Timing
    pixel_sha256: str
    record: str


@dataclass(frozen=True, slots=True)
class Stopped:
    """Cancelled after ``step`` steps."""

    index: int
    step: int
    steps: int


@dataclass(frozen=True, slots=True)
class Blocked:
    """The model's safety checker withheld the picture."""

    index: int
    reason: str


@dataclass(frozen=True, slots=True)
class Failed:
    index: int
    error: EaselError


@dataclass(frozen=True, slots=True)
class Refused:
    """An action on a request that is under way was not taken; its pictures go on."""

    error: EaselError
    index: int = 0


Event = Admitted | Stepped | Previewed | Finished | Stopped | Blocked | Failed | Refused
Put = Callable[[Event], Awaitable[None]]


class Studio:
    """Resolves wishes and runs jobs on one engine. Belongs to the engine's event loop."""

    def __init__(
        self,
        model: GeneratorModel,
        engine: Engine[PictureWork, Result],
        *,
        prepare: WorkerPool,
        finish: WorkerPool,
        scribe: Scribe,
        draw_seed: Callable[[], int],
    ) -> None:
        self.model = model
        self.engine = engine
        self.prepare = prepare
        self.finish = finish
        self.scribe = scribe
        self._draw_seed = draw_seed

    def job(self, wish: Wish, caller: Caller) -> Job:
        """Raises ``InvalidInput`` where ``wish`` is outside the model's limits."""
        order = resolve(wish, self.model.limits, draw_seed=self._draw_seed)
        return Job(self, order, caller)

    async def picture(self, wish: Wish, caller: Caller) -> Finished:
        """The first picture of ``wish``; raises the ``EaselError`` that it ended with."""
        events = self.job(wish, caller).events()
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
            lives = await self._admit(put)
            async with asyncio.TaskGroup() as group:
                for life in lives:
                    group.create_task(life)
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
        works = await studio.prepare.run(studio.model.works, self.order)
        # With its given pictures decoded.
        self.order = works[0].order
        tickets = studio.engine.submit_all(
            works, tenant=caller.tenant, priority=caller.priority, deadline=caller.deadline
        )
        self._tickets = dict(enumerate(tickets))
        for ticket in tickets:
            ticket.timing.prepare_seconds = time.perf_counter() - started
        # What was cancelled while its prompt was read.
        self._stop(self._unwanted.copy())
        return [self._live(index, work, put) for index, work in enumerate(works)]

    async def _live(self, index: int, work: PictureWork, put: Put) -> None:
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

    async def _progress(self, index: int, work: PictureWork, put: Put) -> None:
        ticket, steps, told = self._tickets[index], self.order.steps_taken, 0
        async for event in ticket:
            if isinstance(event, Output):
                await put(await self._shown(index, work, event.value, ticket))
            elif work.steps_done > told and not self.order.omit_steps:
                told = work.steps_done
                await put(Stepped(index, told, steps))

    async def _shown(
        self, index: int, work: PictureWork, picture: Result, ticket: Ticket[Result]
    ) -> Previewed | Finished | Blocked:
        if isinstance(picture, Withheld):
            return Blocked(index, picture.reason)
        started = time.perf_counter()
        finish = self._studio.finish
        if not picture.final:
            data = await finish.run(_encoded, picture, self.order.preview_output, {})
            height, width = picture.pixels.shape[:2]
            return Previewed(index, data, picture.step, work.table.steps, width, height)
        finished = await finish.run(self._finished, index, work.seed, picture, ticket.timing)
        ticket.timing.finish_seconds = time.perf_counter() - started
        return finished

    def _finished(self, index: int, seed: int, picture: Picture, timing: Timing) -> Finished:
        order, studio = self.order, self._studio
        digest = hashlib.sha256(picture.pixels.tobytes()).hexdigest()
        record = studio.scribe.record(order, seed, digest)
        text = {
            images.PARAMETERS_KEY: parameters_text(order, seed, studio.model.name),
            RECORD_KEY: record,
        }
        data = _encoded(picture, order.output, {} if order.omit_metadata else text)
        return Finished(index, data, seed, timing, digest, record)


def _encoded(picture: Picture, output: ImageFormat, text: Mapping[str, str]) -> bytes:
    image = Image.fromarray(picture.pixels)
    return images.encode(image, output.name, quality=output.quality, text=text)
