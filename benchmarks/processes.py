"""Servers in processes of their own, with the processor time that they took."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Process:
    """A server that listens on ``target``, and answers ``/metrics`` on ``metrics_port``.
    ``ended``: its exit code, None while it runs.
    """

    target: str
    pid: int
    metrics_port: int = 0
    ended: Callable[[], int | None] = lambda: None

    def processor_seconds(self) -> float:
        """User and system time of all its threads since it began (Linux)."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS_PER_SECOND

    def resident_bytes(self) -> int:
        """Memory that it holds, without what is swapped out (Linux)."""
        pages = Path(f"/proc/{self.pid}/statm").read_text().split()[1]
        return int(pages) * os.sysconf("SC_PAGE_SIZE")


@contextmanager
def apart(*servers: Process) -> Iterator[None]:
    """While inside, ``servers`` have a processor to themselves and this process another (Linux).

    Left alone, the threads of both wander, and every message pays for waking an idle processor.
    """
    ours = os.sched_getaffinity(0)
    if len(ours) < 2:
        raise RuntimeError("a processor for the client and one for the server are needed")
    first, second, *_ = sorted(ours)
    try:
        for server in servers:
            _keep_to(server.pid, {first})
        _keep_to(os.getpid(), {second})
        yield
    finally:
        for server in servers:
            _keep_to(server.pid, ours)
        _keep_to(os.getpid(), ours)


def _keep_to(pid: int, processors: set[int]) -> None:
    for thread in Path(f"/proc/{pid}/task").iterdir():
        with suppress(ProcessLookupError):  # it has ended since
            os.sched_setaffinity(int(thread.name), processors)


@contextmanager
def started(*arguments: str, log: Path | None = None) -> Iterator[Process]:
    """Runs ``python -m benchmarks.servers ARGUMENTS``; it ends when its input closes. What it logs
    goes to the file ``log``, if any.
    """
    command = [sys.executable, "-m", "benchmarks.servers", *arguments]
    with open(os.devnull if log is None else log, "wb") as told:
        child = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=told
        )
    assert child.stdin is not None
    assert child.stdout is not None
    try:
        target, _, port = child.stdout.readline().decode().strip().partition(" ")
        if not target:
            why = "" if log is None else f": see {log}"
            raise RuntimeError(f"{' '.join(command)} ended with {child.wait()}{why}")
        yield Process(target, child.pid, int(port), child.poll)
    finally:
        child.stdin.close()
        try:
            child.wait(timeout=20)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
        child.stdout.close()
