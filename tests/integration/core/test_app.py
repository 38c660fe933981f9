"""The life of a service: start order, readiness, drain, signals, and every way to fail."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import signal
import sys
import threading
import urllib.request
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_channelz.v1 import channelz_pb2, channelz_pb2_grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from services.core.config import load_settings
from services.core.errors import Draining, EaselError, FailedPrecondition, NotFound, NotReady
from services.core.server import status
from services.core.server.app import Address, serve
from tests.integration.core.echo import SERVICE, answers, connected, eventually, invoke
from tests.integration.core.echo_app import EchoApplication, EchoSettings

pytestmark = pytest.mark.timeout(90)
ROOT = Path(__file__).parents[3]
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


@dataclass
class Life:
    """One application being served, and the events that steer it."""

    app: EchoApplication
    address: Address
    done: asyncio.Future[int]
    stop: asyncio.Event = field(default_factory=asyncio.Event)
    at_once: asyncio.Event = field(default_factory=asyncio.Event)

    async def probe(self, path: str) -> int:
        return await asyncio.to_thread(self._probe, path)

    def _probe(self, path: str) -> int:
        url = f"http://127.0.0.1:{self.address.metrics_port}{path}"
        try:
            with urllib.request.urlopen(url, timeout=5) as response:
                return int(response.status)
        except urllib.error.HTTPError as error:
            return error.code


@asynccontextmanager
async def lived(
    app: EchoApplication, *, alone: bool = False
) -> AsyncIterator[tuple[Life, grpc.aio.Channel]]:
    stop, at_once = asyncio.Event(), asyncio.Event()
    opened: asyncio.Future[Address] = asyncio.get_running_loop().create_future()
    done = asyncio.ensure_future(
        serve(app, stop=stop, at_once=at_once, opened=opened.set_result, alone=alone)
    )
    address = await opened
    async with connected(address.target) as channel:
        yield Life(app, address, done, stop, at_once), channel
    at_once.set()
    stop.set()
    await done


def settings(**values: Any) -> EchoSettings:
    return load_settings(EchoSettings, environ={}, **values)


async def health(channel: grpc.aio.Channel, service: str = "") -> int:
    stub = health_pb2_grpc.HealthStub(channel)
    answer = await stub.Check(health_pb2.HealthCheckRequest(service=service))
    return int(answer.status)


async def serving(channel: grpc.aio.Channel) -> None:
    stub = health_pb2_grpc.HealthStub(channel)
    watch = stub.Watch(health_pb2.HealthCheckRequest(service=SERVICE))
    async for answer in watch:
        if answer.status == SERVING:
            watch.cancel()
            return


async def refusal(channel: grpc.aio.Channel) -> Exception:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await answers(invoke(channel, "Unary", "x"), "Unary")
    return status.from_rpc_error(caught.value)


async def test_not_serving_until_loaded() -> None:
    loaded = threading.Event()
    app = EchoApplication(settings(), load=loaded.wait)
    async with lived(app) as (life, channel):
        assert await health(channel) == await health(channel, SERVICE) == NOT_SERVING
        assert type(await refusal(channel)) is NotReady
        assert (await life.probe("/healthz"), await life.probe("/readyz")) == (200, 503)
        loaded.set()
        await serving(channel)
        assert await health(channel) == await health(channel, SERVICE) == SERVING
        assert await answers(invoke(channel, "Unary", "x"), "Unary") == ["x"]
        assert (await life.probe("/healthz"), await life.probe("/readyz")) == (200, 200)
        life.stop.set()
        assert await life.done == 0
    assert app.steps == ["register", "load", "start", "drain", "close"]


@pytest.mark.parametrize("alone", [False, True])
async def test_what_was_loaded_is_left_alone_by_the_collector_of_a_process_of_its_own(
    alone: bool,
) -> None:
    try:
        async with lived(EchoApplication(settings()), alone=alone) as (_, channel):
            await serving(channel)
            assert (gc.get_freeze_count() > 0) is alone
    finally:
        gc.unfreeze()


async def test_probes_are_answered_in_every_state() -> None:
    loaded = threading.Event()
    app = EchoApplication(settings(drain_notice_seconds=60.0), load=loaded.wait)
    app.probes = (f"/{SERVICE}/Unary",)
    async with lived(app) as (life, channel):
        assert await answers(invoke(channel, "Unary", "x"), "Unary") == ["x"]
        assert not app.ready
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await answers(invoke(channel, "Serve", "x"), "Serve")
        assert type(status.from_rpc_error(caught.value)) is NotReady
        loaded.set()
        await serving(channel)
        assert app.ready
        life.stop.set()
        await eventually(lambda: not app.ready)
        assert await answers(invoke(channel, "Unary", "x"), "Unary") == ["x"]


async def test_health_reflection_and_channelz() -> None:
    async with lived(EchoApplication(settings())) as (_, channel):
        await serving(channel)
        listed = await health_pb2_grpc.HealthStub(channel).List(health_pb2.HealthListRequest())
        assert {name: item.status for name, item in listed.statuses.items()} == {
            "": SERVING,
            SERVICE: SERVING,
        }
        call = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo(
            iter([reflection_pb2.ServerReflectionRequest(list_services="*")])
        )
        names = {item.name for item in (await call.read()).list_services_response.service}
        assert {SERVICE, "grpc.health.v1.Health"} <= names
        servers = await channelz_pb2_grpc.ChannelzStub(channel).GetServers(
            channelz_pb2.GetServersRequest()
        )
        assert len(servers.server) >= 1


async def test_a_drain_finishes_what_runs_and_refuses_what_is_new() -> None:
    app = EchoApplication(settings())
    app.drain_ends.clear()
    async with lived(app) as (life, channel):
        await serving(channel)
        watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
        assert (await watch.read()).status == SERVING
        running = {
            shape: invoke(channel, shape, "wait") for shape in ("Unary", "Serve", "Collect", "Chat")
        }
        await eventually(lambda: len(app.servicer.calls) == len(running))
        life.stop.set()
        assert (await watch.read()).status == NOT_SERVING
        await eventually(lambda: "drain" in app.steps)
        assert type(await refusal(channel)) is Draining
        assert await life.probe("/readyz") == 503
        assert await life.probe("/healthz") == 200
        app.drain_ends.set()
        found = {shape: (await answers(call, shape))[-1] for shape, call in running.items()}
        assert set(found.values()) == {"wait"}
        assert await watch.read() is grpc.aio.EOF
        assert await life.done == 0


async def test_during_the_notice_calls_are_still_served() -> None:
    app = EchoApplication(settings(drain_notice_seconds=600))
    async with lived(app) as (life, channel):
        await serving(channel)
        life.stop.set()
        while await health(channel) == SERVING:
            pass
        assert await answers(invoke(channel, "Unary", "x"), "Unary") == ["x"]
        life.at_once.set()
        await life.done


async def test_at_once_cuts_the_drain_short() -> None:
    app = EchoApplication(settings(drain_timeout_seconds=600))
    app.drain_ends.clear()
    async with lived(app) as (life, channel):
        await serving(channel)
        call = invoke(channel, "Chat", "wait", open_ended=True)
        await app.servicer.started.wait()
        life.stop.set()
        await eventually(lambda: "drain" in app.steps)
        life.at_once.set()
        assert await life.done == 1
        with pytest.raises((grpc.aio.AioRpcError, asyncio.CancelledError)):
            await answers(call, "Chat")
    assert app.steps[-1] == "close"


async def test_at_once_while_the_server_stops() -> None:
    app = EchoApplication(settings())
    async with lived(app) as (life, channel):
        await serving(channel)
        idle = invoke(channel, "Chat", "x", open_ended=True)
        assert (await idle.read()).value == "x"
        watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
        assert (await watch.read()).status == SERVING
        life.stop.set()
        assert (await watch.read()).status == NOT_SERVING
        assert await watch.read() is grpc.aio.EOF  # the drain is over
        life.at_once.set()
        assert await life.done == 1


async def test_an_idle_stream_does_not_hold_a_stop() -> None:
    app = EchoApplication(settings(drain_timeout_seconds=600))
    async with lived(app) as (life, channel):
        await serving(channel)
        idle = invoke(channel, "Chat", "x", open_ended=True)
        assert (await idle.read()).value == "x"
        life.stop.set()
        assert await life.done == 0


async def test_calls_outlive_the_age_of_their_connection() -> None:
    app = EchoApplication(settings(max_connection_age_seconds=0.5, drain_timeout_seconds=0))
    async with lived(app) as (_, channel):
        await serving(channel)
        call = invoke(channel, "Unary", "wait")
        await app.servicer.started.wait()
        await channel.wait_for_state_change(grpc.ChannelConnectivity.READY)
        app.servicer.finish.set()
        assert await answers(call, "Unary") == ["wait"]


async def test_a_drain_that_hangs_is_given_up() -> None:
    app = EchoApplication(settings(drain_timeout_seconds=0))
    app.drain_ends.clear()
    async with lived(app) as (life, channel):
        await serving(channel)
        life.stop.set()
        assert await life.done == 1
    assert app.steps[-1] == "close"


async def test_a_call_that_outlives_the_drain_is_cancelled() -> None:
    app = EchoApplication(settings(drain_timeout_seconds=0))
    async with lived(app) as (life, channel):
        await serving(channel)
        call = invoke(channel, "Chat", open_ended=True)
        assert not call.done()
        life.stop.set()
        assert await life.done == 0


async def test_a_failed_load_ends_with_code_1(caplog: pytest.LogCaptureFixture) -> None:
    def load() -> None:
        raise OSError("no such model")

    app = EchoApplication(settings(), load=load)
    assert await serve(app) == 1
    assert "no such model" in caplog.text
    assert app.steps == ["register", "load", "close"]


@pytest.mark.parametrize("error", [NotFound("no such model"), FailedPrecondition("no weights")])
async def test_a_model_that_cannot_be_served_ends_with_code_2(
    error: EaselError, caplog: pytest.LogCaptureFixture
) -> None:
    def load() -> None:
        raise error

    app = EchoApplication(settings(), load=load)
    assert await serve(app) == 2
    assert error.message in caplog.text
    assert "Traceback" not in caplog.text
    assert app.steps == ["register", "load", "close"]


async def test_a_fatal_fault_ends_with_code_1() -> None:
    app = EchoApplication(settings())
    async with lived(app) as (life, channel):
        await serving(channel)
        watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
        assert (await watch.read()).status == SERVING
        app.fatal.set()
        assert (await watch.read()).status == NOT_SERVING
        assert await life.done == 1
    assert app.steps[-1] == "close"
    assert "drain" not in app.steps


async def test_a_stop_while_loading() -> None:
    loaded = threading.Event()
    app = EchoApplication(settings(), load=loaded.wait)
    async with lived(app) as (life, _):
        life.stop.set()
        assert await life.done == 0
    loaded.set()
    assert app.steps == ["register", "load"]


async def test_a_taken_port_ends_with_code_1() -> None:
    async with lived(EchoApplication(settings())) as (life, _):
        assert await serve(EchoApplication(settings(port=life.address.port))) == 1
        assert await serve(EchoApplication(settings(metrics_port=life.address.metrics_port))) == 1


async def test_the_ready_file_has_the_ports_while_serving(tmp_path: Path) -> None:
    path = tmp_path / "ready.json"
    app = EchoApplication(settings(ready_file=path))
    async with lived(app) as (life, channel):
        await serving(channel)
        await eventually(path.exists)
        found = json.loads(path.read_text())
        assert (found["port"], found["metrics_port"], found["pid"]) == (
            *(life.address.port, life.address.metrics_port),
            os.getpid(),
        )
        life.stop.set()
        await life.done
    assert not path.exists()


async def test_limits_of_messages_and_calls() -> None:
    app = EchoApplication(settings(max_message_bytes=2**10, max_concurrent_rpcs=1))
    async with lived(app) as (_, channel):
        await serving(channel)
        held = None
        for text in ("x" * 2**10, "wait"):
            call = invoke(channel, "Unary", text)
            if text == "wait":
                held = call
                await app.servicer.started.wait()
                call = invoke(channel, "Unary", "second")
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call
            assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        # Not before: the second would not be one too many once the first has ended.
        app.servicer.finish.set()
        assert held is not None
        await held


class Process:
    """The echo service in a process of its own."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.lines: list[dict[str, Any]] = []

    async def event(self, name: str) -> dict[str, Any]:
        assert self.process.stderr is not None
        async for raw in self.process.stderr:
            line: dict[str, Any] = json.loads(raw)
            self.lines.append(line)
            if line["event"] == name:
                return line
        raise AssertionError(f"ended without {name}: {self.lines}")


@asynccontextmanager
async def process(load: str) -> AsyncIterator[Process]:
    started = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "tests.integration.core.echo_process", load),
        cwd=ROOT,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        yield Process(started)
    finally:
        if started.returncode is None:
            started.kill()
        await started.wait()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_lets_the_running_call_finish(number: signal.Signals) -> None:
    async with process("quick") as child:
        port = (await child.event("serving"))["port"]
        async with connected(f"127.0.0.1:{port}") as channel:
            call = invoke(channel, "Serve", "wait")
            assert (await call.read()).value == "first"
            child.process.send_signal(number)
            assert (await call.read()).value == "wait"
            assert await call.code() is grpc.StatusCode.OK
        await child.event("stopped")
        assert await child.process.wait() == 0


async def test_a_signal_while_loading_ends_the_process() -> None:
    async with process("slow") as child:
        await child.event("listening")
        child.process.send_signal(signal.SIGTERM)
        await child.event("stopped")
        assert await child.process.wait() == 0


async def test_a_thread_that_hangs_does_not_hold_the_process() -> None:
    async with process("stuck") as child:
        await child.event("serving")
        child.process.send_signal(signal.SIGTERM)
        await child.event("draining")
        child.process.send_signal(signal.SIGTERM)
        await child.event("stopped")
        assert await child.process.wait() == 1


async def test_a_broken_load_ends_the_process() -> None:
    async with process("broken") as child:
        assert "ZeroDivisionError" in (await child.event("fatal: ZeroDivisionError"))["exception"]
        assert await child.process.wait() == 1
