"""Stable Diffusion networks in PyTorch, from a ``diffusers`` directory of safetensors."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import diffusers
import torch
import transformers
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution

from services import bfloat16
from services.accelerator import chosen_device, finish, keep_digits, placed
from services.core.errors import FailedPrecondition
from services.generator.attention import AttentionLayers
from services.generator.channels_last import keep_channels_last
from services.generator.latents import LatentScale
from services.generator.layout import Layout, read_json, read_layout
from services.generator.lora import AdaptableLayers, Outfit
from services.generator.network import (
    Conditioning,
    Effective,
    Feature,
    ImageReader,
    Look,
    Pixels,
    Posterior,
    Residuals,
    check_features,
)
from services.generator.outer import OuterLayers
from services.generator.weights import fill, structure, variant_of

_log = logging.getLogger(__name__)

BACKEND: Final = "pytorch"
_UNET: Final[Any] = diffusers.UNet2DConditionModel
_VAE: Final[Any] = diffusers.AutoencoderKL
_NOT_CLOSE: Final = {
    "close": "in bfloat16 on a GPU pictures differ by up to 11 of 255 with their batch; "
    "in float16 by 2"
}
_PRECISIONS = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}


@dataclass(frozen=True, slots=True)
class Placement:
    """Where the networks run and in what precision."""

    device: torch.device
    dtype: torch.dtype

    @classmethod
    def choose(
        cls, device: str = "auto", precision: str = "auto", *, alone: bool = False
    ) -> Placement:
        """``auto`` takes the GPU if there is one, and float16 there; on a processor bfloat16 where
        that pays, else float32. What is ``alone`` in its batches takes bfloat16 on a GPU too: large
        text encoders overflow in float16.
        """
        chosen = chosen_device(device)
        if precision != "auto":
            return cls(chosen, _PRECISIONS[precision])
        # On a GPU a U-Net is as fast as in bfloat16, in which pictures are up to 11 of 255 from
        # themselves in a batch.
        on_gpu = chosen.type == "cuda"
        if (alone or not on_gpu) and bfloat16.pays(chosen):
            return cls(chosen, torch.bfloat16)
        return cls(chosen, torch.float16 if on_gpu else torch.float32)

    @property
    def precision(self) -> str:
        return str(self.dtype).removeprefix("torch.")

    @property
    def device_name(self) -> str:
        return torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else "cpu"


Run = Callable[[Any, torch.Tensor], torch.Tensor]
"""A part of an autoencoder, and what it is given in any precision."""


class Spare:
    """An autoencoder in float32, made when the one in float16 is first found to overflow. Those
    that say so themselves, as Stable Diffusion XL's does, are in float32 from the start.
    """

    def __init__(self) -> None:
        self._made: Any = None

    def of(self, vae: Any) -> Any:
        if self._made is None:
            _log.warning("the autoencoder overflows in float16: such pictures go through float32")
            self._made = copy.deepcopy(vae).float()
        return self._made


@dataclass(frozen=True, slots=True)
class TorchNetwork:
    """A ``Network`` of ``diffusers`` and ``transformers`` modules."""

    placement: Placement
    layout: Layout
    tokenizers: tuple[Any, ...]
    text_encoders: tuple[Any, ...]
    unet: Any
    attention: AttentionLayers
    vae: Any
    scheduler_config: Mapping[str, Any]
    effective: Effective
    layers: AdaptableLayers
    outer: OuterLayers
    image_adapter: ImageReader | None = None
    spare: Spare = field(default_factory=Spare)

    @property
    def vae_factor(self) -> int:
        return int(2 ** (len(self.vae.config.block_out_channels) - 1))

    @property
    def size_multiple(self) -> int:
        return int(self.vae_factor * 2 ** (len(self.unet.config.block_out_channels) - 1))

    @property
    def default_size(self) -> tuple[int, int]:
        size = self.unet.config.sample_size
        height, width = (size, size) if isinstance(size, int) else size
        return int(width * self.vae_factor), int(height * self.vae_factor)

    @property
    def device(self) -> torch.device:
        return self.placement.device

    @property
    def dtype(self) -> torch.dtype:
        return self.placement.dtype

    @property
    def bytes_in_memory(self) -> int:
        return self.effective.bytes_in_memory

    @property
    def latent_channels(self) -> int:
        return int(self.vae.config.latent_channels)

    @property
    def unet_channels(self) -> int:
        return int(self.unet.config.in_channels)

    @property
    def prediction_type(self) -> str:
        return str(self.scheduler_config.get("prediction_type", "epsilon"))

    @property
    def features(self) -> frozenset[Feature]:
        added = {Feature.ADDED} if self.layout.xl else set()
        prompts = {Feature.IMAGE_PROMPT} if self.image_adapter is not None else set()
        free = {Feature.ADAPTERS, Feature.STYLE, Feature.DEEP, Feature.RESIDUALS}
        return frozenset(free | added | prompts)

    def route(self, needs: frozenset[Feature], size: tuple[int, int]) -> str:
        """One: every input is one that rows without it can share a batch with."""
        del size
        check_features(self, needs)
        return BACKEND

    def in_force(self, route: str) -> Effective:
        del route
        return self.effective

    def prepare(self, needs: frozenset[Feature], outfit: Outfit = ()) -> None:
        """All of it is in memory from the start."""

    @property
    def adaptable(self) -> Mapping[str, torch.Tensor]:
        return self.layers.weights

    @property
    def unet_config(self) -> Any:
        return self.unet.config

    @property
    def max_clip_skip(self) -> int:
        # One layer always runs, and XL leaves one out by itself.
        layers = min(encoder.config.num_hidden_layers for encoder in self.text_encoders)
        return max(0, int(layers) - (2 if self.layout.xl else 1))

    @property
    def text_widths(self) -> tuple[int, ...]:
        return tuple(int(encoder.config.hidden_size) for encoder in self.text_encoders)

    def learn(self, vectors: Sequence[torch.Tensor]) -> tuple[int, ...]:
        texts = zip(self.text_encoders, self.tokenizers, vectors, strict=True)
        return tuple(_learn(encoder, tokenizer, new) for encoder, tokenizer, new in texts)

    def encode(
        self, windows: torch.Tensor, skips: Sequence[int], outfits: Sequence[Outfit] | None = None
    ) -> Conditioning:
        with self.layers.wearing(outfits):
            return self._encode(windows, skips)

    def _encode(self, windows: torch.Tensor, skips: Sequence[int]) -> Conditioning:
        texts = zip(self.text_encoders, placed(windows, self.placement.device), strict=True)
        if not self.layout.xl:
            return Conditioning(
                *(_final_states(encoder, tokens, skips) for encoder, tokens in texts)
            )
        read = [encoder(tokens, output_hidden_states=True) for encoder, tokens in texts]
        chosen = [_by_row(states.hidden_states[:-1], skips) for states in read]
        return Conditioning(torch.cat(chosen, dim=-1), read[-1].text_embeds)

    def posterior(self, images: torch.Tensor) -> Posterior:
        given = placed(images, self.placement.device)
        moments = self.sound(_moments(self.vae, given), given, _moments)
        found = DiagonalGaussianDistribution(moments)
        scale = LatentScale.of(self.vae.config)
        return Posterior(scale.from_encoder(found.mean.float()), scale.spread(found.std.float()))

    def predict(self, look: Look) -> torch.Tensor:
        latents = look.latents.to(self.placement.dtype, memory_format=torch.channels_last)
        added = {"text_embeds": look.pooled, "time_ids": look.time_ids} if self.layout.xl else None
        context = look.context.to(self.placement.dtype)
        inputs = (latents, look.timesteps, context, added)
        styled = self.attention.styled(look.style, look.image_prompt)
        with self.layers.wearing(look.adapters), styled:
            if look.deep is not None and look.deep.feature is not None:
                return self.outer.predict(*inputs, look.deep.feature).float()
            with self.outer.keeping(look.deep):
                return self._whole(*inputs, look.residuals).float()

    def _whole(
        self,
        latents: torch.Tensor,
        timesteps: torch.Tensor,
        context: torch.Tensor,
        added: dict[str, Any] | None,
        residuals: Residuals | None,
    ) -> torch.Tensor:
        parts = () if residuals is None else residuals.parts
        *down, mid = (part.to(self.placement.dtype) for part in parts) if parts else (None,)
        output: torch.Tensor = self.unet(
            latents,
            timesteps,
            encoder_hidden_states=context,
            added_cond_kwargs=added,
            down_block_additional_residuals=tuple(down) or None,
            mid_block_additional_residual=mid,
            return_dict=False,
        )[0]
        return output

    def decode(self, latents: torch.Tensor) -> Pixels:
        scaled = LatentScale.of(self.vae.config).to_decoder(latents)
        return levels(self.sound(decoded(self.vae, scaled), scaled, decoded))

    def sound(self, answer: torch.Tensor, given: torch.Tensor, run: Run) -> torch.Tensor:
        """``answer`` of ``run`` with the autoencoder to ``given``, with the rows that overflowed in
        float16 made in float32.
        """
        if answer.dtype is not torch.float16:
            return answer
        fine, meant = (each.isfinite().flatten(1).all(1) for each in (answer, given))
        broken = meant & ~fine
        if not bool(broken.any()):
            return answer
        answer = answer.float()
        answer[broken] = run(self.spare.of(self.vae), given[broken]).float()
        return answer

    def finish(self) -> None:
        finish(self.placement.device)


def decoded(vae: Any, scaled: torch.Tensor) -> torch.Tensor:
    """(B, 3, H, W) from -1 to 1, of latents in the autoencoder's own scale."""
    image: torch.Tensor = vae.decode(scaled.to(vae.dtype), return_dict=False)[0]
    return image


def _moments(vae: Any, images: torch.Tensor) -> torch.Tensor:
    moments: torch.Tensor = vae.encode(images.to(vae.dtype), return_dict=False)[0].parameters
    return moments


def _final_states(encoder: Any, tokens: torch.Tensor, skips: Sequence[int]) -> torch.Tensor:
    """(B, L, D) after the final layer norm, whatever layers are left out before it."""
    if not any(skips):
        last: torch.Tensor = encoder(tokens)[0]
        return last
    states = encoder(tokens, output_hidden_states=True).hidden_states
    # Where a text model sits depends on its class: CLIPTextModel is one, the others hold one.
    text_model = getattr(encoder, "text_model", encoder)
    normed: torch.Tensor = text_model.final_layer_norm(_by_row(states, skips))
    return normed


def _by_row(states: Sequence[torch.Tensor], skips: Sequence[int]) -> torch.Tensor:
    """(B, L, D) of layers' states (B, L, D) each: of every row the last but its ``skips``."""
    if not any(skips):
        return states[-1]
    return torch.stack([states[-1 - skip][row] for row, skip in enumerate(skips)])


def _learn(encoder: Any, tokenizer: Any, vectors: torch.Tensor) -> int:
    words = encoder.get_input_embeddings()
    known = words.weight
    table = torch.cat([known, vectors.to(known)])
    words.weight = torch.nn.Parameter(table, requires_grad=False)
    words.num_embeddings = len(table)
    # Configurations before transformers#24773 have the end token as 2, and then the token of the
    # highest id is taken to be the end: no longer so now.
    getattr(encoder, "text_model", encoder).eos_token_id = tokenizer.eos_token_id
    return len(known)


def load(
    directory: Path,
    *,
    device: str = "auto",
    precision: str = "auto",
    threads: int | None = None,
    outline: bool = False,
) -> TorchNetwork:
    """Load a ``diffusers`` directory of safetensors. ``threads`` are the whole process's.

    ``outline``: the U-Net and the autoencoder get their structure alone, on the meta device.

    Raises ``NotFound`` when it is none, ``FailedPrecondition`` when it holds another kind of
    pipeline.
    """
    layout = read_layout(directory)
    placement = Placement.choose(device, precision)
    keep_digits(placement.device, placement.dtype)
    if threads is not None:
        torch.set_num_threads(threads)
    scheduler_config = read_json(directory / "scheduler" / "scheduler_config.json")
    tokenizers = tuple(
        transformers.CLIPTokenizer.from_pretrained(directory / tokenizer)
        for tokenizer, _ in layout.texts
    )
    kind = transformers.CLIPTextModelWithProjection if layout.xl else transformers.CLIPTextModel
    first = transformers.CLIPTextModel
    text_encoders = tuple(
        _place(first if folder == "text_encoder" else kind, directory / folder, placement)
        for _, folder in layout.texts
    )
    unet = structure(_UNET, directory / "unet") if outline else read_unet(directory, placement)
    vae = structure(_VAE, directory / "vae") if outline else read_vae(directory, placement)
    return TorchNetwork(
        placement=placement,
        layout=layout,
        tokenizers=tokenizers,
        text_encoders=text_encoders,
        unet=unet,
        attention=AttentionLayers(unet),
        vae=vae,
        scheduler_config=scheduler_config,
        effective=_effective(placement, unet, *text_encoders, vae),
        layers=AdaptableLayers(
            {"unet": unet}
            | {folder: read for (_, folder), read in zip(layout.texts, text_encoders, strict=True)}
        ),
        outer=OuterLayers(unet),
    )


def read_unet(directory: Path, placement: Placement) -> Any:
    """The U-Net of a ``diffusers`` directory, with its weights.

    Raises ``NotFound`` or ``FailedPrecondition`` where it has not all of them.
    """
    unet = structure(_UNET, directory / "unet")
    fill_unet(unet, directory, placement)
    return unet


def fill_unet(unet: Any, directory: Path, placement: Placement) -> None:
    """Give a U-Net that has its structure alone its weights. From any thread, also while others
    compute; raises as ``read_unet`` does.
    """
    told = fill(unet, directory / "unet", placement.device, placement.dtype)
    if told.missing:
        raise FailedPrecondition(f"'{directory.name}/unet' lacks the weights {told.missing[0]}.")


def twin(unet: Any, directory: Path) -> Any:
    """A U-Net with the weights of ``unet``, in the same memory, and modules of its own."""
    other = structure(_UNET, directory / "unet")
    other.load_state_dict(unet.state_dict(), assign=True)
    return other


def read_vae(directory: Path, placement: Placement) -> Any:
    """The autoencoder of a ``diffusers`` directory, with its weights. Only before anything
    computes: the whole process's default dtype is another meanwhile.
    """
    return _place(_VAE, directory / "vae", _for_vae(directory, placement))


def levels(image: torch.Tensor) -> Pixels:
    """(B, 3, H, W) from -1 to 1, as decoders make it, to uint8 (B, H, W, 3)."""
    rounded = (image.float() / 2 + 0.5).clamp(0, 1).mul(255).round()
    pixels: Pixels = rounded.to(torch.uint8).permute(0, 2, 3, 1).contiguous().cpu().numpy()
    return pixels


def dtype_of(precision: str) -> torch.dtype:
    """Of what runs beside a network in ``precision``; float32 beside one that PyTorch has not."""
    return _PRECISIONS.get(precision, torch.float32)


def _for_vae(directory: Path, placement: Placement) -> Placement:
    """An autoencoder that overflows in float16, as Stable Diffusion XL's does, runs in float32."""
    config = read_json(directory / "vae" / "config.json")
    if placement.dtype is torch.float16 and config.get("force_upcast", False):
        return replace(placement, dtype=torch.float32)
    return placement


def _effective(placement: Placement, unet: Any, *others: Any) -> Effective:
    weights = [weight for network in (unet, *others) for weight in network.parameters()]
    held = [weight for weight in weights if not weight.is_meta]
    coarse = placement.device.type == "cuda" and placement.dtype is torch.bfloat16
    return Effective(
        backend=BACKEND,
        device=str(placement.device),
        device_name=placement.device_name,
        precision=placement.precision,
        threads=torch.get_num_threads(),
        architecture=type(unet).__name__,
        parameters=sum(weight.numel() for weight in weights),
        bytes_in_memory=sum(weight.numel() * weight.element_size() for weight in held),
        notes=_NOT_CLOSE if coarse else {},
    )


def _place(kind: Any, directory: Path, placement: Placement) -> Any:
    network = kind.from_pretrained(
        directory,
        variant=variant_of(directory),
        use_safetensors=True,
        local_files_only=True,
        dtype=placement.dtype,
    )
    network.eval().requires_grad_(False).to(placement.device)
    if kind is _VAE:
        network.to(memory_format=torch.channels_last)
        if placement.device.type == "cuda":
            keep_channels_last(network)
    return network
