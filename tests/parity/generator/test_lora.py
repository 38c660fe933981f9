"""Adapters on single rows against ``load_lora_weights`` and ``set_adapters`` on a pipeline."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig
from peft.utils import set_peft_model_state_dict
from safetensors.torch import load_file

from models import DEMO_GENERATOR
from services.core.reference import ModelFiles
from services.generator import pytorch
from services.generator.adapters import AdapterUse
from services.generator.model import AdapterFolder, GeneratorModel
from services.generator.network import Pixels
from services.generator.request import Wish
from services.generator.samplers import Sampler
from tests.parity.generator import adapters
from tests.parity.generator.models import SMALL, SMALL_XL, save_random_pipeline
from tests.parity.generator.pair import TOLERANCE, Pair, difference, pair

OPTIONS: dict[str, Any] = {"r": 6, "lora_alpha": 9, "alpha_pattern": {"attn2.to_q": 2.0}}
WISH = Wish(prompt="a red star", negative_prompt="blue", steps=3, guidance_scale=3.0, seed=3)
ONE, TWO, THREE, FOUR = (AdapterUse(name) for name in ("plain", "wide", "folder", "kohya"))


@dataclass(frozen=True)
class Dressed:
    """A pair whose both hands have the same adapters."""

    pair: Pair
    folder: Path

    def theirs(self, wish: Wish) -> Pixels:
        pipeline = self.pair.pipeline
        for use in wish.adapters:
            self._load(pipeline, use.name)
        if wish.adapters:
            names = [use.name for use in wish.adapters]
            pipeline.set_adapters(names, [use.scale for use in wish.adapters])
        made = self.pair.theirs(wish)
        pipeline.unload_lora_weights()
        return made

    def _load(self, pipeline: Any, name: str) -> None:
        path = self.folder / name
        if not path.is_dir():
            pipeline.load_lora_weights(
                self.folder, weight_name=f"{name}.safetensors", adapter_name=name
            )
            return
        kind: Any = LoraConfig
        config = kind(**OPTIONS, target_modules=list(adapters.ATTENTION))
        pipeline.unet.add_adapter(config, adapter_name=name)
        state = load_file(path / "adapter_model.safetensors")
        named = {key.removeprefix("base_model.model."): value for key, value in state.items()}
        set_peft_model_state_dict(pipeline.unet, named, adapter_name=name)


def dressed(directory: Path, folder: Path) -> Dressed:
    both = pair(directory, AdapterFolder(folder))
    unet, text = both.pipeline.unet, both.pipeline.text_encoder
    save = adapters.save_diffusers
    save(both.pipeline, folder / "plain.safetensors", adapters.random_lora(unet, 1, 4))
    wide = adapters.random_lora(unet, 2, 8, adapters.MORE)
    save(both.pipeline, folder / "wide.safetensors", wide)
    adapters.save_peft(folder / "folder", adapters.random_lora(unet, 3, 6), OPTIONS)
    kohya, words = adapters.random_lora(unet, 4, 4), adapters.random_lora(text, 5, 2, adapters.TEXT)
    adapters.save_kohya(folder / "kohya.safetensors", kohya, words, alpha=2.0)
    told = adapters.random_lora(unet, 6, 6)
    save(both.pipeline, folder / "told.safetensors", told, options=OPTIONS)
    both_parts = adapters.random_lora(unet, 7, 4), adapters.random_lora(text, 8, 4, adapters.TEXT)
    save(both.pipeline, folder / "words.safetensors", *both_parts)
    both.model.load()
    return Dressed(both, folder)


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module", params=["small", "demo"])
def both(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Dressed:
    if request.param == "demo":
        return dressed(DEMO_GENERATOR, tmp_path_factory.mktemp("demo"))
    directory = save_random_pipeline(tmp_path_factory.mktemp("small"), SMALL)
    return dressed(directory, tmp_path_factory.mktemp("adapters"))


WORN = [
    (ONE,),
    (TWO,),
    (THREE,),
    (FOUR,),
    (AdapterUse("told"),),
    (AdapterUse("words"),),
    (replace(ONE, scale=0.4),),
    (ONE, replace(TWO, scale=-0.5)),
]


@pytest.mark.parametrize("worn", WORN, ids=lambda worn: "+".join(map(str, worn)))
def test_one_picture(both: Dressed, worn: tuple[AdapterUse, ...]) -> None:
    wish = replace(WISH, adapters=worn)
    [ours] = both.pair.ours(wish)
    assert difference(ours, both.theirs(wish)) <= TOLERANCE
    [bare] = both.pair.ours(WISH)
    assert difference(ours, bare) > TOLERANCE, "the adapter changes nothing, so nothing is shown"


MIXED = [
    replace(WISH, seed=index, steps=2 + index % 2, sampler=sampler, adapters=worn)
    for index, (worn, sampler) in enumerate(
        [
            ((ONE,), Sampler.DDIM),
            ((), Sampler.EULER),
            ((TWO, replace(THREE, scale=0.5)), Sampler.DDIM),
            ((FOUR,), Sampler.UNIPC),
            ((), Sampler.DDIM),
            ((replace(ONE, scale=0.5),), Sampler.DPMPP_2M),
            ((THREE,), Sampler.EULER_ANCESTRAL),
            ((FOUR, ONE), Sampler.LCM),
        ]
    )
]


def test_eight_rows_of_four_adapters_in_one_batch(both: Dressed) -> None:
    mixed = both.pair.ours(*MIXED)
    for wish, ours in zip(MIXED, mixed, strict=True):
        assert difference(ours, both.pair.ours(wish)[0]) <= TOLERANCE
        assert difference(ours, both.theirs(wish)) <= TOLERANCE


def test_a_row_without_adapters_is_what_it_was_before_there_were_any(
    both: Dressed, tmp_path: Path
) -> None:
    bare = replace(WISH, guidance_scale=1.0)
    directory = both.pair.model.loaded.files.directory
    fresh = GeneratorModel(
        lambda: ModelFiles("parity", "1", directory, "sha256:00"),
        partial(pytorch.load, device="cpu", precision="float32"),
    )
    fresh.load()
    [before] = replace(both.pair, model=fresh).ours(bare)
    both.pair.ours(replace(WISH, adapters=(ONE, TWO)))
    [after] = both.pair.ours(bare)
    assert np.array_equal(before, after)


def test_both_text_encoders_of_xl(tmp_path: Path) -> None:
    (tmp_path / "loras").mkdir()
    both = pair(save_random_pipeline(tmp_path / "xl", SMALL_XL), AdapterFolder(tmp_path / "loras"))
    pipeline = both.pipeline
    pipeline.save_lora_weights(
        tmp_path / "loras",
        unet_lora_layers=adapters.random_lora(pipeline.unet, 1, 4),
        text_encoder_lora_layers=adapters.random_lora(pipeline.text_encoder, 2, 4, adapters.TEXT),
        text_encoder_2_lora_layers=adapters.random_lora(
            pipeline.text_encoder_2, 3, 4, adapters.TEXT
        ),
        weight_name="words.safetensors",
    )
    wish = replace(WISH, adapters=(AdapterUse("words", 0.7),))
    [ours] = both.ours(wish)
    assert difference(ours, Dressed(both, tmp_path / "loras").theirs(wish)) <= TOLERANCE
    assert difference(ours, both.ours(WISH)[0]) > TOLERANCE
