"""The orders of one stream, by the id that their caller gave them."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import AsyncGenerator, Collection, Coroutine
from typing import Any

from services.core.caller import Caller
from services.core.errors import EaselError, InvalidInput, ModelFault, Overloaded
from services.generator.events import MAX_UNREAD_EVENTS, Event, Failed, Refused
from services.generator.outbox import Outbox
from services.generator.request import MAX_ID_BYTES, Order, Wish
from services.generator.studio import Job, Studio

log = logging.getLogger("easel.generator")

_REMEMBERED_IDS = 1024
_RETRY_AFTER_SECONDS = 1.0

# The order is None where there is none to tell of: a wish that was refused.
Told = tuple[str, Order | None, Event]


class Session:
    """Takes wishes and cancels while the events of what is under way are read.

    At most ``max_live`` requests at a time; more are refused as failures of their own. What is
    wrong with one request never ends the session.
    """

    def __init__(self, studio: Studio, caller: Caller, *, max_live: int) -> None:
        self._studio = studio
        self._caller = caller
        self._max_live = max_live
        self._live: dict[str, Job] = {}
        # A cancel may cross the last event of its request: that is no mistake of the caller's.
        self._ended: deque[str] = deque(maxlen=_REMEMBERED_IDS)
        self._outbox: Outbox[Told] = Outbox(MAX_UNREAD_EVENTS)

    def events(self, reader: Coroutine[Any, Any, None]) -> AsyncGenerator[Told, None]:
        """(id, order, event) until ``reader``, which calls the methods below, and all it submitted
        have ended. Closing it cancels everything.
        """
        self._outbox.spawn(reader)
        return self._outbox.items()

    def submit(self, wish: Wish) -> None:
        """Raises ``InvalidInput`` or ``Overloaded`` where the wish cannot be taken on."""
        if wish.id in self._live:
            raise InvalidInput(
                "id", "A request of this id is under way.", "once at a time", wish.id[:80]
            )
        if len(self._live) >= self._max_live:
            raise Overloaded(
                _RETRY_AFTER_SECONDS, f"At most {self._max_live} requests a stream at a time."
            )
        job = self._studio.job(wish, self._caller)
        self._live[wish.id] = job
        self._outbox.spawn(self._run(wish.id, job))

    def cancel(self, request_id: str, indices: Collection[int]) -> None:
        """Raises ``InvalidInput`` for an id that was never submitted, or no such picture."""
        if (job := self._find("cancel.id", request_id)) is not None:
            job.cancel(indices, field="cancel.indices")

    def keep_only(self, request_id: str, indices: Collection[int]) -> None:
        """As ``cancel``."""
        if (job := self._find("keep_only.id", request_id)) is not None:
            job.keep_only(indices, field="keep_only.indices")

    async def fail(self, request_id: str, error: EaselError) -> None:
        """Tell of a request that could not be taken on, or of an action on one under way."""
        event = Refused(error) if request_id in self._live else Failed(0, error)
        await self._outbox.put((request_id[:MAX_ID_BYTES], None, event))

    def _find(self, field: str, request_id: str) -> Job | None:
        job = self._live.get(request_id)
        if job is None and request_id not in self._ended:
            raise InvalidInput(
                field,
                "No request of this id was submitted on this stream.",
                given=request_id[:80],
            )
        return job

    async def _run(self, request_id: str, job: Job) -> None:
        async def put(event: Event) -> None:
            await self._outbox.put((request_id, job.order, event))

        try:
            await job.run(put)
        except EaselError as error:
            await put(Failed(0, error))
        except Exception:
            log.exception("a request failed")
            await put(Failed(0, ModelFault()))
        finally:
            del self._live[request_id]
            self._ended.append(request_id)
