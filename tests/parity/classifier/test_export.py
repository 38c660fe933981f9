"""What is written for other runtimes, against the model itself."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from models import DEMO_CLASSIFIER
from services.classifier import samples
from services.classifier.export import Report, export
from services.classifier.formats.base import Exportable, Opened
from services.classifier.network import Floats
from services.classifier.targets import TARGETS, Target
from services.core.errors import FailedPrecondition, InvalidInput, ModelFault
from services.core.reference import ModelFiles, digest_of, resolve
from tests.parity.classifier.models import SMALL, save_random_deit, save_random_vit
from tests.parity.classifier.pictures import save_shapes
from tests.parity.classifier.zoo import ZOO, save

DEMO = ModelFiles("demo", "1", DEMO_CLASSIFIER, digest_of(DEMO_CLASSIFIER))


def saved(name: str, folder: Path) -> ModelFiles:
    if name == "demo":
        return DEMO
    directory = folder / name
    directory.mkdir()
    save_random = save_random_vit if name == "vit" else save_random_deit
    save_random(directory, SMALL)
    return resolve(str(directory))


def target(name: str) -> Target:
    found = TARGETS[name]
    if missing := found.missing():
        pytest.skip(f"{', '.join(missing)} not installed")
    return found


def exported(report: Report) -> dict[str, Any]:
    [artefact] = report.document()["artefacts"]
    found: dict[str, Any] = artefact
    return found


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("onnx", "demo"),
        ("openvino", "demo"),
        pytest.param("openvino", "deit", marks=pytest.mark.slow),
        pytest.param("onnx", "vit", marks=pytest.mark.slow),
        pytest.param("onnx", "deit", marks=pytest.mark.slow),
    ],
)
def test_of_any_batch_and_run(name: str, source: str, tmp_path: Path) -> None:
    report = export(saved(source, tmp_path), [target(name)], tmp_path / "out")
    artefact = exported(report)
    assert (artefact["check"], artefact["batch"]) == ("ran", "any")
    assert artefact["batches"] == [1, 3, 8]
    assert artefact["top1_agreement"] == 1.0
    assert 0 < artefact["relative_difference"] < 1e-4
    assert artefact["bytes"] > 4 * report.parameters
    assert (tmp_path / "out" / artefact["file"]).is_file()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ZOO)
@pytest.mark.parametrize("name", ["onnx", "openvino", "coreml"])
def test_every_family(name: str, kind: str, tmp_path: Path) -> None:
    save(tmp_path / "model", ZOO[kind])
    model = resolve(str(tmp_path / "model"))
    if name == "coreml" and kind.startswith("beit"):
        with pytest.raises(FailedPrecondition, match="cannot be written as Core ML"):
            export(model, [target(name)], tmp_path / "out")
        return
    artefact = exported(export(model, [target(name)], tmp_path / "out"))
    assert artefact["check"] == ("structure" if name == "coreml" else "ran")
    assert artefact.get("relative_difference", 0.0) < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("source", ["demo", "deit"])
@pytest.mark.parametrize("name", ["litert", "executorch"])
def test_of_one_picture_and_run(name: str, source: str, tmp_path: Path) -> None:
    artefact = exported(export(saved(source, tmp_path), [target(name)], tmp_path / "out"))
    assert (artefact["check"], artefact["batch"], artefact["batches"]) == ("ran", "1", [1])
    assert artefact["top1_agreement"] == 1.0
    assert artefact["relative_difference"] < 1e-3


@pytest.mark.parametrize("source", ["demo", pytest.param("deit", marks=pytest.mark.slow)])
def test_core_ml_is_checked_by_its_structure(source: str, tmp_path: Path) -> None:
    artefact = exported(export(saved(source, tmp_path), [target("coreml")], tmp_path / "out"))
    assert artefact["check"] == "structure"
    assert "top1_agreement" not in artefact
    assert artefact["structure"]["products"] > 0


def test_a_core_ml_program_of_another_network_is_found_out(tmp_path: Path) -> None:
    coreml = target("coreml")
    path = tmp_path / "model.mlpackage"
    coreml.load().write(network(labels=3), path)
    with pytest.raises(ModelFault, match="It lacks 64 of the network's"):
        coreml.load().open(path, replace(network(labels=3), module=network(labels=4).module))
    with pytest.raises(ModelFault, match="pixel_values is"):
        coreml.load().open(path, replace(network(labels=3), height=16))


def test_several_with_their_configuration_and_report(tmp_path: Path) -> None:
    fakes = [fake("one"), fake("two")]
    report = export(DEMO, fakes, tmp_path / "out")
    found = json.loads((tmp_path / "out" / "report.json").read_text())
    assert found == report.document()
    assert found["digest"] == DEMO.digest
    assert found["pictures"] == {"count": 16, "origin": "drawn"}
    assert [artefact["target"] for artefact in found["artefacts"]] == ["one", "two"]
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config == json.loads((DEMO_CLASSIFIER / "config.json").read_text())
    assert (tmp_path / "out" / "preprocessor_config.json").is_file()


def test_pictures_of_a_folder(tmp_path: Path) -> None:
    folder = save_shapes(tmp_path / "pictures", 3)
    given = partial(samples.of_folder, folder, field="compare")
    report = export(DEMO, [fake()], tmp_path / "out", samples=given)
    assert (report.pictures, report.origin) == (3, "folder")
    assert exported(report)["pictures"] == 3


def test_one_that_cannot_run_here_says_so(tmp_path: Path) -> None:
    artefact = exported(export(DEMO, [fake(runs=False)], tmp_path / "out"))
    assert artefact["check"] == "structure"
    assert artefact["runtime"] == "elsewhere"
    assert artefact["structure"] == {"operations": 7}


@pytest.mark.parametrize(
    ("spoil", "match"),
    [
        (lambda logits: logits + 1.0, "a logit is 1 from PyTorch's"),
        (lambda logits: logits * np.nan, "not finite"),
        (lambda logits: logits[:, 1:], "logits, not"),
    ],
)
def test_one_that_answers_otherwise_is_not_handed_over(
    spoil: Callable[[Floats], Floats], match: str, tmp_path: Path
) -> None:
    with pytest.raises(ModelFault, match=match):
        export(DEMO, [fake(), fake("bad", spoil=spoil)], tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_what_a_converter_cannot_write_is_told_in_one_line(tmp_path: Path) -> None:
    def write(network: Exportable, path: Path) -> None:
        raise NotImplementedError("no such operation: beam search\nand more of that")

    form = FakeFormat(runs=True, spoil=lambda logits: logits)
    form.write = write  # type: ignore[method-assign]
    bad = replace(fake("bad"), load=lambda: form)
    with pytest.raises(FailedPrecondition) as caught:
        export(DEMO, [bad], tmp_path / "out")
    assert caught.value.message == (
        "This model cannot be written as bad; its converter says: "
        "NotImplementedError: no such operation: beam search"
    )
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_there_already(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="is there already"):
        export(DEMO, [fake()], tmp_path)


def network(labels: int) -> Exportable:
    torch.manual_seed(0)
    module = torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 4, 4), torch.nn.Flatten(), torch.nn.Linear(16, labels)
    ).eval()
    count = sum(weight.numel() for weight in module.parameters())
    return Exportable(module, 8, 8, labels, count)


@dataclass
class FakeFormat:
    """Answers as the network does, but for what ``spoil`` makes of it."""

    runs: bool
    spoil: Callable[[Floats], Floats]
    written: dict[Path, Exportable] = field(default_factory=dict)

    def write(self, network: Exportable, path: Path) -> None:
        path.write_bytes(b"a network")
        self.written[path] = network

    def open(self, path: Path, network: Exportable) -> Opened:
        assert self.written[path] is network
        if not self.runs:
            return Opened("elsewhere", None, {"operations": 7})
        return Opened("here", self._run(network))

    def _run(self, network: Exportable) -> Callable[[Floats], Floats]:
        def run(pixel_values: Floats) -> Floats:
            with torch.no_grad():
                return self.spoil(network.module(torch.from_numpy(pixel_values)).numpy())

        return run


def fake(
    name: str = "fake",
    *,
    runs: bool = True,
    spoil: Callable[[Floats], Floats] = lambda logits: logits,
    packages: Sequence[str] = (),
) -> Target:
    form = FakeFormat(runs, spoil)
    return Target(name, name, f"{name}/model", "any", name, tuple(packages), lambda: form)
