"""What can be exported to, before anything is loaded."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from services.classifier.targets import TARGETS, chosen
from services.core.errors import FailedPrecondition, InvalidInput

ROOT = Path(__file__).parents[3]


def everything(package: str) -> str | None:
    return "1.0"


def nothing(package: str) -> str | None:
    return None


def test_each_once_in_the_order_named() -> None:
    found = chosen(["openvino", "onnx", "openvino"], everything)
    assert [target.name for target in found] == ["openvino", "onnx"]


def test_an_unknown_target() -> None:
    with pytest.raises(InvalidInput, match="There is no target 'tflite'") as caught:
        chosen(["onnx", "tflite"], everything)
    assert (caught.value.field, caught.value.given) == ("to", "tflite")
    assert caught.value.limit == "onnx, openvino, coreml, litert, executorch"


def test_no_target() -> None:
    with pytest.raises(InvalidInput, match="Name a target"):
        chosen([], everything)


@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
def test_one_that_is_not_installed_names_its_extra(target: object) -> None:
    name = getattr(target, "name", "")
    with pytest.raises(FailedPrecondition, match="not installed") as caught:
        chosen([name], nothing)
    assert f"pip install 'easel[classifier,{TARGETS[name].extra}]'" in caught.value.message
    assert all(package in caught.value.message for package in TARGETS[name].packages)


def test_only_what_is_missing_is_named() -> None:
    with pytest.raises(FailedPrecondition) as caught:
        chosen(["onnx"], lambda package: None if package == "onnxscript" else "1.0")
    assert caught.value.message.startswith("Target onnx needs onnxscript, which is not installed")


def test_the_extras_are_there_and_bring_the_packages() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    for target in TARGETS.values():
        for package in target.packages:
            assert any(line.startswith(package) for line in extras[target.extra]), package
