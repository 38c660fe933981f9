"""`easel models`: list, load, unload, traffic, watch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from enum import StrEnum
from typing import Annotated, Final

import grpc
import typer

from easel.cli import screen
from easel.cli.connection import TARGET, ApiKey, AsJson, Target, Timeout, connected
from easel.cli.exits import EPILOG
from easel.client import EaselClientError
from easel.model.v1 import model_pb2

_STYLES: Final = {"READY": "green", "FAILED": "red"}

app = typer.Typer(
    help="List the models of all services, load and unload them, split their traffic.",
    epilog=EPILOG,
    invoke_without_command=True,
)


class Service(StrEnum):
    """Both model services."""

    CLASSIFIER = "classifier"
    GENERATOR = "generator"


Of = Annotated[Service, typer.Option("--service", help="The service whose models are meant.")]
Name = Annotated[str, typer.Argument(help="The name that the model is served under.")]


@app.callback()
def models(
    context: typer.Context,
    target: Target = TARGET,
    api_key: ApiKey = None,
    timeout: Timeout = 10.0,
    as_json: AsJson = False,
) -> None:
    """List the models of all services with the configuration they really run in."""
    if context.invoked_subcommand is None:
        list_models(target, api_key, timeout, as_json)
        return
    for option in context.params:
        source = context.get_parameter_source(option)
        if source is not None and source.name == "COMMANDLINE":
            raise typer.BadParameter(
                f"say it after `{context.invoked_subcommand}`",
                param_hint=f"--{option.removeprefix('as_').replace('_', '-')}",
            )


@app.command("list", epilog=EPILOG)
def list_models(
    target: Target = TARGET,
    api_key: ApiKey = None,
    timeout: Timeout = 10.0,
    as_json: AsJson = False,
) -> None:
    """List the models of all services with the configuration they really run in."""
    with connected(target, api_key, timeout, as_json) as client:
        found = client.list_models()
    _show(found, as_json)


@app.command("load", epilog=EPILOG)
def load(
    reference: Annotated[
        str,
        typer.Argument(help="A name or directory that the server knows, or org/name[@revision]."),
    ],
    name: Annotated[str, typer.Option(help="What to serve it under; the last part if unset.")] = "",
    version: Annotated[str, typer.Option(help="Its version; revision or digest if unset.")] = "",
    backend: Annotated[str, typer.Option(help="What runs it; the server's own if unset.")] = "",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "",
    precision: Annotated[str, typer.Option(help="The server's own if unset.")] = "",
    option: Annotated[
        list[str] | None, typer.Option("--option", help="KEY=VALUE of the backend; repeat it.")
    ] = None,
    make_default: Annotated[
        bool, typer.Option("--make-default", help="Give it the name's traffic once it is warm.")
    ] = False,
    service: Of = Service.CLASSIFIER,
    target: Target = TARGET,
    api_key: ApiKey = None,
    timeout: Timeout = None,
    as_json: AsJson = False,
) -> None:
    """Load a model beside those that are served; ends when it is ready."""
    with connected(target, api_key, timeout, as_json) as client:
        model = client.load_model(
            reference,
            name=name,
            version=version,
            backend=backend,
            device=device,
            precision=precision,
            options=dict(_pairs(option or (), "KEY=VALUE")),
            make_default=make_default,
            service=service,
        )
    _show_one(model, as_json)


@app.command("unload", epilog=EPILOG)
def unload(
    name: Name,
    version: Annotated[str, typer.Option(help="Which one, where there are several.")] = "",
    service: Of = Service.CLASSIFIER,
    target: Target = TARGET,
    api_key: ApiKey = None,
    timeout: Timeout = None,
    as_json: AsJson = False,
) -> None:
    """Unload a model; what it was asked before is finished first."""
    with connected(target, api_key, timeout, as_json) as client:
        model = client.unload_model(name, version, service=service)
    _show_one(model, as_json)


@app.command("traffic", epilog=EPILOG)
def traffic(
    name: Name,
    shares: Annotated[
        list[str], typer.Argument(help="VERSION=SHARE; the shares are 0 to 1 and add up to 1.")
    ],
    service: Of = Service.CLASSIFIER,
    target: Target = TARGET,
    api_key: ApiKey = None,
    timeout: Timeout = 10.0,
    as_json: AsJson = False,
) -> None:
    """Split the requests that name no version between the versions of a name."""
    with connected(target, api_key, timeout, as_json) as client:
        parts = {version: _share(text) for version, text in _pairs(shares, "VERSION=SHARE")}
        found = client.set_traffic(name, parts, service=service)
    _show(found, as_json)


@app.command("watch", epilog=EPILOG)
def watch(
    seconds: Annotated[
        float | None,
        typer.Option("--for", min=0.001, help="End after so many seconds; never if unset."),
    ] = None,
    service: Of = Service.CLASSIFIER,
    target: Target = TARGET,
    api_key: ApiKey = None,
    as_json: AsJson = False,
) -> None:
    """Show each model as it is, then every change: a line each, with --json a document each."""
    with connected(target, api_key, None, as_json) as client:
        try:
            for model in client.watch_models(service=service, timeout=seconds):
                _show_one(model, as_json)
        except EaselClientError as error:
            if seconds is None or error.code is not grpc.StatusCode.DEADLINE_EXCEEDED:
                raise


def _pairs(texts: Iterable[str], form: str) -> Iterator[tuple[str, str]]:
    for text in texts:
        key, equals, value = text.rpartition("=") if form.endswith("SHARE") else text.partition("=")
        if not equals or not key:
            raise ValueError(f"{text!r} does not read as {form}")
        yield key, value


def _share(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"{text!r} is no number") from None


def _show(found: list[model_pb2.ModelInfo], as_json: bool) -> None:
    if as_json:
        screen.print_json({"models": [model_json(model) for model in found]})
        return
    table = screen.table(
        "model", "version", "state", "traffic", "kind", "architecture", "parameters", "memory",
        "backend", "device", "precision", right=["traffic", "parameters", "memory"],
    )  # fmt: skip
    for model in found:
        config = model.config
        table.add_row(
            screen.plain(model.name),
            screen.plain(model.version),
            screen.plain(_state_word(model), _STYLES.get(_state(model), "yellow")),
            f"{model.traffic_share:.0%}",
            _kind(model),
            model.architecture,
            _millions(model.parameters, ""),
            _millions(model.bytes_in_memory, "B"),
            config.backend,
            config.device,
            config.precision,
        )
    screen.out().print(table)


def _show_one(model: model_pb2.ModelInfo, as_json: bool) -> None:
    if as_json:
        screen.print_json(model_json(model))
        return
    share = f", {model.traffic_share:.0%} of the traffic" if model.traffic_share else ""
    error = f": {model.error}" if model.error else ""
    line = f"{model.name}/{model.version} {_state_word(model)}{share}{error}"
    screen.out().print(screen.plain(line), soft_wrap=True)


def model_json(model: model_pb2.ModelInfo) -> dict[str, object]:
    config = model.config
    return {
        "name": model.name,
        "version": model.version,
        "digest": model.digest,
        "kind": _kind(model),
        "state": _state(model),
        "error": model.error,
        "traffic_share": model.traffic_share,
        "architecture": model.architecture,
        "parameters": model.parameters,
        "bytes_in_memory": model.bytes_in_memory,
        "config": {
            "backend": config.backend,
            "device": config.device,
            "device_name": config.device_name,
            "precision": config.precision,
            "threads": config.threads,
            "max_rows": config.max_rows,
        },
        "details": _details_json(model),
        "licence": model.licence,
    }


def _details_json(model: model_pb2.ModelInfo) -> dict[str, object]:
    from google.protobuf.json_format import MessageToDict

    kind = model.WhichOneof("details")
    if kind is None:
        return {}
    return MessageToDict(getattr(model, kind), preserving_proto_field_name=True)


def _state(model: model_pb2.ModelInfo) -> str:
    return model_pb2.ModelState.Name(model.state).removeprefix("MODEL_STATE_")


def _state_word(model: model_pb2.ModelInfo) -> str:
    return _state(model).lower().replace("_", " ")


def _kind(model: model_pb2.ModelInfo) -> str:
    return model_pb2.ModelKind.Name(model.kind).removeprefix("MODEL_KIND_").lower()


def _millions(number: int, unit: str) -> str:
    return f"{number / 1e6:.1f} M{unit}" if number else "–"
