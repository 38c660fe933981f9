"""What is known of one of the two models."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ranker.catalogue.model import Capability
from ranker.catalogue.names import fold
from ranker.score.evidence import Claims
from ranker.score.log import Scored
from ranker.score.scorer import claims


@dataclass(frozen=True, slots=True)
class Fact:
    """``source`` says where the value was read."""

    name: str
    value: str
    source: str


@dataclass(frozen=True, slots=True)
class Side:
    """One model. ``facts`` are unlike each other in name."""

    id: str
    name: str
    type: str
    capabilities: tuple[Capability, ...]
    facts: tuple[Fact, ...]
    scored: Scored

    @property
    def intents(self) -> Mapping[str, str]:
        """Every intent that a capability serves, as it is compared and as it is written."""
        return {compared(intent): intent for each in self.capabilities for intent in each.intents}

    @property
    def claims(self) -> Claims:
        return claims(self.capabilities)


def compared(intent: str) -> str:
    """An intent as it is compared: as names are, without case and with single spaces."""
    return fold(intent)
