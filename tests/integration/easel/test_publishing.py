"""`easel export` and `easel quantize`, with the process that they start."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from easel.cli.app import app
from services.classifier.targets import TARGETS
from tests.parity.classifier.pictures import save_shapes

pytestmark = pytest.mark.timeout(300)


def run(*arguments: object) -> Result:
    return CliRunner(env={"COLUMNS": "200"}).invoke(app, [str(argument) for argument in arguments])


def test_an_unknown_target_is_one_line() -> None:
    result = run("export", "demo", "--to", "tflite", "--out", "out")

    assert result.exit_code == 2
    assert result.stderr.endswith(
        "error: to: There is no target 'tflite'. "
        "(limit onnx, openvino, coreml, litert, executorch; given tflite)\n"
    )


def test_a_target_that_is_not_installed_names_its_extra(tmp_path: Path) -> None:
    missing = [target for target in TARGETS.values() if target.missing()]
    if not missing:
        pytest.skip("all are installed")
    result = run("export", "demo", "--to", missing[0].name, "--out", tmp_path / "out")

    assert result.exit_code == 1
    assert f"pip install 'easel[classifier,{missing[0].extra}]'" in result.stderr
    assert not (tmp_path / "out").exists()


def test_an_error_is_json_too() -> None:
    result = run("export", "demo", "--to", "tflite", "--out", "out", "--json")

    assert result.exit_code == 2
    error = json.loads(result.stdout)["error"]
    assert error["reason"] == "INVALID_INPUT"
    assert error["bad_input"] is True


def test_a_model_that_is_not_there(tmp_path: Path) -> None:
    result = run("export", tmp_path / "none", "--to", "openvino", "--out", tmp_path / "out")

    assert result.exit_code == 2
    assert "No directory" in result.stderr


@pytest.mark.slow
def test_export_tells_what_ran(tmp_path: Path) -> None:
    result = run("export", "demo", "--to", "openvino", "--out", tmp_path / "out")

    assert result.exit_code == 0, result.stderr
    assert "openvino/model.xml" in result.stdout
    assert "ran" in result.stdout
    assert "16 drawn pictures" in result.stdout
    assert (tmp_path / "out" / "report.json").is_file()


@pytest.mark.slow
def test_quantize_publishes_what_agrees(tmp_path: Path) -> None:
    folder = save_shapes(tmp_path / "pictures", 40)
    result = run(
        "quantize", "demo", "--precision", "int8-static", "--calibrate", folder,
        "--min-agreement", "0.9", "--out", tmp_path / "out", "--json",
    )  # fmt: skip

    assert result.exit_code == 0, result.stderr
    told = json.loads(result.stdout)
    assert told["agreement"]["pictures"] == 20
    assert told["bytes_in_memory"]["quantised"] > 0
    assert (tmp_path / "out" / "quantisation.json").is_file()


def test_quantize_on_an_empty_folder(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    result = run(
        "quantize", "demo", "--precision", "int8-static", "--calibrate", tmp_path / "empty",
        "--out", tmp_path / "out",
    )  # fmt: skip

    assert result.exit_code == 2
    assert "calibrate: The folder" in result.stderr
    assert "has no JPEG, PNG or WebP file" in result.stderr
    assert not (tmp_path / "out").exists()
