"""Given pictures made ready to be painted on: decoded, resized, and what they become as latents."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image

from services.core.errors import NotSupported
from services.core.images import to_rgb
from services.generator.modes import Given, ImageToImage, Record, TextToImage
from services.generator.network import Network, Posterior
from services.generator.request import Order, RequestLimits, settle


@dataclass(slots=True)
class Scan:
    """A picture on its way into latents.

    ``image``: float32 (3, H, W) from -1 to 1; let go once ``posterior`` is known.
    """

    image: torch.Tensor | None
    posterior: Posterior | None = None

    def latents(self, noise: torch.Tensor) -> torch.Tensor:
        """(C, h, w), with ``noise`` deciding what the autoencoder leaves open."""
        assert self.posterior is not None, "the canvas stage comes first"
        return self.posterior.sample(noise)


@dataclass(frozen=True, slots=True)
class Canvas:
    """What the pictures of one request are painted on; they share it."""

    picture: Scan

    @property
    def scans(self) -> tuple[Scan, ...]:
        return (self.picture,)


def prepared(order: Order, limits: RequestLimits, network: Network) -> tuple[Order, Canvas | None]:
    """The order, settled, and its canvas where it has one. Blocking.

    Raises ``InvalidInput`` for given pictures that cannot be read or painted on.
    """
    del network
    match order.mode:
        case TextToImage():
            return order, None
        case ImageToImage(image=image):
            picture = image.load()
            settled = settle(order, (_record(image, picture),), limits)
            return settled, Canvas(Scan(levels(to_rgb(picture), settled.width, settled.height)))
        case _:
            raise NotSupported(f"{type(order.mode).__name__} is not served yet.")


def levels(picture: Image.Image, width: int, height: int) -> torch.Tensor:
    """RGB to float32 (3, height, width) from -1 to 1, as ``VaeImageProcessor.preprocess`` does."""
    resized = picture.resize((width, height), Image.Resampling.LANCZOS)
    pixels = np.asarray(resized, np.float32) / 255.0
    return 2.0 * torch.from_numpy(pixels).permute(2, 0, 1) - 1.0


def _record(given: Given, picture: Image.Image) -> Record:
    return Record(given.field, given.sha256(), *picture.size)
