from typing import Any

import pytest
import torch

from services.core.errors import InvalidInput
from services.generator.inversion import Inversion, Vocabulary
from services.generator.network import Conditioning
from services.generator.request import LongPrompt
from services.generator.text import PromptReader, Prompts
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


class OtherTokenizer(FakeTokenizer):
    pad_token_id = 99


def encode(prompts: Prompts) -> Conditioning:
    """Every state of text i is i + 1."""
    for index in range(prompts.texts):
        assert prompts.encoded is None
        context = torch.full((prompts.sequence_length, 4), index + 1.0)
        prompts.take(index, Conditioning(context, context[0, :3]))
    assert prompts.encoded is not None
    return prompts.encoded


def test_each_encoder_has_its_own_tokens() -> None:
    reader = PromptReader([FakeTokenizer(), OtherTokenizer()])
    windows = reader.read("one two", "three", LongPrompt.ERROR).windows
    assert windows.shape == (2, 2, 1, 10)
    assert windows[0, 1, 0, :4].tolist() == windows[1, 1, 0, :4].tolist()
    assert windows[:, 1, 0, -1].tolist() == [0, 99]


def test_texts_are_joined_once_all_are_there() -> None:
    joined = encode(READER.read(f"{EIGHT} nine", "ten", LongPrompt.CHUNK))
    assert joined.context.shape == (2, 20, 4)
    assert joined.context[:, 0, 0].tolist() == [1.0, 2.0]
    assert joined.pooled is not None
    assert joined.pooled[:, 0].tolist() == [1.0, 2.0]


@pytest.mark.parametrize(("negative", "zeros"), [("", True), ("red", False), (None, False)])
def test_an_empty_negative_prompt_is_all_zeros_where_the_model_wants_it(
    negative: str | None, zeros: bool
) -> None:
    prompts = PromptReader([FakeTokenizer()], zeros_for_empty=True).read(
        "one", negative, LongPrompt.ERROR
    )
    joined = encode(prompts)
    assert bool((joined.context[0] == 0).all()) is zeros
    assert joined.pooled is not None
    assert bool((joined.pooled[0] == 0).all()) is zeros
    assert bool((joined.context[-1] != 0).all())


def test_weights_go_with_their_tokens() -> None:
    prompts = READER.read("a (red:1.5) star", "x", LongPrompt.ERROR, weighting=True)
    assert prompts.weights is not None
    assert prompts.text_weights(0) is None
    assert prompts.weights[1, 0].tolist() == [1, 1, 1.5, *[1] * 7]
    assert prompts.windows.equal(READER.read("a red star", "x", LongPrompt.ERROR).windows)


@pytest.mark.parametrize("prompt", ["a red star", "a (red:1.0) star", ""])
def test_weights_of_one_are_no_weights(prompt: str) -> None:
    assert READER.read(prompt, None, LongPrompt.ERROR, weighting=True).weights is None


def test_brackets_are_text_unless_weights_are_read() -> None:
    assert READER.read("a (red:1.5)", None, LongPrompt.ERROR).weights is None


def test_weights_follow_into_the_next_window() -> None:
    prompts = READER.read(f"{EIGHT} (nine:2)", None, LongPrompt.CHUNK, weighting=True)
    assert prompts.weights is not None
    assert prompts.weights[0, 0].eq(1).all()
    assert prompts.weights[0, 1].tolist() == [1, 2, *[1] * 8]
    cut = READER.read(f"{EIGHT} (nine:2)", None, LongPrompt.TRUNCATE, weighting=True)
    assert cut.weights is None


def test_an_inversion_is_as_many_tokens_as_it_has_vectors() -> None:
    toy = Vocabulary([Inversion("toy", (torch.zeros(3, 2),))], 95)
    reader = PromptReader([FakeTokenizer()], [toy])
    plain = READER.read("a b", None, LongPrompt.ERROR).windows[0, 0, 0].tolist()
    ids = reader.read("a <toy>, b", None, LongPrompt.ERROR).windows[0, 0, 0].tolist()
    assert [ids[1], *ids[2:5]] == [plain[1], 95, 96, 97]
    weighed = reader.read("(a <toy>:2) b", None, LongPrompt.ERROR, weighting=True)
    assert weighed.weights is not None
    assert weighed.weights[0, 0].tolist() == [1, 2, 2, 2, 2, *[1] * 5]
    with pytest.raises(InvalidInput) as caught:
        reader.read("<toy> <toy> <toy>", None, LongPrompt.ERROR)
    assert caught.value.given == "11 tokens"
    with pytest.raises(InvalidInput) as caught:
        reader.read("a", "<joy>", LongPrompt.ERROR)
    assert (caught.value.field, caught.value.limit) == ("negative_prompt", "<toy>")


def test_whatever_changes_an_encoding_changes_its_key() -> None:
    def key(prompt: str, **options: Any) -> bytes:
        return READER.read(prompt, "x", LongPrompt.CHUNK, **options).key(1)

    keys = [
        key("a star"),
        key("a moon"),
        key("a star", clip_skip=1),
        key("a (star:1.5)", weighting=True),
        key("a (star:1.6)", weighting=True),
        key(" ".join([EIGHT, "star"])),
    ]
    assert len(set(keys)) == len(keys)
    assert key("a star", weighting=True) == keys[0]
    assert len(keys[0]) == 32


def test_a_negative_prompt_is_known_again_beside_another_prompt() -> None:
    one = READER.read("a", "bad", LongPrompt.ERROR, clip_skip=1)
    other = READER.read("b", "bad", LongPrompt.ERROR)
    assert one.key(0) == other.key(0)
    assert one.key(1) != other.key(1)
