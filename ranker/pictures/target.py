"""Which label of the classifier a prompt asks for."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches

from services.core.errors import InvalidInput

_WORD = re.compile(r"[^\W_]+")
_NAMED_AT_MOST = 5
_NAME_READ = 100
_ADVICE = "Name the wanted label with judges[].label.label."


@dataclass(frozen=True, slots=True, order=True)
class _Fit:
    """How well a label sits in the prompt; larger is better, compared field by field.

    ``closeness`` counts the label's words and takes one off for each foreign word among them, so
    that of "a red star on a blue circle" the labels "red star" and "blue circle" fit, and
    "red circle" does not.
    """

    closeness: int
    words: int
    in_order: bool


def find_in_prompt(prompt: str, labels: Sequence[str]) -> int:
    """Index of the one label whose words all stand in the prompt, closest together.

    Words compare whole and without case. A label with commas is a list of synonyms, as in the
    ImageNet names, any of which may fit. More words and fewer foreign words between them are
    better; the label's own order breaks ties. Raises InvalidInput on ``judges`` when no label fits,
    or several fit equally well.
    """
    positions = _positions(prompt)
    fits = [(fit, index) for index, name in enumerate(labels) if (fit := _fit(name, positions))]
    if not fits:
        raise InvalidInput("judges", f"The prompt names no label of the classifier. {_ADVICE}")
    best = max(fit for fit, _ in fits)
    winners = [index for fit, index in fits if fit == best]
    if len(winners) > 1:
        named = ", ".join(repr(labels[index]) for index in winners[:_NAMED_AT_MOST])
        raise InvalidInput("judges", f"The prompt fits several labels: {named}. {_ADVICE}")
    return winners[0]


def find_by_name(name: str, labels: Sequence[str], *, field: str) -> int:
    """Index of the label of that name; without case, or one of its synonyms, when that is unique.

    Raises InvalidInput on ``field`` when there is none, with the nearest, or more than one.
    """
    exact = [index for index, label in enumerate(labels) if label == name]
    wanted = _words(name)
    matches = exact or [
        index
        for index, label in enumerate(labels)
        if wanted and any(wanted == words for words in _synonyms(label))
    ]
    if len(matches) == 1:
        return matches[0]
    problem = "More than one label of the classifier is" if matches else "No label is"
    near = get_close_matches(name[:_NAME_READ], labels, _NAMED_AT_MOST)
    hint = f" The nearest: {', '.join(map(repr, near))}." if near and not matches else ""
    raise InvalidInput(field, f"{problem} called that.{hint}", given=name[:_NAME_READ])


def _words(text: str) -> tuple[str, ...]:
    return tuple(_WORD.findall(text.casefold()))


def _synonyms(label: str) -> list[tuple[str, ...]]:
    return [words for part in (label, *label.split(",")) if (words := _words(part))]


def _positions(prompt: str) -> dict[str, list[int]]:
    positions: dict[str, list[int]] = {}
    for position, word in enumerate(_words(prompt)):
        positions.setdefault(word, []).append(position)
    return positions


def _fit(label: str, positions: dict[str, list[int]]) -> _Fit | None:
    fits = (
        _fit_words(words, positions)
        for words in _synonyms(label)
        if all(word in positions for word in words)
    )
    return max(fits, default=None)


def _fit_words(words: tuple[str, ...], positions: dict[str, list[int]]) -> _Fit:
    """The closest stretch of the prompt that holds all the words, found in one pass over them."""
    distinct = tuple(dict.fromkeys(words))
    hits = sorted((position, word) for word in distinct for position in positions[word])
    last: dict[str, int] = {}
    best: _Fit | None = None
    for position, word in hits:
        last[word] = position
        if len(last) == len(distinct):
            foreign = position - min(last.values()) + 1 - len(distinct)
            places = [last[each] for each in distinct]
            fit = _Fit(len(distinct) - foreign, len(distinct), places == sorted(places))
            best = fit if best is None else max(best, fit)
    assert best is not None  # every word has a position
    return best
