"""Requests from keyword arguments. What is left out is left to the server, never filled in here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, TypeAlias, TypedDict, Unpack

from easel.battles import Battle
from easel.classifier.v1 import classifier_pb2
from easel.client.control import Control
from easel.client.judge import Judge
from easel.client.picture import Picture, to_message
from easel.common.v1 import common_pb2
from easel.generator.v1 import generator_pb2
from easel.ranker.v1 import ranker_pb2

Round: TypeAlias = tuple[float, int] | tuple[float, int, float | None]
"""Share of the steps, candidates kept, and how far behind the best they may be."""
_SPELLINGS: Final = (("++", "pp"), ("-", "_"), (" ", "_"))


class GenerateOptions(TypedDict, total=False):
    """Options of a generation; every one may be left out (`easel.generator.v1.GenerateRequest`
    says what the server then takes)."""

    id: str
    model: str
    model_version: str
    negative_prompt: str
    width: int
    height: int
    steps: int
    guidance_scale: float
    guidance_rescale: float
    sampler: str
    """"ddim", "euler", "euler-a", "dpm++ 2m karras", "unipc", "lcm", ..."""
    seed: int
    seeds: Sequence[int]
    count: int
    long_prompt: str
    """"error", "truncate" or "chunk"."""
    prompt_weighting: bool
    """Reads (word:1.3) and [word] in the prompts as weights."""
    clip_skip: int
    controls: Sequence[Control]
    preview_every: int
    preview_method: str
    """"fast" or "decoded"."""
    format: str
    """"png", "jpeg" or "webp"."""
    quality: int
    image: Picture
    """To begin from; with ``mask``, to be painted again where it is marked."""
    strength: float
    """Above 0, up to 1: the share of the steps that is run on the image."""
    mask: Picture
    mask_polarity: str
    """"white-is-repainted" or "transparent-is-repainted"; must be said with a mask."""
    feather_px: int
    padding_px: int
    style: Picture
    """Whose style the image takes."""
    content_strength: float
    style_strength: float
    reproducibility: str
    """"close" or "exact"."""
    adapters: Sequence[str]
    """Each "name" or "name:scale"."""
    cache_interval: int
    allow_degrade: bool
    omit_steps: bool
    omit_metadata: bool
    tiled_decode: bool


def generate_request(
    prompt: str, **options: Unpack[GenerateOptions]
) -> generator_pb2.GenerateRequest:
    """Raises ``ValueError`` for the name of a sampler, format or mode that does not exist, for an
    adapter whose scale is no number, and for options of an image or a mask that is not given;
    ``OSError`` for a picture file that cannot be read.
    """
    given: dict[str, Any] = dict(options)
    request = generator_pb2.GenerateRequest(
        prompt=prompt,
        sampler=_named(generator_pb2.Sampler, "SAMPLER", given.pop("sampler", "")),
        long_prompt=_named(generator_pb2.LongPrompt, "LONG_PROMPT", given.pop("long_prompt", "")),
        reproducibility=_named(
            generator_pb2.Reproducibility, "REPRODUCIBILITY", given.pop("reproducibility", "")
        ),
        output=_output(given.pop("format", ""), given.pop("quality", None)),
        controls=[control.to_pb() for control in given.pop("controls", ())],
    )
    request.adapters.extend(_adapter(text) for text in given.pop("adapters", ()))
    _set_mode(request, given)
    _set_preview(request, given)
    unknown = given.keys() - request.DESCRIPTOR.fields_by_name.keys()
    if unknown:
        raise TypeError(f"unknown option: {', '.join(sorted(unknown))}")
    request.MergeFrom(generator_pb2.GenerateRequest(**given))
    return request


def best_of_request(
    generate: generator_pb2.GenerateRequest,
    *,
    candidates: int,
    label: str = "",
    judges: Sequence[Judge] = (),
    rounds: Sequence[Round] | None = None,
    return_images: int = 0,
    previews: bool = False,
) -> ranker_pb2.BestOfRequest:
    """``rounds`` is (share of the steps, candidates kept), or with a margin as third; empty for no
    pruning at all, None for the ranker's own schedule. ``label`` is one more judge, the first."""
    return ranker_pb2.BestOfRequest(
        id=generate.id,
        generate=generate,
        candidates=candidates,
        judges=_judges(label, judges),
        pruning=None if rounds is None else _pruning(rounds),
        return_images=return_images,
        previews=previews,
    )


def rank_request(
    images: Mapping[str, common_pb2.Image],
    *,
    prompt: str = "",
    label: str = "",
    judges: Sequence[Judge] = (),
) -> ranker_pb2.RankImagesRequest:
    """``images`` by the ids they are answered with."""
    return ranker_pb2.RankImagesRequest(
        images=[ranker_pb2.RankImage(id=name, image=image) for name, image in images.items()],
        judges=_judges(label, judges),
        prompt=prompt,
    )


def index_request(
    collection: str,
    id: str,
    image: common_pb2.Image,
    *,
    attributes: Mapping[str, str],
    skip_existing: bool,
) -> ranker_pb2.IndexImagesRequest:
    return ranker_pb2.IndexImagesRequest(
        collection=collection,
        id=id,
        image=image,
        attributes=attributes,
        skip_existing=skip_existing,
    )


def search_request(
    collection: str,
    *,
    image: common_pb2.Image | None = None,
    embedding: Sequence[float] | None = None,
    id: str = "",
    digest: str = "",
    top_k: int = 0,
    labels: Sequence[str] = (),
    attributes: Mapping[str, str] | None = None,
) -> ranker_pb2.SearchImagesRequest:
    """Raises ``ValueError`` for more than one of ``image``, ``embedding`` and ``id``."""
    if sum((image is not None, embedding is not None, bool(id))) > 1:
        raise ValueError("search: give one of image, embedding and id")
    request = ranker_pb2.SearchImagesRequest(
        collection=collection, top_k=top_k, labels=labels, attributes=attributes or {}
    )
    if image is not None:
        request.image.CopyFrom(image)
    elif embedding is not None:
        request.embedding.CopyFrom(ranker_pb2.Vector(values=embedding, model_digest=digest))
    elif id:
        request.id = id
    return request


def collection_request(
    name: str,
    *,
    model: str = "",
    model_version: str = "",
    layer: int | None = None,
    pooling: str = "",
    fit: str = "",
) -> ranker_pb2.CreateCollectionRequest:
    """Raises ``ValueError`` for a pooling or fit that does not exist."""
    return ranker_pb2.CreateCollectionRequest(
        name=name,
        model=model,
        model_version=model_version,
        layer=layer,
        pooling=_named(classifier_pb2.Pooling, "POOLING", pooling),
        fit=_named(classifier_pb2.Fit, "FIT", fit),
    )


def calibration_request(
    generate: generator_pb2.GenerateRequest,
    prompts: Sequence[str],
    *,
    candidates: int = 0,
    label: str = "",
    judges: Sequence[Judge] = (),
    at: Sequence[float] = (),
    max_work: float = 0.0,
) -> ranker_pb2.CalibratePruningRequest:
    """``generate`` without a prompt. ``at``: shares of the steps at which candidates are scored."""
    return ranker_pb2.CalibratePruningRequest(
        generate=generate,
        prompts=prompts,
        candidates=candidates,
        judges=_judges(label, judges),
        at=at,
        max_work=max_work,
    )


def verify_request(
    picture: common_pb2.Image | None,
    *,
    provenance: generator_pb2.Provenance | None = None,
    given: Sequence[common_pb2.Image] = (),
    allow_other_versions: bool = False,
) -> generator_pb2.VerifyRequest:
    return generator_pb2.VerifyRequest(
        provenance=provenance,
        image=picture,
        given=given,
        allow_other_versions=allow_other_versions,
    )


def classify_request(
    image: common_pb2.Image,
    *,
    id: str = "",
    model: str = "",
    model_version: str = "",
    top_k: int | None = None,
    threshold: float = 0.0,
    labels: Sequence[str] = (),
    logits: bool = False,
    fit: str = "",
) -> classifier_pb2.ClassifyRequest:
    """Raises ``ValueError`` for a fit that is none of "model", "pad" and "center-crop"."""
    return classifier_pb2.ClassifyRequest(
        id=id,
        image=image,
        model=model,
        model_version=model_version,
        top_k=top_k,
        threshold=threshold,
        labels=labels,
        logits=logits,
        fit=_named(classifier_pb2.Fit, "FIT", fit),
    )


def embed_request(
    image: common_pb2.Image,
    *,
    id: str = "",
    model: str = "",
    model_version: str = "",
    layers: Sequence[int] = (),
    pooling: str = "",
    normalize: bool = False,
    dtype: str = "",
    final_norm: bool | None = None,
    fit: str = "",
) -> classifier_pb2.EmbedRequest:
    """Raises ``ValueError`` for a pooling, dtype or fit that does not exist."""
    return classifier_pb2.EmbedRequest(
        id=id,
        image=image,
        model=model,
        model_version=model_version,
        layers=layers,
        pooling=_named(classifier_pb2.Pooling, "POOLING", pooling),
        normalize=normalize,
        dtype=_named(classifier_pb2.EmbeddingDtype, "EMBEDDING_DTYPE", dtype),
        final_norm=final_norm,
        fit=_named(classifier_pb2.Fit, "FIT", fit),
    )


def explain_request(
    image: common_pb2.Image,
    *,
    id: str = "",
    model: str = "",
    model_version: str = "",
    method: str = "",
    label: str = "",
    overlay: bool = False,
    format: str = "",
    quality: int | None = None,
    fit: str = "",
) -> classifier_pb2.ExplainRequest:
    """Raises ``ValueError`` for a method, format or fit that does not exist."""
    return classifier_pb2.ExplainRequest(
        id=id,
        image=image,
        model=model,
        model_version=model_version,
        method=_named(classifier_pb2.ExplainMethod, "EXPLAIN_METHOD", method),
        label=label,
        overlay=overlay,
        output=_output(format, quality),
        fit=_named(classifier_pb2.Fit, "FIT", fit),
    )


def contender(name: str, options: GenerateOptions | None) -> ranker_pb2.Contender:
    """One that makes its pictures by the options, or, with None, whose pictures are given."""
    made = ranker_pb2.Contender(name=name)
    if options is not None:
        made.generate.CopyFrom(generate_request("", **options))
        made.generate.SetInParent()
    return made


def record_vote_request(token: str, choice: str, judge: str) -> ranker_pb2.RecordVoteRequest:
    """``choice`` is "left", "right" or "tie"; raises ``ValueError`` for another."""
    vote = _named(ranker_pb2.Vote, "VOTE", choice)
    return ranker_pb2.RecordVoteRequest(token=token, vote=vote, judge=judge)


def judge_pairs_request(
    *,
    intent: str,
    pairs: int,
    judges: Sequence[Judge],
    label: str,
    name: str,
    tie_margin: float,
    prompt: str,
) -> ranker_pb2.JudgePairsRequest:
    return ranker_pb2.JudgePairsRequest(
        intent=intent,
        pairs=pairs,
        judges=_judges(label, judges),
        name=name,
        tie_margin=tie_margin,
        prompt=prompt,
    )


def import_votes_request(intent: str, battles: Sequence[Battle]) -> ranker_pb2.ImportVotesRequest:
    votes = [
        ranker_pb2.ImportedVote(
            id=each.id,
            left=each.left,
            right=each.right,
            vote=_named(ranker_pb2.Vote, "VOTE", each.winner),
            judge=each.judge,
        )
        for each in battles
    ]
    return ranker_pb2.ImportVotesRequest(intent=intent, votes=votes)


def names_of(enum: Any, prefix: str) -> list[str]:
    """The spellings that a parameter of this enum takes, in the contract's order."""
    names = [name.removeprefix(f"{prefix}_").lower() for name in enum.DESCRIPTOR.values_by_name]
    return [name.replace("_", "-") for name in names if name != "unspecified"]


def sampler_names() -> list[str]:
    return names_of(generator_pb2.Sampler, "SAMPLER")


_ALIASES: Final = {"SAMPLER_EULER_A": "SAMPLER_EULER_ANCESTRAL"}


def outcome_request(
    token: str, position: int, outcome: str, comment: str
) -> ranker_pb2.RecordOutcomeRequest:
    return ranker_pb2.RecordOutcomeRequest(
        token=token,
        position=position,
        outcome=_named(ranker_pb2.Outcome, "OUTCOME", outcome),
        comment=comment,
    )


def _named(enum: Any, prefix: str, text: object) -> Any:
    if not text:
        return 0
    spelled = str(text).lower()
    for written, read in _SPELLINGS:
        spelled = spelled.replace(written, read)
    name = f"{prefix}_{spelled.upper()}"
    name = _ALIASES.get(name, name)
    if name not in enum.DESCRIPTOR.values_by_name:
        known = ", ".join(names_of(enum, prefix))
        raise ValueError(f"{prefix.lower()}: {text!r} is not one of {known}")
    return enum.Value(name)


def _adapter(text: str) -> generator_pb2.Adapter:
    name, colon, scale = text.rpartition(":")
    if not colon:
        return generator_pb2.Adapter(name=text)
    try:
        return generator_pb2.Adapter(name=name, scale=float(scale))
    except ValueError:
        raise ValueError(f"adapter: {text!r} is not a name, or a name:scale") from None


def _output(format: object, quality: object) -> common_pb2.ImageOutput | None:
    if not format and quality is None:
        return None
    name = _named(common_pb2.ImageFormat, "IMAGE_FORMAT", format)
    return common_pb2.ImageOutput(format=name, quality=quality)  # type: ignore[arg-type]


_OF_IMAGES: Final = ("strength", "mask", "style")
_OF_STYLES: Final = ("content_strength", "style_strength")
_OF_MASKS: Final = ("mask_polarity", "feather_px", "padding_px")


def _set_mode(request: generator_pb2.GenerateRequest, given: dict[str, Any]) -> None:
    image, mask, style = given.pop("image", None), given.get("mask"), given.get("style")
    for needed, names, there in (
        ("image", _OF_IMAGES, image),
        ("mask", _OF_MASKS, mask),
        ("style", _OF_STYLES, style),
    ):
        stray = [name for name in names if name in given and there is None]
        if stray:
            raise ValueError(f"{stray[0]}: needs {needed}")
    asked: dict[str, Any] = {
        name: given.pop(name) for name in (*_OF_IMAGES, *_OF_MASKS, *_OF_STYLES) if name in given
    }
    if image is None:
        request.text_to_image.SetInParent()
    elif style is not None:
        if other := [name for name in asked if name not in ("style", *_OF_STYLES)]:
            raise ValueError(f"{other[0]}: does not go with style")
        asked["style"] = to_message(style)
        request.stylize.CopyFrom(generator_pb2.Stylize(content=to_message(image), **asked))
    elif mask is None:
        mode = generator_pb2.ImageToImage(image=to_message(image), **asked)
        request.image_to_image.CopyFrom(mode)
    else:
        asked["mask"] = to_message(mask)
        polarity = asked.pop("mask_polarity", "")
        asked["polarity"] = _named(generator_pb2.MaskPolarity, "MASK_POLARITY", polarity)
        request.inpaint.CopyFrom(generator_pb2.Inpaint(image=to_message(image), **asked))


def _set_preview(request: generator_pb2.GenerateRequest, given: dict[str, Any]) -> None:
    every, method = given.pop("preview_every", 0), given.pop("preview_method", "")
    if every or method:
        request.preview.every = every
        request.preview.method = _named(generator_pb2.PreviewMethod, "PREVIEW_METHOD", method)


def _judges(label: str, judges: Sequence[Judge]) -> list[ranker_pb2.Judge]:
    named = [Judge.label(label)] if label else []
    return [judge.message() for judge in (*named, *judges)]


def _pruning(rounds: Sequence[Round]) -> ranker_pb2.Pruning:
    if not rounds:
        return ranker_pb2.Pruning(disabled=True)
    return ranker_pb2.Pruning(rounds=[_round(*each) for each in rounds])


def _round(share: float, keep: int, margin: float | None = None) -> ranker_pb2.PruneRound:
    return ranker_pb2.PruneRound(at=share, keep=keep, margin=margin)
