"""The supervisor with pretended processes on a pretended clock."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from threading import Event

import pytest

from easel.supervisor import (
    Change,
    Plan,
    Service,
    ServiceFailedError,
    State,
    Supervisor,
    plan_stack,
)
from easel.supervisor.process import readable

NAMES = ["classifier", "generator", "ranker", "gateway"]


class FakeChild:
    """A process that does what the test says."""

    def __init__(self, service: Service, pid: int, world: World) -> None:
        self.service = service
        self.pid = pid
        self.code: int | None = None
        self.ready = False
        self.stubborn = False
        self._world = world

    def poll(self) -> int | None:
        return self.code

    def is_ready(self) -> bool:
        return self.ready

    def terminate(self) -> None:
        self._world.signals.append(("TERM", self.service.name, self._world.running()))
        if not self.stubborn:
            self.code = 0

    def kill(self) -> None:
        self._world.signals.append(("KILL", self.service.name, self._world.running()))
        self.code = -9

    def last_lines(self, count: int = 15) -> list[str]:
        return [f"last words of {self.service.name}"]


class World:
    """Clock, processes and what was told."""

    def __init__(self, plan: Plan, start_seconds: float = math.inf) -> None:
        self.now = 0.0
        self.started: list[FakeChild] = []
        self.doomed: set[str] = set()  # these end as soon as they start
        self.changes: list[Change] = []
        self.signals: list[tuple[str, str, list[str]]] = []
        self.supervisor = Supervisor(
            plan,
            self.start,
            tell=self.changes.append,
            clock=lambda: self.now,
            pause=self.pause,
            start_seconds=start_seconds,
        )

    def start(self, service: Service) -> FakeChild:
        child = FakeChild(service, 100 + len(self.started), self)
        child.code = 1 if service.name in self.doomed else None
        self.started.append(child)
        return child

    def pause(self, seconds: float) -> None:
        self.now += seconds

    def child(self, name: str) -> FakeChild:
        return [child for child in self.started if child.service.name == name][-1]

    def starts(self, name: str) -> int:
        return sum(child.service.name == name for child in self.started)

    def running(self) -> list[str]:
        return [child.service.name for child in self.started if child.code is None]

    def bring_up(self) -> None:
        self.supervisor.tick()
        for child in self.started:
            child.ready = True
        self.supervisor.tick()

    def tick_for(self, seconds: float) -> None:
        end = self.now + seconds
        while self.now < end:
            self.now += 0.1
            self.supervisor.tick()

    def told(self, name: str) -> list[State]:
        return [change.state for change in self.changes if change.service.name == name]


def ports() -> Callable[[], int]:
    numbers = iter(range(21000, 22000))
    return lambda: next(numbers)


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    return plan_stack(tmp_path, choose_port=ports())


@pytest.fixture
def world(plan: Plan) -> World:
    return World(plan)


def test_all_start_at_once_and_are_ready_together(world: World) -> None:
    world.supervisor.tick()
    assert world.running() == NAMES
    assert not world.supervisor.ready

    world.bring_up()

    assert world.supervisor.ready
    assert list(world.supervisor.pids()) == NAMES


def test_a_crashed_service_starts_again_after_its_delay(world: World) -> None:
    world.bring_up()
    world.child("classifier").code = -9
    world.supervisor.tick()
    assert not world.supervisor.ready
    assert world.changes[-1].why == "killed by SIGKILL; starts again in 0.5 s"

    world.now = 0.4
    world.supervisor.tick()
    assert world.starts("classifier") == 1
    world.now = 0.5
    world.supervisor.tick()

    assert world.starts("classifier") == 2
    world.child("classifier").ready = True
    world.supervisor.tick()
    assert world.supervisor.ready
    assert world.told("classifier") == [
        State.STARTING, State.READY, State.WAITING, State.STARTING, State.READY
    ]  # fmt: skip
    assert all(world.starts(name) == 1 for name in NAMES[1:])


def test_a_service_that_cannot_start_ends_it_all_with_its_log(world: World) -> None:
    world.bring_up()
    world.child("ranker").code = 1
    world.doomed.add("ranker")

    with pytest.raises(ServiceFailedError, match="ranker exited with code 1 before") as raised:
        world.tick_for(100.0)

    assert raised.value.log_lines == ("last words of ranker",)
    assert world.starts("ranker") == 4
    world.supervisor.stop()
    assert world.running() == []


def test_a_service_that_hangs_while_it_starts_is_given_up(plan: Plan) -> None:
    world = World(plan, start_seconds=600.0)
    world.bring_up()
    world.child("generator").code = -9

    with pytest.raises(ServiceFailedError, match=r"generator was not ready in 600 s") as raised:
        world.tick_for(1000.0)

    # Its time counts from its last start, and those that are ready have all the time they want.
    assert 600.0 < world.now < 602.0
    assert raised.value.log_lines == ("last words of generator",)
    world.supervisor.stop()
    assert world.running() == []


def test_stopping_goes_from_the_outside_in(world: World) -> None:
    world.bring_up()

    world.supervisor.stop()

    assert world.signals == [
        ("TERM", "gateway", NAMES),
        ("TERM", "ranker", NAMES[:3]),
        ("TERM", "classifier", NAMES[:2]),
        ("TERM", "generator", NAMES[1:2]),
    ]
    assert all(world.told(name)[-1] is State.STOPPED for name in NAMES)


def test_one_that_does_not_stop_is_killed_and_the_rest_still_stops(world: World) -> None:
    world.bring_up()
    world.child("ranker").stubborn = True

    world.supervisor.stop()

    assert [signal[:2] for signal in world.signals][1:3] == [("TERM", "ranker"), ("KILL", "ranker")]
    assert 30.0 <= world.now < 31.0
    assert world.running() == []


def test_hurry_does_not_wait(world: World) -> None:
    world.bring_up()
    for child in world.started:
        child.stubborn = True

    world.supervisor.stop(hurry=lambda: True)

    assert world.now < 1.0
    assert world.running() == []


def test_stopping_while_starting_stops_what_runs(world: World) -> None:
    stop = Event()
    world.supervisor.tick()
    stop.set()

    world.supervisor.run(stop)

    assert world.running() == []


def test_run_says_once_that_all_is_ready(world: World) -> None:
    stop, told = Event(), []

    def ready() -> None:
        told.append(world.now)
        stop.set()

    world.bring_up()
    world.supervisor.run(stop, on_ready=ready)

    assert len(told) == 1


def test_the_plan_tells_every_service_where_the_others_are(plan: Plan) -> None:
    gateway, ranker = plan.by_name["gateway"], plan.by_name["ranker"]

    for caller in (gateway, ranker):
        for name in ("classifier", "generator"):
            setting = f"EASEL_{caller.name.upper()}_{name.upper()}_TARGET"
            assert caller.environment[setting] == plan.by_name[name].target
    assert gateway.environment["EASEL_GATEWAY_RANKER_TARGET"] == ranker.target
    used = [service.target for service in plan.services()]
    used += [service.http for service in plan.services()]
    assert len(set(used)) == 8


def test_models_and_ports_are_passed_on_only_where_given(tmp_path: Path) -> None:
    plain = plan_stack(tmp_path)
    told = plan_stack(tmp_path, classifier="org/vit@main", gateway_port=5, http_port=6)

    assert "EASEL_CLASSIFIER_MODEL" not in plain.by_name["classifier"].environment
    assert told.by_name["classifier"].environment["EASEL_CLASSIFIER_MODEL"] == "org/vit@main"
    assert told.by_name["gateway"].target == "127.0.0.1:5"
    assert told.by_name["gateway"].http == "127.0.0.1:6"
    assert "EASEL_RANKER_DATA_DIR" not in plain.by_name["ranker"].environment
    kept = plan_stack(tmp_path, data=tmp_path / "data").by_name["ranker"]
    assert kept.environment["EASEL_RANKER_DATA_DIR"] == str(tmp_path / "data")


def test_no_port_is_given_twice(tmp_path: Path) -> None:
    numbers = iter([5, 21000, 21000, 21001, 6, 21002, 21003, 21001, 21004, 21005])

    plan = plan_stack(tmp_path, gateway_port=5, http_port=6, choose_port=lambda: next(numbers))

    used = [address for service in plan.services() for address in (service.target, service.http)]
    assert len(set(used)) == 8


def test_no_other_port_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="free ports"):
        plan_stack(tmp_path, choose_port=lambda: 21000)


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ("plain words ", "plain words"),
        ("Loading: 0%\rLoading: 100%", "Loading: 100%"),
        ('{"level":"info","event":"listening"}', ""),
        ('{"level":"error","event":"it broke"}', "it broke"),
        (
            '{"level":"critical","event":"fatal","exception":"Traceback:\\n  a\\nNotFound: x"}',
            "fatal: NotFound: x",
        ),
        ('{"no": "log"}', '{"no": "log"}'),
        ("[1]", "[1]"),
    ],
)
def test_a_log_line_is_shown_without_its_json(line: str, shown: str) -> None:
    assert readable(line) == shown
