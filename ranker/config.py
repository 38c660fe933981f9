"""What the ranker can be told."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Final

from pydantic import Field, SecretStr, field_validator
from sqlalchemy import URL

from ranker.database.engines import IN_MEMORY, parse_url
from ranker.database.keys import parse_key
from ranker.index.limits import IndexLimits
from ranker.pictures.schedule import DEFAULT_SCHEDULE, ShareRound, parse_schedule
from ranker.score.surroundings import DEFAULT_ECOSYSTEM, check_ecosystem
from ranker.score.weights import (
    DEFAULT_HALF_LIVES,
    DEFAULT_WEIGHTS,
    check_half_lives,
    check_weights,
)
from services.core.config import AdministeredSettings

DATABASE_FILE: Final = "easel.db"


class RankerSettings(AdministeredSettings):
    """Settings of the ranker, from ``EASEL_RANKER_*``. The two targets have no default."""

    service: ClassVar[str] = "ranker"

    classifier_target: str = Field(
        min_length=1, description="host:port of the classifier, which judges"
    )
    generator_target: str = Field(
        min_length=1, description="host:port of the generator, which makes the candidates"
    )
    max_candidates: int = Field(64, ge=1, le=1024, description="candidates in one BestOf")
    max_images: int = Field(256, ge=1, le=4096, description="pictures in one RankImages")
    max_judges: int = Field(8, ge=1, le=64, description="judges in one request")
    max_judging: int = Field(
        16, ge=1, le=1024, description="pictures of one request at the classifier at a time"
    )
    max_references: int = Field(
        16, ge=1, le=256, description="pictures that one similarity judge compares with"
    )
    max_pairwise: int = Field(
        32, ge=2, le=256, description="pictures that a pairwise judge compares two by two"
    )
    text_image_models: tuple[Path, ...] = Field(
        (), description="directories of CLIP-like models in ONNX files; the first is the default"
    )
    judge_threads: int = Field(
        2, ge=1, le=64, description="threads for judges that the ranker runs itself"
    )
    calibrations: tuple[Path, ...] = Field(
        (),
        description="files of `easel calibrate-pruning`, for the requests that they were made of",
    )
    default_schedule: str = Field(
        " ".join(f"{each.at:g}:{each.keep:g}" for each in DEFAULT_SCHEDULE),
        description=(
            "when BestOf drops candidates unless it is told: AT:KEEP pairs, shares of the steps "
            "and of the candidates that go on; empty drops none"
        ),
    )

    data_dir: Path | None = Field(
        None,
        description=(
            "directory of what the ranker keeps: `easel.db`, and the indexes; unset, it keeps all "
            "in memory, and loses it when it stops"
        ),
    )
    database_url: SecretStr | None = Field(
        None,
        description="postgresql://user:password@host/name to keep it there instead of `easel.db`",
    )

    max_catalogue_models: int = Field(
        100_000, ge=1, le=10_000_000, description="models in the catalogue, other records included"
    )
    max_catalogue_bytes: int = Field(
        16 * 2**20, ge=2**10, le=2**30, description="largest YAML document of ImportCatalogue"
    )
    arena_max_contenders: int = Field(
        2000, ge=2, le=5000, description="contenders in the arena of one intent"
    )
    arena_max_prompts: int = Field(
        10_000, ge=1, le=1_000_000, description="prompts of the arena of one intent"
    )
    arena_max_picture_bytes: int = Field(
        2**30, ge=2**20, description="bytes of pictures that all arenas keep"
    )
    arena_pictures_per_prompt: int = Field(
        2, ge=1, le=1000, description="pictures a contender makes for one prompt before old ones do"
    )
    arena_pair_seconds: int = Field(
        3600, ge=1, le=30 * 86_400, description="how long a vote on a pair is taken"
    )
    arena_min_votes: int = Field(
        30, ge=1, description="votes on a contender below which its strength is not told"
    )
    arena_exploration: float = Field(
        0.1, ge=0.0, le=1.0, description="share of pairs that are drawn from all alike"
    )

    score_weights: dict[str, dict[str, float]] = Field(
        {type: dict(weights) for type, weights in DEFAULT_WEIGHTS.items()},
        description=(
            "what each part of a model's score weighs, by type of model; `default` is for types "
            "that are not named; those of a type add up to 1"
        ),
    )
    score_half_life_days: dict[str, float] = Field(
        dict(DEFAULT_HALF_LIVES),
        description="days in which a model's freshness halves, by type of model, 1 to 36500",
    )
    score_ecosystem: dict[str, tuple[str, ...]] = Field(
        dict(DEFAULT_ECOSYSTEM),
        description=(
            "what a score looks for around a model in what the services tell of it, by type: FACT, "
            "or FACT=VALUE for one of its values"
        ),
    )
    score_min_evidence: int = Field(
        5,
        ge=1,
        le=1_000_000,
        description=(
            "peers, measured claims or outcomes that a part of a score needs, and outcomes that "
            "each of two compared models needs for an intent"
        ),
    )
    score_min_share: float = Field(
        0.5,
        ge=0,
        le=1,
        description="a model of whose weight less than this share has evidence gets no score",
    )
    index_milvus_uri: str = Field(
        "",
        description=(
            "Milvus server (http://host:port), or file.db of Milvus Lite, that keeps the pictures' "
            "vectors; empty: they are in the database, by pgvector where it is PostgreSQL"
        ),
    )
    index_milvus_token: SecretStr = Field(
        SecretStr(""), description="user:password or API key of the Milvus server"
    )
    index_exact_size: int = Field(
        50_000, ge=0, description="pictures of a collection above which it is searched by a graph"
    )
    index_in_flight: int = Field(
        16, ge=1, le=1024, description="pictures of one IndexImages at the classifier at a time"
    )
    index_label_threshold: float = Field(
        0.1, ge=0, le=1, description="least probability of a label that is not the best, to be kept"
    )
    index_max_collections: int = Field(256, ge=1, le=4096, description="collections of pictures")
    index_max_images: int = Field(
        1_000_000, ge=1, le=100_000_000, description="pictures in one collection"
    )
    index_max_id_bytes: int = Field(
        1024, ge=1, le=2048, description="bytes of a picture's id in a collection"
    )
    index_max_attributes: int = Field(
        32, ge=0, le=64, description="attributes of a picture; attributes or labels of a filter"
    )
    index_max_attribute_bytes: int = Field(
        256, ge=1, le=1024, description="bytes of an attribute's name, and of its value"
    )
    index_max_top_k: int = Field(
        1000, ge=1, le=1000, description="pictures that one search answers with"
    )

    @field_validator("score_weights")
    @classmethod
    def _are_weights(cls, weights: dict[str, dict[str, float]]) -> dict[str, dict[str, float]]:
        check_weights(weights)
        return weights

    @field_validator("score_ecosystem")
    @classmethod
    def _are_facts(cls, facts: dict[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
        check_ecosystem(facts)
        return facts

    @field_validator("score_half_life_days")
    @classmethod
    def _are_half_lives(cls, days: dict[str, float]) -> dict[str, float]:
        check_half_lives(days)
        return days

    @field_validator("index_milvus_uri")
    @classmethod
    def _is_of_milvus(cls, uri: str) -> str:
        if uri and "://" not in uri and not uri.endswith(".db"):
            raise ValueError("must be a server's URL, or a file that ends with .db")
        return uri

    max_query_bytes: int = Field(
        4096, ge=1, le=2**20, description="largest query of Resolve, in bytes of UTF-8"
    )
    max_matches: int = Field(50, ge=1, le=1000, description="matches in one answer of Resolve")
    match_candidates: int = Field(
        50, ge=1, le=10_000, description="models that Resolve looks at before it orders them"
    )
    exploration: float = Field(
        0.1,
        ge=0,
        le=0.5,
        description=(
            "how often Resolve swaps neighbours, so that what a position does can be told from "
            "what a match is worth; 0 never does"
        ),
    )
    outcome_days: float = Field(
        7.0, gt=0, le=3650, description="how long outcomes of an answer can be recorded"
    )
    evidence_half_life_days: float = Field(
        90.0, gt=0, description="age at which an outcome weighs half as much"
    )
    min_outcomes: int = Field(
        5, ge=1, description="outcomes, weighted by age, below which no success rate is told"
    )
    signing_key: SecretStr | None = Field(
        None,
        description=(
            "64 or more hexadecimal digits that tokens are signed with; unset, a key that the "
            "database keeps"
        ),
    )
    text_model: Path | None = Field(
        None,
        description=(
            "directory of a sentence-transformers model in ONNX: Resolve then finds by meaning too"
        ),
    )
    text_model_threads: int = Field(1, ge=1, le=256, description="processor threads that it takes")

    @field_validator("data_dir", "database_url", "signing_key", "text_model", mode="before")
    @classmethod
    def _empty_is_unset(cls, value: object) -> object:
        return None if value == "" else value

    @field_validator("database_url")
    @classmethod
    def _is_a_database(cls, url: SecretStr | None) -> SecretStr | None:
        if url is not None:
            parse_url(url.get_secret_value())
        return url

    @field_validator("signing_key")
    @classmethod
    def _is_a_key(cls, key: SecretStr | None) -> SecretStr | None:
        if key is not None:
            parse_key(key.get_secret_value())
        return key

    @field_validator("default_schedule")
    @classmethod
    def _can_be_read(cls, text: str) -> str:
        parse_schedule(text)
        return text

    @field_validator("text_image_models")
    @classmethod
    def _told_apart(cls, directories: tuple[Path, ...]) -> tuple[Path, ...]:
        names = [directory.name for directory in directories]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"two models are called {', '.join(twice)}")
        return directories

    @property
    def index_limits(self) -> IndexLimits:
        return IndexLimits(
            max_collections=self.index_max_collections,
            max_images=self.index_max_images,
            max_id_bytes=self.index_max_id_bytes,
            max_attributes=self.index_max_attributes,
            max_attribute_bytes=self.index_max_attribute_bytes,
            max_top_k=self.index_max_top_k,
        )

    @property
    def schedule(self) -> tuple[ShareRound, ...]:
        return parse_schedule(self.default_schedule)

    @property
    def signing_key_bytes(self) -> bytes | None:
        return None if self.signing_key is None else parse_key(self.signing_key.get_secret_value())

    @property
    def database(self) -> URL:
        """Where everything is kept that is not vectors."""
        if self.database_url is not None:
            return parse_url(self.database_url.get_secret_value())
        if self.data_dir is None:
            return parse_url(IN_MEMORY)
        return URL.create("sqlite", database=str(self.data_dir / DATABASE_FILE))
