from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch

from services.core.errors import InvalidInput
from services.generator.diffusion import ENCODE, PictureWork
from services.generator.inversion import Inversion
from services.generator.lora import Outfit
from services.generator.model import GeneratorModel
from services.generator.network import Conditioning
from services.generator.prompt_cache import PromptCache
from services.generator.request import LongPrompt, Reproducibility, Wish, resolve
from tests.unit.generator.drive import drive
from tests.unit.generator.fakes import FILES, FIRST_LEARNED, FakeNetwork

WISH = Wish(prompt="a red star", negative_prompt="bad", steps=2, guidance_scale=3.0, seed=5)
PART_BYTES = 10 * 2 * 4


def model_of(network: FakeNetwork, *, cache_bytes: int = 2**16) -> GeneratorModel:
    cache: PromptCache[Conditioning] = PromptCache(cache_bytes)
    model = GeneratorModel(lambda: FILES, lambda _: network, prompt_cache=cache)
    model.load()
    return model


def works(model: GeneratorModel, *wishes: Wish) -> list[PictureWork]:
    orders = [resolve(wish, model.limits, draw_seed=int) for wish in wishes]
    return [work for order in orders for work in model.works(order)]


def encode(model: GeneratorModel, *wishes: Wish) -> list[torch.Tensor]:
    made = works(model, *wishes)
    due = [work for work in made if model.plan(work)[0].name == ENCODE]
    if due:
        model.step(model.plan(due[0])[0], due)
    contexts = [work.prompts.encoded for work in made]
    return [found.context for found in contexts if found is not None]


def test_texts_of_all_requests_are_one_batch() -> None:
    network = FakeNetwork()
    encode(model_of(network), WISH, Wish(prompt="b", clip_skip=2, guidance_scale=1.0))
    assert network.encoded == [3]


def test_a_hit_skips_the_stage_and_changes_nothing() -> None:
    network = FakeNetwork()
    model = model_of(network)
    first = drive(model, works(model, WISH))[0][-1]
    [again] = works(model, WISH)
    assert ENCODE not in [stage.name for stage in model.plan(again)]
    assert np.array_equal(drive(model, [again])[0][-1].pixels, first.pixels)
    assert network.encoded == [2]
    report = model.prompt_cache.report()
    assert (report.hits, report.misses, report.bytes) == (2, 2, 2 * PART_BYTES)


def test_a_known_negative_prompt_leaves_half_the_work() -> None:
    network = FakeNetwork()
    model = model_of(network)
    encode(model, WISH)
    [work] = works(model, replace(WISH, prompt="a moon"))
    assert model.plan(work)[0].cost == 1.0
    encode(model, replace(WISH, prompt="a moon"))
    assert network.encoded == [2, 1]


@pytest.mark.parametrize(("cache_bytes", "encoded"), [(0, [2, 2]), (PART_BYTES, [2, 1])])
def test_a_small_cache_forgets(cache_bytes: int, encoded: list[int]) -> None:
    network = FakeNetwork()
    model = model_of(network, cache_bytes=cache_bytes)
    one, again = encode(model, WISH), encode(model, WISH)
    assert one[0].equal(again[0])
    assert network.encoded == encoded


def test_exact_pictures_use_nothing_of_others() -> None:
    network = FakeNetwork()
    model = model_of(network)
    exact = replace(WISH, reproducibility=Reproducibility.EXACT)
    encode(model, WISH)
    encode(model, exact)
    encode(model, exact)
    assert network.encoded == [2, 2, 2]


def test_what_is_cached_holds_no_batch() -> None:
    model = model_of(FakeNetwork())
    encode(model, *(replace(WISH, prompt=f"a{number}") for number in range(4)))
    [work] = works(model, replace(WISH, prompt="a1"))
    held = [part.context.untyped_storage().nbytes() for part in work.prompts.parts if part]
    assert held == [PART_BYTES] * 2


def test_a_new_model_forgets_the_old_ones_words() -> None:
    model = model_of(FakeNetwork())
    encode(model, WISH)
    model.load()
    assert model.prompt_cache.report().entries == 0


def test_warm_up_times_every_text() -> None:
    network = FakeNetwork()
    model = model_of(network)
    for batch in model.warm_up():
        drive(model, batch)
    assert sum(network.encoded) > 2
    assert model.prompt_cache.report().hits == 0


def test_weights_move_states_from_the_empty_text() -> None:
    model = model_of(FakeNetwork())
    plain, empty, weighed = encode(
        model,
        replace(WISH, prompt="a red star"),
        replace(WISH, prompt=""),
        replace(WISH, prompt="a (red:1.5) (star:0)", prompt_weighting=True),
    )
    of, base, made = plain[1], empty[1], weighed[1]
    assert made[:2].equal(of[:2])
    assert made[2].allclose(base[2] + 1.5 * (of[2] - base[2]))
    assert made[3].allclose(base[3])
    assert made[4:].equal(of[4:])


def test_weights_are_counted_from_the_empty_text_at_the_same_layer() -> None:
    model = model_of(FakeNetwork())
    empty, weighed = encode(
        model,
        replace(WISH, prompt="", clip_skip=2),
        replace(WISH, prompt="(a:0)", prompt_weighting=True, clip_skip=2),
    )
    assert weighed[1][1].allclose(empty[1][1])


@pytest.mark.parametrize(("skip", "fine"), [(0, True), (3, True), (4, False)])
def test_clip_skip_is_bounded_by_the_layers(skip: int, fine: bool) -> None:
    model = model_of(FakeNetwork())
    if fine:
        assert encode(model, replace(WISH, clip_skip=skip))
        return
    with pytest.raises(InvalidInput) as caught:
        works(model, replace(WISH, clip_skip=skip))
    assert (caught.value.field, caught.value.limit, caught.value.given) == (
        "clip_skip",
        "0 to 3",
        "4",
    )


def test_inversions_are_taught_once_at_the_start() -> None:
    network = FakeNetwork()
    inversions = [Inversion("toy", (torch.ones(2, 2),)), Inversion("joy", (torch.ones(1, 2),))]
    model = GeneratorModel(lambda: FILES, lambda _: network, load_inversions=lambda _: inversions)
    model.load()
    assert network.learned == 3
    assert model.loaded.reader.inversions == ("toy", "joy")
    [work] = works(model, replace(WISH, prompt="<joy>"))
    assert work.prompts.windows[0, 1, 0, 1] == FIRST_LEARNED + 2


@dataclass
class PooledNetwork(FakeNetwork):
    """Its pooled state is the window's first word."""

    def encode(
        self, windows: torch.Tensor, skips: Sequence[int], outfits: Sequence[Outfit] | None = None
    ) -> Conditioning:
        context = super().encode(windows, skips, outfits).context
        return Conditioning(context, context[:, 1])


def test_the_first_windows_pooled_state_is_the_texts() -> None:
    model = model_of(PooledNetwork())
    [work] = works(model, replace(WISH, prompt="a " * 9 + "b", long_prompt=LongPrompt.CHUNK))
    model.step(model.plan(work)[0], [work])
    encoded = work.prompts.encoded
    assert encoded is not None
    assert encoded.pooled is not None
    assert encoded.context.shape[1] == 20
    assert encoded.pooled.equal(encoded.context[:, 1])
