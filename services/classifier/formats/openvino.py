"""OpenVINO's intermediate representation, of any batch."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path
from typing import Final

import torch

from services.classifier.formats.base import INPUT, OUTPUT, Exportable, Opened
from services.classifier.network import Floats
from services.core.errors import ModelFault

# Its package reports every import and conversion to its makers unless the reporter is missing.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]

import openvino  # noqa: E402

# As exact as it is written; a processor with bfloat16 would otherwise round what is compared.
_EXACT: Final = {"INFERENCE_PRECISION_HINT": "f32"}


class OpenVinoFormat:
    def write(self, network: Exportable, path: Path) -> None:
        openvino.save_model(converted(network), path, compress_to_fp16=False)

    def open(self, path: Path, network: Exportable) -> Opened:
        model = openvino.Core().read_model(path)
        shape = model.input(INPUT).get_partial_shape()
        if str(shape) != f"[?,3,{network.height},{network.width}]":
            raise ModelFault(f"Its {INPUT} is {shape}.")
        options = {**_EXACT, "INFERENCE_NUM_THREADS": torch.get_num_threads()}
        compiled = openvino.Core().compile_model(model, "CPU", options)

        def run(pixel_values: Floats) -> Floats:
            logits: Floats = compiled([pixel_values])[OUTPUT]
            return logits.copy()

        structure = {"operations": len(model.get_ops())}
        return Opened(f"openvino {openvino.get_version()} CPU", run, structure)


def converted(network: Exportable) -> openvino.Model:
    """In float32, of any batch."""
    example = {INPUT: network.example(2)}
    shapes = {INPUT: [-1, 3, network.height, network.width]}
    # The tracer warns of every check of a size, all of which hold for the one size.
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        model = openvino.convert_model(network.module, example_input=example, input=shapes)
    model.output(0).get_tensor().set_names({OUTPUT})
    return model
