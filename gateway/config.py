"""What the gateway can be told: ``EASEL_GATEWAY_*``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from pydantic import Field

from gateway.routing import CLASSIFIER, GENERATOR, RANKER, TRAINER
from services.core.config import AdministeredSettings


class Settings(AdministeredSettings):
    """The gateway's settings; a target is ``host:port`` or any other name that gRPC resolves."""

    service: ClassVar[str] = "gateway"

    classifier_target: str = Field(min_length=1, description="where the classifier listens")
    generator_target: str = Field(min_length=1, description="where the generator listens")
    ranker_target: str = Field(min_length=1, description="where the ranker listens")
    trainer_target: str | None = Field(
        None, min_length=1, description="where the trainer listens; unset where there is none"
    )
    status_timeout_seconds: float = Field(
        2.0, gt=0, le=60, description="time that Status gives each service to answer"
    )

    def targets(self) -> Mapping[str, str]:
        """Return ``{upstream: target}`` of what is configured."""
        targets = {
            CLASSIFIER: self.classifier_target,
            GENERATOR: self.generator_target,
            RANKER: self.ranker_target,
            TRAINER: self.trainer_target,
        }
        return {name: target for name, target in targets.items() if target is not None}
