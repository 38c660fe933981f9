"""What a backend gives the classifier: one pass over a batch, read out where rows ask for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt

from services.classifier.preprocessing import Pixels, Preprocessing

Floats = npt.NDArray[np.float32]
Precision = Literal["auto", "float32", "bfloat16", "int8", "int4"]
BackendName = Literal["auto", "pytorch", "onnxruntime", "openvino", "keras-jax", "keras-tensorflow"]
ProviderName = Literal["tensorrt", "cuda", "cpu"]


class Pooling(Enum):
    """Which tokens stand for the picture."""

    CLS = "cls"
    MEAN = "mean"
    PATCH = "patch"


@dataclass(frozen=True, slots=True)
class Reading:
    """One thing to read out of a pass.

    ``layer`` is 0 (after the patch embedding) to the network's depth. ``final_norm`` applies the
    network's last norm to every token before pooling; only at the last layer.
    """

    layer: int
    pooling: Pooling = Pooling.CLS
    final_norm: bool = False


@dataclass(frozen=True, slots=True)
class Options:
    """``device``: "auto" takes the first CUDA device, else the processor. ``precision``: "auto"
    takes bfloat16 where the device is measured to be faster in it; of a model that was quantised
    ("int8", "int4") it takes what was. ``threads`` None leaves the backend's choice.
    ``backend``: a ``BackendName``, which ``backends.choose`` explains.

    ``providers``: of ONNX Runtime, best first; by the device when empty. ``compiled``: PyTorch
    compiles the layers. ``image_size``: side in pixels of the squares that the network is
    given, the model's own size when None.
    """

    device: str = "auto"
    precision: Precision = "auto"
    threads: int | None = None
    backend: str = "auto"
    providers: tuple[ProviderName, ...] = ()
    compiled: bool = False
    image_size: int | None = None


@dataclass(frozen=True, slots=True)
class LayerShape:
    """What one layer makes of a picture: ``rows`` x ``columns`` patches of ``hidden`` numbers."""

    rows: int
    columns: int
    hidden: int


@dataclass(frozen=True, slots=True)
class Traits:
    """What is known of a loaded network. Sizes in pixels, ``bytes_in_memory`` of its weights.

    ``rows`` x ``columns`` patches of ``hidden_size`` make a picture at the last layer, and at every
    other one unless ``shapes``, by layer, tells otherwise. ``labels`` are by index; ``multi_label``
    networks score each label by itself. ``device`` to ``threads`` are what is in force.
    ``poolings`` are those that the network has.
    """

    architecture: str
    labels: tuple[str, ...]
    multi_label: bool
    preprocessing: Preprocessing
    patch_size: int
    rows: int
    columns: int
    depth: int
    hidden_size: int
    parameters: int
    bytes_in_memory: int
    backend: str
    device: str
    device_name: str
    precision: str
    threads: int
    extra: Mapping[str, str] = field(default_factory=dict)
    poolings: tuple[Pooling, ...] = tuple(Pooling)
    shapes: tuple[LayerShape, ...] = ()

    def shape(self, layer: int) -> LayerShape:
        """Of ``layer``, 0 to ``depth``."""
        if self.shapes:
            return self.shapes[layer]
        return LayerShape(self.rows, self.columns, self.hidden_size)


@dataclass(frozen=True, slots=True)
class Pass:
    """``logits`` is [batch, labels], None unless asked for.

    ``vectors`` holds each reading of the rows that asked for it, in their order: [rows, hidden],
    and [rows, patch rows, patch columns, hidden] for ``Pooling.PATCH``.
    """

    logits: Floats | None
    vectors: Mapping[Reading, Floats]


class Network(Protocol):
    """A backend. Called from one thread at a time; keeps nothing of a batch."""

    def load(self, directory: Path) -> Traits:
        """Loads the model in ``directory``; blocking.

        Raises ``NotFound`` or ``FailedPrecondition`` where its files cannot be served.
        """

    def run(
        self, pixels: Sequence[Pixels], *, head: bool, readings: Mapping[Reading, Sequence[int]]
    ) -> Pass:
        """One pass, ended at the deepest layer that is read; the last one for the ``head``.

        ``readings`` tells which rows of the batch want what. Raises ``OutOfMemory``.
        """

    def close(self) -> None:
        """Frees the weights."""
