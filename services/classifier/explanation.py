"""What an explanation is: how much each patch of a picture spoke for a label."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import NamedTuple, Protocol

from services.classifier.network import Floats
from services.classifier.preprocessing import Pixels, Preprocessing


class Method(Enum):
    """How attention is followed from the head back to the picture.

    ``ROLLOUT``: attention rollout (Abnar and Zuidema, "Quantifying Attention Flow in
    Transformers", ACL 2020), the same for every label. ``GRADIENT``: attention weighted by the
    gradient of the label's logit (Chefer, Gur and Wolf, "Generic Attention-model Explainability
    for Interpreting Bi-Modal and Encoder-Decoder Transformers", ICCV 2021).
    """

    ROLLOUT = "rollout"
    GRADIENT = "gradient"


class Question(NamedTuple):
    """``among``: the outputs of which the one with the largest logit is explained, all when
    empty.
    """

    method: Method
    among: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Explained:
    """``logits`` [batch, labels] of the pass that was explained; ``relevance`` [batch, rows,
    columns] of patches, from 0, each picture's adding up to 1.
    """

    logits: Floats
    relevance: Floats


class Explainer(Protocol):
    """A network that shows its attention. Answers are explained in float32, whatever precision
    they were computed in.
    """

    def check(self, directory: Path) -> None:
        """Whether the model in ``directory`` could be explained; reads no weights.

        Raises ``FailedPrecondition`` for one that has no attention to follow, or no weights to be
        read here.
        """

    def load(self, directory: Path, preprocessing: Preprocessing) -> None:
        """Loads the model in ``directory``; blocking, from any thread, no work when done before.

        Raises as ``check``, and for files that cannot be used.
        """

    def explain(
        self, pixels: Sequence[Pixels], method: Method, among: Sequence[Sequence[int]]
    ) -> Explained:
        """One pass, and one back for ``GRADIENT``; ``among`` as in ``Question``, one each.

        From one thread at a time, after ``load``. Raises ``OutOfMemory``.
        """

    def close(self) -> None:
        """Frees the weights."""
