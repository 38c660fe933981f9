"""Clip skip, textual inversions and prompt weights against ``diffusers`` and compel."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from compel import Compel, ReturnedEmbeddingsType, SplitLongTextMode
from safetensors.torch import save_file

from models import DEMO_GENERATOR
from services.core.errors import InvalidInput
from services.generator.diffusion import ENCODE
from services.generator.network import Conditioning
from services.generator.request import LongPrompt, Wish
from services.generator.samplers import Sampler
from tests.parity.generator.models import SMALL, SMALL_XL, save_random_pipeline
from tests.parity.generator.pair import TOLERANCE, Pair, difference, pair

DEEP = {**SMALL, "text": {**SMALL["text"], "num_hidden_layers": 4}}
DEEP_XL = {
    **SMALL_XL,
    "text": DEEP["text"],
    "text_2": {**SMALL_XL["text_2"], "num_hidden_layers": 4},
}
WISH = Wish(
    prompt="a red star",
    negative_prompt="a blue circle",
    steps=4,
    guidance_scale=4.0,
    sampler=Sampler.DDIM,
    seed=3,
)


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def vectors(count: int, width: int) -> torch.Tensor:
    drawn = torch.randn(count, width, generator=torch.Generator().manual_seed(count))
    # Of the size of the random models' token vectors.
    return drawn.mul(width**-0.5)


@pytest.fixture(scope="module")
def embeddings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("embeddings")
    save_file({"<toy>": vectors(1, 32)[0]}, directory / "learned_embeds.safetensors")
    save_file({"emb_params": vectors(3, 32)}, directory / "style.safetensors")
    return directory


def skipping(both: Pair) -> Pair:
    """diffusers 0.42 looks for the final norm where transformers had it before 5."""
    vars(both.pipeline.text_encoder)["text_model"] = both.pipeline.text_encoder
    return both


@pytest.fixture(scope="module")
def deep(tmp_path_factory: pytest.TempPathFactory, embeddings: Path) -> Pair:
    both = pair(save_random_pipeline(tmp_path_factory.mktemp("deep"), DEEP), embeddings=embeddings)
    for file, token in (("learned_embeds", "<toy>"), ("style", "<style>")):
        both.pipeline.load_textual_inversion(embeddings / f"{file}.safetensors", token=token)
    return skipping(both)


@pytest.fixture(scope="module")
def deep_xl(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    directory = tmp_path_factory.mktemp("embeddings-xl")
    parts = {"clip_l": vectors(2, 32), "clip_g": vectors(2, 48)}
    save_file(parts, directory / "style.safetensors")
    model = save_random_pipeline(tmp_path_factory.mktemp("deep-xl"), DEEP_XL)
    both = pair(model, embeddings=directory)
    for key, number in (("clip_l", ""), ("clip_g", "_2")):
        both.pipeline.load_textual_inversion(
            parts[key],
            token="<style>",
            text_encoder=getattr(both.pipeline, f"text_encoder{number}"),
            tokenizer=getattr(both.pipeline, f"tokenizer{number}"),
        )
    return both


def test_clip_skip(deep: Pair) -> None:
    wishes = [replace(WISH, clip_skip=skip, seed=skip) for skip in range(4)]
    assert deep.model.limits.max_clip_skip == 3
    for wish, ours in zip(wishes, deep.ours(*wishes), strict=True):
        assert difference(ours, deep.theirs(wish)) <= TOLERANCE, wish.clip_skip
    one, other = (deep.ours(replace(WISH, clip_skip=skip))[0] for skip in (0, 2))
    assert difference(one, other) > TOLERANCE


def test_clip_skip_of_xl(deep_xl: Pair) -> None:
    wishes = [replace(WISH, clip_skip=skip, seed=skip) for skip in range(3)]
    assert deep_xl.model.limits.max_clip_skip == 2
    for wish, ours in zip(wishes, deep_xl.ours(*wishes), strict=True):
        assert difference(ours, deep_xl.theirs(wish)) <= TOLERANCE, wish.clip_skip


def test_clip_skip_of_the_demo_model() -> None:
    demo = skipping(pair(DEMO_GENERATOR))
    wish = replace(WISH, clip_skip=1)
    assert difference(demo.ours(wish)[0], demo.theirs(wish)) <= TOLERANCE


def test_inversions_beside_plain_prompts(deep: Pair) -> None:
    wishes = [
        replace(WISH, prompt="a <toy> star"),
        replace(WISH, negative_prompt="<style> <toy>, x"),
        WISH,
        replace(WISH, prompt="<style>", clip_skip=1),
    ]
    for wish, ours in zip(wishes, deep.ours(*wishes), strict=True):
        assert difference(ours, deep.theirs(wish)) <= TOLERANCE, wish.prompt
    assert difference(deep.ours(wishes[0])[0], deep.ours(WISH)[0]) > TOLERANCE


def test_an_inversion_of_two_encoders(deep_xl: Pair) -> None:
    wish = replace(WISH, prompt="a <style> star")
    assert difference(deep_xl.ours(wish)[0], deep_xl.theirs(wish)) <= TOLERANCE


def test_an_unknown_inversion_names_what_is_there(deep: Pair) -> None:
    with pytest.raises(InvalidInput) as caught:
        deep.ours(replace(WISH, prompt="a <dog>"))
    assert (caught.value.field, caught.value.limit) == ("prompt", "<toy>, <style>")


def encoded(both: Pair, wish: Wish) -> Conditioning:
    [work] = both.model.works(both.order(replace(wish, guidance_scale=1.0)))
    for stage in both.model.plan(work):
        if stage.name == ENCODE:
            both.model.step(stage, [work])
    assert work.prompts.encoded is not None
    return work.prompts.encoded


WEIGHED_BY_BOTH = pytest.mark.parametrize(
    ("ours", "compels"),
    [
        ("a (red:1.5) star", "a (red)1.5 star"),
        ("(a red:2.0) star (on white:1.25)", "(a red)2.0 star (on white)1.25"),
        ("(a (red:1.5) star)", "((a)1.1 (red)1.65 (star)1.1)1.0"),
        ("a red star", "a red star"),
    ],
)


@WEIGHED_BY_BOTH
def test_weights_above_one_are_compels(deep: Pair, ours: str, compels: str) -> None:
    kind: Any = Compel
    compel = kind(tokenizer=deep.pipeline.tokenizer, text_encoder=deep.pipeline.text_encoder)
    made = encoded(deep, replace(WISH, prompt=ours, prompt_weighting=True)).context
    assert torch.allclose(made, compel([compels]), atol=1e-5)


@WEIGHED_BY_BOTH
def test_weights_of_both_encoders_of_xl_are_compels(deep_xl: Pair, ours: str, compels: str) -> None:
    kind: Any = Compel
    pipeline = deep_xl.pipeline
    compel = kind(
        tokenizer=[pipeline.tokenizer, pipeline.tokenizer_2],
        text_encoder=[pipeline.text_encoder, pipeline.text_encoder_2],
        returned_embeddings_type=ReturnedEmbeddingsType.PENULTIMATE_HIDDEN_STATES_NON_NORMALIZED,
        requires_pooled=[False, True],
    )
    made = encoded(deep_xl, replace(WISH, prompt=ours, prompt_weighting=True)).context
    # Its pooled state is that of the words with their marks and numbers.
    context, _ = compel([compels])
    assert torch.allclose(made, context, atol=1e-5)


@pytest.mark.parametrize(
    ("ours", "compels"),
    [
        ("a b " * 40, "a b " * 40),
        (f"{'a' * 75} (bbbb:1.4)", f"{'a' * 75} (bbbb)1.4"),
    ],
)
def test_windows_of_long_prompts_are_compels(deep: Pair, ours: str, compels: str) -> None:
    kind: Any = Compel
    compel = kind(
        tokenizer=deep.pipeline.tokenizer,
        text_encoder=deep.pipeline.text_encoder,
        truncate_long_prompts=False,
        split_long_text_mode=SplitLongTextMode.BRUTAL,
    )
    long = replace(WISH, long_prompt=LongPrompt.CHUNK, prompt_weighting=True)
    made = encoded(deep, replace(long, prompt=ours)).context
    assert made.shape[1] == 2 * 77
    assert torch.allclose(made, compel([compels]), atol=1e-5)


def test_weights_below_one_go_towards_the_empty_prompt(deep: Pair) -> None:
    def states(prompt: str) -> torch.Tensor:
        return encoded(deep, replace(WISH, prompt=prompt, prompt_weighting=True)).context

    plain, empty = states("a red star"), states("")
    assert torch.allclose(states("(a red star:0)")[:, 1:9], empty[:, 1:9], atol=1e-6)
    assert torch.allclose(
        states("(a red star:0.5)")[:, 1:9], (plain + empty)[:, 1:9] / 2, atol=1e-6
    )
    # The beginning, the end and the padding weigh 1.
    assert states("(a red star:0)")[:, 9:].equal(plain[:, 9:])


def test_weights_of_one_change_nothing(deep: Pair) -> None:
    weighed = replace(WISH, prompt="a (red:1.0) star", prompt_weighting=True)
    assert encoded(deep, weighed).context.equal(encoded(deep, WISH).context)
    assert np.array_equal(deep.ours(weighed)[0], deep.ours(WISH)[0])


def test_weights_of_xl_leave_the_pooled_state(deep_xl: Pair) -> None:
    plain = encoded(deep_xl, WISH)
    weighed = encoded(deep_xl, replace(WISH, prompt="a (red:1.5) star", prompt_weighting=True))
    assert plain.pooled is not None
    assert weighed.pooled is not None
    assert plain.pooled.allclose(weighed.pooled, atol=1e-5)
    assert not plain.context.allclose(weighed.context)


def test_long_weighted_prompts_are_weighed_in_every_window(deep: Pair) -> None:
    long = replace(WISH, long_prompt=LongPrompt.CHUNK, prompt_weighting=True)
    first, second = "a" * 75, "b" * 10
    both = encoded(deep, replace(long, prompt=f"{first} ({second}:1.4)")).context
    assert both.shape[1] == 2 * 77
    assert both[:, :77].allclose(encoded(deep, replace(long, prompt=first)).context, atol=1e-6)
    weighed = encoded(deep, replace(long, prompt=f"({second}:1.4)")).context
    assert both[:, 77:].allclose(weighed, atol=1e-6)


def test_weights_share_a_batch_with_none(deep: Pair) -> None:
    wishes = [
        replace(WISH, prompt="a (red:1.6) [star]", prompt_weighting=True, clip_skip=2),
        replace(WISH, prompt="a green star"),
        replace(WISH, prompt="a (blue:0.3) (<toy>:1.2)", prompt_weighting=True),
    ]
    alone = [deep.ours(wish)[0] for wish in wishes]
    deep.model.prompt_cache.clear()
    for one, mixed in zip(alone, deep.ours(*wishes), strict=True):
        assert difference(mixed, one) <= TOLERANCE


def test_what_was_encoded_before_is_not_encoded_again(deep: Pair) -> None:
    deep.model.prompt_cache.clear()
    first = deep.ours(WISH)[0]
    [work] = deep.model.works(deep.order(WISH))
    assert ENCODE not in [stage.name for stage in deep.model.plan(work)]
    assert np.array_equal(first, deep.ours(WISH)[0])
