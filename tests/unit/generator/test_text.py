import pytest
import torch

from services.core.errors import InvalidInput
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


def encoded(prompts: Prompts, pooled: bool) -> Conditioning:
    rows = prompts.windows.shape[1] * prompts.windows.shape[2]
    context = torch.arange(1.0, rows + 1)[:, None, None].expand(rows, 10, 4)
    return Conditioning(context, context[:, 0, :3] if pooled else None)


def test_each_encoder_has_its_own_tokens() -> None:
    reader = PromptReader([FakeTokenizer(), OtherTokenizer()])
    windows = reader.read("one two", "three", LongPrompt.ERROR).windows
    assert windows.shape == (2, 2, 1, 10)
    assert windows[0, 1, 0, :4].tolist() == windows[1, 1, 0, :4].tolist()
    assert windows[:, 1, 0, -1].tolist() == [0, 99]


@pytest.mark.parametrize("pooled", [True, False])
def test_windows_are_joined_and_the_first_ones_pooled_state_is_kept(pooled: bool) -> None:
    prompts = READER.read(f"{EIGHT} nine", "ten", LongPrompt.CHUNK)
    prompts.take(encoded(prompts, pooled))
    assert prompts.encoded is not None
    assert prompts.encoded.context.shape == (2, 20, 4)
    assert prompts.encoded.context[:, [0, 10], 0].tolist() == [[1.0, 2.0], [3.0, 4.0]]
    kept = prompts.encoded.pooled
    assert (kept is not None) is pooled
    assert kept is None or kept[:, 0].tolist() == [1.0, 3.0]


@pytest.mark.parametrize(("negative", "zeros"), [("", True), ("red", False), (None, False)])
def test_an_empty_negative_prompt_is_all_zeros_where_the_model_wants_it(
    negative: str | None, zeros: bool
) -> None:
    prompts = PromptReader([FakeTokenizer()], zeros_for_empty=True).read(
        "one", negative, LongPrompt.ERROR
    )
    prompts.take(encoded(prompts, pooled=True))
    assert prompts.encoded is not None
    assert bool((prompts.encoded.context[0] == 0).all()) is zeros
    assert prompts.encoded.pooled is not None
    assert bool((prompts.encoded.pooled[0] == 0).all()) is zeros
    assert bool((prompts.encoded.context[-1] != 0).all())
