"""What a load is asked for, checked without a file system."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from services.core.errors import InvalidInput

MAX_REFERENCE_CHARS: Final = 512
MAX_NAME_CHARS: Final = 100
_NAME: Final = re.compile(r"\w[\w.-]*", re.ASCII)
_VERSION: Final = re.compile(r"\w[\w./-]*", re.ASCII)


@dataclass(frozen=True, slots=True)
class LoadOrder:
    """``name`` is what the model is served under; empty takes the reference's last part, an empty
    ``version`` the hub's revision or the start of the digest. Empty ``backend``, ``device`` and
    ``precision`` are the server's own. ``make_default`` gives the version all of the name's traffic
    once it is warm; a name's first version gets it anyway.
    """

    reference: str
    name: str = ""
    version: str = ""
    backend: str = ""
    device: str = ""
    precision: str = ""
    options: Mapping[str, str] = field(default_factory=dict)
    make_default: bool = False

    def checked(self) -> LoadOrder:
        """The order with its name filled in. Raises ``InvalidInput``."""
        _check_reference(self.reference)
        name = self.name or last_part(self.reference)
        _check_word("name", name, _NAME)
        if self.version:
            _check_word("version", self.version, _VERSION)
        return replace(self, name=name)

    def clashes(self, other: LoadOrder) -> bool:
        """Whether both, checked, would load the same version of the same name."""
        if self.name != other.name:
            return False
        if self.version and other.version:
            return self.version == other.version
        return self.reference == other.reference


def last_part(reference: str) -> str:
    """``vit`` of ``org/vit@main`` and of ``some/where/vit``."""
    return reference.partition("@")[0].rstrip("/").rpartition("/")[2]


def _check_reference(reference: str) -> None:
    if not reference:
        raise InvalidInput("reference", "A reference is required.")
    if len(reference) > MAX_REFERENCE_CHARS:
        raise InvalidInput(
            "reference",
            "The reference is too long.",
            f"{MAX_REFERENCE_CHARS} characters",
            f"{len(reference)} characters",
        )
    if not reference.isprintable():
        raise InvalidInput("reference", "The reference must be printable.")


def _check_word(field: str, word: str, pattern: re.Pattern[str]) -> None:
    if len(word) > MAX_NAME_CHARS:
        raise InvalidInput(
            field,
            f"The {field} is too long.",
            f"{MAX_NAME_CHARS} characters",
            f"{len(word)} characters",
        )
    if pattern.fullmatch(word) is None:
        raise InvalidInput(
            field,
            f"The {field} must begin with a letter or digit and go on with those, '_', '-' and "
            f"'.'{' and /' if pattern is _VERSION else ''}.",
            given=word,
        )
