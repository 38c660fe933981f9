"""U-Nets of OpenVINO in int8, quantised after training by NNCF."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path
from typing import Final

from services import openvino as runtime
from services.generator import conversion
from services.generator.network import Look

PACKAGE: Final = "nncf"
# Little of the time, and each a fifth of the demo model's error: the first and the last
# convolution, and what becomes of the timestep, which every layer is told. Whoever changes them
# counts up ``calibration.RECIPE``.
_SPARED: Final = (r".*unet\.conv_(in|out)/.*", r".*unet\..*(time|add)_emb.*")
# (part as it was converted, what to calibrate on, part in int8)
Quantise = Callable[[Path, Sequence[Look], Path], None]


def version() -> str:
    return metadata.version(PACKAGE)


def quantise(source: Path, looks: Sequence[Look], target: Path) -> None:
    """Write the U-Net of ``source`` with int8 weights and ranges of activations seen in ``looks``.

    Weights have a scale a channel; activations that outliers spoil are first made even against
    the weights behind them (SmoothQuant: Xiao et al., 2023, arXiv 2211.10438), and what rounding
    shifts in the mean is taken back in the biases.
    """
    inputs = [
        {name: conversion.array(given) for name, given in conversion.inputs_of(look).items()}
        for look in looks
    ]
    with runtime.quantiser() as nncf:
        quantised = nncf.quantize(
            runtime.read(source),
            nncf.Dataset(inputs),
            subset_size=len(looks),
            model_type=nncf.ModelType.TRANSFORMER,
            ignored_scope=nncf.IgnoredScope(patterns=list(_SPARED)),
        )
    runtime.save(quantised, target, half=True)
