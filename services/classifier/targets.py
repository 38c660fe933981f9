"""What a model can be exported to, and what has to be installed for it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias

from services.core.errors import FailedPrecondition, InvalidInput
from services.core.packages import installed_version

if TYPE_CHECKING:
    # It loads PyTorch, which a misspelt name need not wait for.
    from services.classifier.formats.base import Format

# package -> version, None where it is not installed
Versions: TypeAlias = "Callable[[str], str | None]"


@dataclass(frozen=True, slots=True)
class Target:
    """``file``: what is written, below the export's folder. ``batch``: pictures a call takes.

    ``tolerance``: the largest difference of a logit from PyTorch's, as a share of the largest
    logit, that is still rounding.
    """

    name: str
    title: str
    file: str
    batch: str
    extra: str
    packages: tuple[str, ...]
    load: Callable[[], Format]
    tolerance: float = 1e-3

    def missing(self, version: Versions = installed_version) -> tuple[str, ...]:
        return tuple(package for package in self.packages if version(package) is None)


def chosen(names: Sequence[str], version: Versions = installed_version) -> list[Target]:
    """Each once, in the order in which they were named.

    Raises ``InvalidInput`` for a name that is no target's and where there is none, and
    ``FailedPrecondition`` where a target's packages are not installed.
    """
    if not names:
        raise InvalidInput("to", "Name a target.", ", ".join(TARGETS), "none")
    for name in names:
        if name not in TARGETS:
            raise InvalidInput("to", f"There is no target {name!r}.", ", ".join(TARGETS), name)
    found = [TARGETS[name] for name in dict.fromkeys(names)]
    for target in found:
        if missing := target.missing(version):
            raise not_installed(f"Target {target.name}", missing, target.extra)
    return found


def not_installed(what: str, missing: Sequence[str], extra: str) -> FailedPrecondition:
    """Says which extra to install."""
    are = "is" if len(missing) == 1 else "are"
    return FailedPrecondition(
        f"{what} needs {' and '.join(missing)}, which {are} not installed: "
        f"pip install 'easel[classifier,{extra}]'."
    )


def _onnx() -> Format:
    from services.classifier.formats.onnx import OnnxFormat

    return OnnxFormat()


def _openvino() -> Format:
    from services.classifier.formats.openvino import OpenVinoFormat

    return OpenVinoFormat()


def _coreml() -> Format:
    from services.classifier.formats.coreml import CoreMlFormat

    return CoreMlFormat()


def _litert() -> Format:
    from services.classifier.formats.litert import LiteRtFormat

    return LiteRtFormat()


def _executorch() -> Format:
    from services.classifier.formats.executorch import ExecuTorchFormat

    return ExecuTorchFormat()


TARGETS: Final = {
    target.name: target
    for target in (
        Target(
            "onnx", "ONNX", "onnx/model.onnx", "any", "onnxruntime",
            ("onnx", "onnxscript", "onnxruntime"), _onnx,
        ),
        Target(
            "openvino", "OpenVINO IR", "openvino/model.xml", "any", "openvino",
            ("openvino",), _openvino,
        ),
        Target(
            "coreml", "Core ML", "coreml/model.mlpackage", "1", "coreml",
            ("coremltools",), _coreml,
        ),
        Target(
            "litert", "LiteRT", "litert/model.tflite", "1", "litert",
            ("litert-torch", "ai-edge-litert"), _litert,
        ),
        Target(
            "executorch", "ExecuTorch", "executorch/model.pte", "1", "executorch",
            ("executorch",), _executorch,
        ),
    )
}  # fmt: skip
