import pytest

from services.core.errors import InvalidInput
from services.generator.request import LongPrompt
from services.generator.text import PromptReader
from tests.unit.generator.fakes import FakeTokenizer

EIGHT = "one two three four five six seven eight"
READER = PromptReader([FakeTokenizer()])


def test_a_window_begins_ends_and_is_padded() -> None:
    windows = READER.read("one two", None, LongPrompt.ERROR).windows
    assert windows.shape == (1, 1, 1, 10)
    ids = windows[0, 0, 0].tolist()
    assert ids[0] == 1
    assert ids[3:] == [2, 0, 0, 0, 0, 0, 0]


def test_the_negative_prompt_comes_first() -> None:
    windows = READER.read("one", "two three", LongPrompt.ERROR).windows
    assert windows.shape == (1, 2, 1, 10)
    assert windows[0, 0, 0].tolist().index(2) == 3
    assert windows[0, 1, 0].tolist().index(2) == 2


def test_a_full_window_is_no_error() -> None:
    assert READER.read(EIGHT, "", LongPrompt.ERROR).sequence_length == 10


@pytest.mark.parametrize(
    ("prompt", "negative", "field"),
    [(EIGHT + " nine", "", "prompt"), ("", EIGHT + " nine", "negative_prompt")],
)
def test_too_many_tokens_name_the_field(prompt: str, negative: str, field: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        READER.read(prompt, negative, LongPrompt.ERROR)
    assert (caught.value.field, caught.value.limit) == (field, "10 tokens")
    assert caught.value.given == "11 tokens"


def test_truncation_keeps_the_first_words() -> None:
    cut = READER.read(EIGHT + " nine", None, LongPrompt.TRUNCATE).windows
    assert cut.equal(READER.read(EIGHT, None, LongPrompt.ERROR).windows)


def test_chunks_keep_every_word_and_pad_the_other_prompt() -> None:
    prompts = READER.read(f"{EIGHT} one two", "green", LongPrompt.CHUNK)
    assert prompts.windows.shape == (1, 2, 2, 10)
    assert prompts.sequence_length == 20
    assert prompts.windows[0, 1, 1].tolist()[1:3] == prompts.windows[0, 1, 0].tolist()[1:3]
    assert prompts.windows[0, 0, 1].tolist() == [1, 2, *[0] * 8]
