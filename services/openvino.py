"""OpenVINO and NNCF as both model services use them: on the processor, silent, within bounds."""

from __future__ import annotations

import contextlib
import importlib
import io
import logging
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch

# Its package reports every import and conversion to its makers unless the reporter is missing.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]

import openvino  # noqa: E402
from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder  # noqa: E402

NAME: Final = "openvino"
operations: Final[Any] = openvino.opset13
"""What models are made of."""
_KERNELS_KEPT: Final = 100
"""Of all shapes together, the last used; a U-Net has some dozens a shape. By itself OpenVINO keeps
5,000, a gigabyte for pictures of many sizes. 300 and 1,500 made no more pictures a second, of nine
sizes as of one, and 300 made no step of a U-Net of Stable Diffusion 1.5's size shorter. 300 took
60 to 95 MiB more; minutes of requests did not fill 1,500, and memory grew all the while.
"""
_HINTS: Final[Mapping[str, str]] = {"float32": "f32", "bfloat16": "bf16"}
_PRECISIONS: Final = {hint: name for name, hint in _HINTS.items()}


def version() -> str:
    return str(openvino.get_version())


def options(precision: str, threads: int | None) -> dict[str, Any]:
    """Of a model that one thread at a time calls. ``precision``: float32 or bfloat16."""
    chosen: dict[str, Any] = {
        "INFERENCE_PRECISION_HINT": _HINTS[precision],
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": 1,
        # The other services of this machine share its cores.
        "ENABLE_CPU_PINNING": False,
        "CPU_RUNTIME_CACHE_CAPACITY": _KERNELS_KEPT,
    }
    if threads is not None:
        chosen["INFERENCE_NUM_THREADS"] = threads
    return chosen


def precision_of(compiled: Any) -> str:
    """In force, as ``options`` names it."""
    return _PRECISIONS[str(compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name())]


def threads_of(compiled: Any) -> int:
    return int(compiled.get_property("INFERENCE_NUM_THREADS"))


def integers(*numbers: int) -> Any:
    """A constant of int64 (N,), as operations take shapes, axes and places."""
    return operations.constant(np.array(numbers, np.int64))


def converted(
    module: torch.nn.Module, example: Any, shapes: Mapping[str, Sequence[int]] | Sequence[int]
) -> Any:
    """An ``openvino.Model`` of ``module``; -1 in ``shapes`` is any length."""
    # The tracer warns of every check of a size, all of which hold for every size that is served. By
    # itself it traces once more to compare, which is a third of the time that all of this takes.
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        traced = TorchScriptPythonDecoder(
            module, example_input=example, trace_kwargs={"check_trace": False}
        )
        return openvino.convert_model(traced, example_input=example, input=shapes)


def read(path: Path) -> Any:
    """An ``openvino.Model``; its weights stay in the file, which is mapped."""
    return openvino.Core().read_model(path)


def save(model: Any, path: Path, *, half: bool) -> None:
    """``half``: weights as float16 in the file; bfloat16, which they become, has fewer digits.
    Weights in integers stay what they are.
    """
    openvino.save_model(model, path, compress_to_fp16=half)


def compiled(model: Any, chosen: Mapping[str, Any]) -> Any:
    """An ``openvino.CompiledModel`` for the processor, of a model or its file."""
    return openvino.Core().compile_model(model, "CPU", dict(chosen))


def part(model: Any, outputs: Sequence[int]) -> Any:
    """The same model with some of its outputs."""
    results = model.get_results()
    return openvino.Model([results[index] for index in outputs], model.get_parameters(), "part")


def device_name() -> str:
    return str(openvino.Core().get_property("CPU", "FULL_DEVICE_NAME"))


@contextlib.contextmanager
def quantiser() -> Iterator[Any]:
    """NNCF, whose bars go nowhere meanwhile, and whose messages go where ours go."""
    found = importlib.import_module("nncf")
    logger = logging.getLogger("nncf")
    logger.handlers.clear()
    logger.setLevel(logging.WARNING)
    logger.propagate = True
    with contextlib.redirect_stdout(io.StringIO()):
        yield found
