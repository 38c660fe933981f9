"""Texts as the terms that are searched for: folded, split, stemmed.

Stems are those of Porter, "An algorithm for suffix stripping" (Program 14(3), 1980), so that
"classifies", "classified" and "classifying" are one term. It is English; words of other languages
pass through it much as they are. Texts without spaces between words are one term a run.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache
from typing import Final

# Words that say how a request is put, not what is asked for.
STOP_WORDS: Final = frozenset(
    (
        "a", "an", "and", "are", "as", "at", "be", "by", "can", "do", "for", "from", "has", "have",
        "i", "if", "in", "into", "is", "it", "its", "me", "my", "no", "not", "of", "on", "or",
        "our", "so", "that", "the", "their", "then", "there", "these", "they", "this", "to", "want",
        "was", "we", "what", "when", "which", "who", "will", "with", "would", "you", "your",
    )
)  # fmt: skip
_WORD: Final = re.compile(r"[^\W_]+")
_MAX_WORD: Final = 64
"""Characters; what is longer is no word, and is cut."""


def terms(text: str) -> list[str]:
    """The stems of the words of ``text`` in their order, without stop words."""
    return [stem(word) for word in words(text) if word not in STOP_WORDS]


def words(text: str) -> list[str]:
    """Runs of letters and digits, without case and accents."""
    if not text.isascii():
        text = "".join(
            letter
            for letter in unicodedata.normalize("NFKD", text)
            if not unicodedata.combining(letter)
        )
    return [word[:_MAX_WORD] for word in _WORD.findall(text.casefold())]


@lru_cache(maxsize=1 << 16)
def stem(word: str) -> str:
    """Porter's stem of a folded word; one of two letters or fewer is its own."""
    if len(word) <= 2:
        return word
    for step in (_plural, _past, _final_y, _double_suffix, _suffix, _last_suffix, _final_e):
        word = step(word)
    return word


# A word as consonants and vowels; y after a consonant is a vowel.
_CONSONANT: Final = "[^aeiou]"
_CONSONANTS: Final = "[^aeiou][^aeiouy]*"
_VOWELS: Final = "[aeiouy][aeiou]*"
_MEASURE: Final = re.compile(f"{_VOWELS}{_CONSONANTS}")
_LEADING: Final = re.compile(f"^(?:{_CONSONANTS})?")
_HAS_VOWEL: Final = re.compile("^(?:[^aeiou][^aeiouy]*)?[aeiouy]")
_SHORT: Final = re.compile(f"^{_CONSONANTS}[aeiouy][^aeiouwxy]$")
_DOUBLED: Final = re.compile(r"([^aeiouylsz])\1$")

_DOUBLE_SUFFIXES: Final = {
    "ational": "ate", "tional": "tion", "enci": "ence", "anci": "ance", "izer": "ize",
    "bli": "ble", "alli": "al", "entli": "ent", "eli": "e", "ousli": "ous", "ization": "ize",
    "ation": "ate", "ator": "ate", "alism": "al", "iveness": "ive", "fulness": "ful",
    "ousness": "ous", "aliti": "al", "iviti": "ive", "biliti": "ble", "logi": "log",
}  # fmt: skip
_SUFFIXES: Final = {
    "icate": "ic", "ative": "", "alize": "al", "iciti": "ic", "ical": "ic", "ful": "", "ness": "",
}  # fmt: skip
_LAST_SUFFIXES: Final = (
    "al", "ance", "ence", "er", "ic", "able", "ible", "ant", "ement", "ment", "ent", "ion", "ou",
    "ism", "ate", "iti", "ous", "ive", "ize",
)  # fmt: skip


def _measure(stem: str) -> int:
    """How many times a vowel is followed by a consonant."""
    start = _LEADING.match(stem)
    return len(_MEASURE.findall(stem, start.end() if start else 0))


def _plural(word: str) -> str:
    if word.endswith(("sses", "ies")):
        return word[:-2]
    if word.endswith("s") and not word.endswith("ss"):
        return word[:-1]
    return word


def _past(word: str) -> str:
    if word.endswith("eed"):
        return word[:-1] if _measure(word[:-3]) > 0 else word
    for ending in ("ed", "ing"):
        rest = word.removesuffix(ending)
        if rest != word:
            return _mended(rest) if _HAS_VOWEL.match(rest) else word
    return word


def _mended(word: str) -> str:
    """What -ed and -ing had taken from the word is put back."""
    if word.endswith(("at", "bl", "iz")):
        return word + "e"
    if _DOUBLED.search(word):
        return word[:-1]
    return word + "e" if _measure(word) == 1 and _SHORT.match(word) else word


def _final_y(word: str) -> str:
    return word[:-1] + "i" if word.endswith("y") and _HAS_VOWEL.match(word[:-1]) else word


def _double_suffix(word: str) -> str:
    return _replaced(word, _DOUBLE_SUFFIXES)


def _suffix(word: str) -> str:
    return _replaced(word, _SUFFIXES)


def _replaced(word: str, endings: dict[str, str]) -> str:
    found = max((ending for ending in endings if word.endswith(ending)), key=len, default=None)
    if found is None:
        return word
    rest = word[: -len(found)]
    return rest + endings[found] if _measure(rest) > 0 else word


def _last_suffix(word: str) -> str:
    found = max((ending for ending in _LAST_SUFFIXES if word.endswith(ending)), key=len, default="")
    rest = word[: len(word) - len(found)]
    if not found or (found == "ion" and not rest.endswith(("s", "t"))):
        return word
    return rest if _measure(rest) > 1 else word


def _final_e(word: str) -> str:
    if word.endswith("e"):
        rest = word[:-1]
        size = _measure(rest)
        if size > 1 or (size == 1 and not _SHORT.match(rest)):
            word = rest
    return word[:-1] if word.endswith("ll") and _measure(word) > 1 else word
