"""Steered pictures against diffusers' ControlNet pipelines with the same inputs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from models import DEMO_GENERATOR
from services.core.artifacts import ArtifactStore
from services.core.errors import FailedPrecondition
from services.generator import backends
from services.generator.backends import Wanted
from services.generator.controls import ControlUse
from services.generator.model import ControlFolder
from services.generator.modes import TEXT_TO_IMAGE, ImageToImage, Inpaint, MaskPolarity, Stylize
from services.generator.network import Feature, Pixels
from services.generator.request import Reproducibility, Wish
from services.generator.samplers import Sampler, scheduler_for
from tests.parity.generator.controls import save_random_control
from tests.parity.generator.models import SMALL, SMALL_XL, save_random_pipeline, seeing_the_mask
from tests.parity.generator.pair import REFERENCE, TOLERANCE, Pair, difference, pair
from tests.unit.generator.drive import drive
from tests.unit.generator.pictures import given, mask, picture

WISH = Wish(prompt="a red star", negative_prompt="blue", steps=5, guidance_scale=3.0, seed=3)


@dataclass(frozen=True)
class Steered:
    """A pair whose both hands have the same nets."""

    pair: Pair
    folder: Path
    nets: dict[str, Any]

    def ours(self, *wishes: Wish) -> list[Pixels]:
        return self.pair.ours(*wishes)

    def theirs(self, wish: Wish) -> Pixels:
        order = self.pair.order(wish)
        uses = order.controls
        images: dict[str, Any] = {"image": [use.image.load() for use in uses]}
        kind = "StableDiffusionControlNetPipeline"
        match wish.mode:
            case ImageToImage(image=image):
                kind = "StableDiffusionControlNetImg2ImgPipeline"
                images = {"control_image": images["image"], "image": image.load()}
                images["strength"] = wish.mode.strength
            case Inpaint(image=image):
                kind = "StableDiffusionControlNetInpaintPipeline"
                images = {"control_image": images["image"], "image": image.load()}
                images |= {"mask_image": wish.mode.mask.load(), "strength": wish.mode.strength}
        safety: dict[str, Any] = {"requires_safety_checker": False}
        if self.pair.model.loaded.network.layout.xl:
            kind, safety = kind.replace("Diffusion", "DiffusionXL"), {"add_watermarker": False}
        nets: Any = diffusers.MultiControlNetModel([self.nets[use.name] for use in uses])
        pipeline: Any = getattr(diffusers, kind)(
            **self.pair.pipeline.components, **safety, controlnet=nets
        )
        pipeline.scheduler = scheduler_for(order.sampler, self.pair.scheduler_config)
        pipeline.set_progress_bar_config(disable=True)
        made = pipeline(
            order.prompt,
            **images,
            width=order.width or 16,
            height=order.height or 16,
            negative_prompt=order.negative_prompt or None,
            num_inference_steps=order.steps,
            guidance_scale=order.guidance_scale,
            controlnet_conditioning_scale=[use.scale for use in uses],
            control_guidance_start=[use.start for use in uses],
            control_guidance_end=[use.end for use in uses],
            generator=[torch.Generator("cpu").manual_seed(order.seeds[0])],
        )
        return np.asarray(made.images[0])


def steered(directory: Path, folder: Path, load: Any = REFERENCE) -> Steered:
    both = pair(directory, load=load, controls=ControlFolder(folder))
    factor = both.model.loaded.network.vae_factor
    nets = {
        name: save_random_control(folder / name, both.pipeline.unet, seed, factor=factor)
        for seed, name in enumerate(("edges", "depth"))
    }
    return Steered(both, folder, nets)


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module", params=["small", "small XL", "demo"])
def both(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Steered:
    folder = tmp_path_factory.mktemp("nets")
    if request.param == "demo":
        return steered(DEMO_GENERATOR, folder)
    sizes = SMALL if request.param == "small" else SMALL_XL
    return steered(save_random_pipeline(tmp_path_factory.mktemp("model"), sizes), folder)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Steered:
    directory = save_random_pipeline(tmp_path_factory.mktemp("model"), SMALL)
    return steered(directory, tmp_path_factory.mktemp("nets"))


def use(name: str = "edges", seed: int = 1, mode: str = "RGB", **more: Any) -> ControlUse:
    # Of another size and shape than what is painted.
    return ControlUse(name, given(picture(41, 23, mode, seed=seed), f"controls.{name}"), **more)


USES: dict[str, tuple[ControlUse, ...]] = {
    "one": (use(),),
    "scaled": (use(scale=0.4),),
    "begins late": (use(start=0.5),),
    "ends early": (use(end=0.4),),
    "in between": (use(start=0.2, end=0.8),),
    "grey": (use(mode="L"),),
    "two": (use(), use("depth", 2, scale=1.7, end=0.6)),
}


@pytest.mark.parametrize(
    ("uses", "guidance"), [*((uses, 3.0) for uses in USES), ("in between", 1.0), ("two", 1.0)]
)
def test_one_picture(both: Steered, uses: str, guidance: float) -> None:
    wish = replace(WISH, controls=USES[uses], guidance_scale=guidance)
    [ours] = both.ours(wish)
    assert difference(ours, both.theirs(wish)) <= TOLERANCE
    [bare] = both.ours(replace(wish, controls=()))
    assert difference(ours, bare) > TOLERANCE, "the net changes nothing, so nothing is shown"


@pytest.mark.parametrize("sampler", [Sampler.HEUN, Sampler.PNDM, Sampler.EULER_ANCESTRAL])
def test_shares_of_samplers_that_look_more_often(small: Steered, sampler: Sampler) -> None:
    wish = replace(WISH, controls=(use(start=0.2, end=0.8),), sampler=sampler)
    assert difference(small.ours(wish)[0], small.theirs(wish)) <= TOLERANCE


@pytest.mark.parametrize("strength", [0.65, 1.0])
def test_image_to_image(small: Steered, strength: float) -> None:
    mode = ImageToImage(given(picture(16, 16, seed=7)), strength)
    wish = replace(WISH, mode=mode, controls=(use(end=0.7), use("depth")))
    assert difference(small.ours(wish)[0], small.theirs(wish)) <= TOLERANCE


def test_inpainting(small: Steered) -> None:
    marks = mask(16, 16, (4, 2, 12, 14))
    image = given(picture(16, 16, seed=7))
    mode = Inpaint(image, given(marks, "mask"), MaskPolarity.WHITE, strength=0.8)
    wish = replace(WISH, mode=mode, controls=(use(),))
    assert difference(small.ours(wish)[0], small.theirs(wish)) <= TOLERANCE


def test_a_scale_of_0_is_no_control(both: Steered) -> None:
    [ours] = both.ours(replace(WISH, controls=(use(scale=0.0),)))
    assert np.array_equal(ours, both.ours(WISH)[0])


def mixed(side: int) -> list[Wish]:
    image = given(picture(side, side, seed=4))
    wishes = [
        WISH,
        replace(WISH, controls=USES["one"], sampler=Sampler.DDIM),
        replace(WISH, controls=USES["two"], guidance_scale=1.0, seed=4),
        replace(WISH, steps=3, guidance_scale=1.0),
        replace(WISH, controls=(use("depth", 5, start=0.3),), steps=7, sampler=Sampler.UNIPC),
        replace(WISH, controls=USES["one"], mode=ImageToImage(image, 0.7)),
        replace(WISH, controls=USES["one"], mode=Stylize(image, image, 0.4, 0.6)),
        replace(WISH, cache_interval=2),
    ]
    return [replace(wish, seed=index) for index, wish in enumerate(wishes)]


def test_rows_with_and_without_controls_in_one_batch(both: Steered) -> None:
    wishes = mixed(both.pair.model.limits.default_width)
    for wish, ours in zip(wishes, both.ours(*wishes), strict=True):
        assert difference(ours, both.ours(wish)[0]) <= TOLERANCE


def test_rows_without_controls_see_zeros(small: Steered) -> None:
    wishes = [WISH, replace(WISH, controls=USES["two"])]
    works = [work for wish in wishes for work in small.pair.model.works(small.pair.order(wish))]
    stages = [small.pair.model.plan(work) for work in works]
    keys = [[stage.key for stage in plan if stage.name == "denoise"] for plan in stages]
    assert keys[0] == keys[1], "they share no batch"
    costs = [next(stage.cost for stage in plan if stage.name == "denoise") for plan in stages]
    assert costs[1] > costs[0]


def test_exact_rows_are_equal_in_any_company(small: Steered) -> None:
    exact = [replace(wish, reproducibility=Reproducibility.EXACT) for wish in mixed(16)]
    for wish, ours in zip(exact, small.ours(*exact, *mixed(16)), strict=False):
        assert np.array_equal(ours, small.ours(wish)[0])


def test_a_unet_that_sees_the_mask(tmp_path: Path) -> None:
    sizes = seeing_the_mask(SMALL)
    both = pair(save_random_pipeline(tmp_path / "nine", sizes), controls=ControlFolder(tmp_path))
    four = pair(save_random_pipeline(tmp_path / "four", SMALL)).pipeline.unet
    nets = {"edges": save_random_control(tmp_path / "edges", four, 1, factor=2)}
    image = given(picture(16, 16, seed=7))
    marks = given(mask(16, 16, (4, 2, 12, 14)), "mask")
    wish = replace(WISH, mode=Inpaint(image, marks, MaskPolarity.WHITE), controls=(use(),))
    ours = Steered(both, tmp_path, nets)
    assert difference(ours.ours(wish)[0], ours.theirs(wish)) <= TOLERANCE


OTHERS: dict[str, tuple[dict[str, Any], str]] = {
    "width of the context": (
        {"cross_attention_dim": 48},
        r"another architecture: its cross_attention_dim is \[48, 48\], the model's \[32, 32\]",
    ),
    "channels": (
        {"block_out_channels": (32, 96)},
        r"its block_out_channels is \[32, 96\], the model's \[32, 64\]",
    ),
    "layers": ({"layers_per_block": 2}, r"its layers_per_block is \[2, 2\], the model's \[1, 1\]"),
    "layout": (
        {
            "addition_embed_type": "text_time",
            "addition_time_embed_dim": 8,
            "projection_class_embeddings_input_dim": 72,
        },
        "its addition_embed_type is text_time, the model's None",
    ),
    "latents": ({"in_channels": 9}, "it reads latents of 9 channels, the model's have 4"),
    "pixels": (
        {"conditioning_embedding_out_channels": (8, 16, 32)},
        "it reads 4 pixels to a side of a latent, the model has 2",
    ),
    "pictures": ({"conditioning_channels": 1}, "it reads pictures of 1 channels and not of 3"),
    "pooling": ({"global_pool_conditions": True}, "it pools its picture"),
    "classes": ({"num_class_embeds": 3}, "it has num_class_embeds 3, which is not served"),
}


@pytest.mark.parametrize("fault", OTHERS)
def test_nets_of_another_architecture(small: Steered, fault: str) -> None:
    config, text = OTHERS[fault]
    save_random_control(small.folder / "other", small.pair.pipeline.unet, 1, factor=2, **config)
    refused(small, text)


@pytest.mark.parametrize("key", ["controlnet_mid_block.bias", "down_blocks.7.bias"])
def test_weights_that_are_not_all_there(small: Steered, key: str) -> None:
    folder = small.folder / "other"
    net = save_random_control(folder, small.pair.pipeline.unet, 1, factor=2)
    state = net.state_dict()
    if state.pop(key, None) is None:
        state[key] = torch.zeros(1)
    save_file(state, folder / "diffusion_pytorch_model.safetensors")
    refused(small, f"its weights .* '{key}'")


def test_weights_of_another_size(small: Steered) -> None:
    folder = small.folder / "other"
    unet = small.pair.pipeline.unet
    save_random_control(folder, unet, 1, factor=2, cross_attention_dim=48)
    weights = (folder / "diffusion_pytorch_model.safetensors").read_bytes()
    save_random_control(folder, unet, 1, factor=2)
    (folder / "diffusion_pytorch_model.safetensors").write_bytes(weights)
    refused(small, "its weights are not those of its config.json")
    (folder / "diffusion_pytorch_model.safetensors").write_bytes(b"no safetensors")
    refused(small, "its weights are not those of its config.json")


def refused(small: Steered, text: str) -> None:
    wish = replace(WISH, controls=(use("other"),))
    with pytest.raises(
        FailedPrecondition, match=f"^ControlNet 'other' cannot be used: .*{text}"
    ) as told:
        small.pair.model.works(small.pair.order(wish))
    assert told.value.reason == "CONTROL_UNFIT"


@pytest.mark.skipif(find_spec("openvino") is None, reason="openvino is not installed")
def test_beside_openvino(tmp_path: Path) -> None:
    load = partial(
        backends.load,
        wanted=Wanted(backend="openvino", device="cpu", precision="float32"),
        store=ArtifactStore(tmp_path / "artifacts"),
        threads=1,
    )
    (tmp_path / "nets").mkdir()
    both = steered(save_random_pipeline(tmp_path / "model", SMALL), tmp_path / "nets", load)
    network = both.pair.model.loaded.network
    assert network.route(frozenset({Feature.RESIDUALS}), (8, 8)) == "pytorch"
    # Out of its share too: what answers a row must not hang on its company.
    wishes = [WISH, replace(WISH, controls=(use(end=0.5),)), replace(WISH, mode=TEXT_TO_IMAGE)]
    [before, ours, after] = both.ours(*wishes)
    assert np.array_equal(before, after)
    assert difference(ours, both.theirs(wishes[1])) <= TOLERANCE


def test_a_record_of_its_pictures(small: Steered) -> None:
    mode = ImageToImage(given(picture(16, 16)), 0.5)
    order = small.pair.order(replace(WISH, mode=mode, controls=USES["two"]))
    [work] = small.pair.model.works(order)
    told = [(each.field, each.width, each.height) for each in work.order.given]
    assert told == [("image", 16, 16), ("controls.edges", 41, 23), ("controls.depth", 41, 23)]
    assert all(each.digest.startswith("sha256:") for each in work.order.controls)
    assert len({each.digest for each in work.order.controls}) == 2
    assert len(drive(small.pair.model, [work])[0]) == 1
