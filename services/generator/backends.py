"""Which backend runs a model, and in what precision: chosen once, told by GetModel."""

from __future__ import annotations

import platform
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path
from typing import Final

import torch

from services import bfloat16
from services.core.artifacts import ArtifactStore
from services.core.errors import FailedPrecondition
from services.core.packages import installed_version
from services.generator import compiled, pytorch
from services.generator.image_adapter import ImageAdapterFolder, with_image_adapter
from services.generator.network import Network
from services.generator.toolchain import NO_TOOLS, Toolchain

_COMPILE: Final = "EASEL_GENERATOR_COMPILE"
_X86: Final = ("x86_64", "AMD64")


class Backend(Enum):
    PYTORCH = "pytorch"
    OPENVINO = "openvino"


@dataclass(frozen=True, slots=True)
class Wanted:
    """As it was asked for. ``backend``: auto, pytorch or openvino. ``device``: auto, cpu, cuda or
    cuda:N. ``precision``: auto, float32, bfloat16, float16 or int8. ``compiled``: by PyTorch.
    """

    backend: str = "auto"
    device: str = "auto"
    precision: str = "auto"
    compiled: bool = False


_ANYTHING: Final = Wanted()


@dataclass(frozen=True, slots=True)
class Host:
    """What there is to choose from. ``openvino`` and ``nncf`` are versions, None where they are not
    installed; ``bfloat16``: whether the processor computes in it; ``pays``: clearly faster than in
    float32. ``toolchain``: what there is to compile with.
    """

    cuda: bool
    x86: bool
    bfloat16: bool
    pays: bool
    openvino: str | None
    nncf: str | None = None
    toolchain: Toolchain = NO_TOOLS

    @classmethod
    def here(cls, wanted: Wanted = _ANYTHING) -> Host:
        """Compilers are asked only where ``wanted`` is to be compiled: that starts a process."""
        return cls(
            cuda=torch.cuda.is_available(),
            x86=platform.machine() in _X86,
            bfloat16=bfloat16.computes(torch.device("cpu")),
            pays=bfloat16.pays(torch.device("cpu")),
            openvino=installed_version("openvino"),
            nncf=installed_version("nncf"),
            toolchain=Toolchain.here() if wanted.compiled else NO_TOOLS,
        )


@dataclass(frozen=True, slots=True)
class Choice:
    """``precision`` is PyTorch's own to choose where it is auto (on a GPU). ``int8``: that of the
    U-Net's products, and ``precision`` is that of all the rest. ``compiled_by``: versions of what
    compiles the networks, None where they are not compiled.
    """

    backend: Backend
    device: str
    precision: str
    why: str
    int8: bool = False
    compiled_by: Mapping[str, str] | None = None


def choose(wanted: Wanted, host: Host) -> Choice:
    """Pure. Raises ``FailedPrecondition`` for what cannot be had here; nothing that was asked for
    is exchanged for something else.
    """
    on_cpu = wanted.device == "cpu" or (wanted.device == "auto" and not host.cuda)
    if wanted.compiled:
        return _compiled(wanted, host, on_cpu=on_cpu)
    if wanted.precision == "int8":
        return _in_int8(wanted, host, on_cpu=on_cpu)
    if not on_cpu:
        return _on_gpu(wanted)
    precision = wanted.precision
    if precision == "auto":
        precision = _automatic(host)
    if wanted.backend == "openvino":
        _check_openvino(wanted, host)
        return Choice(Backend.OPENVINO, "cpu", precision, "asked for")
    if wanted.backend == "pytorch":
        return Choice(Backend.PYTORCH, "cpu", precision, "asked for")
    why = _why_not_openvino(precision, host)
    if why is None:
        return Choice(Backend.OPENVINO, "cpu", precision, "installed, and the processor is x86")
    return Choice(Backend.PYTORCH, "cpu", precision, why)


def _compiled(wanted: Wanted, host: Host, *, on_cpu: bool) -> Choice:
    if wanted.backend == "openvino":
        raise FailedPrecondition(
            f"{_COMPILE} is of PyTorch's networks: say backend auto or pytorch, not 'openvino', "
            f"or leave {_COMPILE} unset."
        )
    if wanted.precision == "int8":
        raise FailedPrecondition(
            f"Precision int8 runs in OpenVINO alone, and {_COMPILE} is of PyTorch's networks: "
            "leave one of them unset."
        )
    lacking = host.toolchain.lacking(gpu=not on_cpu)
    if lacking is not None:
        raise FailedPrecondition(f"{_COMPILE} needs {lacking}.")
    precision = wanted.precision
    if on_cpu and precision == "auto":
        precision = _automatic(host)
    device = "cpu" if on_cpu else wanted.device
    why = "asked for" if wanted.backend == "pytorch" else f"{_COMPILE} asks for it"
    by = host.toolchain.versions(gpu=not on_cpu)
    return Choice(Backend.PYTORCH, device, precision, why, compiled_by=by)


def _automatic(host: Host) -> str:
    return "bfloat16" if host.pays else "float32"


def _in_int8(wanted: Wanted, host: Host, *, on_cpu: bool) -> Choice:
    if not on_cpu:
        raise FailedPrecondition(
            "Precision int8 runs on the processor alone: say device cpu"
            f"{'' if wanted.device == 'auto' else f', not {wanted.device!r}'}."
        )
    if wanted.backend == "pytorch":
        raise FailedPrecondition(
            "Precision int8 runs in OpenVINO alone: say backend auto or openvino, not 'pytorch'."
        )
    if host.openvino is None or host.nncf is None:
        raise FailedPrecondition(
            "Precision int8 needs openvino and nncf: "
            "pip install 'easel[generator,openvino,quantize]'."
        )
    return Choice(Backend.OPENVINO, "cpu", _automatic(host), "int8 was asked for", int8=True)


def check_pipeline(wanted: Wanted, engine_only: Mapping[str, Path]) -> None:
    """Raises ``FailedPrecondition`` where a model that is a whole pipeline cannot be as wanted.

    ``engine_only``: the settings, by name, that are made and mean nothing to such a model.
    """
    for name in engine_only:
        raise FailedPrecondition(
            f"{name} is for models of the step engine; this one is a whole diffusers pipeline: "
            "leave it unset."
        )
    if wanted.compiled:
        raise FailedPrecondition(
            f"{_COMPILE} is for models of the step engine; this one is a whole diffusers pipeline: "
            "leave it unset."
        )
    if wanted.precision == "int8":
        raise FailedPrecondition(
            "Precision int8 is for models of the step engine; this one is a whole diffusers "
            "pipeline: say another precision."
        )
    if wanted.backend == "openvino":
        raise FailedPrecondition(
            "Backend openvino runs models of the step engine; this one is a whole diffusers "
            "pipeline: say backend auto or pytorch."
        )


def _on_gpu(wanted: Wanted) -> Choice:
    if wanted.backend == "openvino":
        raise FailedPrecondition(
            f"Backend openvino runs on the processor alone: say device cpu, not '{wanted.device}'."
        )
    why = "asked for" if wanted.backend == "pytorch" else "the only backend on a GPU"
    return Choice(Backend.PYTORCH, wanted.device, wanted.precision, why)


def _check_openvino(wanted: Wanted, host: Host) -> None:
    if host.openvino is None:
        raise FailedPrecondition(
            "Backend openvino is not installed: pip install 'easel[generator,openvino]'."
        )
    if wanted.precision == "float16":
        raise FailedPrecondition("OpenVINO has no precision float16 on a processor.")
    if wanted.precision == "bfloat16" and not host.bfloat16:
        raise FailedPrecondition("This processor does not compute in bfloat16.")


def _why_not_openvino(precision: str, host: Host) -> str | None:
    if host.openvino is None:
        return "openvino is not installed"
    if not host.x86:
        return "the processor is not x86"
    if precision == "float16":
        return "OpenVINO has no float16 on a processor"
    if precision == "bfloat16" and not host.bfloat16:
        return "OpenVINO does not emulate bfloat16"
    return None


def load(
    directory: Path,
    *,
    wanted: Wanted,
    store: ArtifactStore,
    threads: int | None = None,
    image_adapter: ImageAdapterFolder | None = None,
    host: Callable[[Wanted], Host] = Host.here,
) -> Network:
    """The networks of a ``diffusers`` directory on what ``choose`` says.

    Raises as ``choose``, ``pytorch.load`` and ``with_image_adapter`` do.
    """
    choice = choose(wanted, host(wanted))
    network: pytorch.TorchNetwork
    if choice.backend is Backend.OPENVINO:
        # Only where it is installed.
        from services.generator import openvino

        network = openvino.load(
            directory, precision=choice.precision, threads=threads, store=store, int8=choice.int8
        )
    elif choice.compiled_by is not None:
        network = compiled.load(
            directory,
            device=choice.device,
            precision=choice.precision,
            threads=threads,
            versions=choice.compiled_by,
        )
    else:
        network = pytorch.load(
            directory, device=choice.device, precision=choice.precision, threads=threads
        )
    if image_adapter is not None:
        network = with_image_adapter(network, image_adapter)
    notes = {**network.effective.notes, "backend_why": choice.why}
    return replace(network, effective=replace(network.effective, notes=notes))
