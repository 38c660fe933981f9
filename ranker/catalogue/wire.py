"""Models of the catalogue as messages, and back."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, date, datetime
from typing import Final

from google.protobuf.timestamp_pb2 import Timestamp

from easel.ranker.v1 import ranker_pb2
from ranker.catalogue.model import CAPABILITY_TEXTS, Capability, Claim, Model, Usage, parse_day
from services.core.errors import InvalidInput

_NO_SLUG: Final = re.compile(r"[^a-z0-9]+")


def model_to_pb(
    model: Model,
    facts: Mapping[str, str] | None = None,
    score: ranker_pb2.Score | None = None,
) -> ranker_pb2.CatalogueModel:
    return ranker_pb2.CatalogueModel(
        id=model.id,
        name=model.name,
        type=model.type,
        licence=model.licence,
        price=model.price,
        provenance=model.provenance,
        aliases=model.aliases,
        versions=model.versions,
        released="" if model.released is None else model.released.isoformat(),
        usage=[
            ranker_pb2.Usage(
                name=each.name,
                count=each.count,
                source=each.source,
                measured_at=_timestamp(each.measured_at),
            )
            for each in model.usage
        ],
        capabilities=[capability_to_pb(capability) for capability in model.capabilities],
        facts=facts or {},
        updated_at=_timestamp(model.updated_at),
        same_as=model.same_as,
        score=score,
    )


def capability_to_pb(capability: Capability) -> ranker_pb2.Capability:
    return ranker_pb2.Capability(
        id=capability.id,
        name=capability.name,
        description=capability.description,
        **{field: getattr(capability, field) for field in CAPABILITY_TEXTS},
        claims=[_claim_to_pb(claim) for claim in capability.claims],
    )


def model_from_pb(message: ranker_pb2.CatalogueModel, at: str) -> Model:
    """What a Put says of a model, unchecked but for its times; an empty name is the id."""
    capabilities = [
        _capability_from_pb(each, message.id, f"{at}.capabilities[{index}]")
        for index, each in enumerate(message.capabilities)
    ]
    return Model(
        id=message.id,
        name=message.name or message.id,
        type=message.type,
        licence=message.licence,
        price=message.price,
        provenance=message.provenance,
        aliases=tuple(message.aliases),
        versions=tuple(message.versions),
        released=_day(message.released, f"{at}.released"),
        usage=tuple(
            _usage_from_pb(usage, f"{at}.usage[{index}]")
            for index, usage in enumerate(message.usage)
        ),
        capabilities=tuple(capabilities),
        same_as=message.same_as,
    )


def _usage_from_pb(message: ranker_pb2.Usage, at: str) -> Usage:
    return Usage(
        name=message.name,
        count=message.count,
        source=message.source,
        measured_at=_moment(message.measured_at, f"{at}.measured_at")
        if message.HasField("measured_at")
        else None,
    )


def _day(text: str, field: str) -> date | None:
    if not text:
        return None
    try:
        return parse_day(text)
    except ValueError:
        raise InvalidInput(field, "It is no day.", "YYYY-MM-DD", repr(text[:32])) from None


def _capability_from_pb(message: ranker_pb2.Capability, model: str, at: str) -> Capability:
    own = message.id or _NO_SLUG.sub("-", message.name.lower()).strip("-")
    return Capability(
        id=own if "/" in own else f"{model}/{own}",
        name=message.name,
        description=message.description,
        **{field: tuple(getattr(message, field)) for field in CAPABILITY_TEXTS},
        claims=tuple(
            _claim_from_pb(claim, f"{at}.claims[{index}]")
            for index, claim in enumerate(message.claims)
        ),
    )


def _claim_to_pb(claim: Claim) -> ranker_pb2.Claim:
    return ranker_pb2.Claim(
        name=claim.name,
        claimed=claim.claimed,
        measured=claim.measured,
        source=claim.source,
        measured_at=_timestamp(claim.measured_at),
        verified=claim.verified,
    )


def _claim_from_pb(message: ranker_pb2.Claim, at: str) -> Claim:
    return Claim(
        name=message.name,
        claimed=message.claimed,
        measured=message.measured,
        source=message.source,
        measured_at=_moment(message.measured_at, f"{at}.measured_at")
        if message.HasField("measured_at")
        else None,
        verified=message.verified,
    )


def _timestamp(at: datetime | None) -> Timestamp | None:
    if at is None:
        return None
    message = Timestamp()
    message.FromDatetime(at)
    return message


def _moment(message: Timestamp, field: str) -> datetime:
    try:
        return message.ToDatetime(tzinfo=UTC)
    except (ValueError, OverflowError):
        raise InvalidInput(
            field, "It is no time.", "0001-01-01 to 9999-12-31", message.seconds
        ) from None
