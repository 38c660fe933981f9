"""Smaller, faster networks of a model, published only where they answer as the model does."""

from __future__ import annotations

import logging
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from enum import Enum
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeAlias

import numpy as np
import torch

from services.classifier import pytorch, quantisers, samples
from services.classifier.backends import ChosenNetwork
from services.classifier.comparison import Comparison, compare
from services.classifier.memory import resident_in_child
from services.classifier.network import BackendName, Floats, Network, Options, Precision
from services.classifier.preprocessing import Preprocessing, read_preprocessing
from services.classifier.publication import (
    CONFIGURATION,
    Record,
    appearing,
    bytes_below,
    copied,
    digests,
)
from services.classifier.pytorch import TorchNetwork
from services.classifier.quantisers import Quantiser, Task
from services.classifier.samples import Samples
from services.classifier.targets import Versions, not_installed
from services.classifier.trunk import Source, Trunk
from services.core.artifacts import ArtifactStore
from services.core.errors import FailedPrecondition, InvalidInput, ModelFault
from services.core.packages import installed_version
from services.core.reference import ModelFiles

_log = logging.getLogger(__name__)

WEIGHTS: Final = "*.safetensors*"
MAX_CALIBRATION: Final = 300
BATCH_ROWS: Final = 4
ROUNDS: Final = 5
LOW_AGREEMENT: Final = "LOW_AGREEMENT"


class Scheme(Enum):
    INT8_DYNAMIC = "int8-dynamic"
    INT8_STATIC = "int8-static"
    INT4_WEIGHTS = "int4-weights"
    FLOAT16 = "float16"
    BFLOAT16 = "bfloat16"


@dataclass(frozen=True, slots=True)
class Route:
    """``backend`` runs what the scheme makes; ``artefact``, below the published directory, is what
    it reads, "" where that is the safetensors. ``called``: its precision in settings;
    ``precision``: the one to ask for.
    ``calibrated``: ranges of activations are read off pictures.
    """

    backend: BackendName
    artefact: str
    called: str
    precision: Precision
    calibrated: bool
    extra: str
    packages: tuple[str, ...]


ROUTES: Final[Mapping[Scheme, Route]] = {
    Scheme.INT8_DYNAMIC: Route(
        "onnxruntime", "onnxruntime/trunk.onnx", "int8", "auto", False, "onnxruntime",
        ("onnx", "onnxscript", "onnxruntime"),
    ),
    Scheme.INT8_STATIC: Route(
        "openvino", "openvino/trunk.xml", "int8", "auto", True, "quantize",
        ("openvino", "nncf"),
    ),
    Scheme.INT4_WEIGHTS: Route(
        "openvino", "openvino/trunk.xml", "int4", "auto", False, "quantize",
        ("openvino", "nncf"),
    ),
    Scheme.FLOAT16: Route("pytorch", "", "float16", "float32", False, "classifier", ()),
    Scheme.BFLOAT16: Route("pytorch", "", "bfloat16", "bfloat16", False, "classifier", ()),
}  # fmt: skip

Tell: TypeAlias = Callable[[str], None]
Weigh: TypeAlias = Callable[[Path, Options, ArtifactStore], int]


@dataclass(frozen=True, slots=True)
class Figures:
    """What is measured before publishing. ``bytes_on_disk`` of the weights that are run, and of
    those that the model came with; ``bytes_in_memory`` that a process grows by, loading and
    running the model; ``seconds`` a picture in batches of ``BATCH_ROWS``.
    """

    comparison: Comparison
    calibration: int
    bytes_on_disk: Mapping[str, int]
    bytes_in_memory: Mapping[str, int]
    seconds: Mapping[str, float]

    def document(self, min_agreement: float) -> dict[str, Any]:
        found = self.comparison
        return {
            "agreement": {
                "pictures": found.pictures,
                "agreeing": found.agreeing,
                "rate": found.agreement,
                "interval": list(found.interval),
                "minimum": min_agreement,
            },
            "max_logit_difference": found.max_difference,
            "calibration_pictures": self.calibration,
            "bytes_on_disk": dict(self.bytes_on_disk),
            "bytes_in_memory": dict(self.bytes_in_memory),
            "seconds": dict(self.seconds),
            "batch_rows": BATCH_ROWS,
        }


def scheme(name: str) -> Scheme:
    """Raises ``InvalidInput`` for a name that is none's."""
    try:
        return Scheme(name)
    except ValueError:
        known = ", ".join(each.value for each in Scheme)
        raise InvalidInput("precision", f"There is no precision {name!r}.", known, name) from None


def check_min_agreement(min_agreement: float) -> None:
    # Written so that NaN fails it too.
    if not 0.0 <= min_agreement <= 1.0:
        raise InvalidInput(
            "min_agreement", "The agreement is out of range.", "0 to 1", min_agreement
        )


def check_installed(scheme: Scheme, version: Versions = installed_version) -> None:
    """Raises ``FailedPrecondition`` naming the extra that brings what is missing."""
    route = ROUTES[scheme]
    missing = [package for package in route.packages if version(package) is None]
    if missing:
        raise not_installed(f"Precision {scheme.value}", missing, route.extra)


def split(found: Samples, *, calibrated: bool) -> tuple[Samples, Samples]:
    """What to calibrate on, and what to compare on: never the same picture.

    Raises ``InvalidInput`` where there are too few for both.
    """
    if not calibrated:
        return found.some(()), found
    if len(found) < 2:
        raise InvalidInput(
            "calibrate",
            "Half of the pictures calibrate, the others are compared.",
            "2 pictures or more",
            len(found),
        )
    even = range(0, len(found), 2)[:MAX_CALIBRATION]
    taken = frozenset(even)
    return found.some(even), found.some(i for i in range(len(found)) if i not in taken)


def quantise(
    model: ModelFiles,
    scheme: Scheme,
    out: Path,
    *,
    calibrate: Path,
    min_agreement: float = 0.99,
    tell: Tell = _log.info,
    store: ArtifactStore | None = None,
    quantiser: Quantiser | None = None,
    weigh: Weigh = resident_in_child,
) -> dict[str, Any]:
    """Publish ``model`` in another precision as ``out``, a directory that the service loads, and
    return what was measured. Blocking.

    Best labels of the pictures below ``calibrate`` are compared with those of the model in float32
    in PyTorch; where fewer than ``min_agreement`` of them are the same, nothing is published and
    ``FailedPrecondition`` raised (reason ``LOW_AGREEMENT``). Where ranges are calibrated, every
    second picture, up to 300, is calibrated on and only the others are compared. ``store`` keeps
    what is converted on the way, one that is gone afterwards when None.

    Raises ``InvalidInput`` for what is out of range and for a folder without pictures,
    ``FailedPrecondition`` for packages that are not installed, and what loading the model raises.
    """
    check_min_agreement(min_agreement)
    check_installed(scheme)
    route = ROUTES[scheme]
    preprocessing = read_preprocessing(model.directory)
    found = samples.of_folder(calibrate, preprocessing, field="calibrate")
    calibration, compared = split(found, calibrated=route.calibrated)
    with appearing(out) as folder, _kept(store) as kept:
        tell(f"making it {scheme.value}, which may take minutes")
        if route.artefact:
            path = folder / route.artefact
            task = partial(
                Task, calibration=calibration, preprocessing=preprocessing, store=kept, path=path
            )
            _make_trunk(model, path, task, quantiser or _QUANTISERS[scheme])
            copied(model.directory, folder, [*CONFIGURATION, *_names_of_weights(model.directory)])
        else:
            _make_half(model, folder, scheme)
        record = _record(scheme, model, preprocessing, folder)
        record.write(folder)
        tell(f"comparing {len(compared)} pictures with float32, and timing")
        comparison, seconds = _run(scheme, model.directory, folder, compared, min_agreement, kept)
        tell("weighing")
        memory = {
            "float32": weigh(
                model.directory, Options("cpu", "float32", backend=route.backend), kept
            ),
            "quantised": weigh(
                folder, Options("cpu", route.precision, backend=route.backend), kept
            ),
        }
        disk = _on_disk(model.directory, folder, route)
        figures = Figures(comparison, len(calibration), disk, memory, seconds)
        replace(record, figures=figures.document(min_agreement)).write(folder)
    return {
        "model": model.name,
        "source": model.digest,
        "scheme": scheme.value,
        "backend": route.backend,
        **figures.document(min_agreement),
    }


@contextmanager
def _kept(store: ArtifactStore | None) -> Iterator[ArtifactStore]:
    if store is not None:
        yield store
        return
    with tempfile.TemporaryDirectory() as folder:
        yield ArtifactStore(Path(folder))


def _record(
    scheme: Scheme, model: ModelFiles, preprocessing: Preprocessing, folder: Path
) -> Record:
    route = ROUTES[scheme]
    return Record(
        scheme=scheme.value,
        precision=route.called,
        backend=route.backend,
        artefact=route.artefact,
        height=preprocessing.input.height,
        width=preprocessing.input.width,
        source=model.digest,
        sha256=digests(folder, route.backend) if route.artefact else {},
    )


def _run(
    scheme: Scheme,
    directory: Path,
    folder: Path,
    compared: Samples,
    min_agreement: float,
    store: ArtifactStore,
) -> tuple[Comparison, dict[str, float]]:
    """How what is in ``folder`` answers, and how quickly, beside the model in ``directory``."""
    route = ROUTES[scheme]
    with _Opened(store) as opened:
        reference = opened.network(directory, "pytorch", "float32")
        quantised = opened.network(folder, route.backend, route.precision)
        comparison = _compared(reference, quantised, compared)
        _check_agreement(scheme, comparison, min_agreement)
        networks = {"float32": reference, "quantised": quantised}
        if route.backend != "pytorch":
            same = opened.network(directory, route.backend, "float32")
            networks["float32_same_backend"] = same
        return comparison, _seconds(networks, next(compared.batches(BATCH_ROWS)))


class _Opened:
    """Networks for as long as a block lasts, on the processor, as the service opens them."""

    def __init__(self, store: ArtifactStore) -> None:
        self._store = store
        self._networks: list[Network] = []

    def __enter__(self) -> _Opened:
        return self

    def __exit__(self, *_: object) -> None:
        for network in self._networks:
            network.close()

    def network(self, directory: Path, backend: BackendName, precision: Precision) -> Network:
        network = ChosenNetwork(Options("cpu", precision, backend=backend), self._store)
        network.load(directory)
        self._networks.append(network)
        return network


def _make_trunk(
    model: ModelFiles, path: Path, task: Callable[[Source], Task], quantiser: Quantiser
) -> None:
    path.parent.mkdir()

    def make(source: Source) -> Trunk:
        quantiser(task(source))
        return pytorch.open_eager(source)

    network = TorchNetwork(Options("cpu", "float32", backend="pytorch"), make)
    network.load(model.directory)
    network.close()


def _make_half(model: ModelFiles, folder: Path, scheme: Scheme) -> None:
    dtype = torch.float16 if scheme is Scheme.FLOAT16 else torch.bfloat16
    loaded = pytorch.load_model(model.directory).to(dtype)
    if not all(bool(weight.isfinite().all()) for weight in loaded.parameters()):
        raise ModelFault(f"The model has weights that do not fit {scheme.value}.")
    loaded.save_pretrained(folder)
    copied(model.directory, folder, [name for name in CONFIGURATION if name != "config.json"])


def _names_of_weights(source: Path) -> list[str]:
    """Read beside the trunk too: the last norm and the head are in them."""
    return [path.name for path in source.glob(WEIGHTS)]


def _compared(reference: Network, quantised: Network, compared: Samples) -> Comparison:
    pairs = [
        (_logits(reference, batch), _logits(quantised, batch))
        for batch in compared.batches(BATCH_ROWS)
    ]
    return compare(
        np.concatenate([left for left, _ in pairs]), np.concatenate([right for _, right in pairs])
    )


def _logits(network: Network, pixels: Sequence[Any]) -> Floats:
    found = network.run(pixels, head=True, readings={}).logits
    assert found is not None, "the head was asked for"
    return found


def _check_agreement(scheme: Scheme, found: Comparison, minimum: float) -> None:
    if found.agreement >= minimum:
        return
    raise FailedPrecondition(
        f"In {scheme.value} the best label stays on {found.agreeing} of {found.pictures} pictures: "
        f"{found.agreement:.4f}, where at least {minimum:g} is asked for. Nothing is published.",
        reason=LOW_AGREEMENT,
    )


def _seconds(networks: Mapping[str, Network], pixels: Sequence[Any]) -> dict[str, float]:
    """Of a picture, in a batch of ``pixels``: medians of rounds in which each has its turn."""
    for network in networks.values():
        _logits(network, pixels)
    took: dict[str, list[float]] = {name: [] for name in networks}
    for _ in range(ROUNDS):
        for name, network in networks.items():
            began = time.perf_counter()
            _logits(network, pixels)
            took[name].append((time.perf_counter() - began) / len(pixels))
    return {name: statistics.median(each) for name, each in took.items()}


def _on_disk(source: Path, folder: Path, route: Route) -> dict[str, int]:
    if route.artefact:
        after = bytes_below((folder / route.artefact).parent)
    else:
        after = _weights_bytes(folder)
    return {"source": _weights_bytes(source), "quantised": after}


def _weights_bytes(directory: Path) -> int:
    return sum(path.stat().st_size for path in directory.glob("*.safetensors"))


_QUANTISERS: Final[Mapping[Scheme, Quantiser]] = {
    Scheme.INT8_DYNAMIC: quantisers.int8_dynamic,
    Scheme.INT8_STATIC: quantisers.int8_static,
    Scheme.INT4_WEIGHTS: quantisers.int4_weights,
}
