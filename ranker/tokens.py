"""Texts as the numbers that a text network reads, by the ``tokenizer.json`` of its directory."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ranker.onnx import Importer, need_library
from services.core.errors import FailedPrecondition, InvalidInput

FILE: Final = "tokenizer.json"
CONFIG: Final = "tokenizer_config.json"
# Some published files say 1e30 for "no limit".
_MOST_TOKENS: Final = 8192


@dataclass(frozen=True, slots=True)
class Tokens:
    """``ids`` and ``mask`` are int64 [texts, length]; the mask is 1 for tokens, 0 for padding."""

    ids: NDArray[np.int64]
    mask: NDArray[np.int64]

    def inputs(self) -> dict[str, NDArray[np.int64]]:
        """By the names that exported text networks have for them; one sentence each."""
        types = np.zeros_like(self.ids)
        return {"input_ids": self.ids, "attention_mask": self.mask, "token_type_ids": types}


class Tokenizer:
    """Texts to Tokens, the shorter ones padded to the longest. ``max_tokens`` counts the marks that
    the tokenizer itself sets around a text."""

    def __init__(self, tokenizer: Any, max_tokens: int, pad_id: int) -> None:
        self.max_tokens = max_tokens
        self._tokenizer = tokenizer
        self._pad_id = pad_id

    def encode(self, texts: Sequence[str], *, truncate: bool = True, field: str = "text") -> Tokens:
        """Longer texts end at ``max_tokens``, or, without ``truncate``, raise InvalidInput naming
        ``field``. ``texts`` is not empty."""
        rows = [self._row(text, truncate, field) for text in texts]
        length = max(map(len, rows))
        ids = np.full((len(rows), length), self._pad_id, np.int64)
        mask = np.zeros_like(ids)
        for place, row in enumerate(rows):
            ids[place, : len(row)], mask[place, : len(row)] = row, 1
        return Tokens(ids, mask)

    def _row(self, text: str, truncate: bool, field: str) -> list[int]:
        found = self._tokenizer.encode(text)
        if found.overflowing and not truncate:
            counted = len(found.ids) + sum(len(part.ids) for part in found.overflowing)
            raise InvalidInput(
                field,
                "The text is too long for the model.",
                f"{self.max_tokens} tokens",
                f"about {counted} tokens",
            )
        ids: list[int] = found.ids
        return ids


def open_tokenizer(
    directory: Path, max_tokens: int | None = None, *, importer: Importer = import_module
) -> Tokenizer:
    """The tokenizer of a model's directory. ``max_tokens``: what its network takes at most; the
    directory's own word when it is less, or when None.

    Raises FailedPrecondition where a file or the library is missing, or cannot be read.
    """
    title = f"{directory.name}/{FILE}"
    if not (directory / FILE).is_file():
        raise FailedPrecondition(f"There is no file {title}.")
    library = need_library("tokenizers", importer)
    config = read_json(directory / CONFIG) if (directory / CONFIG).is_file() else {}
    try:
        tokenizer = library.Tokenizer.from_file(str(directory / FILE))
    except Exception as error:  # the library raises Exception itself
        raise FailedPrecondition(f"{title} could not be read as a tokenizer.") from error
    limit = min(_most_tokens(config), max_tokens or _MOST_TOKENS)
    pad_id = _pad_id(tokenizer, config)
    tokenizer.no_padding()
    tokenizer.enable_truncation(limit)
    return Tokenizer(tokenizer, limit, pad_id)


def read_json(path: Path) -> dict[str, Any]:
    """The object in a model's file. Raises FailedPrecondition naming it."""
    title = f"{path.parent.name}/{path.name}"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise FailedPrecondition(f"{title} could not be read as JSON.") from error
    if not isinstance(content, dict):
        raise FailedPrecondition(f"{title} holds no JSON object.")
    return content


def _most_tokens(config: dict[str, Any]) -> int:
    told = config.get("model_max_length")
    return (
        int(told) if isinstance(told, int | float) and 1 <= told <= _MOST_TOKENS else _MOST_TOKENS
    )


def _pad_id(tokenizer: Any, config: dict[str, Any]) -> int:
    """Its own; 0 where it has none, which the mask tells from a token."""
    if tokenizer.padding is not None:
        return int(tokenizer.padding["pad_id"])
    told = config.get("pad_token")
    name = told.get("content") if isinstance(told, dict) else told
    found = tokenizer.token_to_id(name) if isinstance(name, str) else None
    return 0 if found is None else int(found)
