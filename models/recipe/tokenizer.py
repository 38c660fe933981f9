"""A CLIP byte-level BPE tokenizer whose merges make every caption word a single token.

Any other word falls apart into smaller pieces, down to bytes, so no text is ever refused.
"""

import json
from collections import Counter
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path

from transformers import CLIPTokenizer

from models.recipe import captions

WORD_END = "</w>"
MAX_TOKENS = 32
SPECIAL = ("<|startoftext|>", "<|endoftext|>")

Pieces = tuple[str, ...]


def build(folder: Path) -> None:
    """Writes the tokenizer of the recipe's vocabulary in the layout of `from_pretrained`."""
    folder.mkdir(parents=True, exist_ok=True)
    merges = learn_merges([*captions.vocabulary(), ","])
    letters = byte_letters()
    tokens = [*letters, *(letter + WORD_END for letter in letters)]
    tokens = list(dict.fromkeys([*tokens, *map("".join, merges), *SPECIAL]))
    ids = {token: i for i, token in enumerate(tokens)}
    vocabulary_file, merges_file = folder / "vocab.json", folder / "merges.txt"
    vocabulary_file.write_text(json.dumps(ids, ensure_ascii=False), encoding="utf-8")
    lines = ["#version: 0.2", *map(" ".join, merges)]
    merges_file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    tokenizer = CLIPTokenizer.from_pretrained(folder, model_max_length=MAX_TOKENS)
    tokenizer.save_pretrained(folder)


def learn_merges(words: list[str]) -> list[tuple[str, str]]:
    """Byte-pair merges (Sennrich et al., 2016), until every word is one piece."""
    spelled: dict[str, Pieces] = {word: (*word[:-1], word[-1] + WORD_END) for word in words}
    merges: list[tuple[str, str]] = []
    while pairs := _pairs(spelled.values()):
        # Ties are broken by spelling, so that the same words always give the same merges.
        best = max(pairs, key=lambda pair: (pairs[pair], pair))
        merges.append(best)
        spelled = {word: _merge(pieces, best) for word, pieces in spelled.items()}
    return merges


def byte_letters() -> list[str]:
    """The printable stand-in of each of the 256 bytes, in the order of GPT-2's vocabulary."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    return [chr(byte) for byte in printable] + [chr(256 + i) for i in range(len(others))]


def _pairs(spellings: Iterable[Pieces]) -> Counter[tuple[str, str]]:
    return Counter(pair for pieces in spellings for pair in pairwise(pieces))


def _merge(pieces: Pieces, pair: tuple[str, str]) -> Pieces:
    merged: list[str] = []
    for piece in pieces:
        if merged and (merged[-1], piece) == pair:
            merged[-1] += piece
        else:
            merged.append(piece)
    return tuple(merged)
