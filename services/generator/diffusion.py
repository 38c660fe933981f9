"""Pictures as rows of the engine: ``encode``, ``canvas`` where a picture is given, ``style`` where
one is read as a prompt, ``denoise`` step by step, ``decode``.

Rows of different modes, prompts, step counts, guidance, seeds and samplers share every batch of one
latent size: a row brings its own timestep, its own sampler table and its own noise.

An exact row goes through every network by itself, in the one shape that its own request gives it.
Libraries choose their kernels, and with them the order of their sums, by shape: in float32 the
U-Net's last bits follow the batch, in bfloat16 the decoder's do.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Final, NamedTuple

import numpy as np
import torch
from PIL import Image

from services.accelerator import placed, watched
from services.core.engine import RowFailed, Stage
from services.core.errors import ModelFault
from services.generator.attention import ImagePrompt, Sharing
from services.generator.canvas import Canvas, Scan, StylePrompt
from services.generator.encoding import PromptEncoder
from services.generator.lora import Outfit, outfit_order
from services.generator.modes import Inpaint, Stylize
from services.generator.network import (
    Conditioning,
    Feature,
    Look,
    Network,
    Pixels,
    Residuals,
)
from services.generator.outer import Deep
from services.generator.overlay import Overlay
from services.generator.preview import LatentProjection
from services.generator.request import Order, PreviewMethod
from services.generator.safety import SafetyChecker
from services.generator.samplers import SamplerTable
from services.generator.steering import Control, residuals
from services.generator.step_cache import legs
from services.generator.stylization import Company, match_weight, matched
from services.generator.text import Prompts
from services.generator.tiles import Grid, Mosaic, WeighedTile
from services.generator.tiny_decoder import TinyDecoder
from services.memory import memory_faults

ENCODE: Final = "encode"
CANVAS: Final = "canvas"
STYLE: Final = "style"
DENOISE: Final = "denoise"
DENOISE_OUTER: Final = "denoise_outer"
PREVIEW: Final = "preview"
TINY_PREVIEW: Final = "tiny_preview"
CHECKED_PREVIEW: Final = "checked_preview"
DECODE: Final = "decode"
_EXACT: Final = "exact"


@dataclass(frozen=True, slots=True)
class Kept:
    """What an inpainting keeps of the given picture: ``given`` and ``noise`` (C, h, w) outside of
    ``mask`` (1, h, w).
    """

    mask: torch.Tensor
    given: torch.Tensor
    noise: torch.Tensor

    def around(self, painted: torch.Tensor, of_given: float, of_noise: float) -> torch.Tensor:
        """``painted`` (C, h, w) in the mask, and the picture so noisy around it."""
        kept = of_given * self.given + of_noise * self.noise
        return torch.where(self.mask > 0.5, painted, kept)


class Developed(NamedTuple):
    """``whole``: uint8 (H, W, 3), a picture that is there; else ``tile`` is one on its way."""

    whole: Pixels | None
    tile: WeighedTile | None = None


@dataclass(slots=True)
class PictureWork:
    """One picture on its way, with all the state it has.

    ``basis``: float32 (K, C, h, w), the vectors that ``table`` weighs; ``weights``: the table's
    ``inputs`` beside it on the device. The first step allocates both.
    ``evaluations``: how often the U-Net has looked at it. ``default_area``: latents of a picture
    of the model's own default size. ``time_ids``: float32 (1 or 2, N), the sizes it is told,
    where it is. ``outfit``: the adapters it wears. ``controls``: what steers it. ``company``: the
    style that it goes with, once begun. ``tiles``: how it goes through the autoencoder, if not
    whole; ``mosaic``: what they make.
    ``deep``: (entries, C', h, w), what its outermost layers were handed in its last whole look.
    """

    order: Order
    seed: int
    prompts: Prompts
    table: SamplerTable
    latent_shape: tuple[int, int, int]
    default_area: int
    time_ids: torch.Tensor | None = None
    canvas: Canvas | None = None
    outfit: Outfit = ()
    controls: tuple[Control, ...] = ()
    deep: torch.Tensor | None = None
    tiles: Grid | None = None
    mosaic: Mosaic | None = None
    kept: Kept | None = None
    seen: torch.Tensor | None = None
    generator: torch.Generator = field(init=False)
    basis: torch.Tensor | None = None
    weights: torch.Tensor | None = None
    company: Company | None = None
    evaluations: int = 0

    @property
    def area(self) -> float:
        """Latents, relative to a picture of the default size."""
        _, height, width = self.latent_shape
        return height * width / self.default_area

    @property
    def overlay(self) -> Overlay | None:
        return None if self.canvas is None else self.canvas.overlay

    @property
    def needs(self) -> frozenset[Feature]:
        """The inputs of its looks beyond the plain ones."""
        given = {
            Feature.ADDED: self.time_ids is not None,
            Feature.ADAPTERS: bool(self.outfit),
            Feature.DEEP: self.order.cache_interval > 1,
            Feature.STYLE: self.accompanied,
            Feature.IMAGE_PROMPT: self.style_prompt is not None,
            Feature.RESIDUALS: bool(self.controls),
        }
        return frozenset(feature for feature, there in given.items() if there)

    @property
    def keeps_deep(self) -> bool:
        """Whether the evaluation after the one that is due runs the outer layers alone."""
        following = self.evaluations + 1
        return following < self.table.evaluations and following % self.order.cache_interval != 0

    @property
    def accompanied(self) -> bool:
        """Whether a style goes through the U-Net beside it."""
        return self.canvas is not None and self.canvas.style is not None

    @property
    def style_prompt(self) -> StylePrompt | None:
        return None if self.canvas is None else self.canvas.style_prompt

    @property
    def entries(self) -> int:
        """Its places in a batch: one a text, and one for its company."""
        return self.prompts.texts + self.accompanied

    @property
    def cost(self) -> float:
        """Of one look at it, relative to a look at one text of the default size."""
        evaluations = self.table.evaluations
        steering = sum(control.cost(evaluations) for control in self.controls)
        return (self.entries + self.prompts.texts * steering) * self.area

    @property
    def acting(self) -> list[Control]:
        """The controls that act in the evaluation that is due."""
        return [
            each for each in self.controls if each.acts(self.evaluations, self.table.evaluations)
        ]

    @property
    def steps_done(self) -> int:
        return self.table.steps_done(self.evaluations)

    @property
    def preview_evaluations(self) -> tuple[int, ...]:
        """The evaluations that previews follow."""
        return tuple(self.table.evaluations_for(step) for step in self.order.preview_steps)

    def preview_is_due(self, method: PreviewMethod) -> bool:
        """Whether one of this method follows the latest evaluation; asked after each of them."""
        step = self.steps_done
        return (
            self.order.preview_method is method
            and step in self.order.preview_steps
            and self.table.evaluations_for(step) == self.evaluations
        )

    def begin(self, device: torch.device) -> None:
        """Take room on the device, and make what the picture starts from."""
        if self.basis is None:
            # Seeded here, so that a begin that ran out of memory can be made again.
            self.generator = torch.Generator("cpu").manual_seed(self.seed)
            self.weights = placed(self.table.inputs, device)
            shape = (self.table.width, *self.latent_shape)
            basis = torch.empty(shape, dtype=torch.float32, device=device)
            basis[0] = self._start(device)
            self.basis = basis

    def look(self, evaluation: int) -> torch.Tensor:
        """(C, h, w): the latents at ``evaluation`` in the U-Net's scale; clean after the last."""
        assert self.basis is not None
        assert self.weights is not None
        filled = self.table.filled(evaluation)
        weighed: torch.Tensor = self.weights[evaluation, :filled] @ self.basis[:filled].flatten(1)
        latents = weighed.view(self.latent_shape)
        # As in StableDiffusionInpaintPipeline, the first look is at what it starts from.
        if self.kept is None or evaluation == 0:
            return latents
        return self.kept.around(latents, *self.table.kept[evaluation].tolist())

    def view(self) -> torch.Tensor:
        """(C_in, h, w): all that the U-Net sees at the evaluation that is due."""
        return self.with_seen(self.look(self.evaluations))

    def with_seen(self, latents: torch.Tensor) -> torch.Tensor:
        """(C_in, h, w): ``latents`` and what the U-Net sees beside them."""
        return latents if self.seen is None else torch.cat([latents, self.seen])

    def advance(self, output: torch.Tensor) -> None:
        """Take the U-Net's ``output`` (C, h, w) for the evaluation that is due."""
        assert self.basis is not None
        self.basis[self.table.outputs[self.evaluations]] = output
        noise = self.table.noises[self.evaluations]
        if noise is not None:
            self.basis[noise] = placed(self._draw(), self.basis.device)
        self.evaluations += 1

    def predicted_clean(self) -> torch.Tensor:
        """(C, h, w): the clean latents, as the latest evaluation predicts them."""
        assert self.basis is not None
        latest = self.evaluations - 1
        of_input, of_output = self.table.clean[latest].tolist()
        clean: torch.Tensor = of_output * self.basis[self.table.outputs[latest]]
        clean += of_input * self.look(latest)
        return clean if self.kept is None else self.kept.around(clean, 1.0, 0.0)

    def next_tile(self, latents: torch.Tensor, factor: int) -> torch.Tensor:
        """(C, h, w): what of ``latents`` is decoded next, with ``factor`` pixels to a latent."""
        if self.tiles is None:
            return latents
        if self.mosaic is None:
            self.mosaic = Mosaic.empty(self.tiles, 3, factor, torch.device("cpu"))
        return self.tiles.cut(latents, self.mosaic.done)

    def developed(self, pixels: Pixels) -> Developed:
        """What was decoded, uint8 (H, W, 3), makes; the work is as it was until it is kept."""
        if self.mosaic is None:
            return Developed(pixels)
        tile = self.mosaic.weighed(torch.from_numpy(pixels).permute(2, 0, 1))
        if not self.mosaic.lacks_one:
            return Developed(None, tile)
        levels = self.mosaic.completed(tile).round().to(torch.uint8).permute(1, 2, 0)
        return Developed(levels.contiguous().numpy())

    def keep(self, developed: Developed) -> None:
        """Go on from there. Takes no memory."""
        if developed.tile is None:
            self.mosaic = None
        else:
            assert self.mosaic is not None, "it is what the tile belongs to"
            self.mosaic.lay(developed.tile)

    def _start(self, device: torch.device) -> torch.Tensor:
        """(C, h, w); draws in the order of diffusers' pipelines."""
        canvas = self.canvas
        if canvas is None:
            return placed(self._draw(), device)
        given = None if canvas.picture is None else canvas.picture.latents(self._draw())
        noise = placed(self._draw(), device)
        mode = self.order.mode
        # StableDiffusionInpaintPipeline encodes the surroundings also where its U-Net sees none.
        nothing = torch.zeros(self.latent_shape, dtype=torch.float32)
        surrounding = self._draw() if isinstance(mode, Inpaint) else nothing
        if canvas.mask is not None:
            mask = placed(canvas.mask, device)
            if canvas.surroundings is not None:
                self.seen = torch.cat([mask, canvas.surroundings.latents(surrounding)])
            elif given is not None:
                self.kept = Kept(mask, given, noise)
        if given is not None and canvas.style is not None:
            given = self._accompany(given, canvas.style)
        if given is None or (isinstance(mode, Inpaint) and mode.strength == 1.0):
            return noise
        of_given, of_noise = self.table.start
        return of_given * given + of_noise * noise

    def _accompany(self, given: torch.Tensor, style: Scan) -> torch.Tensor:
        assert isinstance(self.order.mode, Stylize)
        latents = style.mean()
        self.company = Company(latents, placed(self._draw(), latents.device))
        return matched(given, latents, match_weight(self.order.mode))

    def _draw(self) -> torch.Tensor:
        # Always from the processor, in StableDiffusionPipeline's order: the same on every device.
        shape = (1, *self.latent_shape)
        return torch.randn(shape, generator=self.generator, dtype=torch.float32)[0]


@dataclass(frozen=True, slots=True)
class Picture:
    """``pixels``: uint8 (H, W, 3), after ``step`` whole steps; a preview unless ``final``.
    ``overlay``: how they go back into the picture they were painted on.
    """

    pixels: Pixels
    step: int
    final: bool
    overlay: Overlay | None = None

    def image(self) -> Image.Image:
        """RGB, or RGBA where it goes into a picture that has alpha. Blocking."""
        if self.overlay is None:
            return Image.fromarray(self.pixels)
        return self.overlay.apply(self.pixels)


@dataclass(frozen=True, slots=True)
class Withheld:
    """In a finished picture's place: the model's safety checker keeps it back."""

    reason: str


Result = Picture | Withheld
Answer = Result | None | RowFailed
Decode = Callable[[torch.Tensor], Pixels]
Checked = tuple[Pixels | None, str | None]
"""Pixels, where they are there, and why they are not to be shown, if so."""


class Diffusion:
    """Plans and steps pictures on one network. ``safety`` is asked of all that is shown; ``tiny``
    decodes the fast previews, which are projected without it.
    """

    def __init__(
        self,
        network: Network,
        encoder: PromptEncoder,
        safety: SafetyChecker | None = None,
        tiny: TinyDecoder | None = None,
    ) -> None:
        self._network = network
        self._encoder = encoder
        self._safety = safety
        self._tiny = tiny
        self._projection = LatentProjection.fit(network) if tiny is None else None

    @property
    def stages_fast_previews(self) -> bool:
        """Whether a fast preview is a stage of its own."""
        return bool(self._preview_stage(PreviewMethod.FAST))

    @property
    def fast_preview(self) -> str:
        """What makes the fast previews, in words."""
        if self._tiny is None:
            return "linear projection of the latents, fitted at load"
        return f"tiny decoder '{self._tiny.name}', {self._tiny.factor} pixels to a latent's side"

    def plan(self, work: PictureWork) -> list[Stage]:
        """Exact rows share no tick with close ones: it would take a call for each of them anyway,
        and keys of their own have costs of their own to be learned.
        """
        stages = self._stages(work)
        if not work.order.exact:
            return stages
        return [replace(stage, key=(stage.key, _EXACT)) for stage in stages]

    def step(self, stage: Stage, works: Sequence[PictureWork]) -> Sequence[Answer]:
        """Raises ``OutOfMemory`` with every work as it was before the call, and ``DeviceLost``."""
        with torch.inference_mode(), watched(self._network.finish):
            if works[0].order.exact:
                answers = [self._alone(stage, work) for work in works]
            else:
                answers = list(self._together(stage, works))
            # What a step costs is told by when it ends, and a GPU's ends after its calls.
            self._network.finish()
            return answers

    def _stages(self, work: PictureWork) -> list[Stage]:
        size = work.latent_shape[1:]
        route = self._network.route(work.needs, size)
        shape = (route, *size, work.prompts.sequence_length)
        cost = work.cost
        part, parts, part_area = _parts(work)
        stages, done = list(_openings(work)), 0
        name = self._preview_stage(work.order.preview_method)
        stops = work.preview_evaluations if name else ()
        shown = Stage(name, (name, *part), part_area, parts)
        if name == CHECKED_PREVIEW:
            shown = Stage(name, (name,))  # whole, and of whatever size: checkers read them in one
        for stop in stops:
            stages += [*_denoising(work, shape, cost, done, stop), shown]
            done = stop
        stages += _denoising(work, shape, cost, done, work.table.evaluations)
        return [*stages, Stage(DECODE, (DECODE, *part), part_area, parts)]

    def _preview_stage(self, method: PreviewMethod) -> str:
        """The stage that makes such previews; none where they are made within the steps."""
        if method is PreviewMethod.DECODED:
            return PREVIEW
        if self._tiny is not None:
            return TINY_PREVIEW
        # Projecting costs a step nothing that it would tell; asking a checker does.
        return "" if self._safety is None else CHECKED_PREVIEW

    def _alone(self, stage: Stage, work: PictureWork) -> Answer:
        try:
            return self._together(stage, [work])[0]
        except Exception as error:  # those that were stepped before it must not be stepped again
            return RowFailed(error)

    def _together(self, stage: Stage, works: Sequence[PictureWork]) -> Sequence[Answer]:
        with memory_faults():
            match stage.name:
                case "encode":
                    return self._encode(works)
                case "canvas":
                    return self._canvas(works)
                case "style":
                    return self._style(works)
                case "denoise" | "denoise_outer":
                    return self._denoise(works, whole=stage.name == DENOISE)
                case "preview":
                    return self._preview(works)
                case "tiny_preview":
                    return self._tiny_preview(works)
                case "checked_preview":
                    return self._checked_preview(works)
                case _:
                    return self._decode(works)

    def _encode(self, works: Sequence[PictureWork]) -> list[Answer]:
        # The pictures of one request share their prompts.
        due = {id(work.prompts): work.prompts for work in works}
        self._encoder.encode(list(due.values()), remember=not works[0].order.exact)
        return [None] * len(works)

    def _canvas(self, works: Sequence[PictureWork]) -> list[Answer]:
        # The pictures of one request share their canvas.
        scans = {
            id(scan): (scan, work.tiles)
            for work in works
            if work.canvas is not None
            for scan in work.canvas.scans
            if scan.posterior is None
        }
        if scans:
            factor = self._network.vae_factor
            parts = [scan.part(tiles, factor) for scan, tiles in scans.values()]
            found = self._network.posterior(torch.stack(parts))
            for index, (scan, tiles) in enumerate(scans.values()):
                scan.take(tiles, found[index])
        return [None] * len(works)

    def _style(self, works: Sequence[PictureWork]) -> list[Answer]:
        # The pictures of one request share their style.
        prompts = [work.style_prompt for work in works if work.style_prompt is not None]
        due = {id(prompt): prompt for prompt in prompts if prompt.tokens is None}
        pixels = [prompt.pixels for prompt in due.values() if prompt.pixels is not None]
        if pixels:
            assert self._network.image_adapter is not None, "it has prepared the pixels"
            read = self._network.image_adapter.tokens(torch.stack(pixels))
            for prompt, tokens in zip(due.values(), read, strict=True):
                prompt.take(tokens)
        return [None] * len(works)

    def _denoise(self, works: Sequence[PictureWork], *, whole: bool) -> list[Answer]:
        # Rows of one outfit side by side: they are multiplied together.
        order = sorted(range(len(works)), key=lambda index: outfit_order(works[index].outfit))
        side_by_side = [works[index] for index in order]
        answers = dict(zip(order, self._advance(side_by_side, whole=whole), strict=True))
        return [answers[index] for index in range(len(works))]

    def _advance(self, works: Sequence[PictureWork], *, whole: bool) -> list[Answer]:
        device = self._network.device
        for work in works:
            work.begin(device)
        told = [_encoded(work) for work in works]
        entries = torch.tensor([work.entries for work in works])
        times = torch.stack([work.table.timesteps[work.evaluations] for work in works])
        deep = _deep(works, whole=whole)
        look = Look(
            latents=torch.cat([_seen(work) for work in works]),
            timesteps=placed(times.repeat_interleave(entries), device),
            context=torch.cat(
                [_each(work, read.context) for work, read in zip(works, told, strict=True)]
            ),
            pooled=_joined(works, [read.pooled for read in told], device),
            time_ids=_joined(works, [work.time_ids for work in works], device),
            style=_sharing(works, device),
            image_prompt=self._image_prompt(works),
            adapters=_repeated([work.outfit for work in works], entries.tolist()),
            deep=deep,
        )
        outputs = self._network.predict(replace(look, residuals=_steering(works, look)))
        if whole:
            _keep(deep, works, entries.tolist())
        with _undone_on_failure(works):
            for work, output in zip(works, torch.split(outputs, entries.tolist()), strict=True):
                work.advance(_guided(output[: work.prompts.texts], work.order))
            return self._fast_previews(works)

    def _image_prompt(self, works: Sequence[PictureWork]) -> ImagePrompt | None:
        """Every entry of a picture with a style prompt reads it, or what stands for no picture
        where it is what the other is told apart from; None when no picture has one.
        """
        adapter, device = self._network.image_adapter, self._network.device
        entries: list[int] = []
        tokens: list[torch.Tensor] = []
        scales: list[float] = []
        end = 0
        for work in works:
            first, end = end, end + work.entries
            prompt = work.style_prompt
            if prompt is not None:
                assert adapter is not None, "it has prepared the pixels"
                assert prompt.tokens is not None, "the style stage comes first"
                entries += range(first, end)
                tokens += [adapter.empty, prompt.tokens][-work.entries :]
                scales += [prompt.scale] * work.entries
        if not entries:
            return None
        return ImagePrompt(
            placed(torch.tensor(entries), device),
            torch.stack(tokens),
            placed(torch.tensor(scales, dtype=torch.float32), device),
        )

    def _fast_previews(self, works: Sequence[PictureWork]) -> list[Answer]:
        """Of those that are due, where they are made within the steps."""
        due = [work for work in works if work.preview_is_due(PreviewMethod.FAST)]
        if not due or self.stages_fast_previews:
            return [None] * len(works)
        shown = dict(zip(map(id, due), self._projected(due), strict=True))
        return [
            Picture(shown[id(work)], work.steps_done, final=False) if id(work) in shown else None
            for work in works
        ]

    def _projected(self, works: Sequence[PictureWork]) -> list[Pixels]:
        assert self._projection is not None, "nothing else makes fast previews"
        return self._projection.apply([work.predicted_clean() for work in works])

    def _preview(self, works: Sequence[PictureWork]) -> list[Answer]:
        network = self._network
        return self._shown(works, network.decode, network.vae_factor, whole=True)

    def _tiny_preview(self, works: Sequence[PictureWork]) -> list[Answer]:
        assert self._tiny is not None
        return self._shown(works, self._tiny.decode, self._tiny.factor, whole=False)

    def _checked_preview(self, works: Sequence[PictureWork]) -> list[Answer]:
        shown = self._projected(works)
        return _passed(works, list(zip(shown, self._reasons(shown), strict=True)), whole=False)

    def _shown(
        self, works: Sequence[PictureWork], decode: Decode, factor: int, *, whole: bool
    ) -> list[Answer]:
        """Previews; ``whole``: within the picture that they are painted on, where there is one."""
        clean = [work.predicted_clean() for work in works]
        return _passed(works, self._developed(works, clean, decode, factor), whole=whole)

    def _decode(self, works: Sequence[PictureWork]) -> list[Answer]:
        latents = [work.look(work.table.evaluations) for work in works]
        # Asked for only once the pictures are there: to ask is to wait.
        sound = torch.stack([each.isfinite().all() for each in latents])
        network = self._network
        developed = self._developed(works, latents, network.decode, network.vae_factor)
        return [
            _finished(work, shown, sound=fine, reason=reason)
            for work, (shown, reason), fine in zip(works, developed, sound.tolist(), strict=True)
        ]

    def _developed(
        self,
        works: Sequence[PictureWork],
        latents: Sequence[torch.Tensor],
        decode: Decode,
        factor: int,
    ) -> list[Checked]:
        """Each one's pixels; of one that goes in tiles after the last of them, None before."""
        parts = [work.next_tile(each, factor) for work, each in zip(works, latents, strict=True)]
        decoded = zip(works, decode(torch.stack(parts)), strict=True)
        developed = [work.developed(pixels) for work, pixels in decoded]
        shown = [each.whole for each in developed]
        reasons = self._reasons(shown)
        # Not before the checker has answered: it too may run out of memory.
        for work, each in zip(works, developed, strict=True):
            work.keep(each)
        return list(zip(shown, reasons, strict=True))

    def _reasons(self, pictures: Sequence[Pixels | None]) -> list[str | None]:
        reasons: list[str | None] = [None] * len(pictures)
        if self._safety is None:
            return reasons
        by_size: dict[tuple[int, ...], list[tuple[int, Pixels]]] = {}
        for index, pixels in enumerate(pictures):
            if pixels is not None:
                by_size.setdefault(pixels.shape, []).append((index, pixels))
        for alike in by_size.values():
            found = self._safety.reasons(np.stack([pixels for _, pixels in alike]))
            for (index, _), reason in zip(alike, found, strict=True):
                reasons[index] = reason
        return reasons


def _openings(work: PictureWork) -> Iterator[Stage]:
    """Of what the pictures of one request share, so that it is made once for all of them."""
    windows, canvas, style = work.prompts.missing_windows, work.canvas, work.style_prompt
    if windows:
        yield Stage(ENCODE, (ENCODE,), float(windows), shared=id(work.prompts))
    if canvas is not None:
        part, parts, area = _parts(work)
        cost = area * len(canvas.scans)
        yield Stage(CANVAS, (CANVAS, *part), cost, parts, shared=id(canvas))
    if style is not None:
        yield Stage(STYLE, (STYLE,), shared=id(style))


def _parts(work: PictureWork) -> tuple[tuple[int, int], int, float]:
    """What goes through the autoencoder at a time: its size (h, w) in latents, how many of those
    make the picture, and their area relative to a picture of the default size.
    """
    _, height, width = work.latent_shape
    # A tile is to the autoencoder what a picture of its size is.
    part, parts = (height, width), 1
    if work.tiles is not None:
        part, parts = work.tiles.tile, work.tiles.count
    return part, parts, part[0] * part[1] / work.default_area


def _passed(
    works: Sequence[PictureWork], checked: Sequence[Checked], *, whole: bool
) -> list[Answer]:
    # One that is flagged is not shown; the picture itself may yet turn out another.
    return [
        Picture(shown, work.steps_done, final=False, overlay=work.overlay if whole else None)
        if shown is not None and reason is None
        else None
        for work, (shown, reason) in zip(works, checked, strict=True)
    ]


def _finished(
    work: PictureWork, pixels: Pixels | None, *, sound: bool, reason: str | None
) -> Answer:
    if not sound:
        return RowFailed(ModelFault("The picture broke down to values that are no numbers."))
    if pixels is None:
        return None
    if reason:
        return Withheld(reason)
    return Picture(pixels, work.table.steps, final=True, overlay=work.overlay)


def _denoising(
    work: PictureWork, shape: tuple[Hashable, ...], cost: float, begin: int, end: int
) -> Iterator[Stage]:
    for leg in legs(begin, end, work.order.cache_interval):
        name = DENOISE if leg.whole else DENOISE_OUTER
        yield Stage(name, (name, *shape), cost, leg.evaluations)


@contextmanager
def _undone_on_failure(works: Sequence[PictureWork]) -> Iterator[None]:
    """Takes back the evaluations and the random numbers; what lies in a basis beyond the
    evaluations made is never read.
    """
    before = [(work, work.evaluations, work.generator.get_state()) for work in works]
    try:
        yield
    except BaseException:
        for work, evaluations, state in before:
            work.evaluations = evaluations
            work.generator.set_state(state)
        raise


def _encoded(work: PictureWork) -> Conditioning:
    assert work.prompts.encoded is not None, "encode comes first"
    return work.prompts.encoded


def _seen(work: PictureWork) -> torch.Tensor:
    """(entries, C, h, w): the picture once a text, then its company as noisy as it is."""
    picture = work.view()[None].expand(work.prompts.texts, -1, -1, -1)
    if work.company is None:
        return picture
    beside = work.company.look(*work.table.kept[work.evaluations].tolist())
    return torch.cat([picture, work.with_seen(beside)[None]])


def _each(work: PictureWork, told: torch.Tensor) -> torch.Tensor:
    """(texts, ...) to (entries, ...): company reads what the picture is to become."""
    return torch.cat([told, told[-1:]]) if work.accompanied else told


def _joined(
    works: Sequence[PictureWork], parts: Sequence[torch.Tensor | None], device: torch.device
) -> torch.Tensor | None:
    """All of one model: either every row has it or none."""
    present = [
        _each(work, part) for work, part in zip(works, parts, strict=True) if part is not None
    ]
    return placed(torch.cat(present), device) if present else None


def _repeated(outfits: Sequence[Outfit], copies: Sequence[int]) -> tuple[Outfit, ...] | None:
    """Each as often as its copies; None when nobody wears anything."""
    if not any(outfits):
        return None
    each = zip(outfits, copies, strict=True)
    return tuple(outfit for outfit, entries in each for _ in range(entries))


def _deep(works: Sequence[PictureWork], *, whole: bool) -> Deep | None:
    if whole:
        # Also where nobody keeps it: what a look needs must not hang on its company.
        return Deep() if any(Feature.DEEP in work.needs for work in works) else None
    kept = [work.deep for work in works if work.deep is not None]
    assert len(kept) == len(works), "a whole look comes first"
    return Deep(torch.cat(kept))


def _keep(deep: Deep | None, works: Sequence[PictureWork], copies: list[int]) -> None:
    if deep is None:
        for work in works:
            work.deep = None
        return
    assert deep.feature is not None, "the network leaves it there"
    for work, feature in zip(works, torch.split(deep.feature, copies), strict=True):
        # A copy, so that the rest of the batch's is let go.
        work.deep = feature.clone() if work.keeps_deep else None


def _steering(works: Sequence[PictureWork], look: Look) -> Residuals | None:
    """Of every picture's own copies, not of its company; None when no picture has controls."""
    if not any(work.controls for work in works):
        return None
    asked, end = [], 0
    for work in works:
        first, end = end, end + work.entries
        asked += [(range(first, first + work.prompts.texts), each) for each in work.acting]
    return residuals(look, asked)


def _sharing(works: Sequence[PictureWork], device: torch.device) -> Sharing | None:
    """Every entry of a picture in company looks at its company; None when no picture has any."""
    shares: list[tuple[int, int, float]] = []
    end = 0
    for work in works:
        first, end = end, end + work.entries
        if work.accompanied:
            assert isinstance(work.order.mode, Stylize)
            weight = work.order.mode.style_strength
            shares += [(entry, end - 1, weight) for entry in range(first, end - 1)]
    if not shares:
        return None
    borrowers, lenders, weights = zip(*shares, strict=True)
    return Sharing(
        placed(torch.tensor(borrowers), device),
        placed(torch.tensor(lenders), device),
        placed(torch.tensor(weights, dtype=torch.float32), device),
    )


def _guided(output: torch.Tensor, order: Order) -> torch.Tensor:
    """(1 or 2, C, h, w) to (C, h, w): classifier-free guidance (Ho & Salimans, 2022, eq. 6), then
    the rescaling of Lin et al. (2024), eq. 15 and 16.
    """
    if len(output) == 1:
        return output[0]
    against, towards = output
    guided: torch.Tensor = against + order.guidance_scale * (towards - against)
    if order.guidance_rescale == 0.0:
        return guided
    rescaled: torch.Tensor = guided * (towards.std() / guided.std())
    return order.guidance_rescale * rescaled + (1.0 - order.guidance_rescale) * guided
