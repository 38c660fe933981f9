"""What the image index accepts."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from ranker.index.entry import Filter
from services.core.errors import InvalidInput

DEFAULT_TOP_K: Final = 10
MAX_IDS: Final = 1000
MAX_LABELS: Final = 64
MAX_LABEL_BYTES: Final = 512
"""Some labels of ImageNet-21k are lists of synonyms of 200 bytes."""

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


@dataclass(frozen=True, slots=True)
class IndexLimits:
    """``max_images`` is of one collection, ``max_attributes`` of one picture."""

    max_collections: int
    max_images: int
    max_id_bytes: int
    max_attributes: int
    max_attribute_bytes: int
    max_top_k: int

    def check_id(self, value: str, *, field: str) -> None:
        if not value:
            raise InvalidInput(field, "A picture needs an id.", "at least 1 byte", "0 bytes")
        _check_bytes(value, self.max_id_bytes, field)

    def check_attributes(self, attributes: Mapping[str, str], *, field: str) -> None:
        if len(attributes) > self.max_attributes:
            raise InvalidInput(
                field, "There are too many attributes.", self.max_attributes, len(attributes)
            )
        for name, value in attributes.items():
            if not name:
                raise InvalidInput(field, "An attribute needs a name.")
            _check_bytes(name, self.max_attribute_bytes, field)
            _check_bytes(value, self.max_attribute_bytes, f"{field}[{name[:50]!r}]")

    def filter(self, labels: Sequence[str], attributes: Mapping[str, str]) -> Filter:
        """Raises ``InvalidInput`` for labels or attributes that no picture can have."""
        if len(labels) > MAX_LABELS:
            raise InvalidInput("labels", "There are too many labels.", MAX_LABELS, len(labels))
        for place, label in enumerate(labels):
            if not label:
                raise InvalidInput(f"labels[{place}]", "A label needs a name.")
            _check_bytes(label, MAX_LABEL_BYTES, f"labels[{place}]")
        self.check_attributes(attributes, field="attributes")
        return Filter(tuple(dict.fromkeys(labels)), dict(attributes))

    def top_k(self, given: int) -> int:
        if given > self.max_top_k:
            raise InvalidInput("top_k", "Too many are asked for.", self.max_top_k, given)
        return given or min(DEFAULT_TOP_K, self.max_top_k)

    def check_ids(self, ids: Sequence[str]) -> None:
        if not ids:
            raise InvalidInput("ids", "At least one id is needed.", "at least 1", 0)
        if len(ids) > MAX_IDS:
            raise InvalidInput("ids", "There are too many ids.", MAX_IDS, len(ids))
        for place, value in enumerate(ids):
            self.check_id(value, field=f"ids[{place}]")


def _check_bytes(value: str, limit: int, field: str) -> None:
    size = len(value.encode("utf-8"))
    if size > limit:
        raise InvalidInput(field, "The text is too long.", f"{limit} bytes", f"{size} bytes")
    if _CONTROL.search(value):
        raise InvalidInput(field, "The text must not hold control characters.")
