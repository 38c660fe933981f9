"""The loop of servers: gRPC's events are taken together, and none is missed."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from typing import Any

import grpc
import pytest

from services.core.server.loop import ServerLoop


class PollerCompletionQueue:
    """Reads as gRPC's does: one byte a call."""

    def __init__(self, source: socket.socket) -> None:
        self.source = source
        self.calls: list[tuple[object, ...]] = []

    def _handle_events(self, *args: object) -> None:
        self.source.recv(1)
        self.calls.append(args)


class Other(PollerCompletionQueue):
    """Any other reader."""


@pytest.fixture
def loop() -> Iterator[ServerLoop]:
    loop = ServerLoop()
    yield loop
    loop.close()


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    ends = socket.socketpair()
    for end in ends:
        end.setblocking(False)
    yield ends
    for end in ends:
        end.close()


def turn(loop: ServerLoop) -> None:
    loop.call_soon(loop.stop)
    loop.run_forever()


@pytest.mark.parametrize("waiting", [1, 2, 4095, 4096])
def test_events_that_wait_are_handled_in_one_turn(
    loop: ServerLoop, ends: tuple[socket.socket, socket.socket], waiting: int
) -> None:
    source, events = ends
    queue = PollerCompletionQueue(source)
    loop.add_reader(source, queue._handle_events, loop)
    events.send(b"1" * waiting)
    for _ in range(3):
        turn(loop)
    assert queue.calls == [(loop,)]


def test_more_events_than_are_looked_at_take_another_turn(
    loop: ServerLoop, ends: tuple[socket.socket, socket.socket]
) -> None:
    source, events = ends
    queue = PollerCompletionQueue(source)
    loop.add_reader(source, queue._handle_events)
    events.send(b"1" * 4097)
    for _ in range(4):
        turn(loop)
    assert len(queue.calls) == 2


def test_a_turn_that_another_loop_has_taken_the_events_of_is_empty(
    loop: ServerLoop, ends: tuple[socket.socket, socket.socket]
) -> None:
    source, events = ends
    queue = PollerCompletionQueue(source)
    loop.add_reader(source, queue._handle_events)
    events.send(b"1")
    loop.call_soon(source.recv, 1)  # runs in the turn in which the reader is found to be ready
    turn(loop)
    turn(loop)
    assert queue.calls == []


def test_other_readers_are_left_alone(
    loop: ServerLoop, ends: tuple[socket.socket, socket.socket]
) -> None:
    source, events = ends
    other = Other(source)
    loop.add_reader(source, other._handle_events)
    events.send(b"123")
    for _ in range(4):
        turn(loop)
    assert len(other.calls) == 3


async def echo_many(calls: int) -> list[bytes]:
    async def answer(request: bytes, context: object) -> bytes:
        del context
        return request

    server = grpc.aio.server()
    handler = grpc.method_handlers_generic_handler(
        "echo", {"Echo": grpc.unary_unary_rpc_method_handler(answer)}
    )
    server.add_generic_rpc_handlers((handler,))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            call: Any = channel.unary_unary("/echo/Echo")
            answers: list[bytes] = await asyncio.gather(
                *(call(b"%d" % number) for number in range(calls))
            )
            return answers
    finally:
        await server.stop(None)


def test_every_call_is_answered_on_it() -> None:
    with asyncio.Runner(loop_factory=ServerLoop) as runner:
        assert runner.run(echo_many(500)) == [b"%d" % number for number in range(500)]
