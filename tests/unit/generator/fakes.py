"""A network small enough to run anywhere, whose every step a test can hold back."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from PIL import Image

from services.core.reference import ModelFiles
from services.generator.controlnet import LoadControl, load_control
from services.generator.inversion import load_inversions
from services.generator.layout import Family, Layout
from services.generator.lora import Outfit
from services.generator.model import (
    AdapterFolder,
    Bounds,
    ControlFolder,
    Defaults,
    GeneratorModel,
)
from services.generator.network import (
    Conditioning,
    Effective,
    Feature,
    ImageReader,
    Look,
    Pixels,
    Posterior,
    check_features,
)
from services.generator.prompt_cache import PromptCache
from services.generator.request import Order
from services.generator.tiny_decoder import load_tiny

FILES = ModelFiles("fake", "1", Path("no-such-directory"), "sha256:" + "ab" * 32)
SCHEDULER: Mapping[str, Any] = {
    "_class_name": "DDIMScheduler",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "clip_sample": False,
    "set_alpha_to_one": False,
    "steps_offset": 1,
}
LAYOUT = Layout(Family.SD1, (("tokenizer", "text_encoder"),))
SIDE = 32
FIRST_LEARNED = 95
CPU = torch.device("cpu")
EFFECTIVE = Effective("fake", "cpu", "cpu", "float32", 1, "FakeNetwork", 0, 0)

NO_ADAPTERS = AdapterFolder()
NO_CONTROLS = ControlFolder()


class FakeTokenizer:
    """One token a word; ten to a window."""

    model_max_length = 10
    bos_token_id = 1
    eos_token_id = 2
    pad_token_id = 0

    def __call__(self, text: str, **_options: object) -> dict[str, list[int]]:
        words = [3 + sum(word.encode()) % 90 for word in text.split()]
        return {"input_ids": [self.bos_token_id, *words, self.eos_token_id]}


@dataclass
class FakeNetwork:
    """32 x 32 pixels of 8 x 8 latents. ``gate`` holds every U-Net step back while it is clear;
    ``batches`` are the sizes of those that began, ``encoded`` of those of the text encoder.
    ``fault`` is what they raise, ``hollow`` makes them answer NaN; ``prepared`` is what it was to
    have in memory, ``finished`` how often its device was waited for.
    """

    gate: threading.Event = field(default_factory=threading.Event)
    batches: list[int] = field(default_factory=list)
    seen_channels: set[int] = field(default_factory=set)
    began: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    fault: Exception | None = None
    hollow: bool = False
    scheduler_config: Mapping[str, Any] = field(default_factory=lambda: SCHEDULER)
    tokenizers: tuple[FakeTokenizer, ...] = (FakeTokenizer(),)
    layout: Layout = LAYOUT
    device: torch.device = CPU
    dtype: torch.dtype = torch.float32
    effective: Effective = EFFECTIVE
    routes: Mapping[str, Effective] = field(default_factory=dict)
    vae_factor: int = 4
    size_multiple: int = 8
    default_size: tuple[int, int] = (SIDE, SIDE)
    latent_channels: int = 4
    unet_channels: int = 4
    prediction_type: str = "epsilon"
    max_clip_skip: int = 3
    text_widths: tuple[int, ...] = (2,)
    learned: int = 0
    encoded: list[int] = field(default_factory=list)
    features: frozenset[Feature] = frozenset({Feature.STYLE, Feature.IMAGE_PROMPT})
    image_adapter: ImageReader | None = None
    adaptable: Mapping[str, torch.Tensor] = field(default_factory=dict)
    unet_config: Any = None
    bytes_in_memory: int = 0
    prepared: list[frozenset[Feature]] = field(default_factory=list)
    no_room_for: frozenset[Feature] | None = None
    finished: int = 0

    def __post_init__(self) -> None:
        self.gate.set()

    def route(self, needs: frozenset[Feature], size: tuple[int, int]) -> str:
        """A route of its own for every set of needs."""
        check_features(self, needs)
        return "+".join(["fake", *sorted(need.value for need in needs)])

    def in_force(self, route: str) -> Effective:
        return self.routes.get(route, self.effective)

    def prepare(self, needs: frozenset[Feature], outfit: Outfit = ()) -> None:
        if needs == self.no_room_for:
            raise RuntimeError("std::bad_alloc")
        self.prepared.append(needs)

    def learn(self, vectors: Sequence[torch.Tensor]) -> Sequence[int]:
        self.learned = len(vectors[0])
        return (FIRST_LEARNED,)

    def encode(
        self, windows: torch.Tensor, skips: Sequence[int], outfits: Sequence[Outfit] | None = None
    ) -> Conditioning:
        self.encoded.append(len(skips))
        states = windows[0] / 100.0 - torch.tensor(skips)[:, None] / 10.0
        return Conditioning(states[..., None].expand(-1, -1, 2).clone())

    def posterior(self, images: torch.Tensor) -> Posterior:
        small = F.avg_pool2d(images, self.vae_factor)
        mean = torch.cat([small, small.mean(dim=1, keepdim=True)], dim=1)
        return Posterior(mean, torch.full_like(mean, 0.05))

    def predict(self, look: Look) -> torch.Tensor:
        self.seen_channels.add(look.latents.shape[1])
        latents = look.latents[:, : self.latent_channels]
        self.batches.append(len(latents))
        self.began.release()
        self.gate.wait()
        if self.fault is not None:
            raise self.fault
        mood = look.context.mean(dim=(1, 2)) + look.timesteps / 1000.0
        if look.image_prompt is not None:
            seen = look.image_prompt.scales * look.image_prompt.tokens.mean(dim=(1, 2))
            mood = mood.index_add(0, look.image_prompt.entries, seen)
        answer = torch.tanh(latents) * 0.5 + mood[:, None, None, None] * 0.1
        return answer * float("nan") if self.hollow else answer

    def decode(self, latents: torch.Tensor) -> Pixels:
        levels = (torch.tanh(latents[:, :3]) / 2 + 0.5).mul(255).round().to(torch.uint8)
        wide = levels.repeat_interleave(4, dim=2).repeat_interleave(4, dim=3)
        pixels: Pixels = wide.permute(0, 2, 3, 1).contiguous().numpy()
        return pixels

    def finish(self) -> None:
        self.finished += 1


@dataclass
class FakeImageReader:
    """Reads a picture's mean colour, as one token; ``batches`` are the sizes of what it read."""

    versions: Mapping[str, str] = field(
        default_factory=lambda: {"ip_adapter": "sha256:" + "cd" * 32}
    )
    empty: torch.Tensor = field(default_factory=lambda: torch.zeros(1, 3))
    batches: list[int] = field(default_factory=list)

    def pixels(self, picture: Image.Image) -> torch.Tensor:
        small = np.asarray(picture.resize((2, 2)), np.float32) / 255
        return torch.from_numpy(small).permute(2, 0, 1)

    def tokens(self, pixels: torch.Tensor) -> torch.Tensor:
        self.batches.append(len(pixels))
        return pixels.mean(dim=(2, 3))[:, None]


@dataclass
class FakeChecker:
    """Flags pictures whose pixels are among ``flagged``; ``faults`` are raised first, one each."""

    flagged: set[bytes] = field(default_factory=set)
    faults: list[Exception] = field(default_factory=list)
    bytes_in_memory: int = 1000

    def reasons(self, pixels: Pixels) -> list[str | None]:
        if self.faults:
            raise self.faults.pop()
        return ["unsafe" if shown.tobytes() in self.flagged else None for shown in pixels]


class FakeScribe:
    def record(self, order: Order, seed: int, pixel_sha256: str, painted: Effective) -> str:
        return f"{order.prompt} {seed} {pixel_sha256}"


def fake_model(
    network: FakeNetwork,
    checker: FakeChecker | None = None,
    adapters: AdapterFolder = NO_ADAPTERS,
    *,
    controls: ControlFolder = NO_CONTROLS,
    load_control: LoadControl = load_control,
    cache_bytes: int = 0,
    tiny: Path | None = None,
    embeddings: Path | None = None,
    files: ModelFiles = FILES,
) -> GeneratorModel:
    return GeneratorModel(
        lambda: files,
        lambda _directory: network,
        load_safety=lambda _directory, _device: checker,
        defaults=Defaults(6, 3.0),
        adapters=adapters,
        controls=controls,
        load_control=load_control,
        bounds=Bounds(max_pixels=64 * 64, max_steps=150, max_count=8),
        load_tiny=partial(load_tiny, tiny),
        load_inversions=partial(load_inversions, embeddings),
        prompt_cache=PromptCache(cache_bytes),
        warm_up_seconds=0.0,
    )


def loaded_model(
    network: FakeNetwork | None = None,
    checker: FakeChecker | None = None,
    tiny: Path | None = None,
) -> GeneratorModel:
    model = fake_model(network or FakeNetwork(), checker, tiny=tiny)
    model.load()
    return model
