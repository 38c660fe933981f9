"""What is known of one of the two models."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date

from ranker.score.evidence import Claims
from ranker.score.log import Scored


@dataclass(frozen=True, slots=True)
class Claim:
    """What was said of a capability, and what was found. ``measured`` is empty where nobody
    measured; ``verified`` that the measurement bears the claim out."""

    name: str
    claimed: str
    measured: str = ""
    source: str = ""
    measured_at: date | None = None
    verified: bool = False

    @property
    def contradicted(self) -> bool:
        return bool(self.measured) and not self.verified


@dataclass(frozen=True, slots=True)
class Capability:
    """One thing that the model does; ``intents`` are what people want who look for it."""

    id: str
    name: str
    intents: tuple[str, ...] = ()
    limitations: tuple[str, ...] = ()
    claims: tuple[Claim, ...] = ()


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
        every = [claim for each in self.capabilities for claim in each.claims]
        verified = sum(claim.verified for claim in every)
        contradicted = sum(claim.contradicted for claim in every)
        return Claims(verified, contradicted, len(every) - verified - contradicted)


def compared(intent: str) -> str:
    """An intent as it is compared: without case, and with single spaces."""
    return " ".join(intent.casefold().split())
