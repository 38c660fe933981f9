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
# A share of the network's parameters: equal constants are one in the program.
_MAX_LOST: Final = 0.02
_FLOATS: Final = (MIL_pb2.FLOAT16, MIL_pb2.FLOAT32)


class CoreMlFormat:
    def write(self, network: Exportable, path: Path) -> None:
        logging.getLogger("coremltools").setLevel(logging.ERROR)
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            # Traced by PyTorch's older way, sizes of windows and positions stay arithmetic that
            # the converter cannot read.
            program = torch.export.export(network.module, (network.example(1),), strict=False)
            model = coremltools.convert(
                program.run_decompositions({}),
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
    constants = Counter(size for operation in operations if (size := _size(operation)))
    lost = sum((_products(network) - constants).elements())
    if lost > _MAX_LOST * network.parameters:
        raise ModelFault(f"It lacks {lost} of the network's {network.parameters} weights.")
    return {
        "specification": spec.specificationVersion,
        "opset": main.opset,
        "operations": sum(count for kind, count in kinds.items() if kind != "const"),
        "products": kinds["linear"] + kinds["matmul"] + kinds["conv"],
        "constants": constants.total(),
        "numbers": sum(size * count for size, count in constants.items()),
    }


def _shape(features: Any, name: str) -> list[int]:
    [feature] = features
    if feature.name != name:
        raise ModelFault(f"It has {feature.name}, not {name}.")
    return list(feature.type.multiArrayType.shape)


@torch.inference_mode()
def _products(network: Exportable) -> Counter[int]:
    """How many weights of which size the linear layers and convolutions have that a picture goes
    through; the others, such as tables of positions, the converter computes and leaves out.
    """
    answers: dict[torch.nn.Module, list[torch.Tensor]] = {}

    def note(layer: torch.nn.Module, _given: object, answer: torch.Tensor) -> None:
        answers.setdefault(layer, []).append(answer)

    kinds = (torch.nn.Linear, torch.nn.Conv2d)
    layers = [part for part in network.module.modules() if isinstance(part, kinds)]
    hooks = [layer.register_forward_hook(note) for layer in layers]
    for picture in (network.example(1), torch.zeros_like(network.example(1))):
        network.module(picture)
    for hook in hooks:
        hook.remove()
    seen = [layer for layer in layers if layer in answers]
    return Counter(
        layer.weight.numel()
        for layer in seen
        if not torch.equal(answers[layer][0], answers[layer][-1])
    )


def _size(operation: Any) -> int:
    """How many numbers a constant of the program has, where it is a tensor of floats."""
    if operation.type != "const":
        return 0
    tensor = operation.outputs[0].type.tensorType
    if tensor.dataType not in _FLOATS or tensor.rank == 0:
        return 0
    return prod(int(side.constant.size) for side in tensor.dimensions)
