"""The U-Net's attention with a part of each row's own: what other rows of the batch never see."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import torch
import torch.nn.functional as F  # noqa: N812
from diffusers.models.attention_processor import AttnProcessor2_0

# Of a weight's distance to 0 and 1: the logarithm of less is no longer a finite bias.
_LEAST: Final = 1e-6


@dataclass(frozen=True, slots=True)
class Sharing:
    """Entries of a batch that look at others too, in every self-attention.

    borrowers, lenders: int64 (R,), indices of the batch. weights: float32 (R,), 0 to 1: the odds
    of a lender's keys against the borrower's own, equally like the query, are w to 1 - w. At 0.5
    they are simply joined, as StyleAligned does (Hertz et al., 2024, arXiv 2312.02133); at 1 they
    take the place of the own, as in StyleID (Chung et al., 2024, arXiv 2312.09008).
    """

    borrowers: torch.Tensor
    lenders: torch.Tensor
    weights: torch.Tensor


@dataclass(frozen=True, slots=True)
class ImagePrompt:
    """Entries of a batch that look at a picture's tokens too, wherever there are keys for them.

    entries: int64 (R,), indices of the batch. tokens: (R, N, D), in the U-Net's dtype. scales:
    float32 (R,): how much of what is seen there is added (lambda of Ye et al., 2023, eq. 5).
    """

    entries: torch.Tensor
    tokens: torch.Tensor
    scales: torch.Tensor


@dataclass(frozen=True, slots=True, eq=False)
class ImageKeys:
    """``key`` and ``value`` of one cross-attention to pictures: (inner, D) each."""

    key: torch.Tensor
    value: torch.Tensor

    @property
    def nbytes(self) -> int:
        return self.key.nbytes + self.value.nbytes

    def to(self, device: torch.device, dtype: torch.dtype) -> ImageKeys:
        return ImageKeys(self.key.to(device, dtype), self.value.to(device, dtype))


class SharedAttention(AttnProcessor2_0):  # type: ignore[misc]
    """Self-attention of a transformer block, which shares as its ``layers`` say at the time."""

    def __init__(self, layers: AttentionLayers) -> None:
        super().__init__()
        self._layers = layers

    def __call__(
        self, attn: Any, hidden_states: torch.Tensor, *args: Any, **options: Any
    ) -> torch.Tensor:
        sharing = self._layers.sharing
        if sharing is None:
            plain: torch.Tensor = super().__call__(attn, hidden_states, *args, **options)
            return plain
        # All rows at once, as whatever adapters they wear expects.
        query, key, value = (
            _by_head(project(hidden_states), attn.heads)
            for project in (attn.to_q, attn.to_k, attn.to_v)
        )
        seen = F.scaled_dot_product_attention(query, key, value)
        seen[sharing.borrowers] = _shared(query, key, value, sharing)
        projected: torch.Tensor = attn.to_out[0](seen.transpose(1, 2).flatten(2))
        return projected


class PromptedAttention(AttnProcessor2_0):  # type: ignore[misc]
    """Cross-attention of a transformer block, decoupled: to the text, and beside it to a picture
    for the entries that its ``layers`` name at the time.
    """

    def __init__(self, layers: AttentionLayers, keys: ImageKeys) -> None:
        super().__init__()
        self._layers = layers
        self._keys = keys

    def __call__(
        self,
        attn: Any,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor | None = None,
        *args: Any,
        **options: Any,
    ) -> torch.Tensor:
        prompt = self._layers.image_prompt
        if prompt is None or encoder_hidden_states is None:
            plain: torch.Tensor = super().__call__(
                attn, hidden_states, encoder_hidden_states, *args, **options
            )
            return plain
        query, key, value = (
            _by_head(projected, attn.heads)
            for projected in (
                attn.to_q(hidden_states),
                attn.to_k(encoder_hidden_states),
                attn.to_v(encoder_hidden_states),
            )
        )
        seen = F.scaled_dot_product_attention(query, key, value)
        seen[prompt.entries] += _pictured(query, self._keys, prompt, attn.heads)
        projected: torch.Tensor = attn.to_out[0](seen.transpose(1, 2).flatten(2))
        return projected


class AttentionLayers:
    """The attention of one U-Net. One thread at a time looks through it."""

    def __init__(self, unet: torch.nn.Module) -> None:
        self.sharing: Sharing | None = None
        self.image_prompt: ImagePrompt | None = None
        self.crossing: Mapping[str, Any] = {
            name: layer for name, layer in unet.named_modules() if name.endswith(".attn2")
        }
        """The cross-attentions by name, in the order that adapters number them by."""
        for name, layer in unet.named_modules():
            if name.endswith(".attn1"):
                layer.set_processor(SharedAttention(self))

    def adopt(self, keys: Mapping[str, ImageKeys]) -> None:
        """These of the cross-attentions see pictures from now on."""
        for name, own in keys.items():
            self.crossing[name].set_processor(PromptedAttention(self, own))

    @contextmanager
    def styled(
        self, sharing: Sharing | None, image_prompt: ImagePrompt | None = None
    ) -> Iterator[None]:
        """While it is open, batches share so and see these pictures."""
        self.sharing, self.image_prompt = sharing, image_prompt
        try:
            yield
        finally:
            self.sharing = self.image_prompt = None


def _by_head(projected: torch.Tensor, heads: int) -> torch.Tensor:
    rows, length, _ = projected.shape
    return projected.view(rows, length, heads, -1).transpose(1, 2)


def _shared(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, sharing: Sharing
) -> torch.Tensor:
    """(R, heads, L, D): what the borrowers see in their own and their lenders' values."""
    own, other = sharing.borrowers, sharing.lenders
    weights = sharing.weights.clamp(_LEAST, 1.0 - _LEAST)
    biases = torch.stack([(1.0 - weights).log(), weights.log()], dim=1)
    length = key.shape[2]
    return F.scaled_dot_product_attention(
        query[own],
        torch.cat([key[own], key[other]], dim=2),
        torch.cat([value[own], value[other]], dim=2),
        attn_mask=biases.repeat_interleave(length, dim=1)[:, None, None].to(query.dtype),
    )


def _pictured(
    query: torch.Tensor, keys: ImageKeys, prompt: ImagePrompt, heads: int
) -> torch.Tensor:
    """(R, heads, L, D): what the prompted entries see in their pictures, as much as they take."""
    key, value = (
        _by_head(F.linear(prompt.tokens, weight), heads) for weight in (keys.key, keys.value)
    )
    found = F.scaled_dot_product_attention(query[prompt.entries], key, value)
    return prompt.scales[:, None, None, None].to(found.dtype) * found
