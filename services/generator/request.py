"""A request, checked and resolved: every default filled in, every limit held.

Pure: no model, no clock; the one random thing, the seed, is handed in.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from enum import Enum

from services.core.errors import InvalidInput
from services.generator.adapters import AdapterUse, checked
from services.generator.controls import ControlUse, checked_controls
from services.generator.modes import (
    TEXT_TO_IMAGE,
    ImageToImage,
    Inpaint,
    Mode,
    Record,
    Stylize,
    TextToImage,
)
from services.generator.samplers import Sampler
from services.generator.step_cache import checked_interval
from services.generator.stylization import share_of_steps

MAX_ID_BYTES = 128
MAX_GUIDANCE_SCALE = 100.0
SEEDS = 2**64
MAX_FEATHER_PX = 128
# Longest side in pixels that a file of the format can have.
MAX_SIDES = {"PNG": 2**31 - 1, "JPEG": 65_500, "WEBP": 16_383}


class LongPrompt(Enum):
    """What to do with a prompt that has more tokens than the text encoder reads."""

    ERROR = "error"
    TRUNCATE = "truncate"
    CHUNK = "chunk"


class Reproducibility(Enum):
    """``CLOSE``: within 2/255 whatever the batch. ``EXACT``: the same bytes alone and in any
    company, on the same class of device.
    """

    CLOSE = "close"
    EXACT = "exact"


class PreviewMethod(Enum):
    FAST = "fast"
    DECODED = "decoded"


@dataclass(frozen=True, slots=True)
class RequestLimits:
    """What one model takes. Sizes in pixels; ``default_sampler`` is one of ``samplers``.

    ``scheduler``: the class of the scheduler that the model always runs with, where it has no
    choice of samplers; the two fields mean nothing then. ``image_prompts``: whether a style is
    read as the prompt is, so that guidance goes towards it.
    """

    samplers: tuple[Sampler, ...]
    default_sampler: Sampler
    default_width: int
    default_height: int
    size_multiple: int
    max_pixels: int
    default_steps: int
    default_guidance_scale: float
    max_steps: int = 150
    max_count: int = 16
    max_prompt_bytes: int = 16 * 1024
    scheduler: str = ""
    max_clip_skip: int = 0
    image_prompts: bool = False


@dataclass(frozen=True, slots=True)
class ImageFormat:
    """``name`` is PNG, JPEG or WEBP; ``quality`` 1 to 100, or None for the format's default."""

    name: str = "PNG"
    quality: int | None = None


@dataclass(frozen=True, slots=True)
class PreviewWish:
    """Previews after every ``every`` steps (0: none) and after each of ``at_steps``."""

    every: int = 0
    at_steps: tuple[int, ...] = ()
    method: PreviewMethod = PreviewMethod.FAST
    output: ImageFormat = ImageFormat()


@dataclass(frozen=True, slots=True)
class Wish:
    """A request as it was asked; None, 0 and empty mean the default."""

    id: str = ""
    mode: Mode = TEXT_TO_IMAGE
    prompt: str = ""
    negative_prompt: str = ""
    width: int = 0
    height: int = 0
    steps: int | None = None
    guidance_scale: float | None = None
    guidance_rescale: float = 0.0
    sampler: Sampler | None = None
    seed: int | None = None
    seeds: tuple[int, ...] = ()
    count: int = 0
    preview: PreviewWish = PreviewWish()
    output: ImageFormat = ImageFormat()
    long_prompt: LongPrompt = LongPrompt.ERROR
    reproducibility: Reproducibility = Reproducibility.CLOSE
    allow_degrade: bool = False
    prompt_weighting: bool = False
    clip_skip: int = 0
    omit_steps: bool = False
    omit_metadata: bool = False
    in_step: bool = False
    adapters: tuple[AdapterUse, ...] = ()
    controls: tuple[ControlUse, ...] = ()
    cache_interval: int = 0
    tiled: bool = False


@dataclass(frozen=True, slots=True)
class Order:
    """A request as it will be made: ``len(seeds)`` pictures, all limits held.

    ``steps`` are those that the sampler would run from noise; the first ``begin`` are left out.
    ``preview_steps`` are strictly rising, 1 to ``steps_taken``. ``width`` and ``height`` are what
    is painted; both are settled once the given pictures are decoded, which ``given`` tells of.
    ``scheduler``: as in ``RequestLimits``; ``sampler`` means nothing where it is set.
    ``degraded``: it has fewer steps than were asked for, to meet its deadline, as was allowed.
    """

    id: str
    mode: Mode
    prompt: str
    negative_prompt: str
    width: int
    height: int
    steps: int
    guidance_scale: float
    guidance_rescale: float
    sampler: Sampler
    seeds: tuple[int, ...]
    preview_steps: tuple[int, ...]
    preview_method: PreviewMethod
    preview_output: ImageFormat
    output: ImageFormat
    long_prompt: LongPrompt
    reproducibility: Reproducibility
    allow_degrade: bool
    prompt_weighting: bool
    clip_skip: int
    omit_steps: bool
    omit_metadata: bool
    in_step: bool
    adapters: tuple[AdapterUse, ...] = ()
    controls: tuple[ControlUse, ...] = ()
    cache_interval: int = 1
    tiled: bool = False
    given: tuple[Record, ...] = ()
    scheduler: str = ""
    degraded: bool = False

    @property
    def picture_size(self) -> tuple[int, int]:
        """Of the answer: an inpainting goes back into the picture that was given."""
        if isinstance(self.mode, Inpaint):
            return self.given[0].width, self.given[0].height
        return self.width, self.height

    @property
    def begin(self) -> int:
        return self.steps - steps_taken(self.mode, self.steps)

    @property
    def steps_taken(self) -> int:
        return self.steps - self.begin

    @property
    def guided(self) -> bool:
        """Whether each step also looks at the negative prompt (Ho & Salimans, 2022)."""
        return self.guidance_scale > 1.0

    @property
    def exact(self) -> bool:
        return self.reproducibility is Reproducibility.EXACT


def resolve(wish: Wish, limits: RequestLimits, *, draw_seed: Callable[[], int]) -> Order:
    """Fill in the defaults and check every limit.

    Raises ``InvalidInput`` with the request's field, the limit and what was given.
    """
    _check_bytes("id", wish.id, MAX_ID_BYTES)
    _check_bytes("prompt", wish.prompt, limits.max_prompt_bytes)
    _check_bytes("negative_prompt", wish.negative_prompt, limits.max_prompt_bytes)
    steps = limits.default_steps if wish.steps is None else wish.steps
    _check_range("steps", steps, 1, limits.max_steps)
    _check_mode(wish.mode, steps)
    guidance = _guidance(wish, limits)
    _check_range("guidance_scale", guidance, 0.0, MAX_GUIDANCE_SCALE)
    _check_range("guidance_rescale", wish.guidance_rescale, 0.0, 1.0)
    _check_range("clip_skip", wish.clip_skip, 0, limits.max_clip_skip)
    _check_format("output", wish.output)
    _check_format("preview.output", wish.preview.output)
    order = Order(
        id=wish.id,
        mode=wish.mode,
        prompt=wish.prompt,
        negative_prompt=wish.negative_prompt,
        width=wish.width,
        height=wish.height,
        steps=steps,
        guidance_scale=guidance,
        guidance_rescale=wish.guidance_rescale,
        sampler=_sampler(wish.sampler, limits),
        seeds=_seeds(wish, limits, draw_seed),
        preview_steps=_preview_steps(wish.preview, steps_taken(wish.mode, steps)),
        preview_method=wish.preview.method,
        preview_output=wish.preview.output,
        output=wish.output,
        long_prompt=wish.long_prompt,
        reproducibility=wish.reproducibility,
        allow_degrade=wish.allow_degrade,
        prompt_weighting=wish.prompt_weighting,
        clip_skip=wish.clip_skip,
        omit_steps=wish.omit_steps,
        omit_metadata=wish.omit_metadata,
        in_step=wish.in_step,
        adapters=checked(wish.adapters),
        controls=_controls(wish),
        scheduler=limits.scheduler,
        cache_interval=checked_interval(wish.cache_interval),
        tiled=wish.tiled,
    )
    if isinstance(wish.mode, TextToImage):
        return _sized(order, (limits.default_width, limits.default_height), limits)
    for field, side in (("width", wish.width), ("height", wish.height)):
        if side:
            _check_side(field, side, limits)
    return order


def settle(order: Order, given: tuple[Record, ...], limits: RequestLimits) -> Order:
    """``order`` once its given pictures are decoded, of which the first is what is painted on.

    Sides that were not asked for follow that picture: its own size, shrunk in proportion until it
    has at most ``limits.max_pixels``, each side then rounded down to a multiple of
    ``limits.size_multiple``. A side that was asked for alone brings the other in proportion.
    An inpainting that zooms takes the model's own size instead.
    Raises ``InvalidInput`` as ``resolve`` does.
    """
    order = replace(order, given=given)
    picture = given[0]
    if not isinstance(order.mode, Inpaint):
        return _sized(order, _fitted(order, (picture.width, picture.height), limits), limits)
    for output in (order.output, order.preview_output):
        _check_fits(output, order.picture_size, (picture.field, picture.field))
    if order.mode.padding_px is not None:
        return _sized(order, (limits.default_width, limits.default_height), limits)
    return _sized(order, _fitted(order, order.picture_size, limits), limits)


def steps_taken(mode: Mode, steps: int) -> int:
    """How many of ``steps`` are run: as StableDiffusionImg2ImgPipeline counts them, and by a
    stylization the nearest number, at least one.
    """
    match mode:
        case ImageToImage() | Inpaint():
            return min(int(steps * mode.strength), steps)
        case Stylize():
            return max(1, round(steps * share_of_steps(mode.content_strength)))
        case _:
            return steps


def check_indices(field: str, indices: Collection[int], count: int) -> None:
    """Raises ``InvalidInput`` unless every index names one of ``count`` pictures."""
    for index in indices:
        _check_range(field, index, 0, count - 1)


def _check_bytes(field: str, text: str, most: int) -> None:
    given = len(text.encode())
    if given > most:
        raise InvalidInput(field, f"{field} is too long.", f"{most} bytes", f"{given} bytes")


def _check_range(field: str, value: float, least: float, most: float) -> None:
    # Written so that NaN fails it too.
    if not least <= value <= most:
        raise InvalidInput(field, f"{field} is out of range.", f"{least} to {most}", value)


def _check_mode(mode: Mode, steps: int) -> None:
    match mode:
        case ImageToImage():
            _check_strength("image_to_image.strength", mode.strength, mode, steps)
        case Inpaint():
            _check_strength("inpaint.strength", mode.strength, mode, steps)
            _check_range("inpaint.feather_px", mode.feather_px, 0, MAX_FEATHER_PX)
        case Stylize():
            _check_range("stylize.content_strength", mode.content_strength, 0.0, 1.0)
            _check_range("stylize.style_strength", mode.style_strength, 0.0, 1.0)


def _check_strength(field: str, strength: float, mode: Mode, steps: int) -> None:
    if not 0.0 < strength <= 1.0:
        raise InvalidInput(field, f"{field} is out of range.", "above 0, up to 1", strength)
    if steps_taken(mode, steps) < 1:
        raise InvalidInput(
            field,
            f"{field} leaves less than one of the {steps} steps.",
            f"at least {1 / steps:.6g} with {steps} steps",
            f"{strength:g}",
        )


def _controls(wish: Wish) -> tuple[ControlUse, ...]:
    """Raises ``InvalidInput`` where what they steer is not there to be steered too."""
    uses = checked_controls(wish.controls)
    if uses and wish.cache_interval > 1:
        # The outermost layers run without what a net adds to them.
        raise InvalidInput(
            "cache_interval",
            "Steps cannot be cached where controls steer them.",
            "1 with controls",
            wish.cache_interval,
        )
    if uses and isinstance(wish.mode, Inpaint) and wish.mode.padding_px is not None:
        raise InvalidInput(
            "inpaint.padding_px",
            "An inpainting that zooms takes no controls: their pictures are of all of it.",
            "unset with controls",
            wish.mode.padding_px,
        )
    return uses


def _fitted(order: Order, picture: tuple[int, int], limits: RequestLimits) -> tuple[int, int]:
    width, height = picture
    multiple = limits.size_multiple

    def down(side: float) -> int:
        # The nudge keeps what is whole but for rounding.
        return max(int(side * (1 + 1e-9)) // multiple, 1) * multiple

    if order.width:
        return order.width, down(height * order.width / width)
    if order.height:
        return down(width * order.height / height), order.height
    shrink = min(1.0, math.sqrt(limits.max_pixels / (width * height)))
    longest = limits.max_pixels // multiple // multiple * multiple
    return min(down(width * shrink), longest), min(down(height * shrink), longest)


def _sized(order: Order, defaults: tuple[int, int], limits: RequestLimits) -> Order:
    width = order.width or defaults[0]
    height = order.height or defaults[1]
    for field, side in (("width", width), ("height", height)):
        _check_side(field, side, limits)
    if width * height > limits.max_pixels:
        # Names the longer side, which is the one to shorten.
        raise InvalidInput(
            "width" if width >= height else "height",
            "The picture would have too many pixels.",
            f"{limits.max_pixels} pixels",
            f"{width}x{height}",
        )
    sized = replace(order, width=width, height=height)
    for output in (order.output, order.preview_output):
        _check_fits(output, sized.picture_size, ("width", "height"))
    return sized


def _check_side(field: str, side: int, limits: RequestLimits) -> None:
    if side % limits.size_multiple:
        multiple = f"a multiple of {limits.size_multiple}"
        raise InvalidInput(field, f"{field} must be {multiple}.", multiple, side)
    if side > limits.max_pixels // limits.size_multiple:
        raise InvalidInput(field, f"{field} is too large.", f"{limits.max_pixels} pixels", side)


def _guidance(wish: Wish, limits: RequestLimits) -> float:
    if wish.guidance_scale is not None:
        return wish.guidance_scale
    if isinstance(wish.mode, Stylize) and wish.prompt == wish.negative_prompt:
        told_apart = limits.image_prompts and wish.mode.style_strength > 0.0
        if not told_apart:
            return 1.0  # both looks would see the same
    return limits.default_guidance_scale


def _sampler(asked: Sampler | None, limits: RequestLimits) -> Sampler:
    if limits.scheduler and asked is not None:
        raise InvalidInput(
            "sampler",
            f"This model runs with its own {limits.scheduler} alone.",
            limits.scheduler,
            asked.name,
        )
    sampler = asked or limits.default_sampler
    if limits.scheduler:
        return sampler
    if sampler not in limits.samplers:
        allowed = ", ".join(sampler.name for sampler in limits.samplers)
        raise InvalidInput(
            "sampler", f"This model does not run with {sampler.name}.", allowed, sampler.name
        )
    return sampler


def _seeds(wish: Wish, limits: RequestLimits, draw_seed: Callable[[], int]) -> tuple[int, ...]:
    if wish.seeds and wish.seed is not None:
        raise InvalidInput("seeds", "Give either seed or seeds, not both.", "one of them", "both")
    _check_range("seeds", len(wish.seeds), 0, limits.max_count)
    _check_range("count", wish.count, 0, limits.max_count)
    if wish.seeds:
        # Pictures beyond the seeds given follow on from the last one.
        first = wish.seeds[-1] + 1 - len(wish.seeds)
    else:
        first = draw_seed() if wish.seed is None else wish.seed
    count = max(wish.count, len(wish.seeds), 1)
    following = ((first + index) % SEEDS for index in range(len(wish.seeds), count))
    return (*wish.seeds, *following)


def _preview_steps(wish: PreviewWish, steps: int) -> tuple[int, ...]:
    if wish.every:
        _check_range("preview.every", wish.every, 1, steps)
    if len(wish.at_steps) > steps:
        raise InvalidInput(
            "preview.at_steps", "There are more previews than steps.", steps, len(wish.at_steps)
        )
    for step in wish.at_steps:
        _check_range("preview.at_steps", step, 1, steps)
    # The finished picture follows the last step anyway.
    regular = range(wish.every, steps, wish.every) if wish.every else ()
    return tuple(sorted({*regular, *wish.at_steps}))


def _check_format(field: str, output: ImageFormat) -> None:
    if output.name not in MAX_SIDES:
        raise InvalidInput(
            f"{field}.format", "Unknown image format.", ", ".join(MAX_SIDES), output.name[:80]
        )
    if output.quality is not None:
        if output.name == "PNG":
            raise InvalidInput(
                f"{field}.quality", "PNG is lossless and has no quality.", "unset", output.quality
            )
        _check_range(f"{field}.quality", output.quality, 1, 100)


def _check_fits(output: ImageFormat, size: tuple[int, int], fields: tuple[str, str]) -> None:
    longest = MAX_SIDES[output.name]
    for field, given in zip(fields, size, strict=True):
        if given > longest:
            raise InvalidInput(
                field, f"A {output.name} cannot be so large.", f"{longest} pixels", given
            )
