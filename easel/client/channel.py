"""The channel to the gateway: explicit limits, and who is calling on every call."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final, NamedTuple

import grpc

# Sixteen 1024-pixel PNGs fit; gRPC's own limit of 4 MiB holds barely one.
MAX_MESSAGE_BYTES: Final = 64 * 1024 * 1024
OPTIONS: Final = (
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    # gRPC silently gives up its own retries for requests above this; pictures cross its default.
    ("grpc.per_rpc_retry_buffer_size", MAX_MESSAGE_BYTES),
    ("grpc.primary_user_agent", "easel-python"),
)


class _Details(NamedTuple):
    """What a call is sent with; the names are gRPC's own."""

    method: str
    timeout: float | None
    metadata: Any
    credentials: Any
    wait_for_ready: Any
    compression: Any


class CallerInterceptor(
    grpc.UnaryUnaryClientInterceptor,
    grpc.UnaryStreamClientInterceptor,
    grpc.StreamUnaryClientInterceptor,
    grpc.StreamStreamClientInterceptor,
):
    """Puts the caller's metadata on every call, and a deadline where a call sets none."""

    def __init__(self, metadata: tuple[tuple[str, str], ...], timeout: float | None) -> None:
        self._metadata = metadata
        self._timeout = timeout

    def intercept_unary_unary(self, proceed: Any, details: Any, request: Any) -> Any:
        return proceed(self._complete(details), request)

    def intercept_unary_stream(self, proceed: Any, details: Any, request: Any) -> Any:
        return proceed(self._complete(details), request)

    def intercept_stream_unary(self, proceed: Any, details: Any, requests: Any) -> Any:
        return proceed(self._complete(details), requests)

    def intercept_stream_stream(self, proceed: Any, details: Any, requests: Any) -> Any:
        return proceed(self._complete(details), requests)

    def _complete(self, details: Any) -> Any:
        return _Details(
            details.method,
            self._timeout if details.timeout is None else details.timeout,
            (*self._metadata, *(details.metadata or ())),
            details.credentials,
            details.wait_for_ready,
            details.compression,
        )


def open_channel(
    target: str,
    *,
    api_key: str | None = None,
    timeout: float | None = None,
    tenant: str | None = None,
    priority: int = 0,
) -> tuple[grpc.Channel, Callable[[], None]]:
    """Return a channel that names the caller on every call, and what closes it."""
    plain = grpc.insecure_channel(target, options=OPTIONS)
    caller = CallerInterceptor(tuple(_metadata(api_key, tenant, priority)), timeout)
    return grpc.intercept_channel(plain, caller), plain.close


def _metadata(api_key: str | None, tenant: str | None, priority: int) -> Iterator[tuple[str, str]]:
    if api_key:
        yield "authorization", f"Bearer {api_key}"
    if tenant:
        yield "easel-tenant", tenant
    if priority:
        yield "easel-priority", str(priority)
