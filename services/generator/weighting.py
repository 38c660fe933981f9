"""Weights in prompts: what ``prompt_weighting`` reads, in AUTOMATIC1111's spelling.

    (word:1.3)   word weighs 1.3 times what it would
    (word)       1.1 times
    [word]       1 / 1.1 times
    \\( \\) \\[ \\] \\: \\\\   the character itself

Brackets nest, and their weights multiply. A colon that no number and closing bracket follow is a
colon.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final

from services.core.errors import InvalidInput

BRACKET_WEIGHT: Final = 1.1
MAX_WEIGHT: Final = 10.0
MAX_DEPTH: Final = 24

_TOKENS: Final = re.compile(
    r"""\\(?P<escaped>[()\[\]:\\])
    |(?P<open>[(\[])
    |:\s*(?P<weight>[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+))\s*(?=[)\]])
    |(?P<close>[)\]])
    |(?P<text>[^\\()\[\]:]+|.)""",
    re.VERBOSE | re.DOTALL,
)
_PARTNERS: Final = {")": "(", "]": "["}


@dataclass(frozen=True, slots=True)
class Fragment:
    """A part of a prompt, all of one weight."""

    text: str
    weight: float = 1.0


@dataclass(slots=True)
class _Bracket:
    """An open one: where, and the fragments inside it so far."""

    mark: str
    position: int
    inside: list[Fragment] = field(default_factory=list)
    weight: float | None = None


def fragments(prompt: str, prompt_field: str) -> list[Fragment]:
    """``prompt`` as fragments with their weights, in order; at least one.

    Raises ``InvalidInput`` on ``prompt_field`` for a bracket without its partner or deeper than
    ``MAX_DEPTH``, for a number in square brackets and for a weight outside 0 to ``MAX_WEIGHT``.
    """
    stack = [_Bracket("", 0)]
    for found in _TOKENS.finditer(prompt):
        top, position = stack[-1], found.start()
        match found.lastgroup:
            case "open":
                if len(stack) > MAX_DEPTH:
                    raise InvalidInput(
                        prompt_field, "Brackets nest too deep.", MAX_DEPTH, f"{len(stack)} or more"
                    )
                stack.append(_Bracket(found["open"], position))
            case "close":
                _close(stack, found["close"], position, prompt_field)
            case "weight" if top.mark:
                top.weight = _number(found["weight"], top, prompt_field)
            case "escaped":
                top.inside.append(Fragment(found["escaped"]))
            case _:
                top.inside.append(Fragment(found[0]))
    if len(stack) > 1:
        raise _unpaired(prompt_field, stack[-1].mark, stack[-1].position)
    joined = _joined(stack[0].inside)
    for fragment in joined:
        if fragment.weight > MAX_WEIGHT:
            raise _out_of_range(prompt_field, fragment.weight)
    return joined or [Fragment("")]


def _close(stack: list[_Bracket], mark: str, position: int, prompt_field: str) -> None:
    if stack[-1].mark != _PARTNERS[mark]:
        raise _unpaired(prompt_field, mark, position)
    closed = stack.pop()
    plain = BRACKET_WEIGHT if mark == ")" else 1.0 / BRACKET_WEIGHT
    weight = plain if closed.weight is None else closed.weight
    stack[-1].inside += [Fragment(part.text, part.weight * weight) for part in closed.inside]


def _number(text: str, bracket: _Bracket, prompt_field: str) -> float:
    if bracket.mark == "[":
        raise InvalidInput(
            prompt_field,
            "A weight stands in round brackets, as in (word:0.8).",
            given=f":{text[:80]}",
        )
    weight = float(text)
    if not 0.0 <= weight <= MAX_WEIGHT:
        raise _out_of_range(prompt_field, weight)
    return weight


def _joined(parts: list[Fragment]) -> list[Fragment]:
    joined: list[Fragment] = []
    for part in parts:
        if joined and joined[-1].weight == part.weight:
            part = Fragment(joined.pop().text + part.text, part.weight)
        joined.append(part)
    return joined


def _unpaired(prompt_field: str, mark: str, position: int) -> InvalidInput:
    return InvalidInput(
        prompt_field,
        f"A bracket has no partner; \\{mark} is the character itself.",
        given=f"{mark} at character {position + 1}",
    )


def _out_of_range(prompt_field: str, weight: float) -> InvalidInput:
    limit = f"0 to {MAX_WEIGHT:g}"
    return InvalidInput(prompt_field, "A weight is out of range.", limit, f"{weight:g}")
