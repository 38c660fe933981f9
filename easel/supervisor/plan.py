"""Which services run, where they listen and what they are told, before any of them starts."""

from __future__ import annotations

import random
import socket
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

HOST: Final = "127.0.0.1"
# Below the range that systems take the ports of outgoing connections from, so that a port found
# free is still free when its service comes to bind it, or to bind it again after a crash.
_PORTS: Final = range(20000, 32000)
_MAX_TRIES: Final = 200


@dataclass(frozen=True, slots=True)
class Service:
    """A process: ``python -m module`` with ``environment`` on top of the parent's.

    It says that it is ready by writing ``ready_file``.
    """

    name: str
    module: str
    environment: Mapping[str, str]
    ready_file: Path
    log_file: Path
    target: str = ""
    http: str = ""


@dataclass(frozen=True, slots=True)
class Plan:
    """Services in groups from the inside out; a group stands on those before it."""

    groups: tuple[tuple[Service, ...], ...]
    directory: Path
    by_name: Mapping[str, Service] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "by_name", {service.name: service for service in self.services()})

    def services(self) -> Iterator[Service]:
        for group in self.groups:
            yield from group


def plan_stack(
    directory: Path,
    *,
    gateway_port: int = 0,
    http_port: int = 0,
    classifier: str | None = None,
    generator: str | None = None,
    drain_seconds: float = 10.0,
    max_backlog_seconds: float | None = None,
    data: Path | None = None,
    choose_port: Callable[[], int] | None = None,
) -> Plan:
    """Plan the four services on loopback; ports of 0 are chosen here.

    ``classifier`` and ``generator`` are model references (a hub name or a directory), None for the
    demo pair. ``max_backlog_seconds`` is how much work the model services take on, None for their
    own default. ``data`` is where the ranker keeps what it learns, None for memory alone. Ready
    files and logs go to ``directory``.
    """
    choose = _distinct(choose_port or free_port, {gateway_port, http_port})
    ports = {name: (choose(), choose()) for name in ("classifier", "generator", "ranker")}
    ports["gateway"] = (gateway_port or choose(), http_port or choose())
    targets = {name: f"{HOST}:{port}" for name, (port, _) in ports.items()}
    models = {"classifier": classifier, "generator": generator}

    def service(name: str, module: str, upstreams: tuple[str, ...] = ()) -> Service:
        settings = {
            "port": str(ports[name][0]),
            "metrics_port": str(ports[name][1]),
            "ready_file": str(directory / f"{name}.ready"),
            "drain_timeout_seconds": str(drain_seconds),
            **{f"{upstream}_target": targets[upstream] for upstream in upstreams},
        }
        if reference := models.get(name):
            settings["model"] = reference
        if name in models and max_backlog_seconds is not None:
            settings["max_backlog_seconds"] = str(max_backlog_seconds)
        if name == "ranker" and data is not None:
            settings["data_dir"] = str(data)
        return Service(
            name=name,
            module=module,
            environment={f"EASEL_{name}_{key}".upper(): value for key, value in settings.items()},
            ready_file=directory / f"{name}.ready",
            log_file=directory / f"{name}.log",
            target=targets[name],
            http=f"{HOST}:{ports[name][1]}",
        )

    return Plan(
        groups=(
            (
                service("classifier", "services.classifier"),
                service("generator", "services.generator"),
            ),
            (service("ranker", "ranker", ("classifier", "generator")),),
            (service("gateway", "gateway", ("classifier", "generator", "ranker")),),
        ),
        directory=directory,
    )


def _distinct(choose: Callable[[], int], taken: set[int]) -> Callable[[], int]:
    """Nothing listens yet on a port that was chosen, so that it would be chosen again."""

    def port() -> int:
        for _ in range(_MAX_TRIES):
            chosen = choose()
            if chosen not in taken:
                taken.add(chosen)
                return chosen
        raise OSError(f"no {len(taken) + 1} free ports on {HOST}")

    return port


def free_port() -> int:
    """Return a loopback port that nothing listens on. Raises ``OSError`` when none is found."""
    for _ in range(_MAX_TRIES):
        port = random.choice(_PORTS)
        if is_free(port):
            return port
    raise OSError(f"no free port on {HOST} between {_PORTS.start} and {_PORTS.stop}")


def is_free(port: int) -> bool:
    """Return whether ``port`` can be bound on loopback now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # As servers do: a connection that lingers from an earlier run is no obstacle.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True
