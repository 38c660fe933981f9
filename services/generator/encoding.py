"""Windows of tokens to what the U-Net reads: encoded, weighed and remembered."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from services.accelerator import placed
from services.generator.lora import Outfit
from services.generator.network import Conditioning, Network
from services.generator.prompt_cache import PromptCache
from services.generator.text import PromptReader, Prompts
from services.memory import memory_faults


class PromptEncoder:
    """One network's text encoders. Texts of all requests share their batches: each brings its own
    weights and its own number of layers to leave out.
    """

    def __init__(
        self, network: Network, reader: PromptReader, cache: PromptCache[Conditioning]
    ) -> None:
        self._network = network
        self._cache = cache
        self._empty_window = reader.empty_window()
        # By clip_skip: float (L, D), what weights are counted from.
        self._empty: dict[int, torch.Tensor] = {}

    def recall(self, prompts: Prompts) -> None:
        """Fill in what was encoded before; from any thread. Raises ``OutOfMemory``."""
        with torch.inference_mode(), memory_faults():
            for index in prompts.missing:
                found = self._cache.get(prompts.key(index))
                if found is not None:
                    prompts.take(index, found)

    def encode(self, all_prompts: Sequence[Prompts], *, remember: bool = True) -> None:
        """Encode every text that is missing, as one batch; on the device's thread."""
        due = [(prompts, index) for prompts in all_prompts for index in prompts.missing]
        if not due:
            return
        windows = [prompts.windows[:, index] for prompts, index in due]
        counts = [prompts.windows.shape[2] for prompts, _ in due]
        rows = [text for text, count in zip(due, counts, strict=True) for _ in range(count)]
        skips = [prompts.skip(index) for prompts, index in rows]
        outfits = [prompts.text_outfit for prompts, _ in rows]
        encoded = self._encoded(torch.cat(windows, dim=1), skips, outfits)
        made = _split(encoded, counts)
        for (prompts, index), states in zip(due, made, strict=True):
            part = self._part(prompts, index, states)
            if remember:
                self._cache.put(prompts.key(index), part)
            prompts.take(index, part)

    def _part(self, prompts: Prompts, index: int, states: Conditioning) -> Conditioning:
        """(n, L, D) of one text's windows, weighed, as (n * L, D)."""
        context, weights = states.context, prompts.text_weights(index)
        if weights is not None:
            empty = self._empty_states(prompts.skip(index), prompts.text_outfit)
            context = _weighed(context, weights, empty)
        pooled = None if states.pooled is None else states.pooled[0].clone()
        # A copy: a view would keep the whole batch in memory for as long as it is cached.
        return Conditioning(context.flatten(0, 1).clone(), pooled)

    def _empty_states(self, skip: int, outfit: Outfit) -> torch.Tensor:
        """(L, D) of a text of no words. Encoded by itself: its last bits then never depend on who
        asked first.
        """
        if outfit or skip not in self._empty:
            window = self._empty_window[:, None]
            states = self._encoded(window, [skip], [outfit]).context[0]
            if outfit:  # of which there are too many to keep
                return states
            self._empty[skip] = states
        return self._empty[skip]

    def _encoded(
        self, windows: torch.Tensor, skips: Sequence[int], outfits: Sequence[Outfit]
    ) -> Conditioning:
        return self._network.encode(windows, skips, outfits if any(outfits) else None)


def _weighed(states: torch.Tensor, weights: torch.Tensor, empty: torch.Tensor) -> torch.Tensor:
    """``states`` (n, L, D), each moved by its weight on the line from the empty text's (L, D).

    As compel and ComfyUI weigh; the states of what weighs 1 stay as they are, to the last bit.
    """
    scale = placed(weights, states.device).to(states.dtype)[..., None]
    return torch.where(scale == 1.0, states, empty + (states - empty) * scale)


def _split(encoded: Conditioning, parts: Sequence[int]) -> list[Conditioning]:
    contexts = torch.split(encoded.context, list(parts))
    if encoded.pooled is None:
        return [Conditioning(context) for context in contexts]
    pooled = torch.split(encoded.pooled, list(parts))
    return [Conditioning(*both) for both in zip(contexts, pooled, strict=True)]
