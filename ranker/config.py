"""What the ranker can be told."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field, field_validator

from ranker.pictures.schedule import DEFAULT_SCHEDULE, ShareRound, parse_schedule
from services.core.config import ServiceSettings


class RankerSettings(ServiceSettings):
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
    default_schedule: str = Field(
        " ".join(f"{each.at:g}:{each.keep:g}" for each in DEFAULT_SCHEDULE),
        description=(
            "when BestOf drops candidates unless it is told: AT:KEEP pairs, shares of the steps "
            "and of the candidates that go on; empty drops none"
        ),
    )

    @field_validator("default_schedule")
    @classmethod
    def _can_be_read(cls, text: str) -> str:
        parse_schedule(text)
        return text

    @property
    def schedule(self) -> tuple[ShareRound, ...]:
        return parse_schedule(self.default_schedule)
