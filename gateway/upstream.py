"""One service behind the gateway: its channel and what the gateway has seen of its calls."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Any, Final

import grpc
from prometheus_client import CollectorRegistry, Gauge

from gateway.routing import Route, Shape
from services.core.errors import NotReady
from services.core.server.channel import ChannelLimits, ForwardingChannel, channel_options
from services.core.server.metrics import ClientMetrics
from services.core.server.status import DETAILS_KEY

log = logging.getLogger("easel.gateway")

_MAKERS: Final = {
    Shape.UNARY: "unary_unary",
    Shape.SERVER_STREAM: "unary_stream",
    Shape.CLIENT_STREAM: "stream_unary",
    Shape.BIDI: "stream_stream",
}


class Traffic:
    """The calls that the gateway passed to one upstream.

    ``failed`` counts ends other than OK; a call that its caller gave up did not fail.
    ``seconds`` is the sum over ended calls. ``idle`` is set while none passes but those that would
    go on for ever.
    """

    __slots__ = ("_endless", "ended", "failed", "idle", "in_flight", "seconds", "started")

    def __init__(self) -> None:
        self.started = 0
        self.ended = 0
        self.failed = 0
        self.in_flight = 0
        self.seconds = 0.0
        self._endless = 0
        self.idle = asyncio.Event()
        self.idle.set()

    @property
    def mean_seconds(self) -> float:
        return self.seconds / self.ended if self.ended else 0.0

    def begin(self, *, endless: bool = False) -> None:
        self.started += 1
        self.in_flight += 1
        if endless:
            self._endless += 1
        else:
            self.idle.clear()

    def end(self, seconds: float, *, failed: bool, endless: bool = False) -> None:
        self.ended += 1
        self.in_flight -= 1
        self._endless -= endless
        self.seconds += seconds
        self.failed += failed
        if self.in_flight == self._endless:
            self.idle.set()


class Passage:
    """One call while it passes: ``with Passage(traffic): ...``."""

    __slots__ = ("_endless", "_started", "_traffic")

    def __init__(self, traffic: Traffic, *, endless: bool = False) -> None:
        self._traffic = traffic
        self._endless = endless
        self._started = 0.0

    def __enter__(self) -> None:
        self._started = time.perf_counter()
        self._traffic.begin(endless=self._endless)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        given_up = isinstance(error, asyncio.CancelledError | GeneratorExit)
        seconds = time.perf_counter() - self._started
        failed = error is not None and not given_up
        self._traffic.end(seconds, failed=failed, endless=self._endless)


@dataclass(frozen=True, slots=True)
class Upstream:
    """A service behind the gateway, under its short name ("classifier")."""

    name: str
    target: str
    channel: grpc.aio.Channel
    traffic: Traffic

    def method(self, route: Route) -> Any:
        """Return the callable of ``route`` on this upstream: bytes in, bytes out."""
        return getattr(self.channel, _MAKERS[route.shape])(route.path)

    def unreachable(self, error: grpc.aio.AioRpcError) -> NotReady | None:
        """Return the error to answer with where ``error`` is the connection's, not the service's.

        gRPC tells the two apart nowhere, but every status of our services carries details.
        """
        if error.code() is not grpc.StatusCode.UNAVAILABLE or _has_details(error):
            return None
        # The text names hosts and ports, so it goes to the log alone.
        log.warning(
            "upstream unreachable",
            extra={"upstream": self.name, "target": self.target, "cause": error.details()},
        )
        return NotReady(
            f"The {self.name} service cannot be reached.", reason="UPSTREAM_UNREACHABLE"
        )


def _has_details(error: grpc.aio.AioRpcError) -> bool:
    return any(key == DETAILS_KEY for key, _ in error.trailing_metadata() or ())


def open_upstreams(
    targets: Mapping[str, str], *, max_message_bytes: int, registry: CollectorRegistry
) -> dict[str, Upstream]:
    """Open a channel to every target; ``grpc_client_*`` and the gauge count in ``registry``.

    Must be called on the event loop. The gateway never tries a call again by itself: what is safe
    to repeat, only the caller knows.
    """
    limits = ChannelLimits(max_message_bytes=max_message_bytes, max_attempts=1)
    options = channel_options(limits)
    metrics = ClientMetrics(registry)
    upstreams = {
        name: Upstream(
            name,
            target,
            ForwardingChannel(grpc.aio.insecure_channel(target, options), metrics),
            Traffic(),
        )
        for name, target in targets.items()
    }
    _show_in_flight(upstreams.values(), registry)
    return upstreams


async def until_idle(upstreams: Iterable[Upstream]) -> None:
    """Return once no call that will end by itself is passing to any of ``upstreams``."""
    for upstream in upstreams:
        await upstream.traffic.idle.wait()


def _show_in_flight(upstreams: Iterable[Upstream], registry: CollectorRegistry) -> None:
    gauge = Gauge(
        "easel_gateway_upstream_in_flight",
        "Calls that the gateway is passing to a service.",
        ("upstream",),
        registry=registry,
    )
    for upstream in upstreams:
        gauge.labels(upstream.name).set_function(partial(getattr, upstream.traffic, "in_flight"))
