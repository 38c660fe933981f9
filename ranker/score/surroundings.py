"""What is really there around a model, by what the model services tell of it now."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from ranker.score.evidence import Ecosystem
from ranker.score.weights import OTHER_TYPES

_SERVED: Final = ("state=ready", "digest", "backend", "precision", "memory_bytes")
_MEASURED: Final = ("latency_seconds", "throughput_per_second")
_MODES: Final = ("text_to_image", "image_to_image", "inpaint", "stylize")
DEFAULT_ECOSYSTEM: Final[Mapping[str, tuple[str, ...]]] = {
    OTHER_TYPES: (*_SERVED, *_MEASURED),
    "image-classifier": (*_SERVED, *_MEASURED, "labels", "embedding_size"),
    "image-generator": (*_SERVED, *_MEASURED, *(f"modes={mode}" for mode in _MODES)),
}


@dataclass(frozen=True, slots=True)
class Sought:
    """A fact that a model should have, or one with ``value`` among its comma-separated values."""

    fact: str
    value: str

    @classmethod
    def of(cls, text: str) -> Sought:
        """``fact`` or ``fact=value``. Raises ``ValueError`` for another form."""
        fact, equals, value = (part.strip() for part in text.partition("="))
        if not fact or bool(equals) != bool(value):
            raise ValueError(f"{text!r} does not read as FACT or FACT=VALUE")
        return cls(fact, value)

    def is_in(self, facts: Mapping[str, str]) -> bool:
        """A fact of one kind of step, ``latency_seconds[denoise]``, or of another version,
        ``backend@classifier/2``, is one of its name."""
        return any(
            told and (not self.value or self.value in (part.strip() for part in told.split(",")))
            for name, told in facts.items()
            if name.split("@")[0].split("[")[0] == self.fact
        )


def check_ecosystem(given: Mapping[str, Iterable[str]]) -> None:
    """Raises ``ValueError`` naming the type whose list cannot be used, or that has none."""
    if OTHER_TYPES not in given:
        raise ValueError(f"there must be a list for {OTHER_TYPES!r}, the types that are not named")
    for type, items in given.items():
        sought = list(items)
        if not sought:
            raise ValueError(f"{type}: the list is empty")
        if len(set(sought)) < len(sought):
            raise ValueError(f"{type}: {_twice(sought)!r} stands there twice")
        for each in sought:
            try:
                Sought.of(each)
            except ValueError as error:
                raise ValueError(f"{type}: {error}") from None


def ecosystem(items: Iterable[str], facts: Mapping[str, str] | None, *, certain: bool) -> Ecosystem:
    """What of ``items`` the ``facts`` have; None where no service told of the model.

    What is not there is missing where it is ``certain`` that all who could tell did, else not seen.
    """
    told = facts or {}
    sought = list(items)
    present = tuple(each for each in sought if Sought.of(each).is_in(told))
    rest = tuple(each for each in sought if each not in present)
    return Ecosystem(present, rest, ()) if certain or told else Ecosystem(present, (), rest)


def _twice(items: list[str]) -> str:
    return next(each for index, each in enumerate(items) if each in items[:index])
