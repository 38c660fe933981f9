"""What a call carries with it: who asks, how urgent it is, and until when it is worth answering.

The server's interceptor parses it from the invocation metadata and puts it in a context variable;
``channel`` reads it there and sends it on, so handlers pass nothing along by hand.

========================  ======================================================================
``x-request-id``          at most 128 printable ASCII characters; made up where absent
``easel-tenant``          at most 128 printable ASCII characters
``easel-priority``        -10 to 10, larger is more urgent, 0 where absent
``traceparent``           W3C Trace Context, version 00; a bad one starts a new trace, as it says
========================  ======================================================================
"""

from __future__ import annotations

import random
import re
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Final

from services.core import log
from services.core.caller import Caller
from services.core.errors import InvalidInput

REQUEST_ID_KEY: Final = "x-request-id"
TENANT_KEY: Final = "easel-tenant"
PRIORITY_KEY: Final = "easel-priority"
TRACEPARENT_KEY: Final = "traceparent"
MAX_TEXT_CHARS: Final = 128
MIN_PRIORITY: Final = -10
MAX_PRIORITY: Final = 10

# gRPC gives 9.2e18 seconds, not None, where the caller set no deadline.
_NO_DEADLINE_SECONDS: Final = 1e9
# Of its own, since seeding the shared generator, as models do, would repeat ids.
_IDS: Final = random.Random()
_TRACEPARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")


@dataclass(slots=True)
class CallContext:
    """One call as seen by everything beneath its handler.

    ``deadline`` is on ``time.monotonic``, None where the caller set none. ``traceparent`` names
    this hop as the parent of the next. ``method`` is ``/package.Service/Method``.
    """

    request_id: str = ""
    tenant: str = ""
    priority: int = 0
    deadline: float | None = None
    traceparent: str = ""
    method: str = ""

    @property
    def caller(self) -> Caller:
        """What the domain is told of the call."""
        return Caller(self.tenant, self.priority, self.deadline)

    def remaining_seconds(self, now: float | None = None) -> float | None:
        """Seconds to the deadline (negative once it passed), None where there is none."""
        if self.deadline is None:
            return None
        return self.deadline - (time.monotonic() if now is None else now)


NO_CALL: Final = CallContext()
_CURRENT: ContextVar[CallContext] = ContextVar("easel_call", default=NO_CALL)


def current() -> CallContext:
    """The call being served in this context; ``NO_CALL`` outside of one."""
    return _CURRENT.get()


def enter(call: CallContext) -> None:
    """Make ``call`` current for the rest of this context; gRPC gives every call its own."""
    _CURRENT.set(call)
    log.REQUEST_ID.set(call.request_id)


@contextmanager
def serving(call: CallContext) -> Iterator[CallContext]:
    """Make ``call`` current inside the block; for work that no server started."""
    token, id_token = _CURRENT.set(call), log.REQUEST_ID.set(call.request_id)
    try:
        yield call
    finally:
        log.REQUEST_ID.reset(id_token)
        _CURRENT.reset(token)


def new_request_id() -> str:
    return f"{_IDS.getrandbits(128):032x}"


def parse(
    metadata: Iterable[tuple[str, str | bytes]] | None,
    *,
    method: str,
    time_remaining: float | None,
    clock: Callable[[], float] = time.monotonic,
) -> CallContext:
    """Read a call's context from its invocation metadata.

    ``time_remaining`` is in seconds, None or huge for no deadline. Raises ``InvalidInput`` naming
    the metadata key whose value is out of bounds.
    """
    values = dict(metadata or ())
    limited = time_remaining is not None and time_remaining < _NO_DEADLINE_SECONDS
    return CallContext(
        request_id=_text(values, REQUEST_ID_KEY) or new_request_id(),
        tenant=_text(values, TENANT_KEY),
        priority=_priority(values),
        deadline=clock() + time_remaining if limited and time_remaining is not None else None,
        traceparent=_child_traceparent(values.get(TRACEPARENT_KEY, "")),
        method=method,
    )


def _text(values: dict[str, str | bytes], key: str) -> str:
    value = values.get(key)
    if value is None:
        return ""
    if not isinstance(value, str) or not (value.isascii() and value.isprintable()):
        raise InvalidInput(key, f"{key} must be printable ASCII.")
    if len(value) > MAX_TEXT_CHARS:
        raise InvalidInput(
            key, f"{key} is too long.", f"{MAX_TEXT_CHARS} characters", f"{len(value)} characters"
        )
    return value


def _priority(values: dict[str, str | bytes]) -> int:
    text = values.get(PRIORITY_KEY)
    if text is None:
        return 0
    try:
        priority = int(text) if len(text) <= MAX_TEXT_CHARS else MAX_PRIORITY + 1
    except ValueError:
        priority = MAX_PRIORITY + 1
    if MIN_PRIORITY <= priority <= MAX_PRIORITY:
        return priority
    raise InvalidInput(
        PRIORITY_KEY,
        f"{PRIORITY_KEY} must be a whole number from {MIN_PRIORITY} to {MAX_PRIORITY}.",
        f"{MIN_PRIORITY} to {MAX_PRIORITY}",
        str(text)[:MAX_TEXT_CHARS],
    )


def _child_traceparent(parent: str | bytes) -> str:
    found = _TRACEPARENT.fullmatch(parent) if parent and isinstance(parent, str) else None
    if found is None or not _is_valid_trace(found):
        return f"00-{_IDS.getrandbits(128):032x}-{_IDS.getrandbits(64):016x}-00"
    return f"00-{found[2]}-{_IDS.getrandbits(64):016x}-{found[4]}"


def _is_valid_trace(found: re.Match[str]) -> bool:
    version_fits = found[1] != "ff" and (found[1] != "00" or found[5] is None)
    return version_fits and found[2].strip("0") != "" and found[3].strip("0") != ""
