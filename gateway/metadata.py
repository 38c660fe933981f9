"""Which metadata crosses the gateway: everything but what belongs to one hop.

HTTP/2's pseudo-headers, ``content-type``, ``te``, ``user-agent`` and gRPC's reserved ``grpc-``
names are written anew by each hop's own transport; ``grpc-status-details-bin`` is the exception,
being the caller's error details. The request id and the trace are hop keys too: the server and
the channel of ``services.core.server`` write them themselves, with the same id and with this hop
as the parent of the next span.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from services.core.server.call import REQUEST_ID_KEY, TRACEPARENT_KEY
from services.core.server.status import DETAILS_KEY

Pair = tuple[str, str | bytes]

_RESERVED_PREFIXES: Final = (":", "grpc-")
_HOP_KEYS: Final = frozenset(
    {"te", "content-type", "user-agent", "host", "connection", REQUEST_ID_KEY, TRACEPARENT_KEY}
)


def to_upstream(metadata: Iterable[Pair] | None) -> tuple[Pair, ...]:
    """Return what of a caller's metadata goes on to the upstream, in its order."""
    return tuple((key, value) for key, value in metadata or () if _crosses(key))


def to_caller(metadata: Iterable[Pair] | None) -> tuple[Pair, ...]:
    """Return what of an upstream's initial or trailing metadata goes back, in its order."""
    return tuple(
        (key, value) for key, value in metadata or () if key == DETAILS_KEY or _crosses(key)
    )


def _crosses(key: str) -> bool:
    return key not in _HOP_KEYS and not key.startswith(_RESERVED_PREFIXES)
