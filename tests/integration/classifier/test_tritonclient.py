"""tritonclient, unchanged and in a process of its own, against a running classifier."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

import easel
from gateway.config import Settings
from gateway.service import Gateway
from services.core.config import load_settings
from tests import tritonclient
from tests.integration.classifier.pictures import picture
from tests.integration.classifier.server import fake_app
from tests.integration.serving import running
from tests.unit.classifier.fakes import LABELS, FakeNetwork

SCRIPT = Path(__file__).with_name("tritonclient_process.py")


@asynccontextmanager
async def behind_a_gateway(classifier: str) -> AsyncIterator[str]:
    nobody = {f"{name}_target": "127.0.0.1:1" for name in ("generator", "ranker")}
    settings = load_settings(Settings, environ={}, classifier_target=classifier, **nobody)
    async with running(Gateway(settings)) as target:
        yield target


async def asked(target: str, folder: Path) -> dict[str, Any]:
    file = folder / "picture.png"
    file.write_bytes(picture("lime"))
    process = await asyncio.create_subprocess_exec(
        tritonclient.interpreter(), str(SCRIPT), target, str(file),
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    output, errors = await process.communicate()
    assert process.returncode == 0, errors.decode()
    told: dict[str, Any] = json.loads(output)
    return told


@pytest_asyncio.fixture(params=["classifier", "gateway"])
async def told(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, Any]:
    async with running(fake_app(FakeNetwork())) as classifier:
        if request.param == "classifier":
            return await asked(classifier, tmp_path)
        async with behind_a_gateway(classifier) as target:
            return await asked(target, tmp_path)


async def test_tritonclient(told: dict[str, Any]) -> None:
    assert (told["live"], told["ready"], told["model_ready"]) == (True, True, True)
    assert told["other_ready"] is False
    assert told["server"]["version"] == easel.__version__
    _check_descriptions(told)
    _check_inferences(told["inferred"])
    assert told["refused"]["status"] == "StatusCode.INVALID_ARGUMENT"
    assert "[1, 8, 8, 1]" in told["refused"]["message"]
    first, second, third = told["streamed"]
    assert (first["id"], third["id"]) == ("0", "2")
    assert first["best"] == third["best"]
    assert first["best"][0][0].endswith(":1:green")
    assert second["error"].startswith("Picture 0 of 'image'")
    (statistics,) = told["statistics"]["model_stats"]
    # Seven requests, of two pictures each but for two in the stream.
    assert statistics["inference_count"] == "12"
    assert statistics["inference_stats"]["success"]["count"] == "7"
    assert statistics["inference_stats"]["fail"]["count"] == "2"
    assert 1 <= int(statistics["execution_count"]) <= 12


def _check_descriptions(told: dict[str, Any]) -> None:
    assert told["metadata"]["versions"] == ["1"]
    (image,) = told["metadata"]["inputs"]
    assert image == {"name": "image", "datatype": "UINT8", "shape": ["-1", "8", "8", "3"]}
    assert [output["name"] for output in told["metadata"]["outputs"]] == [
        "probabilities",
        "logits",
    ]
    config = told["config"]["config"]
    assert (config["name"], config["max_batch_size"]) == ("fake", 64)
    assert config["input"][0]["format"] == "FORMAT_NHWC"
    assert told["index"]["models"] == [{"name": "fake", "version": "1", "state": "READY"}]


def _check_inferences(found: dict[str, Any]) -> None:
    assert found["id"] == "a"
    assert found["logits"] == [[1, 0, 0, -1, -2], [0, 0, 1, -1, -2]]
    assert [len(row) for row in found["probabilities"]] == [len(LABELS)] * 2
    for form in ("uint8", "fp32", "options"):
        (red,), (blue,) = found[form]
        assert red.endswith(":0:red")
        assert blue.endswith(":2:blue")
    for row in found["bytes"]:
        assert [text.split(":")[2] for text in row] == ["green", "red"]
