"""OpenVINO's intermediate representation, of any batch."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import torch

from services import openvino as runtime
from services.classifier.formats.base import INPUT, OUTPUT, Exportable, Opened
from services.classifier.network import Floats
from services.core.errors import ModelFault

# As exact as it is written; a processor with bfloat16 would otherwise round what is compared.
_EXACT: Final = {"INFERENCE_PRECISION_HINT": "f32"}


class OpenVinoFormat:
    def write(self, network: Exportable, path: Path) -> None:
        runtime.save(converted(network), path, half=False)

    def open(self, path: Path, network: Exportable) -> Opened:
        model = runtime.read(path)
        shape = model.input(INPUT).get_partial_shape()
        if str(shape) != f"[?,3,{network.height},{network.width}]":
            raise ModelFault(f"Its {INPUT} is {shape}.")
        options = {**_EXACT, "INFERENCE_NUM_THREADS": torch.get_num_threads()}
        compiled = runtime.compiled(model, options)

        def run(pixel_values: Floats) -> Floats:
            logits: Floats = compiled([pixel_values])[OUTPUT]
            return logits.copy()

        structure = {"operations": len(model.get_ops())}
        return Opened(f"{runtime.NAME} {runtime.version()} CPU", run, structure)


def converted(network: Exportable) -> Any:
    """In float32, of any batch."""
    example = {INPUT: network.example(2)}
    shapes = {INPUT: [-1, 3, network.height, network.width]}
    model = runtime.converted(network.module, example, shapes)
    model.output(0).get_tensor().set_names({OUTPUT})
    return model
