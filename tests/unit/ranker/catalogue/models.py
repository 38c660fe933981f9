"""Models made for the tests."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from ranker.catalogue.model import Capability, Claim, Model

NOW = datetime(2026, 11, 26, 12, tzinfo=UTC)


def model(id: str = "vit", **values: Any) -> Model:
    return Model(**{"id": id, "name": f"The {id}", "type": "image-classifier", **values})


def capability(id: str = "vit/classify", **values: Any) -> Capability:
    return Capability(**{"id": id, "name": "Classification", **values})


def claim(**values: Any) -> Claim:
    return Claim(**{"name": "accuracy", "claimed": "90 %", **values})
