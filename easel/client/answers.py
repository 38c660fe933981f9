"""What calls with one answer each tell, as plain values."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, Literal, Self

from easel.classifier.v1 import classifier_pb2
from easel.client.errors import ItemError
from easel.common.v1 import common_pb2
from easel.generator.v1 import generator_pb2
from easel.ranker.v1 import ranker_pb2

_FLOAT_FORMATS: Final = {"float32": "f", "float16": "e"}
_VERDICTS: Final[dict[int, Literal["equal", "close", "different"]]] = {
    generator_pb2.VERDICT_EQUAL: "equal",
    generator_pb2.VERDICT_CLOSE: "close",
    generator_pb2.VERDICT_DIFFERENT: "different",
}


@dataclass(frozen=True, slots=True)
class Label:
    """A label and its probability, 0 to 1; ``logit`` only when it was asked for."""

    index: int
    name: str
    score: float
    logit: float | None = None

    @classmethod
    def from_pb(cls, label: common_pb2.Label) -> Self:
        logit = label.logit if label.HasField("logit") else None
        return cls(label.index, label.name, label.score, logit)


@dataclass(frozen=True, slots=True)
class Timing:
    """Where a picture's time went, in seconds; ``batch_rows`` is the largest batch it was in."""

    queue_seconds: float
    prepare_seconds: float
    compute_seconds: float
    finish_seconds: float
    batch_rows: int
    steps: int

    @classmethod
    def from_pb(cls, timing: common_pb2.Timing) -> Self:
        return cls(
            timing.queue_seconds,
            timing.prepare_seconds,
            timing.compute_seconds,
            timing.finish_seconds,
            timing.batch_rows,
            timing.steps,
        )


@dataclass(frozen=True, slots=True)
class Classification:
    """One picture's labels, best first; ``error`` where this picture failed (then no labels).

    ``digest`` is that of the model's files.
    """

    id: str
    labels: tuple[Label, ...]
    model: str
    timing: Timing
    error: ItemError | None = None
    digest: str = ""

    @classmethod
    def from_pb(cls, answer: classifier_pb2.ClassifyResponse) -> Self:
        return cls(
            answer.id,
            tuple(Label.from_pb(label) for label in answer.labels),
            answer.model.name,
            Timing.from_pb(answer.timing),
            item_error(answer),
            answer.model.digest,
        )


@dataclass(frozen=True, slots=True)
class Embedding:
    """One layer's embedding: little-endian, row-major numbers of ``dtype``.

    ``final_norm`` says whether the model's final norm was applied.
    """

    layer: int
    shape: tuple[int, ...]
    dtype: Literal["float32", "float16"]
    data: bytes
    normalized: bool
    final_norm: bool = False

    @classmethod
    def from_pb(cls, embedding: classifier_pb2.Embedding) -> Self:
        half = embedding.dtype == classifier_pb2.EMBEDDING_DTYPE_FLOAT16
        return cls(
            embedding.layer,
            tuple(embedding.shape),
            "float16" if half else "float32",
            embedding.data,
            embedding.normalized,
            embedding.final_norm,
        )

    def values(self) -> tuple[float, ...]:
        """The numbers, product(shape) of them, as Python floats."""
        letter = _FLOAT_FORMATS[self.dtype]
        count = len(self.data) // struct.calcsize(f"<{letter}")
        return struct.unpack(f"<{count}{letter}", self.data)


@dataclass(frozen=True, slots=True)
class Embeddings:
    """One picture's embeddings, one a layer; ``error`` where this picture failed (then none).

    ``digest`` is that of the model's files.
    """

    id: str
    embeddings: tuple[Embedding, ...]
    model: str
    timing: Timing
    error: ItemError | None = None
    digest: str = ""

    @classmethod
    def from_pb(cls, answer: classifier_pb2.EmbedResponse) -> Self:
        return cls(
            answer.id,
            tuple(Embedding.from_pb(embedding) for embedding in answer.embeddings),
            answer.model.name,
            Timing.from_pb(answer.timing),
            item_error(answer),
            answer.model.digest,
        )


@dataclass(frozen=True, slots=True)
class Explanation:
    """How much each patch of a picture spoke for ``label``: ``rows`` times ``columns`` numbers from
    0 that add up to 1, row by row. ``heat_map`` is an encoded picture, None unless asked for.
    """

    label: Label
    relevance: tuple[float, ...]
    rows: int
    columns: int
    heat_map: bytes | None
    model: str
    timing: Timing

    @classmethod
    def from_pb(cls, answer: classifier_pb2.ExplainResponse) -> Self:
        return cls(
            Label.from_pb(answer.label),
            tuple(answer.relevance),
            answer.rows,
            answer.columns,
            answer.heat_map.encoded if answer.HasField("heat_map") else None,
            answer.model.name,
            Timing.from_pb(answer.timing),
        )

    def grid(self) -> list[list[float]]:
        """The relevances as a list of rows."""
        starts = range(0, len(self.relevance), self.columns)
        return [list(self.relevance[start : start + self.columns]) for start in starts]


@dataclass(frozen=True, slots=True)
class RankedImage:
    """A given picture with its rank from 1; rank 0, and ``error``, where it could not be judged.
    ``tied`` where it shares its rank. ``parts``: what each judge said, in its own unit."""

    rank: int
    id: str
    score: float
    label: Label | None
    tied: bool = False
    error: ItemError | None = None
    parts: tuple[float, ...] = ()

    @classmethod
    def from_pb(cls, image: ranker_pb2.RankedImage) -> Self:
        return cls(
            image.rank,
            image.id,
            image.score,
            top_label(image),
            image.tied,
            item_error(image),
            tuple(image.parts),
        )


@dataclass(frozen=True, slots=True)
class Indexed:
    """What became of a picture that was to be indexed: its labels, best first, those that searches
    filter by; ``skipped`` where its id was there already; ``error`` where it failed.

    ``digest`` is that of the collection's model.
    """

    id: str
    labels: tuple[Label, ...]
    skipped: bool = False
    error: ItemError | None = None
    digest: str = ""

    @classmethod
    def from_pb(cls, answer: ranker_pb2.IndexImagesResponse) -> Self:
        return cls(
            answer.id,
            tuple(Label.from_pb(label) for label in answer.labels),
            answer.skipped,
            item_error(answer),
            answer.classifier.digest,
        )


@dataclass(frozen=True, slots=True)
class ImageMatch:
    """A picture of a collection; ``similarity`` is the cosine, -1 to 1, None where none was asked
    for: in a search by labels alone, and in a list."""

    id: str
    similarity: float | None
    labels: tuple[Label, ...]
    attributes: Mapping[str, str]

    @classmethod
    def from_pb(
        cls, image: ranker_pb2.ImageMatch | ranker_pb2.IndexedImage, *, similarity: float | None
    ) -> Self:
        return cls(
            image.id,
            similarity,
            tuple(Label.from_pb(label) for label in image.labels),
            dict(image.attributes),
        )


@dataclass(frozen=True, slots=True)
class Collection:
    """A collection of pictures, and what its vectors are made by. ``pooling`` is "cls" or "mean",
    ``fit`` "model", "pad" or "center-crop"."""

    name: str
    model: str
    version: str
    digest: str
    layer: int
    pooling: str
    fit: str
    dimensions: int
    images: int
    created_at: datetime

    @classmethod
    def from_pb(cls, collection: ranker_pb2.Collection) -> Self:
        made = collection.classifier
        pooling = classifier_pb2.Pooling.Name(collection.pooling).removeprefix("POOLING_")
        fit = classifier_pb2.Fit.Name(collection.fit).removeprefix("FIT_")
        return cls(
            collection.name,
            made.name,
            made.version,
            made.digest,
            collection.layer,
            pooling.lower(),
            fit.lower().replace("_", "-"),
            collection.dimensions,
            collection.images,
            collection.created_at.ToDatetime(UTC),
        )


@dataclass(frozen=True, slots=True)
class Verification:
    """A picture made again: "equal", "close" (no channel differs by more than 2 of 255) or
    "different". ``data`` is the picture made now. ``psnr_db`` and ``max_difference`` are None
    where there was nothing to measure.
    """

    verdict: Literal["equal", "close", "different"]
    explanation: str
    psnr_db: float | None
    max_difference: int | None
    pixel_sha256: str
    data: bytes

    @classmethod
    def from_pb(cls, answer: generator_pb2.VerifyResponse) -> Self:
        return cls(
            _VERDICTS[answer.verdict],
            answer.explanation,
            answer.psnr_db if answer.HasField("psnr_db") else None,
            answer.max_difference if answer.HasField("max_difference") else None,
            answer.pixel_sha256,
            answer.image.encoded,
        )


def top_label(
    answer: ranker_pb2.RankedImage | ranker_pb2.RankedCandidate | ranker_pb2.CandidateScore,
) -> Label | None:
    return Label.from_pb(answer.top) if answer.HasField("top") else None


def item_error(
    answer: classifier_pb2.ClassifyResponse
    | classifier_pb2.EmbedResponse
    | ranker_pb2.IndexImagesResponse
    | ranker_pb2.RankedImage
    | ranker_pb2.RankedCandidate,
) -> ItemError | None:
    return ItemError.from_pb(answer.error) if answer.HasField("error") else None
