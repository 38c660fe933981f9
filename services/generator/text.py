"""Prompts as windows of tokens: what the text encoders read."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from services.core.errors import InvalidInput
from services.generator.lora import Outfit
from services.generator.network import Conditioning
from services.generator.request import LongPrompt


@dataclass(slots=True)
class Prompts:
    """The prompts of one request, shared by its pictures.

    ``windows``: int64 (E, 1 or 2, n, L), for each of E text encoders the negative prompt's windows
    first when there is one, then the prompt's; n windows of L tokens each. ``zeros``: the negative
    prompt is all zeros once encoded. ``outfit``: the adapters that the encoders wear for them.
    ``encoded``: a context of (1 or 2, n * L, D), and the pooled
    state of each text's first window where the model has one.
    """

    windows: torch.Tensor
    zeros: bool = False
    outfit: Outfit = ()
    encoded: Conditioning | None = None

    @property
    def texts(self) -> int:
        """Copies that the U-Net looks at: with the negative prompt, and with the prompt."""
        return self.windows.shape[1]

    @property
    def sequence_length(self) -> int:
        return self.windows.shape[2] * self.windows.shape[3]

    def take(self, flat: Conditioning) -> None:
        """Keep what the encoders made of the windows one after another, (texts * n, L, D)."""
        texts = self.texts
        context = flat.context.reshape(texts, self.sequence_length, -1)
        pooled = flat.pooled
        if pooled is not None:
            pooled = pooled.reshape(texts, -1, pooled.shape[-1])[:, 0]
        if self.zeros:
            context = _without_first(context)
            pooled = None if pooled is None else _without_first(pooled)
        self.encoded = Conditioning(context, pooled)


class PromptReader:
    """Tokenizers, one a text encoder, that may be asked from any thread.

    ``zeros_for_empty``: an empty negative prompt is all zeros once encoded.
    """

    def __init__(self, tokenizers: Sequence[Any], *, zeros_for_empty: bool = False) -> None:
        self._tokenizers = tuple(tokenizers)
        self._zeros_for_empty = zeros_for_empty
        # Padding and truncation are state of a fast tokenizer (huggingface/tokenizers#537).
        self._lock = threading.Lock()

    @property
    def max_tokens(self) -> int:
        return int(self._tokenizers[0].model_max_length)

    def read(self, prompt: str, negative: str | None, policy: LongPrompt) -> Prompts:
        """Tokenise ``prompt``, and ``negative`` unless it is None, to equally many windows.

        Raises ``InvalidInput`` on ``prompt`` or ``negative_prompt`` when one has more tokens than
        a window and ``policy`` is ERROR.
        """
        texts = [] if negative is None else [(negative, "negative_prompt")]
        texts.append((prompt, "prompt"))
        windows = [
            [self._windows(tokenizer, text, field, policy) for text, field in texts]
            for tokenizer in self._tokenizers
        ]
        most = max(len(text) for encoder in windows for text in encoder)
        padded = [
            [text + [self._window(tokenizer, [])] * (most - len(text)) for text in encoder]
            for tokenizer, encoder in zip(self._tokenizers, windows, strict=True)
        ]
        zeros = self._zeros_for_empty and negative == ""
        return Prompts(torch.tensor(padded, dtype=torch.int64), zeros)

    def _windows(
        self, tokenizer: Any, text: str, field: str, policy: LongPrompt
    ) -> list[list[int]]:
        words = self._tokens(tokenizer, text)
        room = self.max_tokens - 2
        if len(words) > room and policy is LongPrompt.ERROR:
            raise InvalidInput(
                field,
                f"{field} has more tokens than the model reads; long_prompt can allow it.",
                f"{self.max_tokens} tokens",
                f"{len(words) + 2} tokens",
            )
        if policy is not LongPrompt.CHUNK:
            words = words[:room]
        starts = range(0, max(len(words), 1), room)
        return [self._window(tokenizer, words[start : start + room]) for start in starts]

    def _tokens(self, tokenizer: Any, text: str) -> list[int]:
        with self._lock:
            ids: list[int] = tokenizer(text, truncation=False, verbose=False)["input_ids"]
        return ids[1:-1]

    def _window(self, tokenizer: Any, words: list[int]) -> list[int]:
        padding = [tokenizer.pad_token_id] * (self.max_tokens - 2 - len(words))
        return [tokenizer.bos_token_id, *words, tokenizer.eos_token_id, *padding]


def _without_first(states: torch.Tensor) -> torch.Tensor:
    return torch.cat([torch.zeros_like(states[:1]), states[1:]])
