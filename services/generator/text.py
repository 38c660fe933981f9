"""Prompts as windows of tokens: what the text encoders read."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from services.core.errors import InvalidInput
from services.generator.inversion import Vocabulary
from services.generator.lora import Outfit
from services.generator.network import Conditioning
from services.generator.request import LongPrompt
from services.generator.weighting import Fragment, fragments

# A token's id, and how much it weighs.
Token = tuple[int, float]


@dataclass(slots=True)
class Prompts:
    """The prompts of one request, shared by its pictures.

    ``windows``: int64 (E, 1 or 2, n, L), for each of E text encoders the negative prompt's windows
    first when there is one, then the prompt's; n windows of L tokens each. ``weights``: float32
    (1 or 2, n, L) of the same tokens, None where all weigh 1. ``clip_skip``: layers left out at
    the encoders' end for the prompt; the negative prompt is read by all, as diffusers has it.
    ``zeros``: the negative prompt is all zeros once encoded. ``outfit``: the adapters that the
    encoders wear for them. ``parts``: each text's (n * L, D), and the pooled state of its first
    window where the model has one. ``encoded``: all of them, (1 or 2, n * L, D), once every one is
    there.
    """

    windows: torch.Tensor
    weights: torch.Tensor | None = None
    clip_skip: int = 0
    zeros: bool = False
    outfit: Outfit = ()
    parts: list[Conditioning | None] = field(init=False)
    encoded: Conditioning | None = None

    def __post_init__(self) -> None:
        self.parts = [None] * self.texts

    @property
    def texts(self) -> int:
        """Copies that the U-Net looks at: with the negative prompt, and with the prompt."""
        return self.windows.shape[1]

    @property
    def sequence_length(self) -> int:
        return self.windows.shape[2] * self.windows.shape[3]

    @property
    def missing(self) -> list[int]:
        """The texts that are not encoded yet."""
        return [index for index, part in enumerate(self.parts) if part is None]

    @property
    def missing_windows(self) -> int:
        return len(self.missing) * self.windows.shape[2]

    def text_weights(self, index: int) -> torch.Tensor | None:
        """float32 (n, L), or None where every token of the text weighs 1."""
        if self.weights is None or bool((self.weights[index] == 1.0).all()):
            return None
        return self.weights[index]

    def skip(self, index: int) -> int:
        """The layers left out for one text."""
        return self.clip_skip if index == self.texts - 1 else 0

    @property
    def text_outfit(self) -> Outfit:
        """The adapters that change what text encoders make."""
        return tuple(worn for worn in self.outfit if worn.scale and worn.adapter.changes_text)

    def key(self, index: int) -> bytes:
        """256 bits that tell one text's encoding from all others of the model."""
        length, skip = self.sequence_length, self.skip(index)
        digest = hashlib.sha256(f"{len(self.windows)} {length} {skip} ".encode())
        digest.update(self.windows[:, index].numpy().tobytes())
        weights = self.text_weights(index)
        digest.update(b"" if weights is None else weights.numpy().tobytes())
        digest.update(repr([worn.order for worn in self.text_outfit]).encode())
        return digest.digest()

    def take(self, index: int, part: Conditioning) -> None:
        """Keep one text's encoding. It stays missing where the memory does not suffice."""
        parts = [*self.parts[:index], part, *self.parts[index + 1 :]]
        present = [found for found in parts if found is not None]
        if len(present) == self.texts:
            self.encoded = self._joined(present)
        self.parts = parts

    def _joined(self, parts: Sequence[Conditioning]) -> Conditioning:
        context = torch.stack([part.context for part in parts])
        pooled = [part.pooled for part in parts if part.pooled is not None]
        joined = Conditioning(context, torch.stack(pooled) if pooled else None)
        return _without_first(joined) if self.zeros else joined


class PromptReader:
    """Tokenizers, one a text encoder, that may be asked from any thread.

    ``vocabularies``: the textual inversions that each encoder has learned. ``zeros_for_empty``: an
    empty negative prompt is all zeros once encoded.
    """

    def __init__(
        self,
        tokenizers: Sequence[Any],
        vocabularies: Sequence[Vocabulary] = (),
        *,
        zeros_for_empty: bool = False,
    ) -> None:
        self._tokenizers = tuple(tokenizers)
        self._vocabularies = tuple(vocabularies) or (Vocabulary(),) * len(self._tokenizers)
        self._zeros_for_empty = zeros_for_empty
        # Padding and truncation are state of a fast tokenizer (huggingface/tokenizers#537).
        self._lock = threading.Lock()

    @property
    def max_tokens(self) -> int:
        return int(self._tokenizers[0].model_max_length)

    @property
    def inversions(self) -> tuple[str, ...]:
        """The names that prompts may say."""
        return self._vocabularies[0].names

    def versions(self, texts: Iterable[str]) -> dict[str, str]:
        """The digests of the textual inversions that ``texts`` name."""
        return self._vocabularies[0].versions(texts)

    def read(
        self,
        prompt: str,
        negative: str | None,
        policy: LongPrompt,
        *,
        weighting: bool = False,
        clip_skip: int = 0,
    ) -> Prompts:
        """Tokenise ``prompt``, and ``negative`` unless it is None, to equally many windows.

        Raises ``InvalidInput`` on ``prompt`` or ``negative_prompt`` when one has more tokens than
        a window and ``policy`` is ERROR, names a textual inversion that is not there, or has
        weights, where they are read, that cannot be.
        """
        texts = [] if negative is None else [(negative, "negative_prompt")]
        texts.append((prompt, "prompt"))
        read = [
            (fragments(text, field) if weighting else [Fragment(text)], field)
            for text, field in texts
        ]
        windows = [
            [self._windows(encoder, parts, field, policy) for parts, field in read]
            for encoder in range(len(self._tokenizers))
        ]
        most = max(len(text) for texts in windows for text in texts)
        padded = [
            [text + [self._window(encoder, [])] * (most - len(text)) for text in texts]
            for encoder, texts in enumerate(windows)
        ]
        # Token ids are exact in it.
        table = torch.tensor(padded, dtype=torch.float64)
        # Of the first encoder: what the tokenizers of one model differ in is the padding.
        weights = table[0, ..., 1].float()
        return Prompts(
            windows=table[..., 0].long(),
            weights=weights if bool((weights != 1.0).any()) else None,
            clip_skip=clip_skip,
            zeros=self._zeros_for_empty and negative == "",
        )

    def empty_window(self) -> torch.Tensor:
        """int64 (E, L): how each encoder reads a text of no words."""
        windows = [self._window(encoder, []) for encoder in range(len(self._tokenizers))]
        return torch.tensor([[token for token, _ in window] for window in windows])

    def _windows(
        self, encoder: int, parts: Sequence[Fragment], field: str, policy: LongPrompt
    ) -> list[list[Token]]:
        words = [token for part in parts for token in self._tokens(encoder, part, field)]
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
        return [self._window(encoder, words[start : start + room]) for start in starts]

    def _tokens(self, encoder: int, part: Fragment, field: str) -> list[Token]:
        ids: list[int] = []
        for piece in self._vocabularies[encoder].split(part.text, field):
            ids += self._plain_tokens(encoder, piece) if isinstance(piece, str) else piece
        return [(token, part.weight) for token in ids]

    def _plain_tokens(self, encoder: int, text: str) -> list[int]:
        with self._lock:
            tokenizer = self._tokenizers[encoder]
            ids: list[int] = tokenizer(text, truncation=False, verbose=False)["input_ids"]
        return ids[1:-1]

    def _window(self, encoder: int, words: Sequence[Token]) -> list[Token]:
        tokenizer = self._tokenizers[encoder]
        padding = [(tokenizer.pad_token_id, 1.0)] * (self.max_tokens - 2 - len(words))
        return [(tokenizer.bos_token_id, 1.0), *words, (tokenizer.eos_token_id, 1.0), *padding]


def _without_first(all_: Conditioning) -> Conditioning:
    pooled = None if all_.pooled is None else _zeroed(all_.pooled)
    return Conditioning(_zeroed(all_.context), pooled)


def _zeroed(states: torch.Tensor) -> torch.Tensor:
    return torch.cat([torch.zeros_like(states[:1]), states[1:]])
