"""The catalogue as a YAML document.

Read by its events, with a bound on depth: a document cannot run anything, refer to itself, grow
when it is read, or have a field that is passed over.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from typing import Any, Final, TypeVar

import yaml

from ranker.catalogue.checks import check_beside, check_model
from ranker.catalogue.model import CAPABILITY_TEXTS, Capability, Claim, Model, Usage, parse_day
from ranker.catalogue.names import fold
from services.core.errors import InvalidInput

FORMAT: Final = 1
"""The number under ``easel_catalogue`` of documents that this release reads and writes."""

ROOT: Final = "yaml"
_MAX_DEPTH: Final = 12
_MAX_SHOWN_CHARS: Final = 60
_NULLS: Final = frozenset({"", "~", "null", "Null", "NULL"})
_TRUTHS: Final = {"true": True, "True": True, "false": False, "False": False}
_LOADER: Final = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_PLAIN: Final = re.compile(r"[A-Za-z][A-Za-z0-9_./()%+-]*(?:,? [A-Za-z0-9_./()%+-]+)*")
_WORDS: Final = frozenset({"null", "true", "false", "yes", "no", "on", "off", "y", "n"})
_UNSAFE: Final = re.compile("[\x85\u2028\u2029\ufeff\ufffe\uffff]")

T = TypeVar("T")


@dataclass(slots=True)
class _Node:
    """A value of the document: a text, a list or a mapping, and the line it begins on, from 1.

    ``is_plain`` tells a text without quotes.
    """

    line: int
    text: str | None = None
    is_plain: bool = False
    items: list[_Node] | None = None
    fields: dict[str, _Node] | None = None


@dataclass(frozen=True, slots=True)
class Document:
    """The models of a document, and the line on which every part of it begins, by its place."""

    models: tuple[Model, ...]
    lines: Mapping[str, int] = field(repr=False)

    def check(self, others: Mapping[str, Model], max_models: int) -> None:
        """Everything that can be said of it as a whole; ``others`` stay beside its models, by id.

        Raises ``InvalidInput`` that names place and line.
        """
        with_others = len(self.models) + len(others)
        if with_others > max_models:
            raise InvalidInput(
                f"{ROOT}.models", f"The catalogue would have {with_others} models.",
                max_models, with_others,
            )  # fmt: skip
        names = _DocumentNames(self, others)
        for index, model in enumerate(self.models):
            at = f"{ROOT}.models[{index}]"
            self._placed(names.add, model, at)
        for index, model in enumerate(self.models):
            at = f"{ROOT}.models[{index}]"
            self._placed(check_beside, model, names, at)

    def _placed(self, check: Callable[..., None], *arguments: Any) -> None:
        try:
            check(*arguments)
        except InvalidInput as error:
            raise _at_line(error, self.lines) from None


def read(text: str, max_bytes: int) -> Document:
    """The models of a YAML document, each of them checked by itself.

    Raises ``InvalidInput`` that names place and line: for what is no YAML, a field that is not
    known, one that stands twice, an alias, a value of another kind, and what ``check_model`` finds.
    """
    size = len(text.encode("utf-8", "replace"))
    if size > max_bytes:
        raise InvalidInput(ROOT, "The document is too large.", f"{max_bytes} bytes", size)
    reader = _Reader()
    models = reader.document(_compose(text))
    for index, model in enumerate(models):
        try:
            check_model(model, f"{ROOT}.models[{index}]")
        except InvalidInput as error:
            raise _at_line(error, reader.lines) from None
    return Document(models, reader.lines)


def write(models: Iterable[Model]) -> str:
    """The document that ``read`` makes these models of; equal models make equal documents."""
    lines = [f"easel_catalogue: {FORMAT}", "models:"]
    for model in models:
        lines += _item_lines(_plain_model(model), "  ")
    return "\n".join(lines if len(lines) > 2 else [lines[0], "models: []"]) + "\n"


class _DocumentNames:
    """Names of the models of a document and of those that stay beside it."""

    def __init__(self, document: Document, others: Mapping[str, Model]) -> None:
        self._lines = document.lines
        self._same_as = {model.id: model.same_as for model in others.values()}
        self._owners = {fold(name): model.id for model in others.values() for name in model.names}
        self._places: dict[str, str] = {}

    def add(self, model: Model, at: str) -> None:
        if model.id in self._places:
            first = self._places[model.id]
            raise InvalidInput(
                f"{at}.id",
                f"{model.id!r} is the id of {first} (line {self._lines.get(first, 0)}) already.",
                reason="NAME_TAKEN",
            )
        self._places[model.id] = at
        self._same_as[model.id] = model.same_as
        for name in model.names:
            self._owners.setdefault(fold(name), model.id)

    def owner(self, key: str) -> str | None:
        return self._owners.get(key)

    def same_as(self, id: str) -> str | None:
        return self._same_as.get(id)


class _Reader:
    """Turns nodes into models, and remembers where everything stood."""

    def __init__(self) -> None:
        self.lines: dict[str, int] = {}

    def document(self, root: _Node) -> tuple[Model, ...]:
        fields = self._mapping(root, ROOT, required=("easel_catalogue", "models"), optional=())
        version = self._text(fields["easel_catalogue"], f"{ROOT}.easel_catalogue")
        if version != str(FORMAT):
            raise InvalidInput(
                f"{ROOT}.easel_catalogue", "The document is of another format.", FORMAT, version
            )
        return self._list(fields["models"], f"{ROOT}.models", self._model)

    def _model(self, node: _Node, at: str) -> Model:
        texts = ("name", "type", "licence", "price", "provenance", "same_as")
        lists = ("aliases", "versions", "released", "usage", "capabilities")
        fields = self._mapping(node, at, required=("id",), optional=(*texts, *lists))
        id = self._text(fields["id"], f"{at}.id")
        given: dict[str, Any] = {name: self._text_of(fields, name, at) for name in texts}
        given["name"] = given["name"] or id

        def capability(node: _Node, at: str) -> Capability:
            return self._capability(node, at, id)

        return Model(
            id=id,
            **given,
            aliases=self._texts_of(fields, "aliases", at),
            versions=self._texts_of(fields, "versions", at),
            released=self._one_of(fields, "released", at, None, self._day),
            usage=self._list_of(fields, "usage", at, self._usage),
            capabilities=self._list_of(fields, "capabilities", at, capability),
        )

    def _capability(self, node: _Node, at: str, model: str) -> Capability:
        fields = self._mapping(
            node,
            at,
            required=("id", "name"),
            optional=("description", *CAPABILITY_TEXTS, "claims"),
        )
        return Capability(
            id=f"{model}/{self._text(fields['id'], f'{at}.id')}",
            name=self._text(fields["name"], f"{at}.name"),
            description=self._text_of(fields, "description", at),
            **{name: self._texts_of(fields, name, at) for name in CAPABILITY_TEXTS},
            claims=self._list_of(fields, "claims", at, self._claim),
        )

    def _usage(self, node: _Node, at: str) -> Usage:
        fields = self._mapping(
            node, at, required=("name", "count"), optional=("source", "measured_at")
        )
        return Usage(
            name=self._text(fields["name"], f"{at}.name"),
            count=self._count(fields["count"], f"{at}.count"),
            source=self._text_of(fields, "source", at),
            measured_at=self._one_of(fields, "measured_at", at, None, self._moment),
        )

    def _claim(self, node: _Node, at: str) -> Claim:
        texts = ("claimed", "measured", "source")
        optional = (*texts, "measured_at", "verified")
        fields = self._mapping(node, at, required=("name",), optional=optional)
        return Claim(
            name=self._text(fields["name"], f"{at}.name"),
            **{name: self._text_of(fields, name, at) for name in texts},
            measured_at=self._one_of(fields, "measured_at", at, None, self._moment),
            verified=self._one_of(fields, "verified", at, False, self._truth),
        )

    def _mapping(
        self, node: _Node, at: str, *, required: Sequence[str], optional: Sequence[str]
    ) -> dict[str, _Node]:
        self.lines[at] = node.line
        if node.fields is None:
            raise _wrong(node, at, "a mapping")
        allowed = (*required, *optional)
        for name, value in node.fields.items():
            self.lines[f"{at}.{name}"] = value.line
            if name not in allowed:
                raise InvalidInput(
                    f"{at}.{_shown(name)}",
                    f"Line {value.line}: there is no such field; there are {', '.join(allowed)}.",
                    reason="UNKNOWN_FIELD",
                )
        for name in required:
            if name not in node.fields:
                raise InvalidInput(f"{at}.{name}", f"Line {node.line}: it is needed, and missing.")
        return node.fields

    def _one_of(
        self,
        fields: Mapping[str, _Node],
        name: str,
        at: str,
        default: T,
        read: Callable[[_Node, str], T],
    ) -> T:
        """What ``read`` makes of a field, ``default`` where it is left out or null."""
        node = fields.get(name)
        if node is None or _is_null(node):
            return default
        return read(node, f"{at}.{name}")

    def _text_of(self, fields: Mapping[str, _Node], name: str, at: str) -> str:
        return self._one_of(fields, name, at, "", self._text)

    def _texts_of(self, fields: Mapping[str, _Node], name: str, at: str) -> tuple[str, ...]:
        return self._list_of(fields, name, at, self._text)

    def _list_of(
        self, fields: Mapping[str, _Node], name: str, at: str, read: Callable[[_Node, str], T]
    ) -> tuple[T, ...]:
        nothing: tuple[T, ...] = ()
        return self._one_of(
            fields, name, at, nothing, lambda node, place: self._list(node, place, read)
        )

    def _list(self, node: _Node, at: str, read: Callable[[_Node, str], T]) -> tuple[T, ...]:
        self.lines[at] = node.line
        if node.items is None:
            raise _wrong(node, at, "a list")
        return tuple(read(item, f"{at}[{index}]") for index, item in enumerate(node.items))

    def _text(self, node: _Node, at: str) -> str:
        self.lines[at] = node.line
        if node.text is None or _is_null(node):
            raise _wrong(node, at, "a text")
        return node.text

    def _truth(self, node: _Node, at: str) -> bool:
        if node.text not in _TRUTHS or not node.is_plain:
            raise _wrong(node, at, "true or false")
        return _TRUTHS[node.text]

    def _count(self, node: _Node, at: str) -> int:
        text = self._text(node, at)
        if not (text.isascii() and text.isdecimal() and node.is_plain) or len(text) > 20:
            raise _wrong(node, at, "a whole number, 0 or more")
        return int(text)

    def _day(self, node: _Node, at: str) -> date:
        text = self._text(node, at)
        try:
            return parse_day(text)
        except ValueError:
            raise _wrong(node, at, "a day such as 2026-11-25") from None

    def _moment(self, node: _Node, at: str) -> datetime:
        """A day is its first moment in UTC; a time says its zone."""
        text = self._text(node, at)
        try:
            moment = datetime.fromisoformat(text)
        except ValueError:
            raise _wrong(node, at, "a day or a time such as 2026-11-25T12:00:00Z") from None
        if len(text) <= len("2026-11-25"):
            return moment.replace(tzinfo=UTC)
        if moment.tzinfo is None:
            raise _wrong(node, at, "a time with its zone, such as 2026-11-25T12:00:00Z")
        try:
            return moment.astimezone(UTC)
        except OverflowError:
            raise _wrong(node, at, "a time between the years 1 and 9999 in UTC") from None


def _compose(text: str) -> _Node:
    """The one tree of a document; nothing is made of anything but texts, lists and mappings."""
    root = _Node(0, items=[])
    open_nodes: list[_Node] = [root]
    keys: list[_Node | None] = [None]
    try:
        for event in yaml.parse(text, Loader=_LOADER):
            line = event.start_mark.line + 1 if event.start_mark is not None else 1
            if isinstance(event, yaml.AliasEvent):
                raise InvalidInput(ROOT, f"Line {line}: aliases (*) are not read.")
            if isinstance(event, yaml.CollectionEndEvent):
                open_nodes.pop()
                keys.pop()
            elif isinstance(event, yaml.NodeEvent):
                node = _node(event, line)
                _put(open_nodes[-1], keys, node)
                if node.text is None:
                    open_nodes.append(node)
                    keys.append(None)
                if len(open_nodes) > _MAX_DEPTH:
                    raise InvalidInput(ROOT, f"Line {line}: it is nested too deep.", _MAX_DEPTH)
    except yaml.MarkedYAMLError as error:
        at = error.problem_mark
        line = at.line + 1 if at is not None else 1
        raise InvalidInput(ROOT, f"Line {line}: this is no YAML: {error.problem}.") from None
    except yaml.YAMLError as error:
        raise InvalidInput(ROOT, f"This is no YAML: {str(error).splitlines()[0]}.") from None
    if len(root.items or ()) != 1:
        raise InvalidInput(ROOT, "It must be one document.", 1, len(root.items or ()))
    return (root.items or [])[0]


def _node(event: Any, line: int) -> _Node:
    # An explicit tag (!!python/...) would say what to make of a value; only a quoted text has one.
    if event.tag not in (None, "!", "tag:yaml.org,2002:str"):
        raise InvalidInput(ROOT, f"Line {line}: tags (!) are not read.")
    if isinstance(event, yaml.ScalarEvent):
        return _Node(line, text=event.value, is_plain=event.implicit[0])
    if isinstance(event, yaml.SequenceStartEvent):
        return _Node(line, items=[])
    return _Node(line, fields={})


def _put(parent: _Node, keys: list[_Node | None], node: _Node) -> None:
    if parent.items is not None:
        parent.items.append(node)
        return
    key, fields = keys[-1], parent.fields
    assert fields is not None
    if key is None:
        if node.text is None:
            raise InvalidInput(ROOT, f"Line {node.line}: a key must be a text.")
        if node.text in fields:
            raise InvalidInput(
                ROOT, f"Line {node.line}: the key {_shown(node.text)!r} stands there twice."
            )
        keys[-1] = node
    else:
        fields[key.text or ""] = node
        keys[-1] = None


def _is_null(node: _Node) -> bool:
    return node.is_plain and node.text in _NULLS


def _wrong(node: _Node, at: str, wanted: str) -> InvalidInput:
    if node.fields is not None:
        given = "a mapping"
    elif node.items is not None:
        given = "a list"
    else:
        given = "nothing" if _is_null(node) else repr(_shown(node.text or ""))
    return InvalidInput(at, f"Line {node.line}: it must be {wanted}.", wanted, given)


def _shown(text: str) -> str:
    return text if len(text) <= _MAX_SHOWN_CHARS else f"{text[:_MAX_SHOWN_CHARS]}…"


def _at_line(error: InvalidInput, lines: Mapping[str, int]) -> InvalidInput:
    """The error with the line of its place, or of the nearest part around it that has one."""
    place = error.field
    while place not in lines and ("." in place or "[" in place):
        place = place[: max(place.rfind("."), place.rfind("["))]
    message = f"Line {lines.get(place, 1)}: {error.message[:1].lower()}{error.message[1:]}"
    return InvalidInput(error.field, message, error.limit, error.given, reason=error.reason)


def _plain_model(model: Model) -> dict[str, Any]:
    plain = {
        "id": model.id,
        "name": model.name,
        "type": model.type,
        "licence": model.licence,
        "price": model.price,
        "provenance": model.provenance,
        "aliases": list(model.aliases),
        "versions": list(model.versions),
        "released": "" if model.released is None else model.released.isoformat(),
        "usage": [_plain_usage(each) for each in model.usage],
        "same_as": model.same_as,
        "capabilities": [_plain_capability(each) for each in model.capabilities],
    }
    return _filled(plain)


def _plain_capability(capability: Capability) -> dict[str, Any]:
    plain = {
        "id": capability.id.rpartition("/")[2],
        "name": capability.name,
        "description": capability.description,
        **{name: list(getattr(capability, name)) for name in CAPABILITY_TEXTS},
        "claims": [_plain_claim(claim) for claim in capability.claims],
    }
    return _filled(plain)


def _plain_usage(usage: Usage) -> dict[str, Any]:
    rest = {"source": usage.source, "measured_at": _moment_text(usage.measured_at)}
    return {"name": usage.name, "count": usage.count, **_filled(rest)}


def _plain_claim(claim: Claim) -> dict[str, Any]:
    plain = {
        "name": claim.name,
        "claimed": claim.claimed,
        "measured": claim.measured,
        "source": claim.source,
        "measured_at": _moment_text(claim.measured_at),
    }
    return {**_filled(plain), "verified": claim.verified}


def _item_lines(fields: Mapping[str, Any], indent: str) -> Iterator[str]:
    """A mapping as an item of a list; PyYAML takes five times as long to write a catalogue."""
    lead = f"{indent}- "
    for name, value in fields.items():
        if isinstance(value, bool):
            yield f"{lead}{name}: {'true' if value else 'false'}"
        elif isinstance(value, int):
            yield f"{lead}{name}: {value}"
        elif isinstance(value, str):
            yield f"{lead}{name}: {_scalar(value)}"
        elif isinstance(value[0], str):
            texts = (_quoted(text) if "," in text else _scalar(text) for text in value)
            yield f"{lead}{name}: [{', '.join(texts)}]"
        else:
            yield f"{lead}{name}:"
            for item in value:
                yield from _item_lines(item, f"{indent}    ")
        lead = f"{indent}  "


def _scalar(text: str) -> str:
    """Without quotes where no YAML reads anything else than this text."""
    is_plain = _PLAIN.fullmatch(text) and text.lower() not in _WORDS
    return text if is_plain else _quoted(text)


def _quoted(text: str) -> str:
    """JSON's quotes, which are YAML's, but for what YAML takes for a line's end or cannot have."""
    return _UNSAFE.sub(
        lambda found: f"\\u{ord(found[0]):04x}", json.dumps(text, ensure_ascii=False)
    )


def _moment_text(at: datetime | None) -> str:
    return "" if at is None else at.astimezone(UTC).isoformat().replace("+00:00", "Z")


def _filled(plain: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in plain.items() if value}
