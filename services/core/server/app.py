"""The life of a service process, the same for all: open, load, serve, drain, stop.

::

    metrics HTTP up ─► gRPC up, NOT_SERVING ─► load in a thread ─► start ─► SERVING
                                                                              │ SIGTERM or SIGINT
    exit 0 ◄─ HTTP down ◄─ close ◄─ gRPC stopped ◄─ drain ◄─ notice ◄─ NOT_SERVING

Calls get UNAVAILABLE before SERVING and after the notice. A failed load, a fault that ``watch``
reports and a second signal end the process with exit code 1, for its supervisor to see; a model
that is not there or cannot be served, with 2, as bad settings do: trying again is no use.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import asdict, dataclass
from typing import Any, Final, Protocol

import grpc
from grpc_channelz.v1 import channelz, channelz_pb2_grpc
from grpc_health.v1 import health, health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2_grpc
from prometheus_client import CollectorRegistry

from services.core import log as logs
from services.core.background import in_thread
from services.core.config import ServiceSettings
from services.core.errors import Draining, EaselError, FailedPrecondition, NotFound, NotReady
from services.core.memory import giving_back, settle, share_arena
from services.core.server.health import Health
from services.core.server.http import HttpServer
from services.core.server.interceptor import CallInterceptor
from services.core.server.loop import ServerLoop
from services.core.server.metrics import ServerMetrics

log = logging.getLogger("easel.server")

EXIT_OK: Final = 0
EXIT_FAILED: Final = 1
EXIT_UNUSABLE: Final = 2
_CHANNELZ: Final = "grpc.channelz.v1.Channelz"
# Handlers whose rows have just ended still have to send their answers. What is open after that
# is idle, and would hold the stop for any grace that it is given.
_GRACE_SECONDS: Final = 1.0
_MAX_CLOSE_SECONDS: Final = 30.0


class Application(Protocol):
    """A service as its process sees it; subclass it and fill in what the service needs.

    ``service_names`` are the full gRPC names of its services, for health and reflection.
    ``registry`` is what ``/metrics`` shows. ``probes`` are methods (``/package.Service/Method``)
    that answer in every state, to tell of it. ``ready`` is set by the process: whether the service
    takes calls and is not about to stop.
    """

    settings: ServiceSettings
    service_names: Sequence[str]
    registry: CollectorRegistry
    probes: Sequence[str] = ()
    ready: bool = False

    def register(self, server: grpc.aio.Server) -> None:
        """Add the servicers; on the event loop, before the server listens."""
        ...

    def load(self) -> None:
        """Load and warm up the model; blocking, in a thread of its own."""

    async def start(self) -> None:
        """Start what runs on the event loop; after ``load``."""

    async def watch(self) -> None:
        """Run until something fatal happens; returning or raising ends the process."""
        await asyncio.get_running_loop().create_future()

    async def drain(self, timeout_seconds: float) -> None:
        """Finish what was admitted, within ``timeout_seconds``; nothing new comes in.

        Calls that are still open a moment after it returned are cut off.
        """

    async def close(self) -> None:
        """Free everything; the last call. Comes also after a failed load."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where a service can be reached: the ports really bound."""

    host: str
    port: int
    metrics_port: int

    @property
    def target(self) -> str:
        return f"{self.host}:{self.port}"


def run(app: Application) -> int:
    """Serve ``app`` in this process until a signal; returns the exit code."""
    share_arena()
    call_log = logs.configure(app.settings.service, app.settings.log_level)
    process = _Process(app, call_log, alone=True)
    with asyncio.Runner(loop_factory=ServerLoop) as runner:
        return runner.run(_run_with_signals(process))


async def serve(
    app: Application,
    *,
    stop: asyncio.Event | None = None,
    at_once: asyncio.Event | None = None,
    opened: Callable[[Address], None] | None = None,
    call_log: logs.JsonHandler | None = None,
    alone: bool = False,
) -> int:
    """Serve ``app`` until ``stop`` is set; returns the exit code.

    ``at_once`` cuts a drain short. ``opened`` gets the address as soon as the server listens,
    before the model is loaded. ``call_log`` gets a line per call; ``run`` sends it to stderr.
    ``alone``: this is all that the process does, which may keep its memory as a service does.
    """
    return await _Process(app, call_log, alone=alone).run(
        asyncio.Event() if stop is None else stop,
        asyncio.Event() if at_once is None else at_once,
        opened,
    )


async def _run_with_signals(process: _Process) -> int:
    stop, at_once = asyncio.Event(), asyncio.Event()

    def on_signal(number: signal.Signals) -> None:
        log.info("signal", extra={"signal": number.name, "again": stop.is_set()})
        (at_once if stop.is_set() else stop).set()

    loop = asyncio.get_running_loop()
    loop.set_exception_handler(_log_loop_error)
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal, number)
    code = await process.run(stop, at_once, None)
    if process.abandoned:
        # A thread inside native code cannot be stopped, and both asyncio.run and the interpreter's
        # exit would wait for it.
        logging.shutdown()
        os._exit(code)
    return code


def _log_loop_error(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    del loop
    log.error("event loop: %s", context.get("message"), exc_info=context.get("exception"))


class _Process:
    """One run of one application."""

    def __init__(self, app: Application, call_log: logs.JsonHandler | None, *, alone: bool) -> None:
        self._app = app
        self._call_log = call_log
        self._alone = alone
        self._settings = app.settings
        self._health = Health(app.service_names)
        self._refusal: type[EaselError] | None = NotReady
        self._ready = False
        self._exit_code = EXIT_OK
        self.abandoned = False

    async def run(
        self,
        stop: asyncio.Event,
        at_once: asyncio.Event,
        opened: Callable[[Address], None] | None,
    ) -> int:
        stopping = asyncio.ensure_future(stop.wait())
        hurrying = asyncio.ensure_future(at_once.wait())
        try:
            with self._http() as http:
                async with giving_back() if self._alone else nullcontext():
                    await self._serve(http.port, stopping, hurrying, opened)
        except Exception as error:
            self._fail(error)
        finally:
            stopping.cancel()
            hurrying.cancel()
        if at_once.is_set():
            self._exit_code = self._exit_code or EXIT_FAILED
        log.info("stopped", extra={"exit_code": self._exit_code})
        return self._exit_code

    @contextmanager
    def _http(self) -> Iterator[HttpServer]:
        host, port = self._settings.host, self._settings.metrics_port
        http = HttpServer(self._app.registry, lambda: self._ready, host=host, port=port)
        http.start()
        try:
            yield http
        finally:
            http.close()

    async def _serve(
        self,
        metrics_port: int,
        stopping: asyncio.Future[Any],
        hurrying: asyncio.Future[Any],
        opened: Callable[[Address], None] | None,
    ) -> None:
        server = self._server()
        host = _bracketed(self._settings.host)
        try:
            port = server.add_insecure_port(f"{host}:{self._settings.port}")
            await server.start()
            address = Address(host, port, metrics_port)
            log.info("listening", extra=asdict(address))
            if opened is not None:
                opened(address)
            await self._live(address, stopping)
        except Exception as error:
            self._fail(error)
        finally:
            await self._leave(server, hurrying)
            await self._close(hurrying)

    def _server(self) -> grpc.aio.Server:
        metrics = ServerMetrics(self._app.registry)
        server = grpc.aio.server(
            options=server_options(self._settings),
            maximum_concurrent_rpcs=self._settings.max_concurrent_rpcs,
        )
        interceptor = CallInterceptor(
            metrics,
            self._gate,
            self._call_log,
            max_stall_seconds=self._settings.max_stall_seconds,
            probes=self._app.probes,
        )
        services = interceptor.install(server)
        self._app.register(services)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, services)
        channelz_pb2_grpc.add_ChannelzServicer_to_server(channelz.aio.ChannelzServicer(), services)
        names = (*self._app.service_names, health.SERVICE_NAME, reflection.SERVICE_NAME, _CHANNELZ)
        reflection_pb2_grpc.add_ServerReflectionServicer_to_server(
            reflection.aio.ReflectionServicer(names), services
        )
        return server

    def _gate(self) -> EaselError | None:
        return None if self._refusal is None else self._refusal()

    async def _live(self, address: Address, stopping: asyncio.Future[Any]) -> None:
        started = time.monotonic()
        if not await _ends_before(stopping, in_thread(self._load)):
            self.abandoned = True
            return
        if not await _ends_before(stopping, self._app.start()):
            return
        await self._health.serve()
        self._refusal = None
        self._ready = self._app.ready = True
        seconds = round(time.monotonic() - started, 3)
        log.info("serving", extra={**asdict(address), "load_seconds": seconds})
        self._write_ready_file(address)
        if await _ends_before(stopping, self._app.watch()):
            raise RuntimeError("the watch over the service ended")

    def _load(self) -> None:
        self._app.load()
        if self._alone:
            settle()

    async def _leave(self, server: grpc.aio.Server, hurrying: asyncio.Future[Any]) -> None:
        drains = self._ready and self._exit_code == EXIT_OK
        self._ready = self._app.ready = False
        await self._health.leave()
        if drains:
            log.info("draining")
            await _ends_before(hurrying, asyncio.sleep(self._settings.drain_notice_seconds))
        self._refusal = Draining
        if drains:
            await self._drain(hurrying)
        self._health.end_watches()
        ended = asyncio.ensure_future(server.stop(_GRACE_SECONDS))
        await asyncio.wait({ended, hurrying}, return_when=asyncio.FIRST_COMPLETED)
        if not ended.done():
            await server.stop(None)
        await ended

    async def _drain(self, hurrying: asyncio.Future[Any]) -> None:
        try:
            seconds = self._settings.drain_timeout_seconds
            draining = asyncio.wait_for(self._app.drain(seconds), seconds + _GRACE_SECONDS)
            await _ends_before(hurrying, draining)
        except Exception as error:
            self._fail(error)

    async def _close(self, hurrying: asyncio.Future[Any]) -> None:
        with suppress(FileNotFoundError):
            if self._settings.ready_file is not None:
                self._settings.ready_file.unlink()
        if self.abandoned:
            return  # its thread still uses what would be freed
        closing = asyncio.ensure_future(self._app.close())
        either = {closing, hurrying}
        await asyncio.wait(either, timeout=_MAX_CLOSE_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        await asyncio.wait({closing}, timeout=_GRACE_SECONDS)
        try:
            self.abandoned = not closing.done()
            if self.abandoned:
                raise TimeoutError("a step or a thread still runs; it is left behind")
            closing.result()
        except Exception as error:
            self._fail(error)
        finally:
            closing.cancel()

    def _write_ready_file(self, address: Address) -> None:
        path = self._settings.ready_file
        if path is not None:
            part = path.with_name(f"{path.name}.part")
            part.write_text(json.dumps({**asdict(address), "pid": os.getpid()}), encoding="utf-8")
            part.replace(path)

    def _fail(self, error: Exception) -> None:
        if isinstance(error, NotFound | FailedPrecondition):
            self._exit_code = EXIT_UNUSABLE
            log.critical(error.message)
            return
        self._exit_code = EXIT_FAILED
        log.critical("fatal: %s", type(error).__name__, exc_info=error)


def server_options(settings: ServiceSettings) -> list[tuple[str, int]]:
    """Return the gRPC channel arguments of a server with ``settings``."""
    options = [
        ("grpc.max_receive_message_length", settings.max_message_bytes),
        ("grpc.max_send_message_length", settings.max_message_bytes),
        # Two processes on one port would share its connections silently.
        ("grpc.so_reuseport", 0),
        ("grpc.enable_channelz", 1),
        # A caller whose machine is gone without a word would hold its calls for ever.
        ("grpc.keepalive_time_ms", 60_000),
        ("grpc.keepalive_timeout_ms", 20_000),
        ("grpc.http2.max_pings_without_data", 0),
        # Our own channels ping every 30 s, idle or not; the defaults take that for abuse.
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
    ]
    ages = {
        "grpc.max_connection_age_ms": settings.max_connection_age_seconds,
        "grpc.max_connection_age_grace_ms": settings.max_connection_age_grace_seconds,
    }
    options += [(name, int(age * 1000)) for name, age in ages.items() if age is not None]
    return options


async def _ends_before(other: asyncio.Future[Any], work: Awaitable[Any]) -> bool:
    """Wait for ``work`` and raise what it raises; False, and cancelled, if ``other`` is first."""
    task = asyncio.ensure_future(work)
    try:
        await asyncio.wait({task, other}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            task.result()
            return True
    finally:
        task.cancel()
    await asyncio.wait({task})
    return False


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host and not host.startswith("[") else host
