"""Which backend runs a model, and in what precision: chosen once, told by GetModel.

This is the one place that turns ``Options`` into a ``Network``.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Final

import torch

from services import bfloat16
from services.classifier import quantised
from services.classifier.network import Options, Pass, Precision, Reading, Traits
from services.classifier.preprocessing import Pixels
from services.classifier.publication import QUANTISED, read_record, runs_artefact
from services.classifier.pytorch import TorchNetwork
from services.classifier.trunk import OpenTrunk
from services.core.artifacts import ArtifactStore
from services.core.errors import FailedPrecondition, NotReady

_X86: Final = ("x86_64", "AMD64")


class Backend(Enum):
    """The values are those of ``BackendName``."""

    PYTORCH = "pytorch"
    ONNXRUNTIME = "onnxruntime"
    OPENVINO = "openvino"
    KERAS_JAX = "keras-jax"
    KERAS_TENSORFLOW = "keras-tensorflow"


PACKAGES: Final[Mapping[Backend, tuple[str, ...]]] = {
    Backend.PYTORCH: (),
    Backend.ONNXRUNTIME: ("onnxruntime", "onnx", "onnxscript"),
    Backend.OPENVINO: ("openvino",),
    Backend.KERAS_JAX: ("keras", "jax"),
    Backend.KERAS_TENSORFLOW: ("keras", "tensorflow"),
}
"""What has to be importable; the extra that brings it has the backend's name."""


@dataclass(frozen=True, slots=True)
class Host:
    """What there is to choose from. ``bfloat16``: whether the processor computes in it; ``pays``:
    clearly faster than in float32. ``packages``: the modules of ``PACKAGES`` that are installed.
    """

    cuda: bool
    x86: bool
    bfloat16: bool
    pays: bool
    packages: frozenset[str]

    @classmethod
    def here(cls) -> Host:
        processor = torch.device("cpu")
        return cls(
            cuda=torch.cuda.is_available(),
            x86=platform.machine() in _X86,
            bfloat16=bfloat16.computes(processor),
            pays=bfloat16.pays(processor),
            packages=frozenset(filter(_installed, {p for each in PACKAGES.values() for p in each})),
        )

    def missing(self, backend: Backend) -> tuple[str, ...]:
        return tuple(each for each in PACKAGES[backend] if each not in self.packages)


@dataclass(frozen=True, slots=True)
class Choice:
    """``options`` as the backend gets them: nothing in them is left to choose but, on a GPU, the
    precision of PyTorch.
    """

    backend: Backend
    options: Options
    why: str


def choose(options: Options, host: Host) -> Choice:
    """Pure. Raises ``FailedPrecondition`` for what cannot be had here; nothing that was asked for
    is exchanged for something else.

    ``auto`` is PyTorch on a GPU; on an x86 processor OpenVINO, where it is installed and computes
    in the precision that is wanted.
    """
    if options.precision in QUANTISED:
        # A model that was quantised has its own say; this is about the rest of it.
        options = replace(options, precision="auto")
    on_cpu = options.device == "cpu" or (options.device == "auto" and not host.cuda)
    if options.backend == "auto":
        backend, why = _automatic(options, host, on_cpu=on_cpu)
    else:
        backend, why = Backend(options.backend), "asked for"
        _check_installed(backend, host)
    _check_told(options, backend)
    chosen = _CHOOSERS[backend](replace(options, backend=backend.value), host, on_cpu)
    return Choice(backend, chosen, why)


def _automatic(options: Options, host: Host, *, on_cpu: bool) -> tuple[Backend, str]:
    if not on_cpu:
        return Backend.PYTORCH, "the default on a GPU"
    if options.compiled:
        return Backend.PYTORCH, "only PyTorch compiles layers"
    if host.missing(Backend.OPENVINO):
        return Backend.PYTORCH, "openvino is not installed"
    if not host.x86:
        return Backend.PYTORCH, "the processor is not x86"
    if options.precision == "bfloat16" and not host.bfloat16:
        return Backend.PYTORCH, "OpenVINO does not emulate bfloat16"
    return Backend.OPENVINO, "installed, and the processor is x86"


def _check_installed(backend: Backend, host: Host) -> None:
    missing = host.missing(backend)
    if missing:
        raise FailedPrecondition(
            f"Backend {backend.value} is not installed ({', '.join(missing)} missing): "
            f"pip install 'easel[classifier,{backend.value}]'."
        )


def _check_told(options: Options, backend: Backend) -> None:
    """Nothing that was said is without effect."""
    if options.compiled and backend is not Backend.PYTORCH:
        raise FailedPrecondition(
            f"Only PyTorch compiles layers: say backend pytorch, not {options.backend!r}."
        )
    if options.providers and backend is not Backend.ONNXRUNTIME:
        raise FailedPrecondition(
            f"Providers are ONNX Runtime's: say backend onnxruntime, not {options.backend!r}."
        )


def _fastest(options: Options, host: Host) -> Precision:
    if options.precision != "auto":
        return options.precision
    return "bfloat16" if host.pays else "float32"


def _for_pytorch(options: Options, host: Host, on_cpu: bool) -> Options:
    return replace(options, precision=_fastest(options, host)) if on_cpu else options


def _for_openvino(options: Options, host: Host, on_cpu: bool) -> Options:
    if not on_cpu:
        raise FailedPrecondition(
            f"Backend openvino runs on the processor alone: say device cpu, not {options.device!r}."
        )
    if options.precision == "bfloat16" and not host.bfloat16:
        raise FailedPrecondition("This processor does not compute in bfloat16.")
    return replace(options, device="cpu", precision=_fastest(options, host))


def _for_onnxruntime(options: Options, host: Host, on_cpu: bool) -> Options:
    del on_cpu
    if options.precision not in ("auto", "float32"):
        raise FailedPrecondition(
            f"Backend onnxruntime computes in float32, not {options.precision!r}."
        )
    device = options.device
    if device == "auto":
        gpu = options.providers[0] != "cpu" if options.providers else host.cuda
        device = "cuda:0" if gpu else "cpu"
    return replace(options, device=device, precision="float32")


def _for_keras(options: Options, host: Host, on_cpu: bool) -> Options:
    del host
    device = "cpu" if on_cpu else options.device.replace("auto", "cuda:0")
    # Nobody has measured what its compilers make of bfloat16.
    precision: Precision = "float32" if options.precision == "auto" else options.precision
    return replace(options, device=device, precision=precision)


_CHOOSERS: Final[Mapping[Backend, Callable[[Options, Host, bool], Options]]] = {
    Backend.PYTORCH: _for_pytorch,
    Backend.ONNXRUNTIME: _for_onnxruntime,
    Backend.OPENVINO: _for_openvino,
    Backend.KERAS_JAX: _for_keras,
    Backend.KERAS_TENSORFLOW: _for_keras,
}


class ChosenNetwork:
    """A ``Network`` on the backend that ``choose`` says when it is loaded.

    ``store`` keeps what is converted from a model's files.
    """

    def __init__(
        self,
        options: Options,
        store: ArtifactStore,
        *,
        host: Callable[[], Host] = Host.here,
    ) -> None:
        self._options = options
        self._store = store
        self._host = host
        self._network: TorchNetwork | None = None

    @property
    def network(self) -> TorchNetwork:
        """The chosen one. Raises ``NotReady`` before ``load``."""
        if self._network is None:
            raise NotReady
        return self._network

    def load(self, directory: Path) -> Traits:
        """Raises as ``choose``, ``publication.runs_artefact`` and ``TorchNetwork`` do."""
        record = read_record(directory)
        quantised_runs = runs_artefact(self._options, record)
        if record is None or not quantised_runs:
            choice = choose(self._options, self._host())
            open_trunk = _opener(choice.backend, self._store)
        else:
            choice = choose(quantised.float_options(self._options, record), self._host())
            choice = replace(choice, why="the model was quantised for it")
            open_trunk = quantised.opener(directory, record)
        self._network = TorchNetwork(choice.options, open_trunk)
        traits = self._network.load(directory)
        return replace(traits, extra={**traits.extra, "backend_why": choice.why})

    def run(
        self, pixels: Sequence[Pixels], *, head: bool, readings: Mapping[Reading, Sequence[int]]
    ) -> Pass:
        return self.network.run(pixels, head=head, readings=readings)

    def close(self) -> None:
        if self._network is not None:
            self._network.close()


def _opener(backend: Backend, store: ArtifactStore) -> OpenTrunk | None:
    """None for PyTorch's own. Each module is imported where its backend is installed and asked
    for, and nowhere else.
    """
    match backend:
        case Backend.PYTORCH:
            return None
        case Backend.OPENVINO:
            from services.classifier import openvino

            return partial(openvino.open_trunk, store=store)
        case Backend.ONNXRUNTIME:
            from services.classifier import onnxruntime

            return partial(onnxruntime.open_trunk, store=store)
        case Backend.KERAS_JAX:
            from services.classifier import keras

            return partial(keras.open_trunk, engine="jax")
        case Backend.KERAS_TENSORFLOW:
            from services.classifier import keras

            return partial(keras.open_trunk, engine="tensorflow")


def _installed(package: str) -> bool:
    return find_spec(package) is not None
