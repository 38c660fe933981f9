"""Compiled networks against eager ones and ``diffusers``, on random small models and the demo's.

By default graphs are traced, guarded and called as they are served, and computed by PyTorch's
eager kernels; compiling them all takes minutes, and is ``slow`` but for one kernel.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch

from models import DEMO_GENERATOR
from services.generator import compiled
from services.generator.adapters import AdapterUse
from services.generator.compiled import Compile, Compiled, CompiledNetwork, Inputs, graphs, inductor
from services.generator.model import AdapterFolder
from services.generator.network import Feature, Pixels
from services.generator.provenance import device_class
from services.generator.request import LongPrompt, PreviewMethod, PreviewWish, Reproducibility, Wish
from services.generator.samplers import Sampler
from services.generator.toolchain import Toolchain
from tests.parity.generator.adapters import random_lora, save_peft
from tests.parity.generator.models import SMALL, SMALL_XL, save_random_pipeline
from tests.parity.generator.pair import TOLERANCE, Pair, difference, pair

pytestmark = pytest.mark.timeout(300)
PLAIN = Wish(prompt="a red star", steps=4, seed=5, guidance_scale=3.0)
WISHES = [
    PLAIN,
    replace(PLAIN, seed=6, sampler=Sampler.EULER, negative_prompt="a blue circle"),
    replace(PLAIN, seed=7, guidance_scale=1.0),
]
LONG = replace(PLAIN, prompt="a red star " * 60, long_prompt=LongPrompt.CHUNK)
LORA = {"r": 4, "lora_alpha": 4, "peft_type": "LORA"}
TRACED = partial(graphs, backend="eager")


def loaded(directory: Path, folder: Path, compile_: Compile, *, precision: str = "float32") -> Pair:
    """With one adapter, ``made``, that is kept in ``folder``."""
    unet = diffusers.UNet2DConditionModel.from_pretrained(directory, subfolder="unet")
    save_peft(folder / "made", random_lora(unet, seed=3, rank=4), LORA)
    load = partial(
        compiled.load,
        device="cpu",
        precision=precision,
        threads=1,
        versions={"c++": "g++ 12.2.0"},
        compile_=compile_,
    )
    return pair(directory, AdapterFolder(folder), load)


@pytest.fixture(scope="module", params=[pytest.param("1.x", marks=pytest.mark.slow), "xl"])
def small(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    sizes: dict[str, Any] = {"1.x": SMALL, "xl": SMALL_XL}[request.param]
    directory = save_random_pipeline(tmp_path_factory.mktemp("small"), sizes)
    return loaded(directory, tmp_path_factory.mktemp("adapters"), TRACED)


def network_of(ours: Pair) -> CompiledNetwork:
    network = ours.model.loaded.network
    assert isinstance(network, CompiledNetwork)
    return network


def exact(ours: Pair, wish: Wish, *company: Wish) -> bytes:
    [first, *_] = ours.ours(replace(wish, reproducibility=Reproducibility.EXACT), *company)
    return first.tobytes()


def assert_as_diffusers(ours: Pair) -> None:
    for wish, painted in zip(WISHES, ours.ours(*WISHES), strict=True):
        assert difference(painted, ours.theirs(wish)) <= TOLERANCE


def test_a_mixed_batch(small: Pair) -> None:
    assert_as_diffusers(small)


def test_which_looks_are_compiled(small: Pair) -> None:
    network, model = network_of(small), small.model
    assert network.route(frozenset(), (8, 8)) == "pytorch-compiled"
    if network.layout.xl:
        assert network.route(frozenset({Feature.ADDED}), (8, 8)) == "pytorch-compiled"
    assert network.route(frozenset(), (8, 16)) == "pytorch"
    for feature in (Feature.ADAPTERS, Feature.STYLE, Feature.DEEP, Feature.RESIDUALS):
        assert network.route(frozenset({feature}), (8, 8)) == "pytorch"
    for wish, backend in (
        (PLAIN, "pytorch-compiled"),
        (replace(PLAIN, width=32), "pytorch"),
        (replace(PLAIN, cache_interval=2), "pytorch"),
        (replace(PLAIN, adapters=(AdapterUse("made"),)), "pytorch"),
    ):
        [work] = model.works(small.order(wish))
        assert model.in_force(work).backend == backend
        assert model.in_force(work).versions == {"c++": "g++ 12.2.0"}
    assert network.effective.notes["compiled"].startswith("U-Net and decoder, for pictures of 16 x")
    assert device_class(network.effective).split("/")[-2] == "pytorch-compiled"


def test_rows_of_both_routes_side_by_side(small: Pair) -> None:
    wishes = [
        PLAIN,
        replace(PLAIN, cache_interval=2),
        replace(PLAIN, adapters=(AdapterUse("made"),)),
        replace(PLAIN, width=32, height=24),
        replace(PLAIN, seed=6),
    ]
    plain, cached, worn, large, other = small.ours(*wishes)
    for wish, painted in ((wishes[0], plain), (wishes[3], large), (wishes[4], other)):
        assert difference(painted, small.theirs(wish)) <= TOLERANCE
    assert difference(worn, plain) > 0
    assert difference(small.ours(wishes[1])[0], cached) <= TOLERANCE
    # Layers that adapters have hooked are not those of the graphs.
    assert difference(small.ours(PLAIN)[0], plain) <= TOLERANCE


def test_prompts_of_several_pieces(small: Pair) -> None:
    for guidance_scale in (3.0, 1.0):
        long = replace(LONG, guidance_scale=guidance_scale)
        # An adapter sends it through what was not compiled, and at 0 it changes nothing.
        eager = replace(long, adapters=(AdapterUse("made", 0.0),))
        company = [replace(long, seed=seed) for seed in (6, 7)]
        found, expected = small.ours(long, eager, *company)[:2]
        assert difference(found, expected) <= TOLERANCE
        assert difference(found, small.ours(replace(long, prompt="a red star"))[0]) > 0


def test_exact_pictures_keep_every_byte(small: Pair) -> None:
    for wish in (PLAIN, replace(PLAIN, guidance_scale=1.0)):
        alone = exact(small, wish)
        small.ours(replace(PLAIN, width=32, height=24), *WISHES)
        assert exact(small, wish, *WISHES, replace(PLAIN, cache_interval=2)) == alone


def test_tiles_and_previews_are_decoded_by_the_graph(small: Pair) -> None:
    large = replace(PLAIN, width=32, height=24, tiled=True)
    preview = PreviewWish(at_steps=(2,), method=PreviewMethod.DECODED)
    painted = small.ours(large, replace(PLAIN, preview=preview), replace(large, seed=9))
    eager: list[Pixels] = small.ours(large)
    assert difference(painted[0], eager[0]) <= TOLERANCE
    assert difference(painted[1], small.theirs(PLAIN)) <= TOLERANCE


needs_tools = pytest.mark.skipif(
    Toolchain.here().lacking(gpu=False) is not None, reason="nothing to compile with"
)


@needs_tools
def test_one_kernel_as_it_is_compiled() -> None:
    made = Compiled(torch.nn.SiLU(), inductor)
    made.make(_rising)
    with torch.inference_mode():
        for rows in (1, 2, 5, 40):
            expected = torch.nn.functional.silu(_rising(rows)[0])
            assert torch.allclose(made(*_rising(rows)), expected, atol=1e-6)


def _rising(rows: int) -> Inputs:
    return (torch.linspace(-4, 4, rows * 20).reshape(rows, 20),)


@pytest.mark.slow
@pytest.mark.timeout(600)
@needs_tools
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_block_as_it_is_compiled(dtype: torch.dtype) -> None:
    """The same bytes again after other batches, and eager's numbers."""
    kind: Any = diffusers.models.resnet.ResnetBlock2D
    torch.manual_seed(0)
    block = kind(in_channels=16, out_channels=16, temb_channels=8, groups=4)
    block.eval().requires_grad_(False).to(dtype, memory_format=torch.channels_last)

    def example(rows: int) -> Inputs:
        draw = torch.Generator().manual_seed(rows)
        sample, emb = (
            torch.randn(shape, generator=draw) for shape in ((rows, 16, 8, 8), (rows, 8))
        )
        return sample.to(dtype, memory_format=torch.channels_last), emb.to(dtype)

    made = Compiled(block, inductor)
    made.make(example)
    digits = 1e-5 if dtype is torch.float32 else 0.1
    with torch.inference_mode():
        before = {rows: made(*example(rows)).clone() for rows in (1, 2)}
        for rows in (3, 15, 16, 31, 2, 1):
            found = made(*example(rows))
            assert torch.allclose(found, block(*example(rows)), atol=digits)
        for rows, first in before.items():
            assert torch.equal(made(*example(rows)), first)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@needs_tools
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", ["1.x", "xl", "demo"])
def test_whole_models_as_they_are_compiled(
    name: str, precision: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    directory = DEMO_GENERATOR
    if name != "demo":
        sizes: dict[str, Any] = {"1.x": SMALL, "xl": SMALL_XL}[name]
        directory = save_random_pipeline(tmp_path_factory.mktemp("small"), sizes)
    ours = loaded(directory, tmp_path_factory.mktemp("adapters"), inductor, precision=precision)
    if precision == "float32":
        assert_as_diffusers(ours)
    for wish in (PLAIN, replace(PLAIN, guidance_scale=1.0)):
        alone = exact(ours, wish)
        assert exact(ours, wish, *WISHES, replace(PLAIN, cache_interval=2)) == alone
    worn = replace(PLAIN, adapters=(AdapterUse("made"),))
    plain, changed = ours.ours(PLAIN, worn)
    assert difference(plain, changed) > 0
