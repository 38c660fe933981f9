"""Texts as tokens, against transformers' own reading of the demo model's tokenizer."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models import DEMO_GENERATOR
from ranker.tokens import Tokenizer, open_tokenizer
from services.core.errors import FailedPrecondition, InvalidInput

DIRECTORY = DEMO_GENERATOR / "tokenizer"
TEXTS = ["a red star", "a big white ring on a blue striped background", ""]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return open_tokenizer(DIRECTORY)


def test_ids_and_mask_are_those_of_transformers(tokenizer: Tokenizer) -> None:
    from transformers import AutoTokenizer

    theirs = AutoTokenizer.from_pretrained(DIRECTORY)(TEXTS, padding=True, return_tensors="np")
    ours = tokenizer.encode(TEXTS)
    np.testing.assert_array_equal(ours.ids, theirs["input_ids"])
    np.testing.assert_array_equal(ours.mask, theirs["attention_mask"])
    assert list(ours.inputs()) == ["input_ids", "attention_mask", "token_type_ids"]


def test_long_texts_end_as_transformers_ends_them(tokenizer: Tokenizer) -> None:
    from transformers import AutoTokenizer

    long = "red star " * 40
    theirs = AutoTokenizer.from_pretrained(DIRECTORY)(
        [long], truncation=True, max_length=32, return_tensors="np"
    )
    ours = tokenizer.encode([long])
    assert tokenizer.max_tokens == 32
    np.testing.assert_array_equal(ours.ids, theirs["input_ids"])


@pytest.mark.parametrize(("words", "fits"), [(29, True), (30, True), (31, False)])
def test_a_text_that_must_fit(tokenizer: Tokenizer, words: int, fits: bool) -> None:
    text = " ".join(["red"] * words)  # one token each, and two marks around them
    if fits:
        assert tokenizer.encode([text], truncate=False).ids.shape == (1, words + 2)
        return
    with pytest.raises(InvalidInput) as caught:
        tokenizer.encode([text], truncate=False, field="judges[0].text")
    assert (caught.value.field, caught.value.limit) == ("judges[0].text", "32 tokens")


@pytest.mark.parametrize(("given", "limit"), [(8, 8), (100, 32), (None, 32)])
def test_the_smaller_limit_counts(given: int | None, limit: int) -> None:
    assert open_tokenizer(DIRECTORY, given).max_tokens == limit


def copied(directory: Path, **config: Any) -> Path:
    directory.mkdir(parents=True)
    shutil.copy(DIRECTORY / "tokenizer.json", directory)
    (directory / "tokenizer_config.json").write_text(json.dumps(config))
    return directory


def test_a_limit_that_is_none_at_all(tmp_path: Path) -> None:
    found = open_tokenizer(copied(tmp_path / "model", model_max_length=1e30), 12)
    assert found.max_tokens == 12
    assert found.encode(["red star " * 40]).ids.shape == (1, 12)


@pytest.mark.parametrize("told", ["<|endoftext|>", {"content": "<|endoftext|>"}])
def test_the_padding_is_what_the_directory_says(tmp_path: Path, told: object) -> None:
    found = open_tokenizer(copied(tmp_path / "model", pad_token=told)).encode(["a red star", "a"])
    end = found.ids[0, -1]
    assert found.ids[1].tolist()[-2:] == [end, end]
    assert found.mask[1].tolist() == [1, 1, 1, 0, 0]


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    with pytest.raises(FailedPrecondition, match=r"no file model/tokenizer\.json"):
        open_tokenizer(tmp_path / "model")


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(FailedPrecondition, match="could not be read as a tokenizer"):
        open_tokenizer(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text("[]")
    with pytest.raises(FailedPrecondition, match="holds no JSON object"):
        open_tokenizer(tmp_path)


def test_the_library_is_not_installed() -> None:
    def importer(name: str) -> Any:
        raise ModuleNotFoundError(name)

    with pytest.raises(FailedPrecondition, match="tokenizers is not installed"):
        open_tokenizer(DIRECTORY, importer=importer)
