"""The fleet: loads models beside those that serve, routes to them, and unloads what must go.

::

    LoadModel ─► find files ─► make room ─► LOADING ─► WARMING_UP ─► READY ─► UNLOADING ─► UNLOADED
                 in a thread   least          in a thread  │            │      what was admitted
                               recently used               ▼            │      is finished first
                                                         FAILED         └ traffic moves in one turn
                                                                          of the loop

All state lives on the event loop. Finding the model of a request is one look-up in a dictionary,
which is replaced as a whole whenever versions or shares change, so that a request sees either the
old versions or the new ones; what was admitted to a version stays with it. Loads come one after
another, each in a thread of its own, and go on when their caller leaves.
"""

from __future__ import annotations

import asyncio
import logging
import math
import random
import time
from collections.abc import AsyncGenerator, Callable, Coroutine, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, Final, Generic, Protocol, TypeVar

from prometheus_client import CollectorRegistry

from services.core.background import in_thread
from services.core.card import ModelCard, ModelKind, ModelState
from services.core.engine import (
    Device,
    Engine,
    EngineLimits,
    EngineMetrics,
    EngineReport,
    Model,
    ThreadDevice,
)
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
from services.core.fleet.changes import Changes
from services.core.fleet.member import Member, label_of
from services.core.fleet.memory import Resident, to_evict
from services.core.fleet.metrics import FleetMetrics
from services.core.fleet.order import LoadOrder
from services.core.fleet.traffic import Split, check_shares
from services.core.memory import settle_again
from services.core.reference import ModelFiles, weight_bytes

log = logging.getLogger("easel.fleet")

M = TypeVar("M", bound=Model[Any, Any])
M_co = TypeVar("M_co", bound=Model[Any, Any], covariant=True)
R = TypeVar("R")

MAX_WAITING_LOADS: Final = 8
MAX_FAILED: Final = 32
"""Failed loads that are remembered, for whoever asks why."""

_RETRY_SECONDS: Final = 10.0
_FOR_EVER: Final = math.inf
_SERVING: Final = (ModelState.READY, ModelState.UNLOADING)
_TRAFFIC: Final = "has traffic of its name"


class Maker(Protocol[M_co]):
    """Turns orders into models, not loaded yet."""

    def builder(self, order: LoadOrder) -> Callable[[ModelFiles], M_co]:
        """What makes the model that is ordered of its files. Raises ``InvalidInput``."""

    def find(self, order: LoadOrder) -> ModelFiles:
        """The model's files, under the order's name. Blocking; raises what it must."""


class Fleet(Generic[M]):
    """The models of one process.

    ``load`` (from a thread) brings up the ``first`` one, the default; then come ``start`` and all
    the rest on one event loop, and ``drain`` and ``close``. ``first`` answers its files and the
    model. ``describe`` makes the card of one that is loaded. Without a ``maker`` no further one can
    be loaded. ``budget_bytes`` bounds the weights of all together. ``draw`` answers numbers from 0
    to 1, exclusive, for the split of traffic; ``clock`` gives the seconds of ``Member.used_at``.
    ``on_fatal`` is called should an engine break.
    """

    def __init__(
        self,
        first: Callable[[], tuple[ModelFiles, M]],
        describe: Callable[[M, EngineReport], ModelCard],
        *,
        kind: ModelKind,
        limits: EngineLimits,
        registry: CollectorRegistry,
        maker: Maker[M] | None = None,
        budget_bytes: int | None = None,
        draw: Callable[[], float] | None = None,
        clock: Callable[[], float] = time.perf_counter,
        device: Callable[[], Device] = ThreadDevice,
        on_fatal: Callable[[BaseException], None] | None = None,
    ) -> None:
        self._first = first
        self._describe = describe
        self._kind = kind
        self._limits = limits
        self._registry = registry
        self._maker = maker
        self._budget_bytes = budget_bytes
        # Of its own: seeding the shared generator, as models do, would repeat its numbers.
        self._draw = draw or random.Random().random
        self._clock = clock
        self._device = device
        self._on_fatal = on_fatal
        self._default = ""
        self._members: dict[tuple[str, str], Member[M]] = {}
        self._fixed: dict[tuple[str, str], Member[M]] = {}
        self._splits: dict[str, Split[Member[M]]] = {}
        self._changes: Changes[ModelCard] = Changes(self._present)
        self._orders: list[LoadOrder] = []
        self._turn = asyncio.Lock()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._closing = False
        self._metrics = FleetMetrics(registry, self._bytes_by_model, budget_bytes)

    # Life.

    def load(self) -> None:
        """Loads and warms up the first model. Blocking: call it from a thread.

        Raises what that raises, and ``FailedPrecondition`` for one larger than the budget.
        """
        files, model = self._first()
        member = self._member(files, model)
        self._members[member.key] = member
        member.engine.load()
        member.bytes = self._card(member, ModelState.READY).bytes_in_memory
        self._check_budget(member.label, member.bytes)
        self._default = files.name
        self._metrics.loads["ok"] += 1
        self._open(member, all_traffic=True)

    async def start(self) -> None:
        for member in self._members.values():
            await member.engine.start()

    async def drain(self, timeout_seconds: float) -> None:
        """Ends watches, lets what was admitted finish, and cancels what is left in the end."""
        self._closing = True
        self._changes.end()
        members = list(self._members.values())
        await asyncio.gather(*(member.drain(timeout_seconds) for member in members))

    async def close(self) -> None:
        """Waits for a load under way, which nothing can stop, and frees every model."""
        self._closing = True
        self._changes.end()
        for member in list(self._members.values()):
            if member.state in _SERVING:
                await member.engine.close()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.gather(*(member.engine.close() for member in self._members.values()))

    # Reading.

    def find(self, name: str, version: str) -> Member[M]:
        """The model for a request; an empty name is the default, an empty version is chosen by the
        shares.

        Raises ``NotFound``, ``NotReady`` for one that is being loaded, ``FailedPrecondition`` for
        one that could not be.
        """
        member = self._fixed.get((name, version))
        return member if member is not None else self._chosen(name, version)

    def list_models(self) -> list[ModelCard]:
        return [self._card(member) for member in self._members.values()]

    def get_model(self, name: str, version: str) -> ModelCard:
        """Of an empty version, the one with the largest share. Raises ``NotFound``."""
        return self._card(self._named(name or self._default, version))

    def watch_models(self) -> AsyncGenerator[ModelCard, None]:
        """Every model as it is, then each change; ends when the process drains."""
        return self._changes.watch()

    # Changing.

    async def load_model(self, order: LoadOrder) -> ModelCard:
        """Loads a model beside the others and answers when it is ready; goes on if cancelled.

        Raises ``InvalidInput`` for what cannot be ordered and for a model larger than the budget;
        ``FailedPrecondition`` for a version that is there or on its way, and where what must go for
        it is in use; ``Overloaded`` when too many loads wait; and what finding or loading raises.
        """
        if self._maker is None:
            raise NotSupported("This server loads no further models.")
        order = order.checked()
        build = self._maker.builder(order)
        self._check_order(order)
        self._orders.append(order)
        task = self._spawn(self._load_in_turn(order, self._maker, build))
        task.add_done_callback(lambda _: self._orders.remove(order))
        return await asyncio.shield(task)

    async def enlarge(
        self, member: Member[M], needed: Callable[[], int], load: Callable[[], None]
    ) -> None:
        """Has ``load``, which is blocking, bring more of a model into memory: ``needed()`` bytes,
        within the budget. Does nothing where it needs none by its turn; goes on if cancelled.

        Raises ``FailedPrecondition`` where that is too much, or what must go for it is in use; and
        what ``load`` raises.
        """
        await asyncio.shield(self._spawn(self._enlarge_in_turn(member, needed, load)))

    async def unload_model(self, name: str, version: str) -> ModelCard:
        """Takes a model's traffic away at once, and frees it when what was admitted has finished;
        goes on if cancelled. A load that failed is forgotten.

        ``version`` may be empty where the name has one alone. Raises ``InvalidInput``,
        ``NotFound``, and ``FailedPrecondition`` for one that cannot go as it is.
        """
        member = self._to_unload(name, version)
        if member.state is ModelState.FAILED:
            del self._members[member.key]
            return self._tell(member, ModelState.UNLOADED)
        self._retire(member)
        return await asyncio.shield(self._spawn(self._unload(member)))

    def set_traffic(self, name: str, shares: Mapping[str, float]) -> list[ModelCard]:
        """Splits what names no version between versions; those not named get nothing. From here on
        requests are split so; what was admitted stays where it is.

        Raises ``InvalidInput``, ``NotFound``, and ``FailedPrecondition`` for a version that is not
        ready.
        """
        name = name or self._default
        check_shares(shares)
        self._check_name(name)
        for version in shares:
            member = self._versioned(name, version)
            if member.state is not ModelState.READY:
                raise FailedPrecondition(
                    f"{member.label} is {_word(member.state)}, and can have no share of traffic.",
                    reason="MODEL_NOT_READY",
                )
        self._share_out(name, shares)
        return [self._card(member) for member in self._versions(name)]

    # Loading.

    def _check_order(self, order: LoadOrder) -> None:
        if any(order.clashes(other) for other in self._orders):
            version = f" in version {order.version!r}" if order.version else ""
            raise FailedPrecondition(
                f"A load of {order.name!r}{version} is under way.", reason="MODEL_LOADING"
            )
        if order.version:
            self._check_new(order.name, order.version)
        if len(self._orders) > MAX_WAITING_LOADS:
            raise Overloaded(
                _RETRY_SECONDS, "Too many models wait to be loaded.", reason="LOADS_WAITING"
            )

    def _check_new(self, name: str, version: str) -> None:
        there = self._members.get((name, version))
        if there is not None and there.state is not ModelState.FAILED:
            raise FailedPrecondition(
                f"{there.label} is {_word(there.state)} already; "
                "unload it first, or load under another name or version.",
                reason="MODEL_EXISTS",
            )

    async def _load_in_turn(
        self, order: LoadOrder, maker: Maker[M], build: Callable[[ModelFiles], M]
    ) -> ModelCard:
        async with self._turn:
            self._check_open()
            files, size = await in_thread(partial(_found, maker, order))
            self._check_open()
            self._check_new(files.name, files.version)
            model = build(files)
            await self._make_room(size, files.name)
            self._check_open()
            member = self._member(files, model)
            member.bytes = size
            self._members.pop(member.key, None)  # a failed one goes, and with it its place
            self._members[member.key] = member
            try:
                await self._bring_up(member)
            except BaseException as error:
                await self._give_up(member, error)
                raise
            self._metrics.loads["ok"] += 1
            self._open(member, all_traffic=order.make_default)
            log.info("model loaded", extra={"model": member.label})
            return self._card(member)

    async def _enlarge_in_turn(
        self, member: Member[M], needed: Callable[[], int], load: Callable[[], None]
    ) -> None:
        with member:
            async with self._turn:
                self._check_open()
                more = needed()
                if more == 0:
                    return
                self._check_budget(member.label, member.bytes + more)
                await self._make_room(member.bytes + more, member.files.name, member)
                self._check_open()
                await in_thread(load)
                member.bytes = self._card(member).bytes_in_memory

    def _check_budget(self, label: str, needed_bytes: int) -> None:
        if self._budget_bytes is not None and needed_bytes > self._budget_bytes:
            raise FailedPrecondition(
                f"{label} takes {needed_bytes} bytes of memory, "
                f"and the budget is {self._budget_bytes}."
            )

    async def _bring_up(self, member: Member[M]) -> None:
        self._tell(member, ModelState.LOADING)
        loop = asyncio.get_running_loop()
        warming = partial(self._tell, member, ModelState.WARMING_UP)
        loaded = partial(loop.call_soon_threadsafe, warming)
        await in_thread(partial(member.engine.load, loaded))
        self._check_open()
        member.bytes = self._card(member, ModelState.READY).bytes_in_memory
        # What it takes on disk was a guess.
        await self._make_room(member.bytes, member.files.name, member)
        self._check_open()
        await member.engine.start()

    async def _give_up(self, member: Member[M], error: BaseException) -> None:
        known = isinstance(error, EaselError)
        log.error("loading %s failed", member.label, exc_info=None if known else error)
        await self._free(member)
        member.error = (
            error.message
            if isinstance(error, EaselError)
            else "The model could not be loaded; the server's log has the cause."
        )
        self._metrics.loads["failed"] += 1
        self._tell(member, ModelState.FAILED)
        failed = [each for each in self._members.values() if each.state is ModelState.FAILED]
        for forgotten in failed[:-MAX_FAILED]:
            del self._members[forgotten.key]
            self._tell(forgotten, ModelState.UNLOADED)

    def _member(self, files: ModelFiles, model: M) -> Member[M]:
        metrics = EngineMetrics(self._registry, label_of(files))
        engine: Engine[Any, Any] = Engine(
            model,
            limits=self._limits,
            metrics=metrics,
            device=self._device(),
            on_fatal=self._on_fatal,
        )
        return Member(files, model, engine, metrics)

    def _open(self, member: Member[M], *, all_traffic: bool) -> None:
        """Has a warm model serve."""
        member.used_at = self._clock()
        member.state = ModelState.READY
        name = member.files.name
        if all_traffic or not any(each.share for each in self._versions(name)):
            self._share_out(name, {member.files.version: 1.0}, told=member)
        else:
            self._reroute()
            self._tell(member, ModelState.READY)

    def _check_open(self) -> None:
        if self._closing:
            raise Draining()

    # Making room.

    async def _make_room(
        self, needed_bytes: int, name: str, newcomer: Member[M] | None = None
    ) -> None:
        """Unloads the least recently used models for one under ``name``, once it is in memory the
        ``newcomer``.
        """
        if self._budget_bytes is None:
            return
        residents = [
            Resident(*member.key, member.bytes, member.used_at, self._stays(member, name))
            for member in self._members.values()
            if member is not newcomer
        ]
        going = [
            self._members[resident.name, resident.version]
            for resident in to_evict(residents, needed_bytes, self._budget_bytes)
        ]
        for member in going:
            log.info("model evicted", extra={"model": member.label})
            self._metrics.evictions += 1
            self._retire(member)
        await asyncio.gather(*(self._unload(member) for member in going))

    def _stays(self, member: Member[M], name: str) -> str:
        """Why a model cannot go now for one under ``name``; empty where it can."""
        if member.state is ModelState.FAILED:
            return ""
        if member.state is not ModelState.READY:
            return _word(member.state)
        if member.in_use:
            return "in use"
        if member.share and member.files.name == name:
            return _TRAFFIC  # until the new version is there
        return self._needed(member)

    def _needed(self, member: Member[M]) -> str:
        """Why traffic needs a model; empty where it does not."""
        name = member.files.name
        if not member.share:
            return ""
        if name == self._default:
            return "has traffic of the default model"
        others = [each for each in self._versions(name) if each is not member]
        return _TRAFFIC if others else ""

    # Unloading.

    def _to_unload(self, name: str, version: str) -> Member[M]:
        if not name:
            raise InvalidInput("name", "A name is required.")
        versions = self._check_name(name)
        if not version and len(versions) > 1:
            known = ", ".join(each.files.version for each in versions)
            raise InvalidInput("version", f"{name!r} has more than one version.", known, "")
        member = self._named(name, version)
        if member.state not in (ModelState.READY, ModelState.FAILED):
            raise FailedPrecondition(
                f"{member.label} is {_word(member.state)}.", reason="MODEL_NOT_READY"
            )
        needed = self._needed(member)
        if needed:
            raise FailedPrecondition(
                f"{member.label} {needed}; give it to another version first.",
                reason="MODEL_HAS_TRAFFIC",
            )
        return member

    def _retire(self, member: Member[M]) -> None:
        """Gives a model no more requests, from now on."""
        member.share = 0.0
        member.state = ModelState.UNLOADING
        self._reroute()
        self._tell(member, ModelState.UNLOADING)

    async def _unload(self, member: Member[M]) -> ModelCard:
        await member.drain(_FOR_EVER)
        await self._free(member)
        self._members.pop(member.key, None)
        await in_thread(settle_again, "memory")
        log.info("model unloaded", extra={"model": member.label})
        return self._tell(member, ModelState.UNLOADED)

    async def _free(self, member: Member[M]) -> None:
        try:
            await member.engine.close()
        except Exception:
            log.exception("closing %s failed", member.label)
        member.bytes = 0
        member.metrics.remove()

    # Routing.

    def _chosen(self, name: str, version: str) -> Member[M]:
        split = None if version else self._splits.get(name or self._default)
        if split is not None:
            return split.pick(self._draw())
        member = self._named(name or self._default, version)
        if member.state is ModelState.FAILED:
            raise FailedPrecondition(
                f"{member.label} could not be loaded: {member.error}", reason="MODEL_FAILED"
            )
        if member.state is ModelState.UNLOADING:
            raise NotFound(f"{member.label} is being unloaded.")
        raise NotReady(f"{member.label} is {_word(member.state)}.")

    def _reroute(self) -> None:
        fixed: dict[tuple[str, str], Member[M]] = {}
        sharing: dict[str, list[Member[M]]] = {}
        for member in self._members.values():
            if member.state is ModelState.READY:
                fixed[member.key] = member
                if member.share:
                    sharing.setdefault(member.files.name, []).append(member)
        splits = {}
        for name, members in sharing.items():
            if len(members) == 1:
                fixed[name, ""] = members[0]
            else:
                splits[name] = Split((member, member.share) for member in members)
        for (name, version), member in list(fixed.items()):
            if name == self._default:
                fixed["", version] = member
        self._fixed, self._splits = fixed, splits

    def _share_out(
        self, name: str, shares: Mapping[str, float], told: Member[M] | None = None
    ) -> None:
        """Splits a name's traffic, and tells of every share that changed, and of ``told``."""
        changed = []
        for member in self._versions(name):
            share = shares.get(member.files.version, 0.0)
            if share != member.share or member is told:
                changed.append(member)
            member.share = share
        self._reroute()
        for member in changed:
            self._tell(member, member.state)

    def _versions(self, name: str) -> list[Member[M]]:
        """Those that are there, be they ready or not."""
        return [
            member
            for member in self._members.values()
            if member.files.name == name and member.state is not ModelState.FAILED
        ]

    def _check_name(self, name: str) -> list[Member[M]]:
        """All versions, failed ones too. Raises ``NotFound`` where there is none."""
        members = [member for member in self._members.values() if member.files.name == name]
        if not members:
            raise NotFound(f"There is no model {name[:100]!r} here.")
        return members

    def _named(self, name: str, version: str) -> Member[M]:
        members = self._check_name(name)
        if not version:
            return max(members, key=lambda member: member.share)
        return self._versioned(name, version)

    def _versioned(self, name: str, version: str) -> Member[M]:
        member = self._members.get((name, version))
        if member is None:
            raise NotFound(f"There is no version {version[:100]!r} of {name!r} here.")
        return member

    # Telling.

    def _present(self) -> list[tuple[tuple[str, str], ModelCard]]:
        return [(key, self._card(member)) for key, member in self._members.items()]

    def _tell(self, member: Member[M], state: ModelState) -> ModelCard:
        member.state = state
        card = self._card(member)
        self._changes.tell(member.key, card)
        return card

    def _card(self, member: Member[M], state: ModelState | None = None) -> ModelCard:
        """``state`` stands in for the member's own."""
        state = state or member.state
        files = member.files
        if state in _SERVING:
            card = self._describe(member.model, member.engine.report())
        else:
            card = ModelCard(files.name, self._kind, state, files.version, files.digest)
        return replace(card, state=state, error=member.error, traffic_share=member.share)

    def _bytes_by_model(self) -> dict[str, int]:
        members = list(self._members.values())
        return {member.label: member.bytes for member in members if member.state in _SERVING}

    def _spawn(self, work: Coroutine[Any, Any, R]) -> asyncio.Task[R]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # seen: its caller may have left, and watchers were told


def _found(maker: Maker[M], order: LoadOrder) -> tuple[ModelFiles, int]:
    files = maker.find(order)
    return replace(files, version=order.version or files.version), weight_bytes(files.directory)


def _word(state: ModelState) -> str:
    return {
        ModelState.LOADING: "being loaded",
        ModelState.WARMING_UP: "warming up",
        ModelState.READY: "loaded",
        ModelState.UNLOADING: "being unloaded",
        ModelState.UNLOADED: "unloaded",
        ModelState.FAILED: "failed",
    }[state]
