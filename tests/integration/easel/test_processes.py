"""Real processes under the supervisor: small programs instead of services."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Event, Thread

import pytest

from easel.supervisor import (
    ChildProcess,
    Plan,
    RestartLimits,
    Service,
    ServiceFailedError,
    Supervisor,
    running,
)

PROGRAM = """
import os, pathlib, signal, sys, threading
name = os.environ["NAME"]
log = pathlib.Path(os.environ["ORDER"])
if os.environ.get("FAULT") == "start":
    print(f"{name}: the model is not there", file=sys.stderr)
    raise SystemExit(1)
done = threading.Event()
def stop(*_):
    with log.open("a") as file:
        file.write(name + "\\n")
    if os.environ.get("FAULT") != "deaf":
        done.set()
signal.signal(signal.SIGTERM, stop)
if os.environ.get("FAULT") != "hang":
    pathlib.Path(os.environ["READY"]).write_text("{}")
done.wait()
"""


@pytest.fixture
def make_plan(tmp_path: Path) -> Callable[..., Plan]:
    (tmp_path / "pretended_service.py").write_text(PROGRAM)

    def service(name: str, fault: str) -> Service:
        return Service(
            name=name,
            module="pretended_service",
            environment={
                "NAME": name,
                "PYTHONPATH": f"{tmp_path}{os.pathsep}{os.getcwd()}",
                "FAULT": fault,
                "ORDER": str(tmp_path / "order"),
                "READY": str(tmp_path / f"{name}.ready"),
            },
            ready_file=tmp_path / f"{name}.ready",
            log_file=tmp_path / f"{name}.log",
        )

    def plan(**faults: str) -> Plan:
        inner, outer = (
            service("inner", faults.get("inner", "")),
            service("outer", faults.get("outer", "")),
        )
        return Plan(groups=((inner,), (outer,)), directory=tmp_path)

    return plan


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def wait_until(true: Callable[[], bool], seconds: float = 30.0) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "did not happen in time"
        time.sleep(0.02)


def test_up_and_down_in_order(make_plan: Callable[..., Plan], tmp_path: Path) -> None:
    with running(make_plan()) as supervisor:
        assert supervisor.ready
        pids = supervisor.pids()
        assert all(is_alive(pid) for pid in pids.values())

    assert (tmp_path / "order").read_text().split() == ["outer", "inner"]
    assert not any(is_alive(pid) for pid in pids.values())


def test_what_is_killed_comes_back(make_plan: Callable[..., Plan]) -> None:
    with running(make_plan()) as supervisor:
        before = supervisor.pids()
        os.kill(before["inner"], signal.SIGKILL)
        wait_until(lambda: supervisor.pids().get("inner") not in (None, before["inner"]))
        wait_until(lambda: supervisor.ready)
        assert supervisor.pids()["outer"] == before["outer"]


def test_a_service_that_fails_at_start_shows_why(make_plan: Callable[..., Plan]) -> None:
    plan = make_plan(inner="start")
    limits = RestartLimits(first_delay_seconds=0.01)
    supervisor = Supervisor(plan, ChildProcess.start, limits=limits)

    with pytest.raises(ServiceFailedError, match="inner exited with code 1") as raised:
        supervisor.run(Event())

    assert "inner: the model is not there" in raised.value.log_lines
    assert supervisor.pids() == {}


def test_a_service_that_hangs_at_start_ends_it_all(make_plan: Callable[..., Plan]) -> None:
    supervisor = Supervisor(make_plan(inner="hang"), ChildProcess.start, start_seconds=0.2)

    with pytest.raises(ServiceFailedError, match=r"inner was not ready in 0\.2 s"):
        supervisor.run(Event())

    assert supervisor.pids() == {}


def test_a_deaf_one_is_killed(make_plan: Callable[..., Plan]) -> None:
    supervisor = Supervisor(make_plan(outer="deaf"), ChildProcess.start)
    stop, ready = Event(), Event()
    thread = Thread(
        target=supervisor.run,
        args=(stop,),
        kwargs={"on_ready": ready.set, "hurry": lambda: True},
    )
    thread.start()
    ready.wait(30)
    pids = supervisor.pids()
    stop.set()
    thread.join(30)

    assert not any(is_alive(pid) for pid in pids.values())


PARENT = """
import sys, pathlib
from easel.supervisor import ChildProcess, Service
folder = pathlib.Path(sys.argv[1])
environment = {"NAME": "x", "ORDER": str(folder / "order"), "READY": str(folder / "x.ready")}
child = ChildProcess.start(
    Service("x", "pretended_service", environment, folder / "x.ready", folder / "x.log")
)
print(child.pid, flush=True)
sys.stdin.read()
"""


@pytest.fixture
def parent(make_plan: Callable[..., Plan], tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    del make_plan
    process = subprocess.Popen(
        [sys.executable, "-c", PARENT, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{os.getcwd()}"},
    )
    yield process
    process.kill()
    process.communicate(timeout=30)


def test_no_child_outlives_a_killed_parent(parent: subprocess.Popen[str], tmp_path: Path) -> None:
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    wait_until((tmp_path / "x.ready").exists)
    assert is_alive(child)

    parent.kill()

    wait_until(lambda: not is_alive(child))
