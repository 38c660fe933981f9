"""The generator as the engine sees it: loads, warms up, turns orders into rows and steps them."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import torch
from PIL import Image

from services.core.engine import Stage
from services.core.errors import NotReady
from services.core.reference import ModelFiles
from services.generator import adapters as adapter_uses
from services.generator import controls as control_uses
from services.generator.canvas import prepared
from services.generator.controlnet import ControlShelf, LoadControl, load_control
from services.generator.diffusion import Answer, Diffusion, PictureWork
from services.generator.encoding import PromptEncoder
from services.generator.inversion import Inversion, taught
from services.generator.lora import Outfit, Worn
from services.generator.modes import TEXT_TO_IMAGE, Given, ImageToImage
from services.generator.network import Conditioning, Effective, Network
from services.generator.parameters import ModelName
from services.generator.prompt_cache import PromptCache
from services.generator.request import (
    Order,
    PreviewMethod,
    PreviewWish,
    Reproducibility,
    RequestLimits,
    Wish,
    resolve,
)
from services.generator.safety import SafetyChecker
from services.generator.samplers import SamplerTables
from services.generator.shelf import AdapterShelf
from services.generator.steering import ControlNet, steered
from services.generator.text import PromptReader
from services.generator.tiles import tiles_for
from services.generator.tiny_decoder import TinyDecoder
from services.memory import memory_faults

DEFAULTS_FILE: Final = "easel.json"
_WARM_UP_STEPS: Final = 2


@dataclass(frozen=True, slots=True)
class Defaults:
    """What a request gets that does not say; None takes the model directory's ``easel.json``
    (``default_steps``, ``default_guidance_scale``), or 20 and 7.5.
    """

    steps: int | None = None
    guidance_scale: float | None = None


@dataclass(frozen=True, slots=True)
class Bounds:
    """The most that one request may ask for. ``max_pixels``: four times the area of the model's
    own default size when None; never less than that size itself.
    """

    max_pixels: int | None = None
    max_steps: int = 150
    max_count: int = 16


@dataclass(frozen=True, slots=True)
class Loaded:
    """A model that is in memory; ``at`` in seconds since the epoch, ``checked`` by a safety
    checker. ``bytes_beside``: what else is held beside the network.
    """

    files: ModelFiles
    network: Network
    bytes_beside: int
    diffusion: Diffusion
    checked: bool
    tables: SamplerTables
    reader: PromptReader
    adapters: AdapterShelf
    controls: ControlShelf
    encoder: PromptEncoder
    limits: RequestLimits
    at: float

    @property
    def effective(self) -> Effective:
        """The network's, with what is in memory by now."""
        held = self.network.bytes_in_memory + self.bytes_beside
        return replace(self.network.effective, bytes_in_memory=held)


@dataclass(frozen=True, slots=True)
class AdapterFolder:
    """Where the adapters are, and how many of them stay in memory."""

    path: Path | None = None
    kept: int = 16


@dataclass(frozen=True, slots=True)
class ControlFolder:
    """Where the ControlNets are, and how many of them stay in memory."""

    path: Path | None = None
    kept: int = 4


LoadSafety = Callable[[Path, torch.device], SafetyChecker | None]


def without_safety(_directory: Path, _device: torch.device) -> None:
    """No checker: everything is shown."""


class GeneratorModel:
    """A core ``Model`` whose rows are pictures.

    ``find`` gets the model's files; it may fetch them. ``load_network`` and ``load_safety`` read
    them. All are called by ``load``, as is ``load_inversions``, with the widths of the text
    encoders, and ``load_tiny``, for fast previews; ``load_control`` reads a net when it is first
    asked for. ``prompt_cache`` is this model's alone; it keeps nothing when None. Warm-up grows its
    batches for about ``warm_up_seconds``.
    """

    def __init__(
        self,
        find: Callable[[], ModelFiles],
        load_network: Callable[[Path], Network],
        *,
        load_safety: LoadSafety = without_safety,
        defaults: Defaults = Defaults(),
        bounds: Bounds = Bounds(),
        adapters: AdapterFolder = AdapterFolder(),
        controls: ControlFolder = ControlFolder(),
        load_control: LoadControl = load_control,
        load_inversions: Callable[[Sequence[int]], Sequence[Inversion]] = lambda _: (),
        load_tiny: Callable[[Network], TinyDecoder | None] = lambda _: None,
        prompt_cache: PromptCache[Conditioning] | None = None,
        warm_up_seconds: float = 5.0,
    ) -> None:
        self._find = find
        self._load_network = load_network
        self._load_safety = load_safety
        self._defaults = defaults
        self._bounds = bounds
        self._adapters = adapters
        self._controls = controls
        self._load_control = load_control
        self._load_inversions = load_inversions
        self._load_tiny = load_tiny
        self.prompt_cache = prompt_cache or PromptCache(0)
        self._warm_up_seconds = warm_up_seconds
        self._loaded: Loaded | None = None

    @property
    def loaded(self) -> Loaded:
        """Raises ``NotReady`` before ``load`` and after ``close``."""
        if self._loaded is None:
            raise NotReady()
        return self._loaded

    @property
    def name(self) -> ModelName:
        files = self.loaded.files
        return ModelName(files.name, files.version, files.digest)

    @property
    def limits(self) -> RequestLimits:
        return self.loaded.limits

    def versions(self, texts: Sequence[str], *, styled: bool, backend: str) -> Mapping[str, str]:
        network = self.loaded.network
        adapter = network.image_adapter
        style = {} if adapter is None or not styled else adapter.versions
        libraries = network.in_force(backend).versions
        return {**libraries, **self.loaded.reader.versions(texts), **style}

    def in_force(self, work: PictureWork) -> Effective:
        network = self.loaded.network
        return network.in_force(network.route(work.needs, work.latent_shape[1:]))

    def pinned(self, order: Order) -> Order:
        """``order`` with the digests of its adapters and ControlNets; blocking, raises as ``works``
        does.
        """
        return _pinned(order, self._outfit(order), self._nets(order))

    def works(self, order: Order) -> list[PictureWork]:
        """The rows of ``order``, one a picture; blocking, from any thread.

        They carry the order as it is once its given pictures are known. Raises ``InvalidInput``
        for a prompt that is too long or cannot be read, for steps that the sampler cannot do, and
        for pictures that cannot be read or painted on; ``NotFound`` for an adapter or a ControlNet
        that is not here, ``FailedPrecondition`` for one that does not fit, and ``OutOfMemory``.
        """
        works = self._works(order)
        with memory_faults():
            self.loaded.network.prepare(works[0].needs, works[0].outfit)
        if not order.exact:  # what was encoded in another company may differ in its last bits
            self.loaded.encoder.recall(works[0].prompts)
        return works

    def _outfit(self, order: Order) -> Outfit:
        shelf = self.loaded.adapters
        return tuple(Worn(shelf.take(use.name), use.scale) for use in order.adapters)

    def _nets(self, order: Order) -> list[ControlNet]:
        shelf = self.loaded.controls
        return [shelf.take(use.name) for use in order.controls]

    def load(self) -> None:
        files = self._find()
        network = self._load_network(files.directory)
        safety = self._load_safety(files.directory, network.device)
        tables = SamplerTables(network.scheduler_config)
        reader = PromptReader(
            network.tokenizers,
            taught(network, self._load_inversions(network.text_widths)),
            zeros_for_empty=network.layout.zeros_for_empty,
        )
        tiny = self._load_tiny(network)
        beside = sum(part.bytes_in_memory for part in (safety, tiny) if part is not None)
        # What another model made of the same words.
        self.prompt_cache.clear()
        encoder = PromptEncoder(network, reader, self.prompt_cache)
        self._loaded = Loaded(
            files=files,
            network=network,
            bytes_beside=beside,
            diffusion=Diffusion(network, encoder, safety, tiny),
            checked=safety is not None,
            tables=tables,
            adapters=AdapterShelf(self._adapters.path, network, kept=self._adapters.kept),
            controls=ControlShelf(
                self._controls.path,
                network,
                kept=self._controls.kept,
                load=self._load_control,
            ),
            reader=reader,
            encoder=encoder,
            limits=self._limits(files.directory, network, tables),
            at=time.time(),
        )

    def warm_up(self) -> Iterator[Sequence[PictureWork]]:
        """Batches of 1, 2, 4 ... pictures, with and without guidance, from a picture and from
        noise, until the time is up.
        """
        ends, rows = time.monotonic() + self._warm_up_seconds, 1
        while rows <= self._bounds.max_count and (rows <= 2 or time.monotonic() < ends):
            yield [self._sample(guided=index % 2 == 0) for index in range(rows)]
            rows *= 2
        for rows in (1, 2) if self.loaded.diffusion.stages_fast_previews else ():
            yield [self._sample(guided=False, method=PreviewMethod.FAST) for _ in range(rows)]
        yield [self._sample(guided=True, reproducibility=Reproducibility.EXACT)]

    def plan(self, work: PictureWork) -> Sequence[Stage]:
        return self.loaded.diffusion.plan(work)

    def step(self, stage: Stage, works: Sequence[PictureWork]) -> Sequence[Answer]:
        return self.loaded.diffusion.step(stage, works)

    def close(self) -> None:
        self._loaded = None
        self.prompt_cache.clear()

    def _works(self, order: Order) -> list[PictureWork]:
        loaded, factor = self.loaded, self.loaded.network.vae_factor
        outfit, nets = self._outfit(order), self._nets(order)
        order, canvas = prepared(_pinned(order, outfit, nets), loaded.limits, loaded.network)
        order, steering = steered(order, nets)
        negative = order.negative_prompt if order.guided else None
        prompts = loaded.reader.read(
            order.prompt,
            negative,
            order.long_prompt,
            weighting=order.prompt_weighting,
            clip_skip=order.clip_skip,
        )
        table = loaded.tables.table(order.sampler, order.steps, order.begin)
        channels = loaded.network.latent_channels
        shape = (channels, order.height // factor, order.width // factor)
        area = loaded.limits.default_width * loaded.limits.default_height // factor**2
        limits = loaded.limits
        own = (limits.default_height // factor, limits.default_width // factor)
        tiles = tiles_for(shape[1:], own) if order.tiled else None
        ids = loaded.network.layout.size_ids(order.width, order.height, guided=order.guided)
        time_ids = None if ids is None else torch.tensor(ids, dtype=torch.float32)
        prompts.outfit = outfit
        return [
            PictureWork(
                order,
                seed,
                prompts,
                table,
                shape,
                area,
                time_ids,
                canvas,
                outfit,
                steering,
                tiles=tiles,
            )
            for seed in order.seeds
        ]

    def _sample(
        self,
        *,
        guided: bool,
        method: PreviewMethod = PreviewMethod.DECODED,
        reproducibility: Reproducibility = Reproducibility.CLOSE,
    ) -> PictureWork:
        preview = PreviewWish(at_steps=(1,), method=method)
        scale = 2.0 if guided else 1.0
        limits = self.limits
        grey = Image.new("RGB", (limits.default_width, limits.default_height), "grey")
        wish = Wish(
            mode=ImageToImage(Given("", lambda: grey, str), 1.0) if guided else TEXT_TO_IMAGE,
            steps=_WARM_UP_STEPS,
            guidance_scale=scale,
            seed=0,
            preview=preview,
            reproducibility=reproducibility,
        )
        # Not by ``works``: what is remembered would not be timed.
        return self._works(resolve(wish, limits, draw_seed=int))[0]

    def _limits(self, directory: Path, network: Network, tables: SamplerTables) -> RequestLimits:
        width, height = network.default_size
        most = self._bounds.max_pixels or 4 * width * height
        steps, guidance_scale = directory_defaults(directory, self._defaults)
        return RequestLimits(
            samplers=tables.usable(),
            default_sampler=tables.default(),
            default_width=width,
            default_height=height,
            size_multiple=network.size_multiple,
            max_pixels=max(most, width * height),
            default_steps=min(steps, self._bounds.max_steps),
            default_guidance_scale=guidance_scale,
            max_steps=self._bounds.max_steps,
            max_count=self._bounds.max_count,
            max_clip_skip=network.max_clip_skip,
            image_prompts=network.image_adapter is not None,
        )


def _pinned(order: Order, outfit: Outfit, nets: Sequence[ControlNet]) -> Order:
    worn = zip(order.adapters, outfit, strict=True)
    used = zip(order.controls, nets, strict=True)
    return replace(
        order,
        adapters=tuple(adapter_uses.pinned(use, it.adapter.digest) for use, it in worn),
        controls=tuple(control_uses.pinned(use, net.digest) for use, net in used),
    )


def directory_defaults(
    directory: Path, given: Defaults, *, otherwise: tuple[int, float] = (20, 7.5)
) -> tuple[int, float]:
    """Steps and guidance scale: as given, of the directory's ``easel.json``, or ``otherwise``."""
    path = directory / DEFAULTS_FILE
    own = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    steps = given.steps or int(own.get("default_steps", otherwise[0]))
    scale = given.guidance_scale
    if scale is None:
        scale = float(own.get("default_guidance_scale", otherwise[1]))
    return steps, scale
