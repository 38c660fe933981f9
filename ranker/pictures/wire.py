"""Requests for candidates, as the generator gets them."""

from __future__ import annotations

from collections.abc import Sequence

from easel.common.v1 import common_pb2
from easel.generator.v1 import generator_pb2
from easel.ranker.v1 import ranker_pb2
from ranker.pictures.judges.service import Jury
from ranker.pictures.judges.wire import signature
from ranker.pictures.pruning.calibration import Circumstances
from ranker.pictures.schedule import Round
from ranker.pictures.upstream import GeneratorModel
from services.core.errors import InvalidInput


def steps_of(generate: generator_pb2.GenerateRequest, model: GeneratorModel) -> int:
    return generate.steps if generate.HasField("steps") else model.default_steps


def order_from_pb(
    generate: generator_pb2.GenerateRequest, candidates: int, preview_steps: Sequence[int]
) -> generator_pb2.GenerateRequest:
    """The request as the generator gets it: all candidates, previews where they are judged."""
    order = generator_pb2.GenerateRequest()
    order.CopyFrom(generate)
    order.count = candidates
    # Steps are counted here even where the caller does not want to hear of them.
    order.omit_steps = False
    if preview_steps:
        # Else those that come first are finished before there is anything to compare them with.
        order.in_step = True
        order.preview.at_steps.extend(preview_steps)
        order.preview.method = generator_pb2.PREVIEW_METHOD_DECODED
        order.preview.output.format = common_pb2.IMAGE_FORMAT_PNG
    return order


def check_order(generate: generator_pb2.GenerateRequest) -> None:
    """Raises InvalidInput for what a request for candidates must not say."""
    if generate.HasField("preview"):
        raise InvalidInput(
            "generate.preview",
            "Previews are the ranker's own; set `previews` to have them passed on.",
        )
    if generate.allow_degrade:
        raise InvalidInput(
            "generate.allow_degrade", "Candidates are compared after the same steps."
        )


def pruning_to_pb(rounds: Sequence[Round]) -> ranker_pb2.Pruning:
    told = [
        ranker_pb2.PruneRound(at=each.at, keep=each.keep, margin=each.margin) for each in rounds
    ]
    return ranker_pb2.Pruning(rounds=told, disabled=not told)


def circumstances_of(
    generate: generator_pb2.GenerateRequest, model: GeneratorModel, jury: Jury
) -> Circumstances | None:
    """None for requests that no calibration is made of: those on a given picture, and those with
    anything that changes the model on its way or how it reads a prompt."""
    mode = generate.WhichOneof("mode")
    if mode not in (None, "text_to_image") or _changed(generate):
        return None
    guided = generate.HasField("guidance_scale")
    sampler = generate.sampler
    return Circumstances(
        generator=_identity(model.ref),
        classifier="" if jury.ref is None else _identity(jury.ref),
        judges=tuple(signature(spec) for spec in jury.specs),
        steps=steps_of(generate, model),
        guidance_scale=float(f"{generate.guidance_scale:.7g}") if guided else None,
        sampler=generator_pb2.Sampler.Name(sampler) if sampler else "",
        width=generate.width,
        height=generate.height,
    )


def _changed(generate: generator_pb2.GenerateRequest) -> bool:
    on_its_way = generate.adapters or generate.controls or generate.cache_interval > 1
    read = generate.negative_prompt or generate.prompt_weighting or generate.long_prompt
    return bool(on_its_way or read or generate.clip_skip or generate.guidance_rescale)


def _identity(ref: common_pb2.ModelRef) -> str:
    return ref.digest or f"{ref.name}@{ref.version}"
