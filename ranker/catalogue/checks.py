"""What may stand in the catalogue. Every fault is an ``InvalidInput`` that names its place."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Final, Protocol

from ranker.catalogue.model import CAPABILITY_TEXTS, Capability, Claim, Model, Usage
from ranker.catalogue.names import fold
from services.core.errors import InvalidInput

MAX_ID_CHARS: Final = 128
MAX_TYPE_CHARS: Final = 64
MAX_NAME_CHARS: Final = 200
MAX_ITEM_CHARS: Final = 500
MAX_CLAIM_CHARS: Final = 2_000
MAX_TEXT_CHARS: Final = 8_000
MAX_LIST_ITEMS: Final = 64
MAX_ALIASES: Final = 64
MAX_VERSIONS: Final = 64
MAX_CAPABILITIES: Final = 64
MAX_CLAIMS: Final = 64
MAX_USAGE: Final = 16
# What a double tells exactly.
MAX_USAGE_COUNT: Final = 2**53

_SLUG: Final = re.compile(r"[a-z0-9][a-z0-9._-]*")
_UNPRINTABLE: Final = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")
_BREAKS: Final = re.compile("[\t\n]")


class Names(Protocol):
    """What the models beside the one that is checked are called."""

    def owner(self, key: str) -> str | None:
        """The id of the model with a name that folds to ``key``."""
        ...

    def same_as(self, id: str) -> str | None:
        """What the record with ``id`` is the same as: empty for a model, None for no record."""
        ...


def check_model(model: Model, at: str = "model") -> None:
    """Everything that can be said of a model by itself; ``at`` is where it stands."""
    check_slug(model.id, MAX_ID_CHARS, f"{at}.id")
    _check_line(model.name, MAX_NAME_CHARS, f"{at}.name", required=True)
    _check_line(model.licence, MAX_ITEM_CHARS, f"{at}.licence")
    _check_line(model.price, MAX_ITEM_CHARS, f"{at}.price")
    _check_text(model.provenance, MAX_TEXT_CHARS, f"{at}.provenance")
    _check_list(model.aliases, MAX_ALIASES, MAX_NAME_CHARS, f"{at}.aliases")
    _check_list(model.versions, MAX_VERSIONS, MAX_NAME_CHARS, f"{at}.versions")
    _check_aliases(model, at)
    _check_count(len(model.usage), MAX_USAGE, f"{at}.usage")
    for index, usage in enumerate(model.usage):
        _check_usage(usage, model.usage[:index], f"{at}.usage[{index}]")
    if model.same_as:
        _check_record(model, at)
        return
    check_slug(model.type, MAX_TYPE_CHARS, f"{at}.type")
    _check_count(len(model.capabilities), MAX_CAPABILITIES, f"{at}.capabilities")
    seen: dict[str, int] = {}
    for index, capability in enumerate(model.capabilities):
        place = f"{at}.capabilities[{index}]"
        _check_capability(capability, model.id, place)
        if capability.id in seen:
            raise InvalidInput(
                f"{place}.id",
                f"The capability {_own_name(capability)!r} stands at {at}.capabilities"
                f"[{seen[capability.id]}] already.",
            )
        seen[capability.id] = index


def check_beside(model: Model, names: Names, at: str = "model") -> None:
    """That its names are its own, and that what it is the same as is a model in the end."""
    for field, name in _named_fields(model):
        owner = names.owner(fold(name))
        if owner not in (None, model.id):
            raise InvalidInput(
                f"{at}.{field}", f"The name {name!r} is that of {owner!r} already.",
                reason="NAME_TAKEN",
            )  # fmt: skip
    if model.same_as:
        _check_chain(model, names, at)


def check_slug(text: str, max_chars: int, at: str) -> None:
    _check_line(text, max_chars, at, required=True)
    if not _SLUG.fullmatch(text):
        raise InvalidInput(
            at,
            "It has small letters a to z, digits, dots, dashes and underscores, and begins with a "
            "letter or digit.",
            given=repr(text),
        )


def _check_capability(capability: Capability, model_id: str, at: str) -> None:
    own = _own_name(capability)
    if capability.id != f"{model_id}/{own}":
        raise InvalidInput(
            f"{at}.id", "It is the model's id, a slash and a name.", f"{model_id}/<name>",
            repr(capability.id),
        )  # fmt: skip
    check_slug(own, MAX_ID_CHARS, f"{at}.id")
    _check_line(capability.name, MAX_NAME_CHARS, f"{at}.name", required=True)
    _check_text(capability.description, MAX_TEXT_CHARS, f"{at}.description")
    for field in CAPABILITY_TEXTS:
        _check_list(getattr(capability, field), MAX_LIST_ITEMS, MAX_ITEM_CHARS, f"{at}.{field}")
    _check_count(len(capability.claims), MAX_CLAIMS, f"{at}.claims")
    for index, claim in enumerate(capability.claims):
        _check_claim(claim, f"{at}.claims[{index}]")


def _check_claim(claim: Claim, at: str) -> None:
    _check_line(claim.name, MAX_NAME_CHARS, f"{at}.name", required=True)
    for field in ("claimed", "measured", "source"):
        _check_text(getattr(claim, field), MAX_CLAIM_CHARS, f"{at}.{field}")
    if not (claim.claimed or claim.measured):
        raise InvalidInput(at, "A claim says what is claimed, what was measured, or both.")
    if claim.measured and not claim.source:
        raise InvalidInput(f"{at}.source", "What was measured needs a source.")
    if claim.measured_at is not None and not claim.measured:
        raise InvalidInput(f"{at}.measured_at", "Nothing was measured then.")
    if claim.verified and not claim.measured:
        raise InvalidInput(f"{at}.verified", "What was not measured is not verified.")


def _check_usage(usage: Usage, before: Sequence[Usage], at: str) -> None:
    _check_line(usage.name, MAX_NAME_CHARS, f"{at}.name", required=True)
    if any(usage.name == other.name for other in before):
        raise InvalidInput(f"{at}.name", f"{usage.name!r} stands there twice.")
    if not 0 <= usage.count <= MAX_USAGE_COUNT:
        raise InvalidInput(
            f"{at}.count", "It is out of range.", f"0 to {MAX_USAGE_COUNT}", usage.count
        )
    _check_text(usage.source, MAX_CLAIM_CHARS, f"{at}.source")
    if not usage.source:
        raise InvalidInput(f"{at}.source", "What was counted needs a source.")


def _check_aliases(model: Model, at: str) -> None:
    own = {fold(model.id), fold(model.name)}
    for index, alias in enumerate(model.aliases):
        if fold(alias) in own:
            raise InvalidInput(
                f"{at}.aliases[{index}]", f"The name {alias!r} is one of {model.id!r} already.",
                reason="NAME_TAKEN",
            )  # fmt: skip
        own.add(fold(alias))


def _check_record(model: Model, at: str) -> None:
    """It is another record of a model; what is true of that is said there."""
    if model.type:
        check_slug(model.type, MAX_TYPE_CHARS, f"{at}.type")
    for field in ("licence", "price", "versions", "released", "usage", "capabilities"):
        if getattr(model, field):
            raise InvalidInput(
                f"{at}.{field}",
                f"{model.id!r} is the same as {model.same_as!r}, which tells this; it has names "
                "and a provenance alone.",
            )


def _check_chain(model: Model, names: Names, at: str) -> None:
    chain = [model.id]
    following = model.same_as
    while following:
        if following in chain:
            raise InvalidInput(
                f"{at}.same_as", f"'Same as' goes round: {' -> '.join([*chain, following])}.",
                reason="SAME_AS_CYCLE",
            )  # fmt: skip
        found = names.same_as(following)
        if found is None:
            raise InvalidInput(
                f"{at}.same_as", f"There is no record {following!r} to be the same as."
            )
        chain.append(following)
        following = found


def _named_fields(model: Model) -> Iterable[tuple[str, str]]:
    yield "id", model.id
    yield "name", model.name
    for index, alias in enumerate(model.aliases):
        yield f"aliases[{index}]", alias


def _own_name(capability: Capability) -> str:
    return capability.id.rpartition("/")[2]


def _check_list(texts: Sequence[str], max_items: int, max_chars: int, at: str) -> None:
    _check_count(len(texts), max_items, at)
    for index, text in enumerate(texts):
        _check_line(text, max_chars, f"{at}[{index}]", required=True)
        if text in texts[:index]:
            raise InvalidInput(f"{at}[{index}]", f"{text!r} stands there twice.")


def _check_count(count: int, limit: int, at: str) -> None:
    if count > limit:
        raise InvalidInput(at, f"At most {limit} fit here, and there are {count}.", limit, count)


def _check_line(text: str, max_chars: int, at: str, *, required: bool = False) -> None:
    if required and not text.strip():
        raise InvalidInput(at, "It is needed, and empty.")
    _check_text(text, max_chars, at)
    if _BREAKS.search(text):
        raise InvalidInput(at, "It must be one line, without tabs.")


def _check_text(text: str, max_chars: int, at: str) -> None:
    if len(text) > max_chars:
        raise InvalidInput(
            at, f"At most {max_chars} characters fit here, and there are {len(text)}.",
            max_chars, len(text),
        )  # fmt: skip
    if _UNPRINTABLE.search(text):
        raise InvalidInput(at, "It has control characters.")
