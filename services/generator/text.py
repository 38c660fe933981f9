"""Prompts as windows of tokens: what the text encoder reads."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Any

import torch

from services.core.errors import InvalidInput
from services.generator.request import LongPrompt


@dataclass(slots=True)
class Prompts:
    """The prompts of one request, shared by its pictures.

    ``windows``: int64 (1 or 2, n, L), the negative prompt's windows first when there is one, then
    the prompt's; n windows of L tokens each. ``context``: (1 or 2, n * L, D) once encoded.
    """

    windows: torch.Tensor
    context: torch.Tensor | None = None

    @property
    def sequence_length(self) -> int:
        return self.windows.shape[1] * self.windows.shape[2]


class PromptReader:
    """A tokenizer that may be asked from any thread."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        # Padding and truncation are state of a fast tokenizer (huggingface/tokenizers#537).
        self._lock = threading.Lock()

    @property
    def max_tokens(self) -> int:
        return int(self._tokenizer.model_max_length)

    def read(self, prompt: str, negative: str | None, policy: LongPrompt) -> Prompts:
        """Tokenise ``prompt``, and ``negative`` unless it is None, to equally many windows.

        Raises ``InvalidInput`` on ``prompt`` or ``negative_prompt`` when one has more tokens than
        a window and ``policy`` is ERROR.
        """
        texts = [] if negative is None else [self._windows(negative, "negative_prompt", policy)]
        texts.append(self._windows(prompt, "prompt", policy))
        longest = max(len(windows) for windows in texts)
        padded = [windows + [self._window([])] * (longest - len(windows)) for windows in texts]
        return Prompts(torch.tensor(padded, dtype=torch.int64))

    def _windows(self, text: str, field: str, policy: LongPrompt) -> list[list[int]]:
        words = self._tokens(text)
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
        return [self._window(words[start : start + room]) for start in starts]

    def _tokens(self, text: str) -> list[int]:
        with self._lock:
            ids: list[int] = self._tokenizer(text, truncation=False, verbose=False)["input_ids"]
        return ids[1:-1]

    def _window(self, words: list[int]) -> list[int]:
        tokenizer = self._tokenizer
        padding = [tokenizer.pad_token_id] * (self.max_tokens - 2 - len(words))
        return [tokenizer.bos_token_id, *words, tokenizer.eos_token_id, *padding]
