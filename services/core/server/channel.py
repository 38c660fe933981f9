"""Channels to other services that carry the current call along.

A call made while another is served inherits its deadline, tenant, priority, request id and trace;
gRPC in Python forwards none of them by itself. This is done by wrapping the multi-callables, not
by ``grpc.aio`` client interceptors: those put a queue, two tasks a message and a proxy without
``time_remaining`` between the caller and its stream, while here callers hold gRPC's own call
object, so reading, writing and cancelling are untouched and cost nothing more. Whoever starts a
stream cancels it in a ``finally``: gRPC's own call loses a cancel of the task that reads it while
its request is still being sent.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Any, Final, cast

import grpc

from services.core.server import call as calls
from services.core.server.metrics import ClientMetrics, MethodMetrics, call_type, split_method

Metadata = Iterable[tuple[str, str | bytes]]


@dataclass(frozen=True, slots=True)
class ChannelLimits:
    """Bounds of a channel.

    ``retry_buffer_bytes`` must exceed the largest request that is to be retried: above its
    default of 256 KiB, which pictures pass, gRPC silently does not retry. ``max_attempts`` counts
    the first one, 1 to 5; only UNAVAILABLE is tried again.
    """

    max_message_bytes: int = 32 * 2**20
    retry_buffer_bytes: int = 32 * 2**20
    max_attempts: int = 3
    keepalive_seconds: float = 30.0
    keepalive_timeout_seconds: float = 10.0


DEFAULT_LIMITS: Final = ChannelLimits()
# gRPC's own ceiling of two minutes would leave a restarted service unused for as long.
_RECONNECT_OPTIONS: Final = (
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 2000),
)


def open_channel(
    target: str,
    *,
    limits: ChannelLimits = DEFAULT_LIMITS,
    metrics: ClientMetrics | None = None,
    credentials: grpc.ChannelCredentials | None = None,
) -> grpc.aio.Channel:
    """Open a channel to ``target``, balanced round robin over all its addresses.

    Must be called on the event loop. ``metrics`` counts every call; None counts nowhere.
    """
    options = channel_options(limits)
    inner = (
        grpc.aio.insecure_channel(target, options)
        if credentials is None
        else grpc.aio.secure_channel(target, credentials, options)
    )
    return ForwardingChannel(inner, metrics)


def channel_options(limits: ChannelLimits = DEFAULT_LIMITS) -> list[tuple[str, Any]]:
    """Return the channel arguments that ``open_channel`` uses."""
    return [
        ("grpc.max_send_message_length", limits.max_message_bytes),
        ("grpc.max_receive_message_length", limits.max_message_bytes),
        ("grpc.per_rpc_retry_buffer_size", limits.retry_buffer_bytes),
        ("grpc.keepalive_time_ms", int(limits.keepalive_seconds * 1000)),
        ("grpc.keepalive_timeout_ms", int(limits.keepalive_timeout_seconds * 1000)),
        # After two pings on a quiet stream gRPC would send no more, and miss a peer that is gone.
        ("grpc.http2.max_pings_without_data", 0),
        ("grpc.service_config", json.dumps(_service_config(limits))),
        *_RECONNECT_OPTIONS,
    ]


def call_options(
    timeout: float | None = None, metadata: Metadata | None = None
) -> tuple[float | None, tuple[tuple[str, str | bytes], ...]]:
    """Return the timeout (seconds) and metadata of a call made on behalf of the current one.

    The timeout is the shorter of ``timeout`` and what is left of the current deadline, at least 0;
    a key that is in ``metadata`` already is left alone.
    """
    call = calls.current()
    own = tuple(metadata or ())
    if call is calls.NO_CALL:
        return timeout, own
    remaining = call.remaining_seconds()
    if remaining is not None:
        timeout = max(0.0, remaining if timeout is None else min(timeout, remaining))
    taken = {key for key, _ in own}
    return timeout, (*own, *(pair for pair in _carried(call) if pair[1] and pair[0] not in taken))


def _carried(call: calls.CallContext) -> tuple[tuple[str, str], ...]:
    return (
        (calls.REQUEST_ID_KEY, call.request_id),
        (calls.TENANT_KEY, call.tenant),
        (calls.PRIORITY_KEY, str(call.priority) if call.priority else ""),
        (calls.TRACEPARENT_KEY, call.traceparent),
    )


def _service_config(limits: ChannelLimits) -> dict[str, Any]:
    method: dict[str, Any] = {"name": [{}]}
    if limits.max_attempts > 1:
        method["retryPolicy"] = {
            "maxAttempts": limits.max_attempts,
            "initialBackoff": "0.05s",
            "maxBackoff": "1s",
            "backoffMultiplier": 2,
            "retryableStatusCodes": ["UNAVAILABLE"],
        }
    return {"loadBalancingConfig": [{"round_robin": {}}], "methodConfig": [method]}


class ForwardingChannel(grpc.aio.Channel):
    """A channel whose calls carry the current call along and are counted."""

    def __init__(self, inner: grpc.aio.Channel, metrics: ClientMetrics | None = None) -> None:
        self._inner = inner
        self._metrics = metrics

    def unary_unary(self, method: str, *args: Any, **kwargs: Any) -> Any:
        return self._forwarding(method, self._inner.unary_unary(method, *args, **kwargs), "unary")

    def unary_stream(self, method: str, *args: Any, **kwargs: Any) -> Any:
        made = self._inner.unary_stream(method, *args, **kwargs)
        return self._forwarding(method, made, call_type(False, True))

    def stream_unary(self, method: str, *args: Any, **kwargs: Any) -> Any:
        made = self._inner.stream_unary(method, *args, **kwargs)
        return self._forwarding(method, made, call_type(True, False))

    def stream_stream(self, method: str, *args: Any, **kwargs: Any) -> Any:
        made = self._inner.stream_stream(method, *args, **kwargs)
        return self._forwarding(method, made, call_type(True, True))

    def _forwarding(self, method: str, multi_callable: Any, kind: str) -> _Forwarding:
        metrics = self._metrics
        bound = metrics.method(kind, *split_method(method)) if metrics is not None else None
        return _Forwarding(multi_callable, bound)

    async def close(self, grace: float | None = None) -> None:
        await self._inner.close(grace)

    def get_state(self, try_to_connect: bool = False) -> grpc.ChannelConnectivity:
        return self._inner.get_state(try_to_connect)

    async def wait_for_state_change(self, last_observed_state: grpc.ChannelConnectivity) -> None:
        await self._inner.wait_for_state_change(last_observed_state)

    async def channel_ready(self) -> None:
        await self._inner.channel_ready()

    async def __aenter__(self) -> ForwardingChannel:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_val: BaseException | None,
        exc_tb: TracebackType | None,
    ) -> None:
        await self.close()


class _Forwarding:
    """A multi-callable of any shape; returns the call object of the one it wraps."""

    __slots__ = ("_inner", "_metrics")

    def __init__(self, inner: Any, metrics: MethodMetrics | None) -> None:
        self._inner = inner
        self._metrics = metrics

    def __call__(
        self,
        request: Any = None,
        timeout: float | None = None,
        metadata: Metadata | None = None,
        **options: Any,
    ) -> Any:
        timeout, forwarded = call_options(timeout, metadata)
        call = self._inner(request, timeout=timeout, metadata=forwarded, **options)
        if self._metrics is not None:
            self._metrics.start()
            call.add_done_callback(partial(_record, self._metrics, time.perf_counter()))
        return call


def _record(metrics: MethodMetrics, started: float, call: Any) -> None:
    metrics.end(_code_of_finished(call), time.perf_counter() - started)


def _code_of_finished(call: Any) -> grpc.StatusCode:
    """Read the code of a call that is done; gRPC has it only as a coroutine, by then ready."""
    reading = call.code()
    try:
        reading.send(None)
    except StopIteration as read:
        return cast("grpc.StatusCode", read.value)
    reading.close()
    return grpc.StatusCode.UNKNOWN
