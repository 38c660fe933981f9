"""A model as files for other runtimes, each checked against PyTorch before it is handed over."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch

from services.classifier import pytorch
from services.classifier.comparison import Comparison, compare
from services.classifier.families import opened
from services.classifier.formats.base import Exportable, Opened, Run
from services.classifier.network import Floats
from services.classifier.preprocessing import Preprocessing, read_preprocessing
from services.classifier.publication import CONFIGURATION, appearing, bytes_below, copied
from services.classifier.samples import Samples, drawn, pixel_values
from services.classifier.targets import Target
from services.core.errors import FailedPrecondition, ModelFault
from services.core.packages import installed_version
from services.core.reference import ModelFiles

_log = logging.getLogger(__name__)

REPORT_FILE: Final = "report.json"
DRAWN_PICTURES: Final = 16
# Sizes of batches that a file of any batch is run with, in turn.
_BATCHES: Final = (1, 3, 8)

_MAX_TOLD_CHARS: Final = 300

Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Artefact:
    """One file that was written. ``comparison`` is None where it could not be run here, and
    ``structure`` is what was checked instead. ``bytes``: of all its files.
    """

    target: Target
    bytes: int
    runtime: str
    comparison: Comparison | None
    batches: tuple[int, ...] = ()
    structure: Mapping[str, str | int] = field(default_factory=dict)

    @property
    def check(self) -> str:
        return "structure" if self.comparison is None else "ran"

    def document(self) -> dict[str, Any]:
        found: dict[str, Any] = {
            "target": self.target.name,
            "file": self.target.file,
            "bytes": self.bytes,
            "batch": self.target.batch,
            "check": self.check,
            "runtime": self.runtime,
            "structure": dict(self.structure),
        }
        if self.comparison is not None:
            found["batches"] = list(self.batches)
            found["pictures"] = self.comparison.pictures
            found["top1_agreement"] = self.comparison.agreement
            found["max_logit_difference"] = self.comparison.max_difference
            found["relative_difference"] = self.comparison.relative_difference
        return found


@dataclass(frozen=True, slots=True)
class Report:
    model: ModelFiles
    architecture: str
    parameters: int
    pictures: int
    origin: str
    artefacts: tuple[Artefact, ...]
    versions: Mapping[str, str]

    def document(self) -> dict[str, Any]:
        """As it is written beside the artefacts."""
        return {
            "model": self.model.name,
            "digest": self.model.digest,
            "architecture": self.architecture,
            "parameters": self.parameters,
            "pictures": {"count": self.pictures, "origin": self.origin},
            "artefacts": [artefact.document() for artefact in self.artefacts],
            "versions": dict(self.versions),
        }


class _Logits(torch.nn.Module):
    """A transformers classifier whose only output is its logits."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.model(pixel_values=pixel_values).logits
        return logits


def export(
    model: ModelFiles,
    targets: Sequence[Target],
    out: Path,
    *,
    samples: Callable[[Preprocessing], Samples] | None = None,
    tell: Tell = _log.info,
) -> Report:
    """Write ``model`` in float32 for each of ``targets`` into ``out``, with the model's
    configuration, its preprocessing's and ``report.json`` beside them. Blocking.

    A file whose runtime is to be had here is run on ``samples`` (drawn ones where that is None),
    in batches of several sizes where it takes them, and compared with PyTorch; of another one the
    structure is checked.

    ``out`` appears whole or not at all. Raises ``InvalidInput`` where it is there already,
    ``ModelFault`` where a file that was written answers otherwise than the model,
    ``FailedPrecondition`` where a target's converter cannot write it, and what loading it raises.
    """
    with appearing(out) as folder:
        preprocessing = read_preprocessing(model.directory)
        found = samples(preprocessing) if samples else drawn(DRAWN_PICTURES, preprocessing)
        loaded = pytorch.load_model(model.directory)
        # Of some families positions would otherwise be resized anew in every call.
        opened(loaded, preprocessing.input, wanted=False)
        network = _exportable(loaded, preprocessing)
        given = [pixel_values(batch, preprocessing) for batch in found.batches(max(_BATCHES))]
        tell(f"reading {len(found)} {found.origin} pictures in PyTorch")
        reference = np.concatenate([_in_pytorch(network, batch) for batch in given])
        artefacts = []
        for target in targets:
            tell(f"{target.title}: writing")
            artefacts.append(_made(target, network, given, reference, folder, tell))
        copied(model.directory, folder, CONFIGURATION)
        report = Report(
            model,
            type(loaded).__name__,
            network.parameters,
            len(found),
            found.origin,
            tuple(artefacts),
            _versions(targets),
        )
        text = json.dumps(report.document(), indent=2)
        (folder / REPORT_FILE).write_text(text + "\n", encoding="utf-8")
    return report


def _exportable(model: Any, preprocessing: Preprocessing) -> Exportable:
    return Exportable(
        _Logits(model).eval().requires_grad_(False),
        preprocessing.input.height,
        preprocessing.input.width,
        model.config.num_labels,
        sum(weight.numel() for weight in model.parameters()),
    )


def _made(
    target: Target,
    network: Exportable,
    given: Sequence[Floats],
    reference: Floats,
    folder: Path,
    tell: Tell,
) -> Artefact:
    path = folder / target.file
    path.parent.mkdir(parents=True)
    form = target.load()
    try:
        form.write(network, path)
    except Exception as error:  # converters have no base for what they cannot convert
        why = str(error).strip().partition("\n")[0]
        raise FailedPrecondition(
            f"This model cannot be written as {target.title}; its converter says: "
            f"{type(error).__name__}: {why[:_MAX_TOLD_CHARS]}"
        ) from error
    tell(f"{target.title}: checking")
    try:
        read = form.open(path, network)
        comparison, batches = _compared(read, target, given, reference)
    except ModelFault as error:
        raise ModelFault(f"The {target.title} file is not the model: {error.message}") from error
    size = bytes_below(path.parent)
    return Artefact(target, size, read.runtime, comparison, batches, read.structure)


def _compared(
    read: Opened, target: Target, given: Sequence[Floats], reference: Floats
) -> tuple[Comparison | None, tuple[int, ...]]:
    if read.run is None:
        return None, ()
    pictures = np.concatenate(list(given))
    sizes = _BATCHES if target.batch == "any" else (1,)
    answers, used = _in_batches(read.run, pictures, sizes)
    found = compare(reference, answers)
    if found.relative_difference > target.tolerance:
        raise ModelFault(
            f"a logit is {found.max_difference:.3g} from PyTorch's, "
            f"{found.relative_difference:.2g} of the largest; rounding is {target.tolerance:g}."
        )
    return found, used


def _in_batches(run: Run, pictures: Floats, sizes: Sequence[int]) -> tuple[Floats, tuple[int, ...]]:
    """The answers to all of ``pictures``, and the sizes of batches that were really used."""
    answers: list[Floats] = []
    used: list[int] = []
    first = 0
    while first < len(pictures):
        rows = pictures[first : first + sizes[len(used) % len(sizes)]]
        answers.append(run(rows))
        used.append(len(rows))
        first += len(rows)
    return np.concatenate(answers), tuple(sorted(set(used)))


@torch.inference_mode()
def _in_pytorch(network: Exportable, given: Floats) -> Floats:
    logits: Floats = network.module(torch.from_numpy(given)).numpy()
    return logits


def _versions(targets: Sequence[Target]) -> dict[str, str]:
    names = dict.fromkeys(
        ("torch", "transformers", *(name for target in targets for name in target.packages))
    )
    return {name: version for name in names if (version := installed_version(name))}
