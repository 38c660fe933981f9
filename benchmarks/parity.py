"""``make parity-table``: how far the answers of every backend are from PyTorch's in float32.

For the demo model, and for ViT-B/16-384 and ViT-L/16-384 with random weights, on the demo's
pictures. The table stands in ``docs/classifier.md`` between ``<!-- parity -->`` and
``<!-- /parity -->``, the record is ``out/bench/parity.json``. ``QUICK=1`` takes the demo alone.

Every backend runs in a process of its own: two of them cannot share one.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessor

from benchmarks.report import OUT, commit, filled, machine, quick, versions
from models import DEMO_CLASSIFIER
from models.recipe.dataset import FIRST_SEED, render
from services.classifier.backends import Backend, ChosenNetwork, Host
from services.classifier.network import Floats, Options, Precision
from services.core.artifacts import ArtifactStore

PAGE: Final = Path("docs/classifier.md")
NAME: Final = "parity"
REFERENCE: Final = (Backend.PYTORCH, "float32")
RUNS: Final[Sequence[tuple[Backend, Precision]]] = (
    (Backend.PYTORCH, "bfloat16"),
    (Backend.OPENVINO, "float32"),
    (Backend.OPENVINO, "bfloat16"),
    (Backend.ONNXRUNTIME, "float32"),
    (Backend.KERAS_JAX, "float32"),
    (Backend.KERAS_TENSORFLOW, "float32"),
)
_BATCH_ROWS: Final = 8
_BASE: Final = {
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
}
_LARGE: Final = {
    "hidden_size": 1024,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "intermediate_size": 4096,
}


@dataclass(frozen=True, slots=True)
class Subject:
    """A model directory, and how many pictures it is shown."""

    name: str
    directory: Path
    pictures: int


@dataclass(frozen=True, slots=True)
class Line:
    """One row of the table. ``difference``: the largest of any logit; ``spread``: between the
    reference's largest and smallest logit; ``agreement``: share of pictures of the same best label.
    All three are None where the backend is not to be had here, which ``why`` then tells.
    """

    model: str
    backend: str
    precision: str
    pictures: int
    difference: float | None = None
    spread: float | None = None
    agreement: float | None = None
    why: str = ""


@contextmanager
def subjects() -> Iterator[list[Subject]]:
    with tempfile.TemporaryDirectory() as scratch:
        found = [Subject("demo", DEMO_CLASSIFIER, 512)]
        if not quick():
            for name, shape, pictures in (
                ("ViT-B/16-384", _BASE, 16),
                ("ViT-L/16-384", _LARGE, 8),
            ):
                directory = Path(scratch) / name.replace("/", "-")
                _save_random(directory, shape)
                found.append(Subject(f"{name}, random weights", directory, pictures))
        yield found


def lines() -> list[Line]:
    with subjects() as found, tempfile.TemporaryDirectory() as scratch:
        compared = []
        for line in chain.from_iterable(_compared(subject, Path(scratch)) for subject in found):
            # The large ones take minutes.
            print(_row(line), flush=True)
            compared.append(line)
        return compared


def table(found: Sequence[Line]) -> str:
    """As the docs have it."""
    rows = [
        "| model | backend | precision | largest difference of a logit | of their spread | "
        "same best label | pictures |",
        "|---|---|---|---|---|---|---|",
    ]
    return "\n".join([*rows, *map(_row, found)])


def _row(line: Line) -> str:
    named = f"| {line.model} | {line.backend} | {line.precision} |"
    if line.difference is None or line.spread is None or line.agreement is None:
        return f"{named} {line.why} | | | |"
    share = line.difference / line.spread
    agreement = f"{100 * line.agreement:.1f} %"
    return f"{named} {line.difference:.1e} | {share:.1e} | {agreement} | {line.pictures} |"


def _compared(subject: Subject, scratch: Path) -> Iterator[Line]:
    reference = _logits(subject, *REFERENCE, scratch)
    assert not isinstance(reference, str), reference
    for backend, precision in RUNS:
        named = (subject.name, backend.value, precision, subject.pictures)
        ours = _logits(subject, backend, precision, scratch)
        if isinstance(ours, str):
            yield Line(*named, why=ours)
            continue
        yield Line(
            *named,
            difference=float(np.abs(ours - reference).max()),
            spread=float(reference.max() - reference.min()),
            agreement=float((ours.argmax(axis=1) == reference.argmax(axis=1)).mean()),
        )


def _logits(
    subject: Subject, backend: Backend, precision: Precision | str, scratch: Path
) -> Floats | str:
    """Or why there are none."""
    host = Host.here()
    if host.missing(backend):
        return "not installed"
    if precision == "bfloat16" and not host.bfloat16:
        return "not of this processor"
    target = scratch / "logits.npy"
    asked = [backend.value, precision, str(subject.directory), str(subject.pictures)]
    store = str(scratch / "artifacts")
    command = [sys.executable, "-m", "benchmarks.parity", "--run", *asked, store, str(target)]
    subprocess.run(command, check=True)
    logits: Floats = np.load(target)
    return logits


def _run(
    backend: str, precision: Precision, directory: str, pictures: str, store: str, target: str
) -> None:
    """In the backend's own process."""
    options = Options("cpu", precision, backend=backend)
    network = ChosenNetwork(options, ArtifactStore(Path(store)))
    traits = network.load(Path(directory))
    if (traits.backend, traits.precision) != (backend, precision):
        raise SystemExit(f"{backend} {precision} was asked for, {traits} is in force")
    first = FIRST_SEED["held_out"]
    images, _ = render(range(first, first + int(pictures)))
    pixels = [traits.preprocessing.prepare(image) for image in images]
    found = [
        network.run(pixels[start : start + _BATCH_ROWS], head=True, readings={}).logits
        for start in range(0, len(pixels), _BATCH_ROWS)
    ]
    np.save(target, np.concatenate([logits for logits in found if logits is not None]))


def _save_random(directory: Path, shape: dict[str, Any]) -> None:
    torch.manual_seed(0)
    config = ViTConfig(
        **shape,
        image_size=384,
        patch_size=16,
        num_labels=1000,
        # Every layer then adds about as much as it is given.
        initializer_range=shape["hidden_size"] ** -0.5,
    )
    ViTForImageClassification(config).save_pretrained(directory)
    size = {"height": 384, "width": 384}
    half = [0.5, 0.5, 0.5]
    ViTImageProcessor(size=size, image_mean=half, image_std=half).save_pretrained(directory)


def main(arguments: Sequence[str]) -> int:
    if arguments[:1] == ["--run"]:
        _run(*arguments[1:])  # type: ignore[arg-type]
        return 0
    found = lines()
    OUT.mkdir(parents=True, exist_ok=True)
    record = {
        "machine": machine(),
        "versions": versions(),
        "commit": commit(),
        "lines": [asdict(line) for line in found],
    }
    (OUT / "parity.json").write_text(json.dumps(record, indent=1) + "\n")
    if not quick():
        page = filled(PAGE.read_text(encoding="utf-8"), NAME, table(found))
        PAGE.write_text(page, encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
