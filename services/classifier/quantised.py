"""Trunks that were quantised and published, as the backend that they were made for opens them."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Final

from services.classifier.network import Options
from services.classifier.publication import Record
from services.classifier.trunk import OpenTrunk, Source, Trunk
from services.core.errors import FailedPrecondition

# As OpenVINO calls them on a processor.
_PRODUCTS: Final = frozenset({"Convolution", "FullyConnected", "MatMul"})
_INT8: Final = ("i8", "u8")


def opener(directory: Path, record: Record) -> OpenTrunk:
    """Of the artefact that ``record`` names in ``directory``."""
    return partial(_open, directory / record.artefact, record)


def float_options(options: Options, record: Record) -> Options:
    """``options`` with the record's backend, and with the precision of all that is not quantised
    left to choose.
    """
    device = "cpu" if options.device == "auto" else options.device
    return replace(options, backend=record.backend, device=device, precision="auto")


def _open(path: Path, record: Record, source: Source) -> Trunk:
    size = source.size
    if (size.height, size.width) != (record.height, record.width):
        raise FailedPrecondition(
            f"The model was quantised for pictures of {record.height}x{record.width}, "
            f"not of {size.height}x{size.width}."
        )
    source.body.forget()
    trunk = _OPENERS[record.backend](path, source.options)
    told = {"quantised": record.scheme, "made_of": record.source, "rest": trunk.runtime.precision}
    trunk.runtime = replace(
        trunk.runtime, precision=record.precision, extra={**trunk.runtime.extra, **told}
    )
    opened: Trunk = trunk
    return opened


def _openvino(path: Path, options: Options) -> Any:
    from services.classifier import openvino

    return openvino.OpenVinoTrunk(path, precision=options.precision, threads=options.threads)


def _onnxruntime(path: Path, options: Options) -> Any:
    from services.classifier import onnxruntime

    return onnxruntime.OnnxTrunk(
        path, providers=onnxruntime.wanted_providers(options), options=options
    )


_OPENERS: Final = {"openvino": _openvino, "onnxruntime": _onnxruntime}
