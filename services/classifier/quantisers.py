"""Trunks in fewer bits: one function a scheme, its libraries imported where it is called."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeAlias

from services.classifier.network import Floats
from services.classifier.preprocessing import Pixels, Preprocessing
from services.classifier.samples import Samples, pixel_values
from services.classifier.trunk import Source
from services.core.artifacts import ArtifactStore

# Weights of this many inputs share a scale; fewer where a layer has not as many.
INT4_GROUP: Final = 64


@dataclass(frozen=True, slots=True)
class Task:
    """Quantise the trunk of ``source`` to ``path``. ``calibration``: pictures to read ranges off,
    where the scheme has such, prepared by ``preprocessing``. ``store`` keeps it as converted.
    """

    source: Source
    calibration: Samples
    preprocessing: Preprocessing
    store: ArtifactStore
    path: Path


Quantiser: TypeAlias = Callable[[Task], None]


def int8_static(task: Task) -> None:
    """OpenVINO's trunk with weights and activations in int8, by NNCF's preset for transformers.

    Weights have a scale a channel; activations one a tensor, of the range that they had on
    the pictures, and are first made even against the weights behind them (SmoothQuant: Xiao et
    al., 2023, arXiv 2211.10438).
    """
    from services import openvino as runtime

    def given(pixels: Pixels) -> Floats:
        return pixel_values([pixels], task.preprocessing)

    with _converted(task) as model, runtime.quantiser() as nncf:
        quantised = nncf.quantize(
            model,
            nncf.Dataset(task.calibration, given),
            subset_size=len(task.calibration),
            model_type=nncf.ModelType.TRANSFORMER,
        )
        runtime.save(quantised, task.path, half=True)


def int4_weights(task: Task) -> None:
    """OpenVINO's trunk with weights in int4, symmetric, a scale for ``INT4_GROUP`` of them; the
    last product and what is no product keep eight bits.
    """
    from services import openvino as runtime

    with _converted(task) as model, runtime.quantiser() as nncf:
        quantised = nncf.compress_weights(
            model,
            mode=nncf.CompressWeightsMode.INT4_SYM,
            group_size=INT4_GROUP,
            advanced_parameters=nncf.AdvancedCompressionParameters(
                group_size_fallback_mode=nncf.GroupSizeFallbackMode.ADJUST
            ),
        )
        runtime.save(quantised, task.path, half=True)


def int8_dynamic(task: Task) -> None:
    """ONNX Runtime's trunk with weights in int8, a scale a channel, and activations in int8 whose
    range is read off each batch as it runs.
    """
    from onnxruntime.quantization import QuantType, quantize_dynamic

    from services.classifier import onnxruntime

    with onnxruntime.stored(task.source, task.store) as converted:
        quantize_dynamic(
            converted,
            task.path,
            # A convolution in int8 costs more exactness than the patches' one takes time.
            op_types_to_quantize=["MatMul", "Gemm"],
            per_channel=True,
            weight_type=QuantType.QInt8,
            use_external_data_format=True,
        )


@contextlib.contextmanager
def _converted(task: Task) -> Iterator[Any]:
    """OpenVINO's model, in float32; read from a file, so that NNCF's copies share its weights."""
    from services import openvino as runtime
    from services.classifier import openvino as trunks

    with trunks.stored(task.source, task.store, half=False) as path:
        yield runtime.read(path)
