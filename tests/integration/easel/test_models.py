"""The life of models, by the client and by the command line."""

from __future__ import annotations

import json

import grpc
import pytest
from typer.testing import CliRunner, Result

from easel import Client
from easel.cli.app import app
from easel.client import EaselClientError
from easel.model.v1 import model_pb2
from tests.integration.easel.fake_gateway import FakeGateway


def run(gateway: FakeGateway, *arguments: str) -> Result:
    return CliRunner(env={"EASEL_TARGET": gateway.target, "COLUMNS": "160"}).invoke(
        app, ["models", *arguments]
    )


def test_the_client_loads_splits_and_unloads(gateway: FakeGateway) -> None:
    with Client(gateway.target) as client:
        loaded = client.load_model(
            "demo",
            name="mine",
            version="2",
            backend="pytorch",
            device="cpu",
            precision="float32",
            options={"threads": "1"},
            make_default=True,
        )
        shared = client.set_traffic("mine", {"1": 0.9, "2": 0.1})
        unloaded = client.unload_model("mine", "1", service="generator")
    assert (loaded.name, loaded.version) == ("mine", "2")
    assert [(model.version, model.traffic_share) for model in shared] == [("1", 0.9), ("2", 0.1)]
    assert unloaded.state == model_pb2.MODEL_STATE_UNLOADED
    asked, traffic, unload = gateway.seen.requests
    assert asked == model_pb2.LoadModelRequest(
        reference="demo",
        name="mine",
        version="2",
        backend="pytorch",
        device="cpu",
        precision="float32",
        options={"threads": "1"},
        make_default=True,
    )
    assert traffic == model_pb2.SetTrafficRequest(name="mine", shares={"1": 0.9, "2": 0.1})
    assert unload == model_pb2.UnloadModelRequest(name="mine", version="1")
    services = [metadata["easel-service"] for metadata in gateway.seen.metadata]
    assert services == ["classifier", "classifier", "generator"]


def test_the_client_watches(gateway: FakeGateway) -> None:
    with Client(gateway.target) as client:
        watch = client.watch_models()
        assert [next(watch).name, next(watch).name] == ["demo", "b"]
        watch.close()  # type: ignore[attr-defined]
        with pytest.raises(EaselClientError) as caught:
            list(client.watch_models(timeout=60.0))
    assert caught.value.code is grpc.StatusCode.DEADLINE_EXCEEDED


def test_list(gateway: FakeGateway) -> None:
    shown, listed = run(gateway), run(gateway, "list")
    assert shown.stdout == listed.stdout
    assert "ready" in shown.stdout
    (model,) = json.loads(run(gateway, "list", "--json").stdout)["models"]
    assert (model["state"], model["traffic_share"]) == ("READY", 0.0)


def test_load(gateway: FakeGateway) -> None:
    shown = run(
        gateway, "load", "demo", "--version", "2", "--option", "threads=1", "--make-default"
    )
    assert shown.stdout == "demo/2 ready, 100% of the traffic\n"
    (asked,) = gateway.seen.requests
    assert isinstance(asked, model_pb2.LoadModelRequest)
    assert dict(asked.options) == {"threads": "1"}
    assert asked.make_default
    told = json.loads(run(gateway, "load", "demo", "--json").stdout)
    assert (told["name"], told["bytes_in_memory"]) == ("demo", 3_000_000)
    refused = run(gateway, "load", "../demo")
    assert refused.exit_code == 2
    assert "reference: No such reference. (limit a name; given ../demo" in refused.stderr


def test_unload(gateway: FakeGateway) -> None:
    assert run(gateway, "unload", "demo", "--version", "1").stdout == "demo/1 unloaded\n"


def test_traffic(gateway: FakeGateway) -> None:
    shown = run(gateway, "traffic", "demo", "1=0.75", "2=0.25")
    assert "75%" in shown.stdout
    assert "25%" in shown.stdout
    assert "3.0 MB" in shown.stdout
    (asked,) = gateway.seen.requests
    assert isinstance(asked, model_pb2.SetTrafficRequest)
    assert dict(asked.shares) == {"1": 0.75, "2": 0.25}


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["traffic", "demo", "1"], "'1' does not read as VERSION=SHARE"),
        (["traffic", "demo", "=1"], "'=1' does not read as VERSION=SHARE"),
        (["traffic", "demo", "1=much"], "'much' is no number"),
        (["load", "demo", "--option", "threads"], "'threads' does not read as KEY=VALUE"),
        (["--timeout", "3", "watch"], "say it after `watch`"),
        (["--json", "load", "demo"], "say it after `load`"),
    ],
)
def test_wrong_usage(gateway: FakeGateway, arguments: list[str], told: str) -> None:
    result = run(gateway, *arguments)
    assert result.exit_code == 2
    assert told in result.stderr
    assert not gateway.seen.requests


def test_watch(gateway: FakeGateway) -> None:
    shown = run(gateway, "watch", "--for", "60")
    assert shown.exit_code == 0
    assert shown.stdout == "demo/1 ready\nb/2 failed: Only [.bin] files.\n"
    told = run(gateway, "watch", "--for", "60", "--json")
    assert [json.loads(line)["state"] for line in told.stdout.splitlines()] == ["READY", "FAILED"]
