"""ONNX, of any batch, for ONNX Runtime and whatever else reads it."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import onnx
import onnxruntime
import torch

from services.classifier.formats.base import INPUT, OUTPUT, Exportable, Opened
from services.classifier.network import Floats
from services.core.errors import ModelFault

PROVIDER: Final = "CPUExecutionProvider"
# A protobuf holds 2 GiB; weights beyond that lie in a file beside it.
_MAX_INLINE_PARAMETERS: Final = 450_000_000


class OnnxFormat:
    def write(self, network: Exportable, path: Path) -> None:
        with _quiet():
            torch.onnx.export(
                network.module,
                (network.example(2),),
                path,
                dynamo=True,
                verbose=False,
                input_names=[INPUT],
                output_names=[OUTPUT],
                dynamic_shapes={INPUT: {0: torch.export.Dim("batch", min=1, max=4096)}},
                external_data=network.parameters > _MAX_INLINE_PARAMETERS,
            )

    def open(self, path: Path, network: Exportable) -> Opened:
        del network
        onnx.checker.check_model(path)
        structure = _structure(path)
        session = _session(path)

        def run(pixel_values: Floats) -> Floats:
            logits: Floats = session.run([OUTPUT], {INPUT: pixel_values})[0]
            return logits

        return Opened(f"onnxruntime {onnxruntime.__version__} {PROVIDER}", run, structure)


def _session(path: Path) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    # Its default ignores how many threads this process was given.
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(path, options, providers=[PROVIDER])
    if session.get_providers() != [PROVIDER]:
        raise ModelFault(f"ONNX Runtime runs it on {session.get_providers()}, not on {PROVIDER}.")
    return session


def _structure(path: Path) -> dict[str, str | int]:
    model = onnx.load(path, load_external_data=False)
    [given] = model.graph.input
    batch = given.type.tensor_type.shape.dim[0]
    if not batch.dim_param:
        raise ModelFault(f"Its batch is fixed at {batch.dim_value}.")
    opset = next(each.version for each in model.opset_import if not each.domain)
    return {"opset": opset, "operations": len(model.graph.node)}


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Its logs tell of steps, its warnings of its own parts' ages; errors are raised anyhow."""
    logger = logging.getLogger("torch.onnx")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(before)
