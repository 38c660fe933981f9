"""Carries calls to the services behind the gateway: the bytes as they came, nothing parsed.

A handler here adds three things to what gRPC does by itself: it picks the upstream, it lets only
end-to-end metadata cross, and it tells a service that cannot be reached from one that refuses.
Deadline, tenant, priority, request id and trace are carried by the channel; cancelling the
handler cancels the call it awaits; flow control holds because a message is read only when the one
before has been written on.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any, Never, cast

import grpc

from gateway import metadata
from gateway.routing import Route, Shape, choose
from gateway.upstream import Passage, Upstream
from services.core.errors import NotSupported
from services.core.server.scopes import ADMIN, Scopes

Context = grpc.aio.ServicerContext[bytes, bytes]


class PassThrough(grpc.GenericRpcHandler):
    """Answers every method in ``routes`` from the upstream that serves it, for whom ``scopes`` let.

    The services behind may be on loopback, where they let everybody administer: the door is here.
    """

    def __init__(
        self, routes: Mapping[str, Route], upstreams: Mapping[str, Upstream], scopes: Scopes
    ) -> None:
        self._routes = routes
        self._upstreams = upstreams
        self._scopes = scopes

    def service(
        self, handler_call_details: grpc.HandlerCallDetails
    ) -> grpc.RpcMethodHandler[bytes, bytes] | None:
        route = self._routes.get(handler_call_details.method)
        return None if route is None else handler_of(route, self._upstreams, self._scopes)


def handler_of(
    route: Route, upstreams: Mapping[str, Upstream], scopes: Scopes
) -> grpc.RpcMethodHandler[bytes, bytes]:
    """Return the handler that passes ``route``, of the same shape on both sides."""
    lane = _AdminLane(route, upstreams, scopes) if route.administers else _Lane(route, upstreams)
    make: Callable[..., Any]
    make, behavior = {
        Shape.UNARY: (grpc.unary_unary_rpc_method_handler, lane.single),
        Shape.SERVER_STREAM: (grpc.unary_stream_rpc_method_handler, lane.stream),
        Shape.CLIENT_STREAM: (grpc.stream_unary_rpc_method_handler, lane.single),
        Shape.BIDI: (grpc.stream_stream_rpc_method_handler, lane.stream),
    }[route.shape]
    return cast("grpc.RpcMethodHandler[bytes, bytes]", make(behavior))


class _Lane:
    """One route with its callables; ``request`` is bytes, or an iterator of them."""

    def __init__(self, route: Route, upstreams: Mapping[str, Upstream]) -> None:
        self._route = route
        self._calls = {
            name: (upstreams[name], upstreams[name].method(route))
            for name in route.upstreams
            if name in upstreams
        }

    async def single(self, request: Any, context: Context) -> bytes:
        """Pass a call that has one answer."""
        upstream, invoke = self._pick(context)
        call = invoke(request, metadata=metadata.to_upstream(context.invocation_metadata()))
        try:
            with Passage(upstream.traffic):
                answer: bytes = await call
        except grpc.aio.AioRpcError as error:
            await _fail(upstream, error, context)
        initial = metadata.to_caller(await call.initial_metadata())
        if initial:
            await context.send_initial_metadata(initial)
        _add_trailing(context, await call.trailing_metadata())
        return answer

    async def stream(self, request: Any, context: Context) -> AsyncIterator[bytes]:
        """Pass a call that has a stream of answers."""
        upstream, invoke = self._pick(context)
        call = invoke(request, metadata=metadata.to_upstream(context.invocation_metadata()))
        try:
            with Passage(upstream.traffic, endless=self._route.endless):
                # At once and even where empty: the caller may wait for it before it sends.
                initial = metadata.to_caller(await call.initial_metadata())
                await context.send_initial_metadata(initial)
                async for message in call:
                    yield message
        except grpc.aio.AioRpcError as error:
            await _fail(upstream, error, context)
        finally:
            call.cancel()
        _add_trailing(context, await call.trailing_metadata())

    def _pick(self, context: Context) -> tuple[Upstream, Any]:
        name = choose(self._route, context.invocation_metadata() or ())
        try:
            return self._calls[name]
        except KeyError:
            raise NotSupported(
                f"This gateway has no {name} service.", reason="UPSTREAM_NOT_CONFIGURED"
            ) from None


class _AdminLane(_Lane):
    """A route that needs the scope ``admin``."""

    def __init__(self, route: Route, upstreams: Mapping[str, Upstream], scopes: Scopes) -> None:
        super().__init__(route, upstreams)
        self._scopes = scopes

    def _pick(self, context: Context) -> tuple[Upstream, Any]:
        self._scopes.require(ADMIN)
        return super()._pick(context)


async def _fail(upstream: Upstream, error: grpc.aio.AioRpcError, context: Context) -> Never:
    unreachable = upstream.unreachable(error)
    if unreachable is not None:
        raise unreachable from error
    trailing = metadata.to_caller(error.trailing_metadata())
    kept = tuple(context.trailing_metadata() or ())
    await context.abort(error.code(), error.details() or "", (*kept, *trailing))


def _add_trailing(context: Context, trailing: Any) -> None:
    added = metadata.to_caller(trailing)
    if added:
        context.set_trailing_metadata((*(context.trailing_metadata() or ()), *added))
