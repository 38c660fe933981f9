"""Core ML: an ML program of one picture, which runs on Apple's systems alone."""

from __future__ import annotations

import logging
import platform
import warnings
from collections import Counter
from math import prod
from pathlib import Path
from typing import Any, Final

import coremltools
import numpy as np
import torch
from coremltools.proto import MIL_pb2

from services.classifier.formats.base import INPUT, OUTPUT, Exportable, Opened, Run
from services.classifier.network import Floats
from services.core.errors import ModelFault

# Of iOS 16 and macOS 13.
_OLDEST_SYSTEM: Final = coremltools.target.iOS16
_FLOATS: Final = (MIL_pb2.FLOAT16, MIL_pb2.FLOAT32)


class CoreMlFormat:
    def write(self, network: Exportable, path: Path) -> None:
        logging.getLogger("coremltools").setLevel(logging.ERROR)
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            trace: Any = torch.jit.trace
            traced = trace(network.module, (network.example(1),), check_trace=False)
            model = coremltools.convert(
                traced,
                inputs=[
                    coremltools.TensorType(
                        name=INPUT, shape=(1, 3, network.height, network.width), dtype=np.float32
                    )
                ],
                outputs=[coremltools.TensorType(name=OUTPUT, dtype=np.float32)],
                convert_to="mlprogram",
                minimum_deployment_target=_OLDEST_SYSTEM,
                compute_precision=coremltools.precision.FLOAT32,
                skip_model_load=True,
            )
        model.save(str(path))

    def open(self, path: Path, network: Exportable) -> Opened:
        apple = platform.system() == "Darwin"
        model = coremltools.models.MLModel(str(path), skip_model_load=not apple)
        structure = _structure(model.get_spec(), network)
        if apple:
            return Opened(f"coremltools {coremltools.__version__}", _runner(model), structure)
        return Opened("Core ML is on Apple's systems alone", None, structure)


def _runner(model: Any) -> Run:
    def run(pixel_values: Floats) -> Floats:
        rows = [model.predict({INPUT: row[None]})[OUTPUT] for row in pixel_values]
        return np.concatenate(rows).astype(np.float32)

    return run


def _structure(spec: Any, network: Exportable) -> dict[str, str | int]:
    """Raises ``ModelFault`` where the program's ends or weights are not the network's."""
    given = _shape(spec.description.input, INPUT)
    answer = _shape(spec.description.output, OUTPUT)
    if given != [1, 3, network.height, network.width]:
        raise ModelFault(f"Its {INPUT} is {given}.")
    if answer not in ([], [1, network.labels]):
        raise ModelFault(f"Its {OUTPUT} is {answer}.")
    main = spec.mlProgram.functions["main"]
    operations = list(main.block_specializations[main.opset].operations)
    kinds = Counter(operation.type for operation in operations)
    weights = sum(_weights(operation) for operation in operations)
    # Weights that a conversion shares or folds are fewer, tables that it adds more; a missing
    # layer is neither.
    if not 0.98 <= weights / network.parameters <= 1.1:
        raise ModelFault(f"It has {weights} weights, not {network.parameters}.")
    return {
        "specification": spec.specificationVersion,
        "opset": main.opset,
        "operations": sum(count for kind, count in kinds.items() if kind != "const"),
        "products": kinds["linear"] + kinds["matmul"] + kinds["conv"],
        "weights": weights,
    }


def _shape(features: Any, name: str) -> list[int]:
    [feature] = features
    if feature.name != name:
        raise ModelFault(f"It has {feature.name}, not {name}.")
    return list(feature.type.multiArrayType.shape)


def _weights(operation: Any) -> int:
    """How many numbers a constant of the program has, where it is a tensor of floats."""
    if operation.type != "const":
        return 0
    tensor = operation.outputs[0].type.tensorType
    if tensor.dataType not in _FLOATS or tensor.rank == 0:
        return 0
    return prod(int(side.constant.size) for side in tensor.dimensions)
