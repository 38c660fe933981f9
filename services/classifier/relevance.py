"""Relevance of patches from the attention of a PyTorch network.

Both methods go from the last layer to the first with ``flow``, a row of numbers over the tokens.
It begins with what the head reads of the last layer (the class token, or every patch alike where it
reads their mean), and each layer spreads it over the tokens that its attention looked at. With A of
shape [heads, tokens, tokens] that is

- rollout:  ``flow = flow (mean(A) + I) / 2``
- gradient: ``flow = flow + flow mean(max(dA * A, 0))``, dA the gradient of the label's logit

where mean is over the heads. Last, what ``flow`` began with is taken off the gradient's: it is
there whatever was looked at.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import Lock
from typing import Any, Final

import numpy as np
import torch
from transformers import AttentionInterface

from services.accelerator import chosen_device, finish, keep_digits, watched
from services.classifier.explanation import Explained, Method
from services.classifier.families import FAMILIES, Family, ViT, family_of, opened
from services.classifier.network import Floats, Pooling
from services.classifier.preprocessing import Pixels, Preprocessing, read_preprocessing
from services.classifier.pytorch import Normal, load_model
from services.classifier.weights import check_weights
from services.core.errors import FailedPrecondition
from services.memory import memory_faults

ATTENTION: Final = "easel_watched"

See = Callable[[torch.Tensor], None]
_see: ContextVar[See] = ContextVar("see")


@dataclass(frozen=True, slots=True)
class Head:
    """What a head reads: ``tokens`` before the patches, one each of that many heads whose answers
    are averaged, and the ``mean`` of the patches, as a share of all that it reads.
    """

    tokens: int = 1
    mean: float = 0.0

    @classmethod
    def of(cls, family: Family) -> Head:
        if hasattr(family.model, "distillation_classifier"):  # DeiT's second head
            return cls(tokens=2)
        return cls(mean=family.head.count(Pooling.MEAN) / len(family.head))

    def first_flow(self, attention: torch.Tensor, patches: int) -> torch.Tensor:
        """float64 [batch, tokens] that add up to 1; ``attention`` is [batch, ..., tokens]."""
        shape = len(attention), attention.shape[-1]
        flow = torch.zeros(shape, dtype=torch.float64, device=attention.device)
        flow[:, : self.tokens] = (1.0 - self.mean) / self.tokens
        flow[:, -patches:] += self.mean / patches
        return flow


class TorchExplainer:
    """An ``Explainer`` that holds the model in float32, with its attention in the open, beside
    whatever network answers.
    """

    def __init__(self, device: str = "auto") -> None:
        self._device_name = device
        self._lock = Lock()
        self._family: Family | None = None
        self._head = Head()
        self._normal: Normal | None = None
        self._device = torch.device("cpu")

    def check(self, directory: Path) -> None:
        _check_family(directory)
        check_weights(directory)

    def load(self, directory: Path, preprocessing: Preprocessing) -> None:
        with self._lock:
            if self._family is not None:
                return
            self.check(directory)
            device = chosen_device(self._device_name)
            keep_digits(device, torch.float32)
            self._device = device
            model = load_model(directory)
            resized = preprocessing.input != read_preprocessing(directory).input
            family = opened(model, preprocessing.input, wanted=resized)
            model.to(device).requires_grad_(False)
            model.set_attn_implementation(ATTENTION)
            self._head = Head.of(family)
            self._normal = Normal(preprocessing, device)
            self._family = family

    def explain(
        self, pixels: Sequence[Pixels], method: Method, among: Sequence[Sequence[int]]
    ) -> Explained:
        assert self._family is not None, "load() comes first"
        assert self._normal is not None, "load() comes first"
        rows, columns = self._family.shapes[-1].rows, self._family.shapes[-1].columns
        with watched(partial(finish, self._device)), memory_faults():
            inputs = self._normal(pixels)
            if method is Method.ROLLOUT:
                logits, flow = self._rollout(inputs, rows * columns)
            else:
                logits, flow = self._gradient(inputs, rows * columns, among)
            patches = flow[:, -rows * columns :].cpu().numpy()
            return Explained(logits.cpu().numpy(), _shares(patches.reshape(-1, rows, columns)))

    def close(self) -> None:
        with self._lock:
            self._family = None
            self._normal = None

    @torch.no_grad()
    def _rollout(self, inputs: torch.Tensor, patches: int) -> tuple[torch.Tensor, torch.Tensor]:
        layers: list[torch.Tensor] = []
        logits = self._logits(inputs, lambda attention: layers.append(attention.mean(dim=1)))
        flow = self._head.first_flow(layers[-1], patches)
        for attention in reversed(layers):
            flow = rolled(flow, attention)
        return logits, flow

    @torch.enable_grad()
    def _gradient(
        self,
        inputs: torch.Tensor,
        patches: int,
        among: Sequence[Sequence[int]],
    ) -> tuple[torch.Tensor, torch.Tensor]:
        flows: list[torch.Tensor] = []

        def see(attention: torch.Tensor) -> None:
            if not attention.requires_grad:  # the first layer's: weights need no gradient
                attention.requires_grad_()
            if not flows:
                flows.append(self._head.first_flow(attention, patches))
            # Gradients come from the last layer to the first, so that none has to be kept.
            shown = attention.detach()
            watched: Any = attention  # PyTorch leaves its hooks untyped
            watched.register_hook(lambda slope: flows.append(weighed(flows[-1], shown, slope)))

        logits = self._logits(inputs, see)
        rows = torch.arange(len(logits))
        torch.autograd.backward(logits[rows, _targets(logits, among)].sum())
        return logits.detach(), flows[-1] - flows[0]

    def _logits(self, inputs: torch.Tensor, see: See) -> torch.Tensor:
        assert self._family is not None, "load() comes first"
        with _watching(see):
            logits: torch.Tensor = self._family.model(inputs).logits
        return logits


def rolled(flow: torch.Tensor, attention: torch.Tensor) -> torch.Tensor:
    """``flow`` [batch, tokens], a layer earlier; ``attention`` [batch, tokens, tokens] is the mean
    of the heads'. Half of it stays where it is, for the connection around the layer's attention.
    """
    return (flow + _spread(flow, attention)) / 2


def weighed(flow: torch.Tensor, attention: torch.Tensor, slope: torch.Tensor) -> torch.Tensor:
    """``flow`` [batch, tokens], a layer earlier; ``attention`` and its gradient ``slope`` are
    [batch, heads, tokens, tokens].
    """
    return flow + _spread(flow, (attention * slope).clamp_(min=0).mean(dim=1))


def _spread(flow: torch.Tensor, attention: torch.Tensor) -> torch.Tensor:
    return torch.matmul(flow[:, None], attention.to(flow.dtype))[:, 0]


def _targets(logits: torch.Tensor, among: Sequence[Sequence[int]]) -> list[int]:
    numbers = logits.detach().cpu().numpy()
    return [
        int(row.argmax()) if not indices else max(indices, key=row.__getitem__)
        for row, indices in zip(numbers, among, strict=True)
    ]


def _shares(patches: np.ndarray[Any, np.dtype[np.float64]]) -> Floats:
    """[batch, rows, columns] that add up to 1; equal ones where nothing spoke for the label."""
    patches = np.maximum(patches, 0.0)  # a last bit may be below
    totals = patches.sum(axis=(1, 2), keepdims=True)
    even = 1.0 / (patches.shape[1] * patches.shape[2])
    with np.errstate(invalid="ignore", divide="ignore"):
        shares = np.where(totals == 0.0, even, patches / totals)
    rounded: Floats = shares.astype(np.float32)
    return rounded


def _check_family(directory: Path) -> None:
    try:
        family = json.loads((directory / "config.json").read_text(encoding="utf-8"))["model_type"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise FailedPrecondition("The model has no config.json that names its type.") from error
    if not issubclass(family_of(family), ViT):
        able = [name for name, kind in FAMILIES.items() if issubclass(kind, ViT)]
        raise FailedPrecondition(
            f"Models of type {family} cannot be explained: relevance follows attention over the "
            f"whole picture, which these have: {', '.join(able)}."
        )


def _watched_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    **options: object,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Attention as transformers' models call it, whose weights ``_watching`` gets to see."""
    del module, options
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    scores = torch.matmul(query, key.transpose(2, 3)) * scale
    if attention_mask is not None:  # BEiT's biases of relative positions
        scores = scores + attention_mask
    weights = scores.softmax(dim=-1)
    _see.get()(weights)
    return torch.matmul(weights, value).transpose(1, 2).contiguous(), weights


@contextmanager
def _watching(see: See) -> Iterator[None]:
    token = _see.set(see)
    try:
        yield
    finally:
        _see.reset(token)


AttentionInterface.register(ATTENTION, _watched_attention)
