"""Given pictures made ready to be painted on: decoded, resized, and what they become as latents."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from diffusers.image_processor import VaeImageProcessor
from PIL import Image, ImageOps

from services.core.errors import InvalidInput
from services.core.images import to_rgb
from services.generator.modes import (
    Given,
    ImageToImage,
    Inpaint,
    MaskPolarity,
    Record,
    Stylize,
    TextToImage,
)
from services.generator.network import Network, Posterior
from services.generator.overlay import PICTURES, Box, Marks, Overlay, soft_weights
from services.generator.request import Order, RequestLimits, settle
from services.generator.stylization import MIN_STYLE_SIDE_PX
from services.generator.tiles import Grid, Mosaic

_MASKS: Final = VaeImageProcessor(
    vae_scale_factor=1, do_normalize=False, do_binarize=True, do_convert_grayscale=True
)
# Of 255: from here on a pixel of the mask is marked, as VaeImageProcessor.binarize has it.
_MARKED: Final = 128


@dataclass(slots=True)
class Scan:
    """A picture on its way into latents.

    ``image``: float32 (3, H, W) from -1 to 1; let go once ``posterior`` is known.
    """

    image: torch.Tensor | None
    posterior: Posterior | None = None
    mosaic: Mosaic | None = None

    def part(self, tiles: Grid | None, factor: int) -> torch.Tensor:
        """(3, H, W): what goes through the autoencoder next, all of it or a tile."""
        assert self.image is not None
        if tiles is None:
            return self.image
        return tiles.cut(self.image, 0 if self.mosaic is None else self.mosaic.done, factor)

    def take(self, tiles: Grid | None, found: Posterior) -> None:
        """``found``: of that part. The scan is as it was where the memory does not suffice."""
        if tiles is not None:
            both = torch.cat([found.mean, found.std])
            if self.mosaic is None:
                self.mosaic = Mosaic.empty(tiles, len(both), 1, both.device)
            tile = self.mosaic.weighed(both)
            if not self.mosaic.lacks_one:
                self.mosaic.lay(tile)
                return
            found = Posterior(*self.mosaic.completed(tile).chunk(2))
        self.posterior, self.image, self.mosaic = found, None, None

    def latents(self, noise: torch.Tensor) -> torch.Tensor:
        """(C, h, w), with ``noise`` deciding what the autoencoder leaves open."""
        assert self.posterior is not None, "the canvas stage comes first"
        return self.posterior.sample(noise)

    def mean(self) -> torch.Tensor:
        """(C, h, w): the likeliest latents."""
        assert self.posterior is not None, "the canvas stage comes first"
        return self.posterior.mean


@dataclass(slots=True)
class StylePrompt:
    """A style that the U-Net reads as it reads the text, ``scale`` as much.

    ``pixels``: float32 (3, S, S), as its encoder takes them; let go once ``tokens`` (N, D) are
    known.
    """

    pixels: torch.Tensor | None
    scale: float
    tokens: torch.Tensor | None = None

    def take(self, tokens: torch.Tensor) -> None:
        # A copy: a view would keep the whole batch in memory.
        self.tokens, self.pixels = tokens.clone(), None


@dataclass(frozen=True, slots=True)
class Canvas:
    """What the pictures of one request are painted on; they share it.

    ``picture``: what is given. ``mask``: float32 (1, h, w), 1 where it is repainted, all of it
    when None. ``surroundings``: for U-Nets that see them, the picture with grey in the mask.
    ``overlay``: how what is painted goes back into the picture.
    ``style``: the picture whose style it takes from company; ``style_prompt``: from an IP-Adapter.
    """

    picture: Scan | None
    mask: torch.Tensor | None = None
    surroundings: Scan | None = None
    overlay: Overlay | None = None
    style: Scan | None = None
    style_prompt: StylePrompt | None = None

    @property
    def scans(self) -> tuple[Scan, ...]:
        scans = (self.picture, self.surroundings, self.style)
        return tuple(scan for scan in scans if scan is not None)


def prepared(order: Order, limits: RequestLimits, network: Network) -> tuple[Order, Canvas | None]:
    """The order, settled, and its canvas where it has one. Blocking.

    Raises ``InvalidInput`` for given pictures that cannot be read or painted on.
    """
    match order.mode:
        case TextToImage():
            return order, _with_all_masked(order, None, network)
        case ImageToImage(image=image):
            picture = image.load()
            order = settle(order, (record_of(image, picture),), limits)
            scan = Scan(levels(to_rgb(picture), order.width, order.height))
            return order, _with_all_masked(order, scan, network)
        case Inpaint():
            return _inpainting(order, order.mode, limits, network)
        case Stylize():
            return _stylized(order, order.mode, limits, network)


def sees_masks(network: Network) -> bool:
    """Whether the U-Net was made for inpainting: it also sees the mask and the surroundings."""
    return network.unet_channels == 2 * network.latent_channels + 1


def _stylized(
    order: Order, mode: Stylize, limits: RequestLimits, network: Network
) -> tuple[Order, Canvas | None]:
    content, style = mode.content.load(), mode.style.load()
    if min(style.size) < MIN_STYLE_SIDE_PX:
        raise InvalidInput(
            mode.style.field,
            "The style picture is too small to tell a style from.",
            f"at least {MIN_STYLE_SIDE_PX} pixels a side",
            f"{style.width}x{style.height}",
        )
    records = (record_of(mode.content, content), record_of(mode.style, style))
    order = settle(order, records, limits)
    size = (order.width, order.height)
    canvas = _with_all_masked(order, Scan(levels(to_rgb(content), *size)), network)
    if canvas is None or mode.style_strength == 0.0:
        return order, canvas
    if network.image_adapter is not None:
        pixels = network.image_adapter.pixels(to_rgb(style))
        return order, replace(canvas, style_prompt=StylePrompt(pixels, mode.style_strength))
    # Its middle in the content's proportions: stretched, its textures would be others.
    fitted = ImageOps.fit(to_rgb(style), size, Image.Resampling.LANCZOS)
    return order, replace(canvas, style=Scan(levels(fitted, *size)))


def levels(picture: Image.Image, width: int, height: int) -> torch.Tensor:
    """RGB to float32 (3, height, width) from -1 to 1, as StableDiffusionImg2ImgPipeline does it."""
    image: torch.Tensor = PICTURES.preprocess(picture, height=height, width=width)[0]
    return image


def _with_all_masked(order: Order, picture: Scan | None, network: Network) -> Canvas | None:
    """A U-Net made for inpainting paints a whole picture where it sees all of it masked."""
    if sees_masks(network):
        grey = Scan(torch.zeros(3, order.height, order.width, dtype=torch.float32))
        mask = torch.ones(_latent_mask_shape(order, network), dtype=torch.float32)
        return Canvas(picture, mask, grey)
    return None if picture is None else Canvas(picture)


def _inpainting(
    order: Order, mode: Inpaint, limits: RequestLimits, network: Network
) -> tuple[Order, Canvas]:
    picture, mask = mode.image.load(), mode.mask.load()
    region = _region(mode, mask, picture.size)
    marks: Marks = np.asarray(region) >= _MARKED
    if not marks.any():
        raise _unmarked(mode, int(np.asarray(region).max()))
    records = (record_of(mode.image, picture), record_of(mode.mask, mask))
    order = settle(order, records, limits)
    width, height = order.width, order.height
    box, filled = (0, 0, *picture.size), False
    if mode.padding_px is not None:
        bounds = Image.fromarray(marks)
        box = VaeImageProcessor.get_crop_region(bounds, width, height, pad=mode.padding_px)
        filled = _can_be_fitted(box, width, height)
    original = _original(picture)
    fit = "fill" if filled else "default"
    image = PICTURES.preprocess(to_rgb(original).crop(box), height, width, resize_mode=fit)[0]
    masked = _MASKS.preprocess(region.crop(box), height, width, resize_mode=fit)[0]
    mask_latents, masked = _latent_mask(masked, marks, box, order, network)
    seen = Scan(image * (masked < 0.5)) if sees_masks(network) else None
    # From noise alone such a U-Net needs the surroundings only.
    started = None if seen is not None and mode.strength == 1.0 else Scan(image)
    left, top, right, bottom = box
    weights = soft_weights(marks, mode.feather_px)[top:bottom, left:right]
    return order, Canvas(started, mask_latents, seen, Overlay(original, box, weights, filled))


def _can_be_fitted(box: Box, width: int, height: int) -> bool:
    """Whether the box keeps a pixel of both sides when it is fitted into (width, height)."""
    left, top, right, bottom = box
    across, down = right - left, bottom - top
    return across * height >= down and down * width >= across


def _region(mode: Inpaint, mask: Image.Image, size: tuple[int, int]) -> Image.Image:
    """Grey, of the mask's size: 255 where it is to be repainted."""
    field = mode.mask.field
    if mask.size != size:
        raise InvalidInput(
            field,
            "The mask must have the picture's size.",
            "{}x{}".format(*size),
            "{}x{}".format(*mask.size),
        )
    if mode.polarity is MaskPolarity.WHITE:
        region = to_rgb(mask, background=(0, 0, 0)).convert("L")
    elif mask.has_transparency_data:
        region = mask.convert("RGBA").getchannel("A").point(lambda level: 255 - level)
    else:
        raise InvalidInput(
            field,
            "The mask has no transparency, which is what its polarity is about.",
            "a picture with transparency",
            f"{mask.mode} without any",
        )
    return region


def _unmarked(mode: Inpaint, most: int) -> InvalidInput:
    """``most``: what of 255 the pixel has that is nearest to being marked."""
    if mode.polarity is MaskPolarity.WHITE:
        why = "no pixel is nearer to white than to black"
        limit, given = f"a pixel of level {_MARKED} or more", f"none above {most}"
    else:
        why = "no pixel is more transparent than opaque"
        limit, given = f"a pixel of alpha {255 - _MARKED} or less", f"none below {255 - most}"
    return InvalidInput(mode.mask.field, f"The mask marks nothing to repaint: {why}.", limit, given)


def _original(picture: Image.Image) -> Image.Image:
    if not picture.has_transparency_data:
        return to_rgb(picture)
    return picture if picture.mode == "RGBA" else picture.convert("RGBA")


def _latent_mask(
    masked: torch.Tensor, marks: Marks, box: Box, order: Order, network: Network
) -> tuple[torch.Tensor, torch.Tensor]:
    """(1, h, w) as StableDiffusionInpaintPipeline.prepare_mask_latents has it, and ``masked`` with
    it; a region that falls between its samples is marked where it lies.
    """
    size = _latent_mask_shape(order, network)[1:]
    found = F.interpolate(masked[None], size)[0]
    if not found.any():
        left, top, right, bottom = box
        rows, columns = np.nonzero(marks[top:bottom, left:right])
        lines = rows * size[0] // (bottom - top), columns * size[1] // (right - left)
        found[0, torch.from_numpy(lines[0]), torch.from_numpy(lines[1])] = 1.0
        masked = F.interpolate(found[None], masked.shape[1:])[0]
    return found, masked


def _latent_mask_shape(order: Order, network: Network) -> tuple[int, int, int]:
    return 1, order.height // network.vae_factor, order.width // network.vae_factor


def record_of(given: Given, picture: Image.Image) -> Record:
    """Blocking."""
    return Record(given.field, given.sha256(), *picture.size)
