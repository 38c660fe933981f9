"""What pictures are judged by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Self

from easel.client.picture import Picture, to_message
from easel.ranker.v1 import ranker_pb2

RANKINGS = ("bradley-terry", "win-rate")


@dataclass(frozen=True)
class Judge:
    """One judge of a ranking; make it by one of the methods.

    Several are added up: each one's score, over its spread, times its weight. ``weight`` is 1 when
    None; ``spread``, by how much its scores typically differ between pictures of one prompt, is the
    judge's own.
    """

    _kind: str = field(repr=False)
    _message: Any = field(repr=False)
    weight: float | None = None
    spread: float | None = None

    @classmethod
    def label(
        cls,
        label: str = "",
        *,
        model: str = "",
        weight: float | None = None,
        spread: float | None = None,
    ) -> Self:
        """The log-probability of a label; of the one in the prompt when it is empty."""
        return cls("label", ranker_pb2.LabelJudge(label=label, model=model), weight, spread)

    @classmethod
    def like(
        cls,
        references: Sequence[Picture],
        *,
        model: str = "",
        layer: int = 0,
        weight: float | None = None,
        spread: float | None = None,
    ) -> Self:
        """Likeness to pictures, by the classifier's embeddings; of its last layer when 0."""
        pictures = [to_message(each) for each in references]
        message = ranker_pb2.SimilarityJudge(references=pictures, model=model, layer=layer)
        return cls("similarity", message, weight, spread)

    @classmethod
    def text(
        cls,
        text: str = "",
        *,
        model: str = "",
        weight: float | None = None,
        spread: float | None = None,
    ) -> Self:
        """How well a text fits, by a CLIP-like model of the ranker's; the prompt when empty."""
        return cls("text_image", ranker_pb2.TextImageJudge(text=text, model=model), weight, spread)

    @classmethod
    def reward(
        cls,
        name: str,
        *,
        text: str = "",
        ranking: str = "",
        weight: float | None = None,
        spread: float | None = None,
    ) -> Self:
        """A plug-in of the ranker's. ``ranking``, of a pairwise one: "bradley-terry" or "win-rate".

        Raises ``ValueError`` for another.
        """
        if ranking and ranking not in RANKINGS:
            raise ValueError(f"ranking: {ranking!r} is not one of {', '.join(RANKINGS)}")
        told = ranking.upper().replace("-", "_") or "UNSPECIFIED"
        value = ranker_pb2.PairwiseRanking.Value(f"PAIRWISE_RANKING_{told}")
        message = ranker_pb2.RewardJudge(name=name, text=text, ranking=value)
        return cls("reward", message, weight, spread)

    def message(self) -> ranker_pb2.Judge:
        judge = ranker_pb2.Judge(weight=self.weight, spread=self.spread)
        getattr(judge, self._kind).CopyFrom(self._message)
        return judge
