"""What interceptors, engine and gateway cost: a null model beside a bare server, in one run.

Client and server are processes of their own. gRPC's Python client costs about as much a call as
the bare server, so that calls a second on two cores may be the client's; calls a processor-second
of the server are counted beside them. For items of streams it costs more than the servers do, so
those come from a client that frames them ahead.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import grpc

from benchmarks.frames import FramedClient, framed
from benchmarks.processes import Process, apart, started
from benchmarks.report import Bound, Entry, quick
from easel.classifier.v1 import classifier_pb2 as pb
from easel.classifier.v1 import classifier_pb2_grpc
from easel.common.v1 import common_pb2

CALLERS = 32
ROUNDS = 3 if quick() else 11
CALLS = 960 if quick() else 2880
STREAMS = CALLERS
ITEMS = 4000 if quick() else 16000
STREAM = "/easel.classifier.v1.ClassifierService/ClassifyStream"
ROUND_TRIPS = 300 if quick() else 1000
COMMAND = "make bench-core"
APART = ", a processor each"

if TYPE_CHECKING:
    Stub = classifier_pb2_grpc.ClassifierServiceAsyncStub  # there is no such class at run time


def request() -> pb.ClassifyRequest:
    """The smallest picture that a request can carry: one raw pixel."""
    pixel = common_pb2.RawImage(data=b"\0\0\0", width=1, height=1, channels=3)
    return pb.ClassifyRequest(id="0", image=common_pb2.Image(raw=pixel))


@dataclass(frozen=True, slots=True)
class Rate:
    """Calls, or items, a second and a second of the server's processor time."""

    wall: float
    processor: float


async def measured_calls(server: Process, n: int) -> Rate:
    """``n`` unary calls by CALLERS callers."""
    async with grpc.aio.insecure_channel(server.target) as channel:
        stub = classifier_pb2_grpc.ClassifierServiceStub(channel)
        await unary(stub, n // 10)
        began, used = time.perf_counter(), server.processor_seconds()
        await unary(stub, n)
        seconds = time.perf_counter() - began
        processor = server.processor_seconds() - used
    return Rate(n / seconds, n / processor)


async def unary(stub: Stub, n: int) -> None:
    async def caller() -> None:
        for _ in range(n // CALLERS):
            await stub.Classify(request())

    await asyncio.gather(*(caller() for _ in range(CALLERS)))


def measured_items(server: Process, n: int) -> Rate:
    """``n`` items on as many streams as there are callers, by a client that does not limit them."""
    body = framed(request().SerializeToString()) * (n // STREAMS)
    client = FramedClient(server.target)
    try:
        client.run(STREAM, [body[: len(body) // 10]] * STREAMS, STREAMS)
        used = server.processor_seconds()
        seconds, answers = client.run(STREAM, [body] * STREAMS, STREAMS)
        processor = server.processor_seconds() - used
    finally:
        client.close()
    failed = [
        answer for answer in answers if pb.ClassifyResponse.FromString(answer).HasField("error")
    ]
    if failed or len(answers) != n:
        raise RuntimeError(f"{len(answers)} answers to {n} items, {len(failed)} of them errors")
    return Rate(n / seconds, n / processor)


async def round_trips(target: str) -> list[float]:
    """Seconds of ROUND_TRIPS unary calls, one after another."""
    async with grpc.aio.insecure_channel(target) as channel:
        stub = classifier_pb2_grpc.ClassifierServiceStub(channel)
        seconds = []
        for _ in range(ROUND_TRIPS):
            began = time.perf_counter()
            await stub.Classify(request())
            seconds.append(time.perf_counter() - began)
    return seconds


def ratio(name: str, values: list[float], bound: Bound | None = None) -> Entry:
    """The median of the rounds' ratios."""
    spread = (max(values) - min(values)) / 2
    return Entry(name, statistics.median(values), "ratio", COMMAND, bound, spread)


@dataclass(frozen=True, slots=True)
class Round:
    """The rates of one round."""

    bare: Rate
    bare_items: Rate
    service: Rate
    items: Rate

    @classmethod
    async def measured(cls, bare: Process, service: Process) -> Round:
        return cls(
            await measured_calls(bare, CALLS),
            await asyncio.to_thread(measured_items, bare, ITEMS),
            await measured_calls(service, CALLS),
            await asyncio.to_thread(measured_items, service, ITEMS),
        )


async def service_entries(bare: Process, service: Process) -> list[Entry]:
    free = [await Round.measured(bare, service) for _ in range(ROUNDS)]
    with apart(bare, service):
        kept = [await Round.measured(bare, service) for _ in range(ROUNDS)]
    return [
        *rates(free, ""),
        calls_kept(free, "", Bound(">=", 0.6)),
        ratio(
            "unary calls a processor-second, service / bare",
            [each.service.processor / each.bare.processor for each in free],
        ),
        *items_gained(free, "", None),
        *rates(kept, APART),
        calls_kept(kept, APART, None),
        *items_gained(kept, APART, Bound(">=", 3.0)),
    ]


def rates(rounds: list[Round], where: str) -> list[Entry]:
    def median(values: list[float], name: str, unit: str) -> Entry:
        return Entry(name + where, statistics.median(values), unit, COMMAND)

    return [
        median([each.bare.wall for each in rounds], "bare server, unary calls", "calls/s"),
        median([each.service.wall for each in rounds], "service, unary calls", "calls/s"),
        median([each.items.wall for each in rounds], "service, stream items", "items/s"),
    ]


def calls_kept(rounds: list[Round], where: str, bound: Bound | None) -> Entry:
    kept = [each.service.wall / each.bare.wall for each in rounds]
    return ratio("unary calls a second, service / bare" + where, kept, bound)


def items_gained(rounds: list[Round], where: str, bound: Bound | None) -> list[Entry]:
    ours = [each.items.wall / each.service.wall for each in rounds]
    bare = [each.bare_items.wall / each.bare.wall for each in rounds]
    return [
        ratio("stream items / unary calls, service" + where, ours, bound),
        ratio("stream items / unary calls, bare server" + where, bare),
    ]


async def gateway_entry(service: Process, gateway: Process) -> Entry:
    await round_trips(gateway.target)  # connections and caches
    ratios = []
    for _ in range(ROUNDS):
        direct = statistics.median(await round_trips(service.target))
        ratios.append(statistics.median(await round_trips(gateway.target)) / direct)
    return ratio("median round trip, gateway / direct", ratios, Bound("<=", 2.5))


async def entries() -> list[Entry]:
    with started("bare") as bare, started("classifier") as service:
        await ready(service.target)
        with started("gateway", service.target) as gateway:
            await ready(gateway.target)
            return [
                *await service_entries(bare, service),
                await gateway_entry(service, gateway),
            ]


async def ready(target: str, seconds: float = 10.0) -> None:
    """Returns once a call goes through; about ``seconds`` are waited for it."""
    async with grpc.aio.insecure_channel(target) as channel:
        stub = classifier_pb2_grpc.ClassifierServiceStub(channel)
        for _ in range(round(seconds / 0.05)):
            try:
                await stub.Classify(request(), timeout=5)
                return
            except grpc.aio.AioRpcError as error:
                if error.code() is not grpc.StatusCode.UNAVAILABLE:
                    raise
                await asyncio.sleep(0.05)
    raise RuntimeError(f"{target} did not become ready")
