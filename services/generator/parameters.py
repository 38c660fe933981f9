"""What made a picture, in the text chunk that image tools read (AUTOMATIC1111's form)."""

from __future__ import annotations

from dataclasses import dataclass

from services.core.packages import installed_version
from services.generator.modes import ImageToImage, Inpaint, Mode, Stylize
from services.generator.request import Order

# In that form each of these would end or split the settings.
_QUOTED = (",", ":", "\n", '"')


@dataclass(frozen=True, slots=True)
class ModelName:
    """Which model made it; ``digest`` is ``sha256:...``."""

    name: str
    version: str
    digest: str


def parameters_text(order: Order, seed: int, model: ModelName) -> str:
    """The prompt, ``Negative prompt:`` if there is one, and one line of settings."""
    settings = {
        "Steps": str(order.steps),
        "Sampler": order.scheduler or order.sampler.value,
        "CFG scale": f"{order.guidance_scale:g}",
        "Seed": str(seed),
        "Size": f"{order.width}x{order.height}",
        "Model hash": model.digest.removeprefix("sha256:")[:10],
        "Model": _quoted(model.name),
    }
    settings |= _mode_settings(order.mode)
    if order.guidance_rescale:
        settings["CFG Rescale phi"] = f"{order.guidance_rescale:g}"
    if order.adapters:
        settings["Adapters"] = _quoted(", ".join(str(use) for use in order.adapters))
    if order.controls:
        settings["Controls"] = _quoted(", ".join(str(use) for use in order.controls))
    if order.cache_interval > 1:
        settings["Cache interval"] = str(order.cache_interval)
    if order.clip_skip:
        # Counted from 1 there, where 1 leaves nothing out.
        settings["Clip skip"] = str(order.clip_skip + 1)
    settings["Version"] = f"easel {installed_version('easel') or ''}".rstrip()
    negative = [f"Negative prompt: {order.negative_prompt}"] if order.negative_prompt else []
    line = ", ".join(f"{key}: {value}" for key, value in settings.items())
    return "\n".join([order.prompt, *negative, line])


def _mode_settings(mode: Mode) -> dict[str, str]:
    match mode:
        case ImageToImage():
            return {"Denoising strength": f"{mode.strength:g}"}
        case Inpaint():
            return {
                "Denoising strength": f"{mode.strength:g}",
                "Mask blur": str(mode.feather_px),
                **_zoom_settings(mode.padding_px),
            }
        case Stylize():
            return {
                "Content strength": f"{mode.content_strength:g}",
                "Style strength": f"{mode.style_strength:g}",
            }
        case _:
            return {}


def _zoom_settings(padding_px: int | None) -> dict[str, str]:
    if padding_px is None:
        return {}
    return {"Inpaint area": "Only masked", "Masked area padding": str(padding_px)}


def _quoted(text: str) -> str:
    if not any(mark in text for mark in _QUOTED):
        return text
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'
