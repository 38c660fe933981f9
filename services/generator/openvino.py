"""Stable Diffusion networks whose U-Net and autoencoder run in OpenVINO on the processor."""

from __future__ import annotations

import gc
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from functools import partial
from pathlib import Path
from typing import Any, Final

import torch

from services.core.reference import digest_of
from services.generator import conversion, pytorch
from services.generator.artifacts import ArtifactStore
from services.generator.conversion import DECODER, ENCODER, PARTS, UNET, path_of
from services.generator.network import Effective, Feature, Look, check_features, needs_of
from services.generator.pytorch import Placement, TorchNetwork

BACKEND: Final = "openvino"
PLAIN: Final = frozenset({Feature.ADDED})
_HINTS: Final[Mapping[str, str]] = {"float32": "f32", "bfloat16": "bf16"}
_PRECISIONS: Final = {hint: name for name, hint in _HINTS.items()}


class Compiled:
    """One part, compiled for the processor. One thread at a time calls it.

    ``request``: OpenVINO's own, the bare call.
    """

    def __init__(self, path: Path, *, precision: str, threads: int | None) -> None:
        options: dict[str, Any] = {
            "INFERENCE_PRECISION_HINT": _HINTS[precision],
            "PERFORMANCE_HINT": "LATENCY",
            "NUM_STREAMS": 1,
            # The other services of this machine share its cores.
            "ENABLE_CPU_PINNING": False,
        }
        if threads is not None:
            options["INFERENCE_NUM_THREADS"] = threads
        self._model = conversion.compiled(path, options)
        self.request = self._model.create_infer_request()
        self._names = [port.get_any_name() for port in self._model.inputs]

    @property
    def threads(self) -> int:
        return int(self._model.get_property("INFERENCE_NUM_THREADS"))

    @property
    def precision(self) -> str:
        hint = str(self._model.get_property("INFERENCE_PRECISION_HINT").get_type_name())
        return _PRECISIONS[hint]

    def __call__(self, **inputs: torch.Tensor) -> torch.Tensor:
        """Any floating dtype in, float32 out."""
        given = [inputs[name].float().contiguous().numpy() for name in self._names]
        # Copied: the next call writes to the same place.
        return torch.from_numpy(self.request.infer(given, share_inputs=True)[0])


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


@dataclass(frozen=True, kw_only=True)
class OpenVinoNetwork(TorchNetwork):
    """Answers plain looks in OpenVINO. ``unet`` has its structure alone, and gets its weights from
    ``directory`` when the first look comes that brings more.
    """

    compiled: Compiled
    directory: Path
    filling: threading.Lock = field(default_factory=threading.Lock)

    def route(self, needs: frozenset[Feature]) -> str:
        check_features(self, needs)
        return BACKEND if needs <= PLAIN else pytorch.BACKEND

    def predict(self, look: Look) -> torch.Tensor:
        if not needs_of(look) <= PLAIN:
            self.fill()
            return self.full(look)
        added = {"pooled": look.pooled, "time_ids": look.time_ids}
        return self.compiled(
            latents=look.latents,
            timesteps=look.timesteps,
            context=look.context,
            **{name: value for name, value in added.items() if value is not None},
        )

    def full(self, look: Look) -> torch.Tensor:
        """``predict`` in PyTorch, whatever the look brings."""
        return super().predict(look)

    @property
    def adaptable(self) -> Mapping[str, torch.Tensor]:
        # Adapters are placed beside these weights, before the first look that wears them.
        self.fill()
        return super().adaptable

    def fill(self) -> None:
        """Read the U-Net's weights where that was not done yet. From any thread."""
        with self.filling:
            if any(weight.is_meta for weight in self.unet.parameters()):
                read = pytorch.read_unet(self.directory, self.placement)
                self.unet.load_state_dict(read.state_dict(), assign=True)
                self.unet.requires_grad_(False)


def load(
    directory: Path,
    *,
    precision: str,
    store: ArtifactStore,
    threads: int | None = None,
) -> OpenVinoNetwork:
    """Load a ``diffusers`` directory; the first time it is converted, into ``store``.

    ``precision``: float32 or bfloat16, also that of the text encoders and, where a look has more
    than plain inputs, of the U-Net, which run in PyTorch.

    Raises as ``pytorch.load`` does.
    """
    outline = pytorch.load(
        directory, device="cpu", precision=precision, threads=threads, outline=True
    )
    half = precision != "float32"
    made_of = {
        "format": "1",
        "model": digest_of(directory),
        "openvino": conversion.version(),
        "weights": "float16" if half else "float32",
    }
    make = partial(_convert, outline, directory, half=half)
    with store.artifact(made_of, make) as folder:
        return _assembled(outline, directory, folder, precision, threads)


def _convert(outline: TorchNetwork, directory: Path, target: Path, *, half: bool) -> None:
    # One part at a time is in memory, in float32, which tracing asks for.
    placement = Placement(torch.device("cpu"), torch.float32)
    sizes = 5 if outline.layout.aesthetic else 6
    unet = pytorch.read_unet(directory, placement)
    conversion.save(conversion.unet_model(unet, sizes=sizes), target, UNET, half=half)
    del unet
    vae = pytorch.read_vae(directory, placement)
    conversion.save(conversion.decoder_model(vae), target, DECODER, half=half)
    conversion.save(conversion.encoder_model(vae), target, ENCODER, half=half)
    del vae
    gc.collect()


def _assembled(
    outline: TorchNetwork, directory: Path, folder: Path, precision: str, threads: int | None
) -> OpenVinoNetwork:
    parts = {
        part: Compiled(path_of(folder, part), precision=precision, threads=threads)
        for part in PARTS
    }
    vae = outline.vae
    vae.decoder, vae.encoder = _Part(parts[DECODER], "latents"), _Part(parts[ENCODER], "pixels")
    for name in ("quant_conv", "post_quant_conv"):
        if getattr(vae, name) is not None:
            setattr(vae, name, torch.nn.Identity())
    weights = sum(path_of(folder, part).with_suffix(".bin").stat().st_size for part in PARTS)
    given = {part.name: getattr(outline, part.name) for part in fields(TorchNetwork)}
    given["effective"] = _effective(outline.effective, parts[UNET], weights)
    return OpenVinoNetwork(**given, compiled=parts[UNET], directory=directory)


def _effective(outline: Effective, unet: Compiled, weights: int) -> Effective:
    return replace(
        outline,
        backend=BACKEND,
        precision=unet.precision,
        threads=unet.threads,
        bytes_in_memory=outline.bytes_in_memory + weights,
        notes={
            "openvino": conversion.version(),
            "text_encoders": f"pytorch {outline.precision}",
            "unet_beyond_plain_inputs": f"pytorch {outline.precision}",
        },
    )
