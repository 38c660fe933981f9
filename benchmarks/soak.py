"""``make bench-soak``: minutes of requests, cancels, disconnects, late deadlines; and what stays.

Ten minutes, thirty with ``FULL=1``, half a minute with ``QUICK=1``, after ten thousand requests of
few steps and a quarter of an hour, which are not looked at. The generator is a process of its own.
Its resident memory is read once a second; the slope is Theil's (1950) with Sen's (1968) 95 %
interval over means of a minute, which are less alike from one to the next than the readings. It is
indistinguishable from zero while the interval reaches down to zero.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import random
import statistics
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

import grpc
from prometheus_client.parser import text_string_to_metric_families

from benchmarks.cancel import until_serving
from benchmarks.processes import Process, started
from benchmarks.report import Bound, Chart, Entry, Line, publish, quick
from easel.generator.v1 import generator_pb2 as pb
from easel.generator.v1 import generator_pb2_grpc

FULL = os.environ.get("FULL", "") not in ("", "0")
COMMAND = f"{'FULL=1 ' if FULL else ''}make bench-soak"
BY_DEFAULT = 10.0
"""Minutes."""
MINUTES = 0.5 if quick() else 30.0 if FULL else BY_DEFAULT
CALLERS = 12
SETTLING_SECONDS = 6.0 if quick() else 900.0
"""Of what is measured, after short requests: with longer ones memory moved once more, by 3.5 MiB,
for a quarter of an hour.
"""
CHART_BLOCK = 1 if quick() else 10
"""Seconds of a mean in the chart."""
SLOPE_BLOCK = 1 if quick() else 60
"""Seconds of a mean that the slope is taken from: twice the time from one giving back of memory to
the next. Sen's interval takes means for independent; those of ten seconds are of other parts of
that time, and memory wanders for a minute. In half an hour without a slope 5 of 21 overlapping ten
minutes had one by means of ten seconds, 3 by those of a minute. It was ten seconds until that half
hour had been seen.
"""
IDLE_SECONDS = 30.0
ANSWER_SECONDS = 120.0
SIDES = (32, 64, 128)
CROWD = 8
"""Pictures of each caller at once: together more of one size than a batch may have."""
CROWD_STEPS = 2 if quick() else 8
"""Enough for all of them to be on their way, and to end, together."""
AGEING = 100 if quick() else 10_000
"""Requests of up to ``AGEING_STEPS`` at random before memory is looked at. What stays, like prompts
and kernels, is replaced among buffers of ever other sizes, and ever more of the heap's pages have
something on them: over 21,617 such requests resident memory grew by ever less, from about the
10,000th on by no more than chance, while what was in use stayed the same from the first one on.
"""
AGEING_STEPS = 3
STEPS = 30
PROMPTS = 100 if quick() else 5000
"""Different ones: more than the generator remembers, which is 64 MiB of them."""
GAUGES = ("easel_rows", "easel_backlog_seconds")
SERVICE = "easel.generator.v1.GeneratorService"


@dataclass(slots=True)
class Tally:
    """How each request ended; ``lost`` ones had no end within two minutes."""

    ends: Counter[str] = field(default_factory=Counter)

    @property
    def asked(self) -> int:
        return self.ends.total()


class Caller:
    """Asks for one random picture after another, and does with each what a caller may do."""

    def __init__(self, target: str, seed: int, tally: Tally, most_steps: int) -> None:
        self._target = target
        self._chance = random.Random(seed)
        self._tally = tally
        self._most_steps = most_steps

    async def run(self, more: Callable[[], bool]) -> None:
        """As long as there are to be ``more``."""
        channel = grpc.aio.insecure_channel(self._target)
        try:
            while more():
                act = self._chance.choices(
                    ("read", "cancel", "disconnect", "late", "stream"), (50, 15, 10, 10, 15)
                )[0]
                stub = generator_pb2_grpc.GeneratorServiceStub(channel)
                try:
                    async with asyncio.timeout(ANSWER_SECONDS):
                        self._tally.ends[await self._act(act, stub, channel)] += 1
                except TimeoutError:
                    self._tally.ends["lost"] += 1
                if act == "disconnect":
                    channel = grpc.aio.insecure_channel(self._target)
        finally:
            await channel.close()

    async def _act(
        self,
        act: str,
        stub: generator_pb2_grpc.GeneratorServiceAsyncStub,
        channel: grpc.aio.Channel,
    ) -> str:
        try:
            match act:
                case "stream":
                    return await self._stream(stub)
                case "late":
                    seconds = self._chance.uniform(0.01, 0.5)
                    return await self._read(stub.Generate(self._request(), timeout=seconds))
                case "read":
                    return await self._read(stub.Generate(self._request()))
        except grpc.aio.AioRpcError as error:
            return error.code().name
        call = stub.Generate(self._request())
        events = self._chance.randint(0, 12)
        try:
            async for _ in call:
                events -= 1
                if events <= 0:
                    break
        except grpc.aio.AioRpcError as error:
            return error.code().name
        if act == "cancel":
            call.cancel()
        else:
            await channel.close()
        return "given up"

    async def _read(
        self, call: grpc.aio.UnaryStreamCall[pb.GenerateRequest, pb.GenerateEvent]
    ) -> str:
        ends = [(event.WhichOneof("event"), event.failed.reason) async for event in call]
        kind, reason = ends[-1]
        return f"failed: {reason}" if reason else str(kind)

    async def _stream(self, stub: generator_pb2_grpc.GeneratorServiceAsyncStub) -> str:
        """Three requests on one stream, one of them cancelled and one kept to a single picture."""
        call = stub.GenerateStream()
        for name in ("a", "b", "c"):
            request = self._request()
            request.id = name
            await call.write(pb.GenerateStreamRequest(submit=request))
        await call.write(pb.GenerateStreamRequest(cancel=pb.Cancel(id="b")))
        await call.write(pb.GenerateStreamRequest(keep_only=pb.KeepOnly(id="c", indices=[0])))
        await call.done_writing()
        ended = {event.id async for event in call}
        return "streamed" if len(ended) == 3 else "lost"

    def _request(self) -> pb.GenerateRequest:
        chance = self._chance
        return pb.GenerateRequest(
            text_to_image=pb.TextToImage(),
            prompt=prompt(chance.randrange(PROMPTS)),
            steps=chance.randint(1, self._most_steps),
            width=chance.choice(SIDES),
            height=chance.choice(SIDES),
            guidance_scale=chance.choice((1.0, 3.0)),
            count=chance.randint(1, 3),
            preview=pb.Preview(every=1),
            allow_degrade=chance.random() < 0.5,
        )


def prompt(number: int) -> str:
    return f"a red star {number}"


async def warm(process: Process) -> None:
    """All prompts, and the largest batches of every size that are admitted: prompts are remembered,
    and buffers are as large as the largest batch so far.
    """

    def told(after: str) -> None:
        print(f"after {after}: {process.resident_bytes() / 2**20:.1f} MiB", flush=True)

    async with grpc.aio.insecure_channel(process.target) as channel:
        stub = generator_pb2_grpc.GeneratorServiceStub(channel)

        async def ask(words: str, **chosen: Any) -> None:
            request = pb.GenerateRequest(
                text_to_image=pb.TextToImage(),
                prompt=words,
                preview=pb.Preview(every=1),
                **chosen,
            )
            try:
                async for _ in stub.Generate(request):
                    pass
            except grpc.aio.AioRpcError as error:
                if error.code() is not grpc.StatusCode.RESOURCE_EXHAUSTED:
                    raise

        one = partial(ask, width=SIDES[0], height=SIDES[0], steps=1, guidance_scale=1.0)
        for first in range(0, PROMPTS, CALLERS):
            some = range(first, min(first + CALLERS, PROMPTS))
            await asyncio.gather(*(one(prompt(each)) for each in some))
        told("prompts")
        for width, height, guidance in itertools.product(SIDES, SIDES, (3.0, 1.0)):
            chosen = {"guidance_scale": guidance, "count": CROWD, "steps": CROWD_STEPS}
            crowd = (
                ask("a red star", width=width, height=height, **chosen) for _ in range(CALLERS)
            )
            await asyncio.gather(*crowd)
        told("crowds")


async def age(process: Process) -> Tally:
    """How ``AGEING`` short requests, cancels and disconnects ended."""
    tally = Tally()
    seeds = range(CALLERS, 2 * CALLERS)
    callers = [Caller(process.target, seed, tally, AGEING_STEPS) for seed in seeds]
    await asyncio.gather(*(caller.run(lambda: tally.asked < AGEING) for caller in callers))
    print(dict(tally.ends), f"{process.resident_bytes() / 2**20:.1f} MiB", flush=True)
    return tally


async def watched(process: Process, until: float) -> list[tuple[float, float]]:
    """(seconds, MiB) of resident memory, once a second."""
    began, seen = time.monotonic(), []
    while (now := time.monotonic()) < until:
        seen.append((now - began, process.resident_bytes() / 2**20))
        await asyncio.sleep(1.0)
    return seen


def slope(seen: Sequence[tuple[float, float]], block: int) -> tuple[float, float, float]:
    """MiB an hour: Theil's slope of the means of ``block`` readings, and Sen's 95 % interval."""
    parts = [seen[at : at + block] for at in range(0, len(seen) - block + 1, block)]
    points = [
        (statistics.mean(x for x, _ in part), statistics.mean(y for _, y in part)) for part in parts
    ]
    slopes = sorted(
        (second[1] - first[1]) / (second[0] - first[0])
        for first, second in itertools.combinations(points, 2)
    )
    n = len(points)
    # Of Kendall's S without ties; readings of memory are rarely equal, and ties only narrow it.
    spread = 1.96 * (n * (n - 1) * (2 * n + 5) / 18) ** 0.5
    low = max(0, round((len(slopes) - spread) / 2))
    high = min(len(slopes) - 1, round((len(slopes) + spread) / 2))
    return statistics.median(slopes) * 3600, slopes[low] * 3600, slopes[high] * 3600


def gauges(process: Process) -> dict[str, float]:
    """Everything that counts what is under way; calls are those started and not handled yet."""
    url = f"http://127.0.0.1:{process.metrics_port}/metrics"
    with urllib.request.urlopen(url, timeout=10) as answer:
        families = list(text_string_to_metric_families(answer.read().decode()))
    samples = [sample for family in families for sample in family.samples]
    found = {f"{s.name}{s.labels}": s.value for s in samples if s.name in GAUGES}
    calls = {"grpc_server_started_total": 1.0, "grpc_server_handled_total": -1.0}
    found["calls"] = sum(
        calls[s.name] * s.value
        for s in samples
        if s.name in calls and s.labels["grpc_service"] == SERVICE
    )
    return found


async def idle(process: Process) -> dict[str, float]:
    """The gauges once they are all zero, or as they are after half a minute."""
    ends = time.monotonic() + IDLE_SECONDS
    while any(gauges(process).values()) and time.monotonic() < ends:  # noqa: ASYNC110
        await asyncio.sleep(0.5)
    return gauges(process)


async def soak(process: Process) -> tuple[list[Entry], list[float]]:
    """Also the memory in MiB, a mean a ``CHART_BLOCK`` of seconds."""
    await until_serving(process.target)
    await warm(process)
    aged = await age(process)
    tally = Tally()
    until = time.monotonic() + SETTLING_SECONDS + MINUTES * 60
    callers = [Caller(process.target, seed, tally, STEPS) for seed in range(CALLERS)]
    watching = asyncio.create_task(watched(process, until))
    await asyncio.gather(*(caller.run(lambda: time.monotonic() < until) for caller in callers))
    seen = await watching
    left = await idle(process)
    steady = [(at - SETTLING_SECONDS, mib) for at, mib in seen if at >= SETTLING_SECONDS]
    print(dict(tally.ends), {name: value for name, value in left.items() if value})
    means = [
        round(statistics.mean(y for _, y in seen[at : at + CHART_BLOCK]), 1)
        for at in range(0, len(seen), CHART_BLOCK)
    ]
    return [
        Entry("requests", tally.asked, "requests", COMMAND),
        Entry("requests to warm up", aged.asked, "requests", COMMAND),
        Entry(
            "requests without an end",
            aged.ends["lost"] + tally.ends["lost"],
            "requests",
            COMMAND,
            Bound("<=", 0),
        ),
        Entry("gauges looked at", len(left), "gauges", COMMAND, Bound(">=", 4)),
        Entry(
            "sum of the gauges left over", sum(map(abs, left.values())), "", COMMAND, Bound("<=", 0)
        ),
        Entry("resident memory, median", statistics.median(y for _, y in steady), "MiB", COMMAND),
        *(entry for minutes in lengths(MINUTES) for entry in slopes(steady, minutes, SLOPE_BLOCK)),
    ], means


def lengths(minutes: float) -> list[float]:
    """How long memory is looked at: half an hour begins with the ten minutes of a default run."""
    return [BY_DEFAULT, minutes] if minutes > BY_DEFAULT else [minutes]


def slopes(steady: Sequence[tuple[float, float]], minutes: float, block: int) -> list[Entry]:
    """Of the first so many."""
    middle, low, high = slope([each for each in steady if each[0] < minutes * 60], block)
    name = f"its slope over {minutes:g} minutes"
    # Half a minute tells of the harness, not of memory.
    bound = Bound("<=", 0.0) if minutes >= BY_DEFAULT else None
    return [
        Entry(name, middle, "MiB/h", COMMAND, None, (high - low) / 2),
        Entry(f"{name}, low end of 95 %", low, "MiB/h", COMMAND, bound),
        Entry(f"{name}, high end of 95 %", high, "MiB/h", COMMAND),
    ]


def memory_chart(resident: Sequence[float], block: int) -> Chart:
    """``resident``: means of ``block`` seconds in MiB, from the first request after warming up."""
    minutes = tuple((place + 0.5) * block / 60 for place in range(len(resident)))
    return Chart(
        name="memory",
        title="Resident memory under requests, cancels and disconnects",
        x=f"minutes; what counts begins at {SETTLING_SECONDS / 60:g}",
        y="MiB",
        lines=(Line("the demo generator", minutes, tuple(resident)),),
    )


def main() -> int:
    with started("generator") as process:
        entries, resident = asyncio.run(soak(process))
    chart = memory_chart(resident, CHART_BLOCK)
    return publish("soak", entries, {"title": COMMAND, "charts": [asdict(chart)]})


if __name__ == "__main__":
    raise SystemExit(main())
