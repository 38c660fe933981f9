"""Judges as messages, and back."""

from __future__ import annotations

from typing import Final

from easel.ranker.v1 import ranker_pb2
from ranker.pictures import request
from ranker.pictures.judges.spec import (
    JudgeSpec,
    LabelSpec,
    RewardSpec,
    SimilaritySpec,
    Strength,
    TextImageSpec,
)
from services.core.errors import InvalidInput

LAST_LAYER: Final = -1
_STRENGTHS: Final[dict[int, Strength | None]] = {
    ranker_pb2.PAIRWISE_RANKING_UNSPECIFIED: None,
    ranker_pb2.PAIRWISE_RANKING_BRADLEY_TERRY: Strength.BRADLEY_TERRY,
    ranker_pb2.PAIRWISE_RANKING_WIN_RATE: Strength.WIN_RATE,
}
_RANKINGS: Final = {
    Strength.BRADLEY_TERRY: ranker_pb2.PAIRWISE_RANKING_BRADLEY_TERRY,
    Strength.WIN_RATE: ranker_pb2.PAIRWISE_RANKING_WIN_RATE,
}


def spec_from_pb(judge: ranker_pb2.Judge, position: int) -> JudgeSpec:
    """``position``: its place among the judges. Raises InvalidInput."""
    at = f"judges[{position}]"
    weight = judge.weight if judge.HasField("weight") else 1.0
    spread = judge.spread if judge.HasField("spread") else None
    match judge.WhichOneof("kind"):
        case "label":
            request.check_prompt(judge.label.label, field=f"{at}.label.label")
            kind: LabelSpec | SimilaritySpec | TextImageSpec | RewardSpec
            kind = LabelSpec(judge.label.label, judge.label.model)
        case "similarity":
            told = judge.similarity
            kind = SimilaritySpec(tuple(told.references), told.model, told.layer or LAST_LAYER)
        case "text_image":
            request.check_prompt(judge.text_image.text, field=f"{at}.text_image.text")
            kind = TextImageSpec(judge.text_image.text, judge.text_image.model)
        case "reward":
            request.check_prompt(judge.reward.text, field=f"{at}.reward.text")
            if judge.reward.ranking not in _STRENGTHS:
                raise InvalidInput(
                    f"{at}.reward.ranking",
                    "Unknown ranking.",
                    "BRADLEY_TERRY or WIN_RATE",
                    judge.reward.ranking,
                )
            kind = RewardSpec(
                judge.reward.name, judge.reward.text, _STRENGTHS[judge.reward.ranking]
            )
        case _:
            raise InvalidInput(at, "A judge needs a kind, such as `label`.")
    return JudgeSpec(kind, weight, spread)


def spec_to_pb(spec: JudgeSpec) -> ranker_pb2.Judge:
    """Without pictures to compare with: whoever asks has them."""
    judge = ranker_pb2.Judge(weight=spec.weight, spread=spec.spread)
    match spec.kind:
        case LabelSpec(label, model):
            judge.label.CopyFrom(ranker_pb2.LabelJudge(label=label, model=model))
        case SimilaritySpec(_, model, layer):
            judge.similarity.CopyFrom(ranker_pb2.SimilarityJudge(model=model, layer=layer))
        case TextImageSpec(text, model):
            judge.text_image.CopyFrom(ranker_pb2.TextImageJudge(text=text, model=model))
        case RewardSpec(name, text, strength):
            judge.reward.CopyFrom(ranker_pb2.RewardJudge(name=name, text=text))
            if strength is not None:
                judge.reward.ranking = _RANKINGS[strength]
    return judge


def signature(spec: JudgeSpec) -> str:
    """A resolved judge without what it looks for: what its scores are, on any prompt."""
    match spec.kind:
        case LabelSpec(_, model):
            kind = f"label {model}"
        case SimilaritySpec(_, model, layer):
            kind = f"similarity {model} layer {layer}"
        case TextImageSpec(_, model):
            kind = f"text_image {model}"
        case RewardSpec(name, _, strength):
            kind = f"reward {name} {'' if strength is None else strength.value}"
    return f"{kind.strip()} weight {spec.weight:g} spread {spec.spread:g}"
