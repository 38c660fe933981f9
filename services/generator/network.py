"""What the service needs of a model's networks, whatever runs them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from services.accelerator import placed
from services.core.errors import FailedPrecondition
from services.generator.attention import ImagePrompt, Sharing
from services.generator.layout import Layout
from services.generator.lora import Outfit
from services.generator.outer import Deep

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Effective:
    """What is really in force. ``bytes_in_memory`` are the weights'; ``notes`` is what else is
    worth telling, by name; ``versions`` are those of the libraries that compute beside PyTorch.
    """

    backend: str
    device: str
    device_name: str
    precision: str
    threads: int
    architecture: str
    parameters: int
    bytes_in_memory: int
    notes: Mapping[str, str] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Conditioning:
    """What text encoders make of texts: context (B, S, D), and pooled (B, P) where the U-Net takes
    it, as Stable Diffusion XL's does.
    """

    context: torch.Tensor
    pooled: torch.Tensor | None = None

    @property
    def nbytes(self) -> int:
        return self.context.nbytes + (0 if self.pooled is None else self.pooled.nbytes)


@dataclass(frozen=True, slots=True)
class Residuals:
    """What ControlNets add to a U-Net's residuals in one look.

    ``parts``: (B, C, h, w) each, those of the descending half from the first to the last, then the
    middle's; zeros for entries that ask for none, and no parts where nobody does at the time.
    """

    parts: tuple[torch.Tensor, ...] = ()


@dataclass(frozen=True, slots=True)
class Look:
    """A batch as the U-Net looks at it once; B is a picture's copies with and without its prompt.

    latents: float32 (B, C, h, w), C the U-Net's. timesteps: float32 (B,). context: (B, S, D).
    Of Stable Diffusion XL alone, pooled: (B, P), and time_ids: float32 (B, 5 or 6), the sizes.
    adapters: who of the B wears which, or None; equal ones side by side are cheapest.
    deep: of step caching, what the outermost layers are handed: to be filled, or to be used.
    style: which of the B look at which others too, or None.
    image_prompt: which of the B see a picture's tokens beside the text's, or None.
    residuals: what ControlNets add, or None where none of the rows has any.
    """

    latents: torch.Tensor
    timesteps: torch.Tensor
    context: torch.Tensor
    pooled: torch.Tensor | None = None
    time_ids: torch.Tensor | None = None
    adapters: tuple[Outfit, ...] | None = None
    deep: Deep | None = None
    style: Sharing | None = None
    image_prompt: ImagePrompt | None = None
    residuals: Residuals | None = None

    def entries(self, index: torch.Tensor) -> Look:
        """Those of ``index``, int64 (N,), with what every U-Net of the model takes."""
        pooled, ids = self.pooled, self.time_ids
        return Look(
            latents=self.latents[index],
            timesteps=self.timesteps[index],
            context=self.context[index],
            pooled=None if pooled is None else pooled[index],
            time_ids=None if ids is None else ids[index],
        )


@dataclass(frozen=True, slots=True)
class Posterior:
    """What the autoencoder makes of pictures: latents with an uncertainty, in the U-Net's scale.

    ``mean`` and ``std``: float32 (B, C, h, w), or one picture's (C, h, w).
    """

    mean: torch.Tensor
    std: torch.Tensor

    def __getitem__(self, index: int) -> Posterior:
        return Posterior(self.mean[index], self.std[index])

    def sample(self, noise: torch.Tensor) -> torch.Tensor:
        """``noise``: standard normal, of the mean's shape."""
        return self.mean + self.std * placed(noise, self.mean.device)


class Feature(Enum):
    """An input of a ``Look`` beyond the plain three, which not every U-Net or backend takes.

    ``ADDED``: ``pooled`` and ``time_ids``. The others are named as the field is.
    """

    ADDED = "added"
    ADAPTERS = "adapters"
    RESIDUALS = "residuals"
    STYLE = "style"
    DEEP = "deep"
    IMAGE_PROMPT = "image_prompt"


PLAIN: Final = frozenset({Feature.ADDED})
"""What every look of a model brings, or none does."""


class ImageReader(Protocol):
    """Makes of pictures what a U-Net with an IP-Adapter reads beside texts."""

    @property
    def versions(self) -> Mapping[str, str]:
        """What its answers depend on beside the model, as records tell it."""

    @property
    def empty(self) -> torch.Tensor:
        """(N, D): what is read in a picture's place by the look that the prompt is told apart
        from.
        """

    def pixels(self, picture: Image.Image) -> torch.Tensor:
        """float32 (3, S, S) of an RGB picture. Blocking, from any thread."""

    def tokens(self, pixels: torch.Tensor) -> torch.Tensor:
        """(B, 3, S, S) to (B, N, D), in the U-Net's dtype. Blocking, one thread at a time."""


class Network(Protocol):
    """Text encoders, a U-Net and an autoencoder with their tokenizers and noise schedule.

    ``encode``, ``posterior``, ``predict`` and ``decode`` block; one thread at a time calls them,
    with a batch as the first dimension.
    """

    @property
    def device(self) -> torch.device: ...

    @property
    def effective(self) -> Effective:
        """As it was loaded."""

    @property
    def dtype(self) -> torch.dtype:
        """What PyTorch computes in for looks with residuals, and so what a ControlNet does; what
        adapters are held in.
        """

    @property
    def bytes_in_memory(self) -> int:
        """Of the weights that are in memory by now."""

    @property
    def layout(self) -> Layout: ...

    @property
    def tokenizers(self) -> Sequence[Any]:
        """One a text encoder, each as transformers' CLIPTokenizer: a call, ``model_max_length``
        and three token ids. All read equally many tokens.
        """

    @property
    def scheduler_config(self) -> Mapping[str, Any]:
        """Of the model's own ``diffusers`` scheduler."""

    @property
    def vae_factor(self) -> int:
        """Pixels to a side of one latent."""

    @property
    def size_multiple(self) -> int:
        """Pixels that width and height are a multiple of, so that the U-Net's halvings fit."""

    @property
    def default_size(self) -> tuple[int, int]:
        """(width, height) in pixels."""

    @property
    def latent_channels(self) -> int:
        """Of what the autoencoder makes and reads."""

    @property
    def unet_channels(self) -> int:
        """Of the U-Net's input: more than ``latent_channels`` where it also sees a mask and the
        masked picture.
        """

    @property
    def prediction_type(self) -> str: ...

    @property
    def features(self) -> frozenset[Feature]:
        """The inputs that ``predict`` takes, by whatever route."""

    def route(self, needs: frozenset[Feature], size: tuple[int, int]) -> str:
        """What answers a look with these inputs, of (h, w) latents. Looks of one route may share a
        batch; ``predict`` takes whole batches of one route.

        Raises ``FailedPrecondition`` when one of them is not in ``features``.
        """

    def in_force(self, route: str) -> Effective:
        """``effective`` as it is for looks of this route, which is its ``backend``; of a route that
        is not here, ``effective``.
        """

    def prepare(self, needs: frozenset[Feature], outfit: Outfit = ()) -> None:
        """Have in memory what answers looks with these inputs, ``outfit`` worn. Blocking, from any
        thread, also while another one calls ``predict``.
        """

    @property
    def image_adapter(self) -> ImageReader | None:
        """None where the U-Net takes no pictures as prompts."""

    @property
    def adaptable(self) -> Mapping[str, torch.Tensor]:
        """The weights of the layers that adapters may change, as ``"unet.conv_in"``, or their
        shapes alone, on the meta device; empty where they may change none.
        """

    @property
    def unet_config(self) -> Any:
        """As ``diffusers`` has it; None where there is none."""

    @property
    def max_clip_skip(self) -> int:
        """The most layers that ``encode`` can leave out of every text encoder."""

    @property
    def text_widths(self) -> Sequence[int]:
        """Of each text encoder's token vectors."""

    def learn(self, vectors: Sequence[torch.Tensor]) -> Sequence[int]:
        """Give each text encoder new tokens, float32 (V, its width), for as long as the network
        lives; answers the first one's id in each. Nothing may be encoded meanwhile.
        """

    def encode(
        self, windows: torch.Tensor, skips: Sequence[int], outfits: Sequence[Outfit] | None = None
    ) -> Conditioning:
        """int64 (E, B, L), each of E encoders' own tokens, to a context of (B, L, D): after the
        final layer norm, or the penultimate states side by side where the layout is XL's.
        ``skips``: how many layers more are left out at the end, for each of B. ``outfits``: who of
        the B wears which adapters.
        """

    def posterior(self, images: torch.Tensor) -> Posterior:
        """float32 (B, 3, H, W) from -1 to 1."""

    def predict(self, look: Look) -> torch.Tensor:
        """The U-Net's output, float32 (B, C, h, w)."""

    def decode(self, latents: torch.Tensor) -> Pixels:
        """float32 (B, C, h, w) to uint8 (B, H, W, 3)."""

    def finish(self) -> None:
        """Block until the device has computed all that it was asked for."""


def needs_of(look: Look) -> frozenset[Feature]:
    """The inputs beyond the plain ones that ``look`` brings."""
    fields = {Feature.ADDED: "pooled"}
    names = {feature: fields.get(feature, feature.value) for feature in Feature}
    return frozenset(
        feature for feature, name in names.items() if getattr(look, name, None) is not None
    )


def check_features(network: Network, needs: frozenset[Feature]) -> None:
    """Raises ``FailedPrecondition`` unless the network takes every one of the inputs."""
    missing = sorted(need.value for need in needs - network.features)
    if missing:
        raise FailedPrecondition(f"The model as it is loaded does not take {', '.join(missing)}.")
