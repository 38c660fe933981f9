"""The one server interceptor: context, readiness, errors, metrics and a log line for every call.

It stands around all four shapes of RPC, whether a handler returns, yields, or reads and writes on
its context. It also parses requests and serialises responses itself, so that a message that does
not parse is the caller's INVALID_ARGUMENT and is counted like any other end of a call. Work is
done once per call; per message there is one integer to count.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Awaitable, Callable, Collection
from typing import Any, Final, cast

import grpc

from services.core.errors import (
    Cancelled,
    DeadlineExceeded,
    EaselError,
    InvalidInput,
    ModelFault,
    NotSupported,
    drop_frames,
)
from services.core.log import JsonHandler, quoted
from services.core.server import call as calls
from services.core.server import status
from services.core.server.call import CallContext
from services.core.server.metrics import (
    CODE_LABELS,
    OTHER,
    UNKNOWN,
    MethodMetrics,
    ServerMetrics,
    call_type,
    split_method,
)
from services.core.server.stall import Stall

log = logging.getLogger("easel.rpc")

READER_STALLED: Final = "READER_STALLED"

Gate = Callable[[], EaselError | None]
Serve = Callable[[Any, Any, "_Tally"], Awaitable[Any]]

HOUSEKEEPING: Final = ("grpc.health.", "grpc.reflection.", "grpc.channelz.")
# A pass-through serves whatever method a caller names: labels and cache must not grow with that.
MAX_METHODS: Final = 512
# A client cancels at its own deadline, which is ahead of the server's by the time on the wire and
# by the rounding up of the timeout in the header (3 s was seen to arrive as 3.009 s).
_DEADLINE_SLACK_SECONDS: Final = 0.05
_DEADLINE_ROUNDING: Final = 0.02
_MAX_METHOD_CHARS: Final = 128


def open_gate() -> EaselError | None:
    return None


class CallInterceptor(grpc.GenericRpcHandler):
    """Wraps every handler of a server, where they are registered: see ``install``.

    As one of gRPC's own interceptors it would cost two coroutines more at every call, although
    handlers are looked up and wrapped once per method. ``gate`` is asked at the start of every
    call and returns a new error to refuse it with, or None; health, reflection, channelz and
    ``probes``, which are methods, pass it always. Handlers raise errors of ``core.errors`` and
    never touch a status code. ``call_log`` gets one line per call, at DEBUG for those.
    """

    def __init__(
        self,
        metrics: ServerMetrics,
        gate: Gate = open_gate,
        call_log: JsonHandler | None = None,
        max_stall_seconds: float = math.inf,
        probes: Collection[str] = (),
    ) -> None:
        self._probes = frozenset(probes)
        self._max_stall_seconds = max_stall_seconds
        self._call_log = call_log
        self._metrics = metrics
        self._gate = gate
        self._wrapped: dict[str, grpc.RpcMethodHandler[Any, Any]] = {}
        self._handlers: list[grpc.GenericRpcHandler] = []

    def install(self, server: grpc.aio.Server) -> grpc.aio.Server:
        """Become the one handler of ``server``; answers what its servicers are to be added to."""
        server.add_generic_rpc_handlers((self,))
        return cast("grpc.aio.Server", _Services(self._handlers))

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        method = handler_call_details.method
        wrapped = self._wrapped.get(method)
        if wrapped is None:
            found = (handler.service(handler_call_details) for handler in self._handlers)
            wrapped = self._wrap(method, next(filter(None, found), None))
        return wrapped

    def _wrap(
        self, method: str, handler: grpc.RpcMethodHandler[Any, Any] | None
    ) -> grpc.RpcMethodHandler[Any, Any]:
        if handler is None:
            # Accepts every shape of call, since a call's shape is not known to a server.
            return _handler(True, True, self._observed(method, _unknown_method, UNKNOWN, UNKNOWN))
        serve = _serve(handler)
        shape = (bool(handler.request_streaming), bool(handler.response_streaming))
        if len(self._wrapped) >= MAX_METHODS:
            return _handler(*shape, self._observed(method, serve, OTHER, OTHER, *shape))
        observed = self._observed(method, serve, *split_method(method), *shape)
        wrapped = self._wrapped[method] = _handler(*shape, observed)
        return wrapped

    def _observed(
        self,
        method: str,
        serve: Serve,
        service: str,
        name: str,
        request_streaming: bool = True,
        response_streaming: bool = True,
    ) -> Callable[[Any, Any], Awaitable[Any]]:
        kind = UNKNOWN if service == UNKNOWN else call_type(request_streaming, response_streaming)
        metrics = self._metrics.method(kind, service, name)
        housekeeping = service.startswith(HOUSEKEEPING) or method in self._probes
        gate = open_gate if housekeeping else self._gate
        level = logging.DEBUG if housekeeping else logging.INFO
        call_log = self._call_log
        stall_seconds = self._max_stall_seconds if response_streaming else math.inf

        fields = f'"method":{quoted(method[:_MAX_METHOD_CHARS])},"code":"'

        async def observed(request: Any, context: Any) -> Any:
            tally = _Tally(method, metrics, stall_seconds)
            try:
                tally.enter(context)
                refusal = gate()
                if refusal is not None:
                    raise refusal
                response = await serve(request, context, tally)
                tally.leave(context)
                return response
            except asyncio.CancelledError:
                await tally.cancelled(context)
                raise
            # What ends the call is kept by gRPC in a circle with it, and keeps this frame.
            except grpc.aio.AbortError as error:
                del request
                drop_frames(error)
                tally.code = _code_of(context)
                raise
            except Exception as error:
                del request
                await tally.failed(error, context)
            finally:
                seconds = tally.record()
                if call_log is not None:
                    call_log.write_call(level, tally.line(context, fields, seconds))

        return observed


class _Services:
    """Takes servicers for a ``CallInterceptor``, and leaves their methods unregistered.

    A server waits for the next call of each registered method, and sets that up anew at every
    call: with the twenty-odd methods of a service it takes a third of all Python calls of an RPC.
    Finding a method's handler is not worth it, since it is done once a method.
    """

    def __init__(self, handlers: list[grpc.GenericRpcHandler]) -> None:
        self.add_generic_rpc_handlers = handlers.extend

    def add_registered_method_handlers(self, service: str, handlers: object) -> None:
        """Nothing: they are among the generic ones too."""


class _Tally:
    """What is known of one call while it runs."""

    __slots__ = (
        "call",
        "code",
        "method",
        "metrics",
        "received",
        "sent",
        "stall_seconds",
        "started",
        "trailer",
    )

    def __init__(self, method: str, metrics: MethodMetrics, stall_seconds: float) -> None:
        self.stall_seconds = stall_seconds
        self.method = method
        self.metrics = metrics
        self.trailer: tuple[tuple[str, str], ...] = ()
        self.call: CallContext = calls.NO_CALL
        self.code = grpc.StatusCode.OK
        self.received = 0
        self.sent = 0
        self.started = time.perf_counter()
        metrics.start()

    def enter(self, context: Any) -> None:
        try:
            self.call = calls.parse(
                context.invocation_metadata(),
                method=self.method,
                time_remaining=context.time_remaining(),
            )
        except InvalidInput:
            self.call = CallContext(request_id=calls.new_request_id(), method=self.method)
            raise
        finally:
            calls.enter(self.call)
            self.trailer = ((status.REQUEST_ID_KEY, self.call.request_id),)
            context.set_trailing_metadata(self.trailer)

    def leave(self, context: Any) -> None:
        self.code = _code_of(context)
        kept = context.trailing_metadata()
        if kept is not self.trailer and self.trailer[0] not in kept:
            context.set_trailing_metadata((*kept, *self.trailer))

    async def cancelled(self, context: Any) -> None:
        """Tell a caller that left from work that was cancelled while its caller still waits."""
        task = asyncio.current_task()
        if task is not None and not task.cancelling():
            await self.failed(Cancelled(), context)
        remaining = self.call.remaining_seconds()
        slack = _DEADLINE_SLACK_SECONDS + _DEADLINE_ROUNDING * self._seconds()
        late = remaining is not None and remaining <= slack
        self.code = grpc.StatusCode.DEADLINE_EXCEEDED if late else grpc.StatusCode.CANCELLED

    async def failed(self, error: Exception, context: Any) -> None:
        if isinstance(error, NotImplementedError) and (
            _code_of(context) is grpc.StatusCode.UNIMPLEMENTED
        ):
            error = NotSupported()  # the generated servicer's default
        self.code = status.status_code(error)
        if isinstance(error, ModelFault) or not isinstance(error, EaselError):
            log.error("call failed", extra={"method": self.method}, exc_info=error)
        drop_frames(error)
        await status.abort(context, error, self.call.request_id)

    def record(self) -> float:
        """Counts the call's end; the seconds it took."""
        seconds = self._seconds()
        self.metrics.end(self.code, seconds, self.received, self.sent)
        return seconds

    def line(self, context: Any, method: str, seconds: float) -> str:
        """The call's log line, in which ``method`` is what all calls of one have in common."""
        return (
            f'"request_id":{quoted(self.call.request_id)},{method}{CODE_LABELS[self.code]}",'
            f'"seconds":{seconds:.6f},"tenant":{quoted(self.call.tenant)},'
            f'"peer":{quoted(_host_of(context.peer()))}'
        )

    def _seconds(self) -> float:
        return time.perf_counter() - self.started


class _Requests:
    """The requests of a stream, parsed and counted."""

    __slots__ = ("_next", "_parse", "_source", "_tally")

    def __init__(self, source: Any, parse: Callable[[bytes], Any], tally: _Tally) -> None:
        self._source = source
        self._next: Callable[[], Awaitable[bytes]] | None = None
        self._parse = parse
        self._tally = tally

    def __aiter__(self) -> _Requests:
        return self

    async def __anext__(self) -> Any:
        if self._next is None:
            # Not before: gRPC's iterator, once made, complains if it is then not used.
            self._next = aiter(self._source).__anext__
        data = await self._next()
        self._tally.received += 1
        return self._parse(data)


class _StreamContext:
    """A servicer context whose ``read`` and ``write`` parse, serialise and count."""

    __slots__ = ("_context", "_parse", "_serialize", "_tally")

    def __init__(
        self,
        context: Any,
        parse: Callable[[bytes], Any],
        serialize: Callable[[Any], bytes],
        tally: _Tally,
    ) -> None:
        self._context = context
        self._parse = parse
        self._serialize = serialize
        self._tally = tally

    async def read(self) -> Any:
        data = await self._context.read()
        if data is grpc.aio.EOF:
            return data
        self._tally.received += 1
        return self._parse(data)

    async def write(self, message: Any) -> None:
        await self._context.write(self._serialize(message))
        self._tally.sent += 1

    def __getattr__(self, name: str) -> Any:
        return getattr(self._context, name)


async def _unknown_method(request: Any, context: Any, tally: _Tally) -> Any:
    del request, context, tally
    raise NotSupported("No such method.", reason="UNKNOWN_METHOD")


def _serve(handler: Any) -> Serve:
    parse = _parser(handler.request_deserializer)
    serialize = handler.response_serializer or _unchanged
    respond = _respond_with_stream if handler.response_streaming else _respond_with_one
    behavior = _behavior(handler)
    if handler.request_streaming:

        async def serve_stream(source: Any, context: Any, tally: _Tally) -> Any:
            wrapped = _StreamContext(context, parse, serialize, tally)
            result = behavior(_Requests(source, parse, tally), wrapped)
            return await respond(result, context, serialize, tally)

        return serve_stream

    if not handler.response_streaming:

        async def serve_unary(data: Any, context: Any, tally: _Tally) -> bytes:
            tally.received = 1
            result = behavior(parse(data), context)
            answer = await result if hasattr(result, "__await__") else result
            response: bytes = serialize(answer)
            tally.sent = 1
            return response

        return serve_unary

    async def serve_one(data: Any, context: Any, tally: _Tally) -> None:
        tally.received = 1
        wrapped = _StreamContext(context, parse, serialize, tally)
        await _respond_with_stream(behavior(parse(data), wrapped), context, serialize, tally)

    return serve_one


async def _respond_with_one(
    result: Any, context: Any, serialize: Callable[[Any], bytes], tally: _Tally
) -> bytes:
    del context
    response = serialize(await result if hasattr(result, "__await__") else result)
    tally.sent = 1
    return response


async def _respond_with_stream(
    result: Any, context: Any, serialize: Callable[[Any], bytes], tally: _Tally
) -> None:
    if not hasattr(result, "__aiter__"):
        await result  # a handler that writes on its context
        return
    write = context.write
    loop, ending = asyncio.get_running_loop(), set[asyncio.Task[None]]()
    # The write itself cannot be taken back, and no status can be sent before it has ended. What is
    # made for the reader ends at once.
    close = getattr(result, "aclose", None)

    def end() -> None:
        if close is not None:
            ending.add(loop.create_task(close()))

    stall, now = Stall(tally.stall_seconds, loop, end), loop.time
    stall.watch()
    try:
        async for message in result:
            data = serialize(message)
            stall.since = now()
            await write(data)
            stall.since = None
            tally.sent += 1
        if stall.ended:
            raise DeadlineExceeded("The answers were not read for too long.", reason=READER_STALLED)
    finally:
        stall.stop()
        # gRPC leaves an unfinished generator to the garbage collector, and with it the `finally`
        # blocks that release rows.
        if close is not None:
            await close()


def _parser(deserialize: Callable[[bytes], Any] | None) -> Callable[[bytes], Any]:
    if deserialize is None:
        return _unchanged

    def parse(data: bytes) -> Any:
        try:
            return deserialize(data)
        except Exception as error:
            raise InvalidInput("", "The request is not a valid message.") from error

    return parse


def _unchanged(message: Any) -> Any:
    return message


def _behavior(handler: Any) -> Callable[[Any, Any], Any]:
    shape = ("stream" if handler.request_streaming else "unary") + (
        "_stream" if handler.response_streaming else "_unary"
    )
    return cast("Callable[[Any, Any], Any]", getattr(handler, shape))


def _handler(
    request_streaming: bool, response_streaming: bool, behavior: Any
) -> grpc.RpcMethodHandler[Any, Any]:
    make: Any = {
        (False, False): grpc.unary_unary_rpc_method_handler,
        (False, True): grpc.unary_stream_rpc_method_handler,
        (True, False): grpc.stream_unary_rpc_method_handler,
        (True, True): grpc.stream_stream_rpc_method_handler,
    }[request_streaming, response_streaming]
    return cast("grpc.RpcMethodHandler[Any, Any]", make(behavior))


_CODES: Final = {code.value[0]: code for code in grpc.StatusCode}


def _code_of(context: Any) -> grpc.StatusCode:
    code = context.code()  # None, or since it was set, as a code or its number
    if code is None or isinstance(code, grpc.StatusCode):
        return code or grpc.StatusCode.OK
    return _CODES.get(code, grpc.StatusCode.UNKNOWN)


def _host_of(peer: str) -> str:
    return peer.rpartition(":")[0] if peer.startswith(("ipv4:", "ipv6:")) else peer
