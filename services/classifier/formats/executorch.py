"""ExecuTorch, lowered to XNNPACK: one picture at a time."""

from __future__ import annotations

import logging
import warnings
from importlib import metadata
from pathlib import Path

import torch
from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
from executorch.exir import to_edge_transform_and_lower
from executorch.runtime import Runtime

from services.classifier.formats.base import Exportable, Opened
from services.classifier.network import Floats


class ExecuTorchFormat:
    def write(self, network: Exportable, path: Path) -> None:
        logging.getLogger("executorch").setLevel(logging.ERROR)
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            exported = torch.export.export(network.module, (network.example(1),), strict=False)
            lowered = to_edge_transform_and_lower(exported, partitioner=[XnnpackPartitioner()])
            program = lowered.to_executorch()
        with path.open("wb") as file:
            program.write_to_file(file)

    def open(self, path: Path, network: Exportable) -> Opened:
        del network
        program = Runtime.get().load_program(path)
        method = program.load_method("forward")

        def run(pixel_values: Floats) -> Floats:
            rows = torch.from_numpy(pixel_values)
            # Copied: the next call writes to the same place.
            answers = [method.execute([row[None]])[0].clone() for row in rows]
            logits: Floats = torch.cat(answers).numpy()
            return logits

        structure = {"methods": ", ".join(sorted(program.method_names))}
        return Opened(f"executorch {metadata.version('executorch')} XNNPACK", run, structure)
