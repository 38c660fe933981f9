"""`easel up`."""

from __future__ import annotations

import json
import os
import signal
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event
from typing import Annotated, Final

import typer
from rich.console import Console

from easel.cli import screen
from easel.cli.connection import AsJson
from easel.cli.exits import ExitCode
from easel.cli.startup import Board
from easel.supervisor import (
    ChildProcess,
    Plan,
    ServiceFailedError,
    Supervisor,
    plan_stack,
)
from easel.supervisor.plan import is_free

# A process that has loaded PyTorch takes its time to end.
_EXIT_SECONDS: Final = 20.0
_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_REFERENCE_HELP: Final = "Directory or org/name[@revision]; the demo one if left out."


def _reference(text: str | None) -> str | None:
    """Check what can be checked at once: a service needs seconds to find the same fault."""
    if text and text.startswith(("/", ".", "~")):
        folder = Path(text).expanduser()
        if not folder.is_dir():
            raise typer.BadParameter(f"there is no directory {text}")
        return str(folder)
    return text


Classifier = Annotated[
    str | None, typer.Option("--classifier", callback=_reference, help=_REFERENCE_HELP)
]
Generator = Annotated[
    str | None, typer.Option("--generator", callback=_reference, help=_REFERENCE_HELP)
]
StartTimeout = Annotated[
    float, typer.Option(min=0.0, help="Seconds in which every service has to become ready.")
]
START_SECONDS: Final = 600.0


def up(
    classifier: Classifier = None,
    generator: Generator = None,
    gateway_port: Annotated[
        int, typer.Option(min=0, max=65535, help="gRPC port of the gateway; 0 takes a free one.")
    ] = 50050,
    http_port: Annotated[
        int, typer.Option(min=0, max=65535, help="/metrics and /readyz; 0 takes a free one.")
    ] = 8080,
    logs: Annotated[
        Path | None, typer.Option(help="Folder for the services' logs; a new one if left out.")
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(
            file_okay=False, help="Folder for what the ranker keeps; in memory, and lost, if unset."
        ),
    ] = None,
    state_file: Annotated[
        Path | None, typer.Option(help="Gets targets and process ids as JSON while all is up.")
    ] = None,
    start_timeout: StartTimeout = START_SECONDS,
    drain_seconds: Annotated[
        float, typer.Option(min=0.0, help="Time for work under way when stopping.")
    ] = 10.0,
    as_json: AsJson = False,
) -> None:
    """Run all services on this machine until Ctrl-C.

    Waits until all are ready, starts again what crashes, stops from the outside in.
    """
    for option, port in (("--gateway-port", gateway_port), ("--http-port", http_port)):
        if port and not is_free(port):
            screen.fail(f"{option}: {port} is in use; 0 takes a free one", ExitCode.FAILED)
    console = screen.err() if as_json else screen.out()
    plan = plan_stack(
        _folder(logs),
        gateway_port=gateway_port,
        http_port=http_port,
        classifier=classifier,
        generator=generator,
        drain_seconds=drain_seconds,
        data=None if data is None else data.absolute(),
    )
    stopping = _Stopping()
    with Board(plan, console) as board, _signalled(stopping.signal):
        supervisor = Supervisor(
            plan,
            ChildProcess.start,
            tell=board.tell,
            start_seconds=start_timeout,
            stop_seconds=drain_seconds + _EXIT_SECONDS,
        )

        def ready() -> None:
            board.settle()
            _announce(plan, supervisor, console, state_file, as_json=as_json)

        try:
            supervisor.run(stopping.stop, on_ready=ready, hurry=stopping.hurry.is_set)
        except ServiceFailedError as error:
            board.settle()
            fail_with_log(error)
        finally:
            if state_file is not None:
                state_file.unlink(missing_ok=True)


class _Stopping:
    """The first signal stops, the second hurries."""

    def __init__(self) -> None:
        self.stop = Event()
        self.hurry = Event()

    def signal(self, number: int, frame: object) -> None:
        del number, frame
        (self.hurry if self.stop.is_set() else self.stop).set()


def fail_with_log(error: ServiceFailedError) -> None:
    """End with the service's own last words, then the one line that says what happened."""
    for line in error.log_lines:
        screen.err().print(screen.plain(f"  {line}"))
    screen.err().print(screen.plain(f"  all of it: {error.service.log_file}", "dim"))
    missing = any("ModuleNotFoundError" in line for line in error.log_lines)
    hint = "; the services need: pip install 'easel[all]'" if missing else ""
    screen.fail(f"{error}{hint}", ExitCode.FAILED)


@contextmanager
def _signalled(handler: Callable[[int, object], None]) -> Iterator[None]:
    before = {number: signal.signal(number, handler) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)


def _folder(logs: Path | None) -> Path:
    if logs is None:
        return Path(tempfile.mkdtemp(prefix="easel-"))
    logs.mkdir(parents=True, exist_ok=True)
    return logs.absolute()


def _announce(
    plan: Plan,
    supervisor: Supervisor,
    console: Console,
    state_file: Path | None,
    *,
    as_json: bool,
) -> None:
    state = _state(plan, supervisor)
    if state_file is not None:
        unfinished = state_file.with_name(f".{state_file.name}.{os.getpid()}")
        unfinished.write_text(json.dumps(state, indent=2) + "\n")
        unfinished.replace(state_file)
    if as_json:
        screen.print_json(state)
        return
    gateway = plan.by_name["gateway"]
    console.print(f"\n[bold]easel is up[/] at {gateway.target} · http://{gateway.http}/metrics")
    console.print(f"logs in {plan.directory} · Ctrl-C stops everything", style="dim")


def _state(plan: Plan, supervisor: Supervisor) -> dict[str, object]:
    pids = supervisor.pids()
    gateway = plan.by_name["gateway"]
    return {
        "target": gateway.target,
        "http": f"http://{gateway.http}",
        "pid": os.getpid(),
        "logs": str(plan.directory),
        "services": {
            service.name: {
                "target": service.target,
                "http": f"http://{service.http}",
                "pid": pids.get(service.name),
            }
            for service in plan.services()
        },
    }
