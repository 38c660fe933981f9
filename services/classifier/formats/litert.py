"""LiteRT (TensorFlow Lite): one picture at a time."""

from __future__ import annotations

import warnings
from importlib import metadata
from pathlib import Path

import litert_torch
import numpy as np
import torch
from ai_edge_litert.interpreter import Interpreter

from services.classifier.formats.base import Exportable, Opened
from services.classifier.network import Floats
from services.core.errors import ModelFault


class LiteRtFormat:
    def write(self, network: Exportable, path: Path) -> None:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            model = litert_torch.convert(network.module, (network.example(1),))
        model.export(str(path))

    def open(self, path: Path, network: Exportable) -> Opened:
        interpreter = Interpreter(model_path=str(path), num_threads=torch.get_num_threads())
        interpreter.allocate_tensors()
        [given] = interpreter.get_input_details()
        [answer] = interpreter.get_output_details()
        if list(given["shape"]) != [1, 3, network.height, network.width]:
            raise ModelFault(f"Its input is {list(given['shape'])}.")

        def run(pixel_values: Floats) -> Floats:
            rows = []
            for row in pixel_values:
                interpreter.set_tensor(given["index"], row[None])
                interpreter.invoke()
                rows.append(interpreter.get_tensor(answer["index"]))
            logits: Floats = np.concatenate(rows)
            return logits

        structure = {"tensors": len(interpreter.get_tensor_details())}
        return Opened(f"ai-edge-litert {metadata.version('ai-edge-litert')}", run, structure)
