"""Stable Diffusion networks whose U-Net and autoencoder run in OpenVINO on the processor."""

from __future__ import annotations

import gc
import logging
import math
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import partial
from pathlib import Path
from typing import Any, Final

import torch

from services import openvino as runtime
from services.core.artifacts import ArtifactStore
from services.core.reference import digest_of
from services.generator import (
    branches,
    calibration,
    conversion,
    normalisation,
    pytorch,
    quantisation,
)
from services.generator.branches import UNET_LAYERS, Reach
from services.generator.conversion import DECODER, ENCODER, PARTS, UNET, path_of
from services.generator.lora import Outfit
from services.generator.network import (
    PLAIN,
    Effective,
    Feature,
    Look,
    Network,
    check_features,
    needs_of,
)
from services.generator.pytorch import Placement, TorchNetwork
from services.generator.quantisation import Quantise
from services.generator.wardrobe import Adapted, Wardrobe

_log = logging.getLogger(__name__)

BACKEND: Final = runtime.NAME
# As OpenVINO calls convolutions and linear layers on a processor. A ``MatMul`` there is part of an
# attention, which with AVX2 alone is two of them and elsewhere one operation.
_PRODUCTS: Final = frozenset({"Convolution", "FullyConnected"})
_INT8: Final = ("i8", "u8")
# What a call needs in between grows with its rows, and OpenVINO keeps the most that it ever needed;
# the time of a row does not fall any more: on two cores the demo's U-Net took 7.8, 4.6, 4.6 and 4.5
# ms a row of 16 x 16 latents with 8, 16, 32 and 64 of them, its decoder 7.6, 7.7, 7.5 and 6.5 with
# 4, 8, 16 and 32.
_MOST_ROWS: Final = 32
_MOST_PLACES: Final = {UNET: 2 * 64 * 64, DECODER: 64 * 64, ENCODER: 512 * 512}
_TAKEN: Final = PLAIN | {Feature.ADAPTERS}
# A network in float32, to the looks that ranges are read off.
Calibrate = Callable[[Network], Sequence[Look]]


def rows_run(rows: int) -> int:
    """How many so many are run as: any number up to 8, then even ones.

    OpenVINO (2026.4) keeps something of each shape that it sees. Rows with guidance come in twos,
    and get none added.
    """
    return rows if rows <= 8 else rows + rows % 2


def rows_at_once(places: int, most_places: int) -> int:
    """The most rows of so many ``places`` that one call takes."""
    most = max(1, min(_MOST_ROWS, most_places // places))
    return most if most <= 8 else most - most % 2


class Compiled:
    """One part, an ``openvino.Model``, compiled for the processor. One thread at a time calls it.

    ``request``: OpenVINO's own, the bare call. ``most_places``: height by width of the first input,
    of all rows together that go into one such call, unless a single row has more.
    """

    def __init__(
        self, model: Any, *, precision: str, threads: int | None, most_places: int
    ) -> None:
        self._most_places = most_places
        # Here, and not before the file is written: what is quantised is the model as it was.
        model = normalisation.with_channels_last(model)
        self._model = runtime.compiled(model, runtime.options(precision, threads))
        self.request = self._model.create_infer_request()
        self._names = [port.get_any_name() for port in self._model.inputs]

    @property
    def threads(self) -> int:
        return runtime.threads_of(self._model)

    @property
    def precision(self) -> str:
        return runtime.precision_of(self._model)

    @property
    def products(self) -> tuple[int, int]:
        """(in int8, all): convolutions and linear layers as they are really executed."""
        told = [layer.get_rt_info() for layer in self._model.get_runtime_model().get_ops()]
        kinds = [
            str(info["runtimePrecision"].value)
            for info in told
            if str(info["layerType"].value) in _PRODUCTS
        ]
        return sum(kind in _INT8 for kind in kinds), len(kinds)

    def __call__(self, **inputs: torch.Tensor) -> torch.Tensor:
        """Any floating dtype in, float32 out; all of them have their rows first, after the first
        input also a single one for all.
        """
        given = [inputs[name] for name in self._names]
        rows, places = len(given[0]), math.prod(given[0].shape[2:])
        calls = math.ceil(rows / rows_at_once(places, self._most_places))
        if calls == 1:
            return self._run(given)
        parts = zip(*(_split(each, rows, calls) for each in given), strict=True)
        return torch.cat([self._run(part) for part in parts])

    def _run(self, given: Sequence[torch.Tensor]) -> torch.Tensor:
        rows = len(given[0])
        added = rows_run(rows) - rows
        arrays = [conversion.array(_with(added, each, rows)) for each in given]
        # Copied: the next call writes to the same place.
        return torch.from_numpy(self.request.infer(arrays, share_inputs=True)[0])[:rows]


def _split(each: torch.Tensor, rows: int, calls: int) -> Sequence[torch.Tensor]:
    return torch.tensor_split(each, calls) if len(each) == rows else [each] * calls


def _with(added: int, each: torch.Tensor, rows: int) -> torch.Tensor:
    """``each`` and its last row again, so many times: real numbers, which cannot overflow."""
    if not added or len(each) != rows:
        return each
    return torch.cat([each, each[-1:].expand(added, *each.shape[1:])])


class _Part(torch.nn.Module):
    """Stands where a ``diffusers`` autoencoder has its own encoder or decoder."""

    def __init__(self, compiled: Compiled, name: str) -> None:
        super().__init__()
        self._compiled = compiled
        self._name = name
        # An autoencoder has the dtype of what it holds.
        self.register_buffer("kind", torch.empty(0), persistent=False)

    def forward(self, given: torch.Tensor) -> torch.Tensor:
        return self._compiled(**{self._name: given})


@dataclass(slots=True)
class _Filling:
    """Of a U-Net with weights; ``nbytes``: theirs, 0 until all of them are there."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    nbytes: int = 0


@dataclass(frozen=True, kw_only=True)
class OpenVinoNetwork(TorchNetwork):
    """Answers plain looks and those with adapters in OpenVINO. ``unet`` has its structure alone,
    and gets its weights from ``directory`` when the first picture is prepared whose looks bring
    more.
    """

    compiled: Compiled
    wardrobe: Wardrobe
    directory: Path
    filling: _Filling = field(default_factory=_Filling)

    @property
    def bytes_in_memory(self) -> int:
        return super().bytes_in_memory + self.wardrobe.bytes_in_memory + self.filling.nbytes

    def route(self, needs: frozenset[Feature], size: tuple[int, int]) -> str:
        del size
        check_features(self, needs)
        return BACKEND if needs <= _TAKEN else pytorch.BACKEND

    def in_force(self, route: str) -> Effective:
        """Of PyTorch's route too, the autoencoder is OpenVINO's, and none of it is in int8."""
        if route != pytorch.BACKEND:
            return self.effective
        return replace(
            self.effective,
            backend=pytorch.BACKEND,
            precision=self.placement.precision,
            threads=torch.get_num_threads(),
            versions={BACKEND: runtime.version()},
        )

    def prepare(self, needs: frozenset[Feature], outfit: Outfit = ()) -> None:
        # Here, and not at the first look: all rows would wait for gigabytes to be read.
        if not needs <= _TAKEN:
            self.fill()
        else:
            self.wardrobe.prepare(outfit)

    def predict(self, look: Look) -> torch.Tensor:
        if needs_of(look) <= _TAKEN:
            return self.wardrobe.predict(look)
        self.fill()
        return self.full(look)

    @property
    def adaptable(self) -> Mapping[str, torch.Tensor]:
        # Of the U-Net's, those that its graph has: what is not in it could not be changed there.
        weights, graph = super().adaptable, self.wardrobe.layers
        return {
            name: weight
            for name, weight in weights.items()
            if name in graph or not name.startswith(UNET_LAYERS)
        }

    def full(self, look: Look) -> torch.Tensor:
        """``predict`` in PyTorch, whatever the look brings."""
        return super().predict(look)

    def fill(self) -> None:
        """Read the U-Net's weights where that was not done yet. From any thread."""
        if self.filling.nbytes:
            return
        with self.filling.lock:
            if not self.filling.nbytes:
                pytorch.fill_unet(self.unet, self.directory, self.placement)
                self.filling.nbytes = sum(weight.nbytes for weight in self.unet.parameters())


def load(
    directory: Path,
    *,
    precision: str,
    store: ArtifactStore,
    threads: int | None = None,
    int8: bool = False,
    calibrate: Calibrate = calibration.looks,
    quantise: Quantise = quantisation.quantise,
) -> OpenVinoNetwork:
    """Load a ``diffusers`` directory; the first time it is converted, into ``store``.

    ``precision``: float32 or bfloat16, also that of the text encoders and, where a look has more
    than plain inputs, of the U-Net, which run in PyTorch. ``int8``: the convolutions and matrix
    products of the converted U-Net are in int8, quantised the first time, into ``store`` too.

    Raises as ``pytorch.load`` does.
    """
    outline = _outlined(directory, precision, threads)
    half = precision != "float32"
    converted_from = {
        "format": "2",
        "model": digest_of(directory),
        "openvino": runtime.version(),
        "weights": "float16" if half else "float32",
    }
    with store.artifact(converted_from, partial(_convert, outline, directory, half=half)) as folder:
        paths = {part: path_of(folder, part) for part in PARTS}
        if not int8:
            return _assembled(outline, directory, paths, precision, threads)
        quantised_from = {
            **converted_from,
            "quantised": "int8",
            "nncf": quantisation.version(),
            "calibration": calibration.RECIPE,
        }
        make = partial(_quantise, directory, paths, threads, calibrate, quantise)
        with store.artifact(quantised_from, make) as other:
            paths[UNET] = path_of(other, UNET)
            network = _assembled(outline, directory, paths, precision, threads)
    versions = {**network.effective.versions, quantisation.PACKAGE: quantisation.version()}
    return replace(network, effective=replace(network.effective, versions=versions))


def _outlined(directory: Path, precision: str, threads: int | None) -> TorchNetwork:
    return pytorch.load(directory, device="cpu", precision=precision, threads=threads, outline=True)


def _quantise(
    directory: Path,
    paths: Mapping[str, Path],
    threads: int | None,
    calibrate: Calibrate,
    quantise: Quantise,
    target: Path,
) -> None:
    _log.info("int8: painting what the U-Net is calibrated on")
    # One of the two big ones at a time is in memory.
    looks = calibrate(
        _assembled(_outlined(directory, "float32", threads), directory, paths, "float32", threads)
    )
    gc.collect()
    began = time.monotonic()
    _log.info("int8: quantising the U-Net on %d looks, which takes minutes", len(looks))
    quantise(paths[UNET], looks, path_of(target, UNET))
    _log.info("int8: quantised the U-Net in %.0f s", time.monotonic() - began)


def _convert(outline: TorchNetwork, directory: Path, target: Path, *, half: bool) -> None:
    # One part at a time is in memory, in float32, which tracing asks for.
    placement = Placement(torch.device("cpu"), torch.float32)
    unet = pytorch.read_unet(directory, placement)
    model = conversion.unet_model(unet, sizes=_sizes(outline))
    runtime.save(model, path_of(target, UNET), half=half)
    del model
    del unet
    vae = pytorch.read_vae(directory, placement)
    runtime.save(conversion.decoder_model(vae), path_of(target, DECODER), half=half)
    runtime.save(conversion.encoder_model(vae), path_of(target, ENCODER), half=half)
    del vae
    gc.collect()


def _assembled(
    outline: TorchNetwork,
    directory: Path,
    paths: Mapping[str, Path],
    precision: str,
    threads: int | None,
) -> OpenVinoNetwork:
    def compiled(part: str, model: Any) -> Compiled:
        return Compiled(model, precision=precision, threads=threads, most_places=_MOST_PLACES[part])

    parts = {part: compiled(part, runtime.read(path)) for part, path in paths.items()}
    vae = outline.vae
    vae.decoder, vae.encoder = _Part(parts[DECODER], "latents"), _Part(parts[ENCODER], "pixels")
    for name in ("quant_conv", "post_quant_conv"):
        if getattr(vae, name) is not None:
            setattr(vae, name, torch.nn.Identity())
    # An attention's code is made at its first call, and what OpenVINO (2026.4) makes for a single
    # place, the deepest level of the smallest picture, it takes for more of them too, wrongly.
    example = conversion.unet_example(outline.unet.config, sizes=_sizes(outline))
    parts[UNET](**example)
    # Where nothing can be kept the file is gone by then; what was read of it stays mapped.
    source = runtime.read(paths[UNET])
    adapted = partial(_adapted, source, partial(compiled, UNET), example)
    sizes = {part: path.with_suffix(".bin").stat().st_size for part, path in paths.items()}
    given = {part.name: getattr(outline, part.name) for part in fields(TorchNetwork)}
    given["effective"] = _effective(outline.effective, parts[UNET], sum(sizes.values()))
    return OpenVinoNetwork(
        **given,
        compiled=parts[UNET],
        wardrobe=Wardrobe(parts[UNET], adapted, sizes[UNET], branches.layers_of(source)),
        directory=directory,
    )


def _adapted(
    source: Any,
    compiled: Callable[[Any], Compiled],
    example: Mapping[str, torch.Tensor],
    reach: Reach,
) -> Adapted:
    began = time.monotonic()
    model = source.clone()
    beside = branches.added(model, reach)
    made = compiled(model)
    made(**example, **branches.matrices(beside, [()]))
    took = time.monotonic() - began
    _log.info("compiled the U-Net for adapters (%s) in %.1f s", reach.name.lower(), took)
    return Adapted(made, beside)


def _sizes(outline: TorchNetwork) -> int:
    """How many numbers XL layouts are told of a picture's size."""
    return 5 if outline.layout.aesthetic else 6


def _effective(outline: Effective, unet: Compiled, weights: int) -> Effective:
    """The U-Net's precision is what its products are executed in."""
    beside = unet.precision
    notes = {
        "openvino": runtime.version(),
        "text_encoders": f"pytorch {outline.precision}",
        "unet_beyond_plain_inputs_and_adapters": f"pytorch {outline.precision}",
    }
    int8, products = unet.products
    if int8:
        notes["int8"] = f"{int8} of the U-Net's {products} products, the rest in {beside}"
    return replace(
        outline,
        backend=BACKEND,
        precision="int8" if int8 else beside,
        threads=unet.threads,
        bytes_in_memory=outline.bytes_in_memory + weights,
        notes=notes,
        versions={BACKEND: runtime.version()},
    )
