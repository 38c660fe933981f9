"""Pictures that steer where things go, beside the prompt (ControlNet: Zhang et al., 2023).

A net adds residuals to those of the U-Net's descending half. Rows with and without controls share
a batch: a net looks at those rows alone that ask for it, and the others get zeros.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final, Protocol

import torch
from diffusers.image_processor import VaeImageProcessor
from PIL import Image

from services.accelerator import placed
from services.core.images import to_rgb
from services.generator.canvas import record_of
from services.generator.network import Look, Residuals
from services.generator.request import Order

# The descending half and the middle: 361 of 860 million parameters in Stable Diffusion 1.5.
RELATIVE_COST: Final = 0.4
# Sides are multiples of the network's already: nothing is to be rounded here.
_PICTURES: Final = VaeImageProcessor(vae_scale_factor=1, do_normalize=False)


class ControlNet(Protocol):
    """One net, placed beside the network's own weights. ``digest``: ``sha256:...`` of its files."""

    @property
    def name(self) -> str: ...

    @property
    def digest(self) -> str: ...

    def residuals(self, look: Look, pictures: torch.Tensor) -> Residuals:
        """For every entry of ``look``; ``pictures``: float32 (B, 3, H, W), 0 to 1, of the size of
        the finished pictures. Blocking, by the thread that calls the network.
        """


@dataclass(frozen=True, slots=True, eq=False)
class Control:
    """One net at work on one picture.

    ``picture``: float32 (3, H, W), 0 to 1. It acts with ``scale`` from the share ``start`` of the
    evaluations to the share ``end``.
    """

    net: ControlNet
    picture: torch.Tensor
    scale: float = 1.0
    start: float = 0.0
    end: float = 1.0

    def acts(self, evaluation: int, evaluations: int) -> bool:
        """As ``StableDiffusionControlNetPipeline`` counts: in those that lie in its share whole."""
        begins, ends = evaluation / evaluations, (evaluation + 1) / evaluations
        return self.scale != 0.0 and begins >= self.start and ends <= self.end

    def cost(self, evaluations: int) -> float:
        """Relative to the U-Net's own, over so many evaluations."""
        acting = sum(self.acts(index, evaluations) for index in range(evaluations))
        return RELATIVE_COST * acting / evaluations


def steered(order: Order, nets: Sequence[ControlNet]) -> tuple[Order, tuple[Control, ...]]:
    """The order with its control pictures known, and what they do; ``nets`` are those it names.
    Blocking.

    Raises ``InvalidInput`` for a picture that cannot be read.
    """
    records, controls = list(order.given), []
    for use, net in zip(order.controls, nets, strict=True):
        picture = use.image.load()
        records.append(record_of(use.image, picture))
        shown = control_picture(picture, order.width, order.height)
        controls.append(Control(net, shown, use.scale, use.start, use.end))
    return replace(order, given=tuple(records)), tuple(controls)


def control_picture(picture: Image.Image, width: int, height: int) -> torch.Tensor:
    """float32 (3, ``height``, ``width``), 0 to 1: stretched as StableDiffusionControlNetPipeline
    does it; alpha is dropped.
    """
    image: torch.Tensor = _PICTURES.preprocess(to_rgb(picture), height, width)[0]
    return image


def residuals(look: Look, asked: Sequence[tuple[range, Control]]) -> Residuals:
    """What the controls add to ``look``, each to the entries it is given with; each entry asks for
    a net once at most.
    """
    by_net: dict[int, list[tuple[range, Control]]] = {}
    for entries, control in asked:
        by_net.setdefault(id(control.net), []).append((entries, control))
    total = Residuals()
    for uses in by_net.values():
        total = _added(total, look, uses)
    return total


def _added(total: Residuals, look: Look, uses: Sequence[tuple[range, Control]]) -> Residuals:
    device = look.latents.device
    entries = placed(torch.tensor([entry for those, _ in uses for entry in those]), device)
    each = [control for those, control in uses for _ in those]
    pictures = placed(torch.stack([control.picture for control in each]), device)
    scales = placed(torch.tensor([control.scale for control in each], dtype=torch.float32), device)
    made = each[0].net.residuals(look.entries(entries), pictures)
    parts = [_scaled(part, scales) for part in made.parts]
    sums = total.parts or tuple(
        part.new_zeros((len(look.latents), *part.shape[1:])) for part in parts
    )
    for whole, part in zip(sums, parts, strict=True):
        whole.index_add_(0, entries, part)
    return Residuals(sums)


def _scaled(part: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
    # In float32, as a number times a tensor is: in bfloat16 the scale itself would be rounded.
    return (part.float() * scales[:, None, None, None]).to(part.dtype)
