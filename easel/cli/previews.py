"""How often `easel generate` asks for a preview, and of which models."""

from __future__ import annotations

from typing import Final

from easel.client import Client, EaselClientError, GenerateOptions

_PREVIEWS: Final = 5  # about so many of a picture
# What the contract takes where a request does not say.
_STRENGTH: Final = 1.0
_CONTENT_STRENGTH: Final = 0.5


def with_previews(client: Client, options: GenerateOptions, *, asked: bool) -> GenerateOptions:
    """Return ``options`` with fast previews. Unless they were ``asked`` for: without, where the
    model makes none."""
    try:
        model = client.get_model(options.get("model", ""), service="generator").generator
    except EaselClientError:
        # Generating says better what is wrong, or goes well: pictures need no answer to this.
        serves, default_steps = asked, 1
    else:
        serves, default_steps = asked or model.step_engine, model.default_steps
    if not serves:
        return options
    steps = steps_run(options, options.get("steps", default_steps))
    return {**options, "preview_every": max(1, steps // _PREVIEWS), "preview_method": "fast"}


def steps_run(options: GenerateOptions, steps: int) -> int:
    """Return how many of ``steps`` a picture takes, as the server counts them; at least 1, which is
    the fewest that it takes."""
    if "style" in options:
        kept = _share(options.get("content_strength", _CONTENT_STRENGTH))
        return max(1, round(steps * (1.0 - kept) ** 2))
    if "image" in options:
        return max(1, int(steps * _share(options.get("strength", _STRENGTH))))
    return max(1, steps)


def _share(value: float) -> float:
    # What is out of range, or no number, is the server's to refuse.
    return min(max(0.0, value), 1.0)
