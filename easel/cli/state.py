"""`easel status`, `easel version`."""

from __future__ import annotations

import platform
from typing import Final

import typer

from easel import __version__
from easel.cli import screen
from easel.cli.connection import TARGET, ApiKey, AsJson, Target, Timeout, connected
from easel.cli.exits import ExitCode
from easel.cli.models import model_json
from easel.gateway.v1 import gateway_pb2

_STYLES: Final = {"SERVING": "green", "NOT_SERVING": "yellow", "UNREACHABLE": "red"}


def status(
    target: Target = TARGET,
    api_key: ApiKey = None,
    timeout: Timeout = 10.0,
    as_json: AsJson = False,
) -> None:
    """Show every service behind the gateway: state, models, load. Exit code 3 if one is down."""
    with connected(target, api_key, timeout, as_json) as client:
        answer = client.status()
    if as_json:
        screen.print_json(_status_json(answer))
    else:
        _print_status(answer, target)
    if not answer.ready:
        raise typer.Exit(ExitCode.UNAVAILABLE)


def version(as_json: AsJson = False) -> None:
    """Show the versions of Easel, gRPC, protobuf and Python."""
    import google.protobuf
    import grpc

    versions = {
        "easel": __version__,
        "grpcio": grpc.__version__,
        "protobuf": google.protobuf.__version__,
        "python": platform.python_version(),
    }
    if as_json:
        screen.print_json(versions)
    else:
        screen.out().print(" ".join(f"{name} {number}" for name, number in versions.items()))


def _print_status(answer: gateway_pb2.StatusResponse, target: str) -> None:
    table = screen.table("service", "state", "at", "round trip", "calls", "failed", "now", "models",
                         right=["round trip", "calls", "failed", "now"])  # fmt: skip
    for service in answer.services:
        state = _state(service)
        reached = service.state == gateway_pb2.SERVICE_STATE_SERVING
        table.add_row(
            service.name,
            screen.plain(state.lower().replace("_", " "), _STYLES.get(state, "")),
            service.target,
            f"{service.latency_seconds * 1000:.1f} ms" if reached else "–",
            str(service.load.calls_started),
            str(service.load.calls_failed),
            str(service.load.calls_in_flight),
            screen.plain(service.error or ", ".join(model.name for model in service.models)),
        )
    console = screen.out()
    console.print(table)
    state = "[green]ready[/]" if answer.ready else "[red]not ready[/]"
    up_for = f"up {answer.uptime_seconds:.0f} s"
    console.print(f"gateway {target}: {state}, version {answer.version}, {up_for}")


def _status_json(answer: gateway_pb2.StatusResponse) -> dict[str, object]:
    return {
        "ready": answer.ready,
        "version": answer.version,
        "uptime_seconds": answer.uptime_seconds,
        "services": [_service_json(service) for service in answer.services],
    }


def _service_json(service: gateway_pb2.ServiceStatus) -> dict[str, object]:
    return {
        "name": service.name,
        "target": service.target,
        "state": _state(service),
        "error": service.error,
        "latency_seconds": service.latency_seconds,
        "models": [model_json(model) for model in service.models],
        "load": {
            "calls_started": service.load.calls_started,
            "calls_failed": service.load.calls_failed,
            "calls_in_flight": service.load.calls_in_flight,
            "mean_seconds": service.load.mean_seconds,
        },
    }


def _state(service: gateway_pb2.ServiceStatus) -> str:
    return gateway_pb2.ServiceState.Name(service.state).removeprefix("SERVICE_STATE_")
