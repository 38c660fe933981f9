"""What the catalogue offers, as it is searched: the capabilities of all models."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Offer:
    """One capability of one model. ``model`` and ``capability`` are ids."""

    model: str
    capability: str
    type: str
    name: str
    description: str = ""
    intents: tuple[str, ...] = ()
    best_for: tuple[str, ...] = ()
    model_name: str = ""
    aliases: tuple[str, ...] = ()

    def fields(self) -> dict[str, str]:
        """The texts that are searched, by the name of their field."""
        return {
            "name": self.name,
            "intents": "\n".join(self.intents),
            "best for": "\n".join(self.best_for),
            "description": self.description,
            "model": "\n".join((self.model_name or self.model, *self.aliases)),
            "type": self.type,
        }

    def sentence(self) -> str:
        """What it is about, for a model that reads meaning."""
        parts = (self.name, *self.intents, *self.best_for, self.description)
        return ". ".join(part.strip().rstrip(".") for part in parts if part.strip())


@dataclass(frozen=True, slots=True)
class Edge:
    """An intent served by a capability of a model: what outcomes are counted for. ``intent`` is
    empty where the query was like none of the capability's."""

    model: str
    capability: str
    intent: str

    @property
    def key(self) -> int:
        """63 bits that stand for it in the database."""
        told = "\0".join((self.model, self.capability, self.intent)).encode()
        return int.from_bytes(hashlib.blake2b(told, digest_size=8).digest(), "big") >> 1
