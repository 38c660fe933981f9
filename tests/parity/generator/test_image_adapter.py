"""Stylization by an IP-Adapter, against ``load_ip_adapter`` of diffusers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import (
    StableDiffusionControlNetImg2ImgPipeline,
    StableDiffusionImg2ImgPipeline,
    StableDiffusionXLImg2ImgPipeline,
)
from PIL import Image
from safetensors.torch import load_file, save_file

from easel.common.v1 import common_pb2
from easel.generator.v1 import generator_pb2 as pb
from easel.generator.v1 import generator_pb2_grpc
from services.core import images
from services.core.config import load_settings
from services.core.errors import FailedPrecondition
from services.generator import pytorch
from services.generator.__main__ import application
from services.generator.config import GeneratorSettings
from services.generator.controls import ControlUse
from services.generator.image_adapter import (
    ALL_BLOCKS,
    STYLE_BLOCK,
    ImageAdapter,
    ImageAdapterFolder,
    with_image_adapter,
)
from services.generator.model import ControlFolder
from services.generator.modes import ImageToImage, Stylize
from services.generator.network import Network, Pixels
from services.generator.pytorch import TorchNetwork
from services.generator.request import Reproducibility, Wish
from services.generator.samplers import Sampler, scheduler_for
from tests.integration.serving import serving
from tests.parity.generator.controls import save_random_control
from tests.parity.generator.image_adapters import FILE, save_image_adapter, save_image_encoder
from tests.parity.generator.models import SMALL, SMALL_XL, save_random_pipeline
from tests.parity.generator.pair import REFERENCE, TOLERANCE, Pair, difference, pair
from tests.unit.generator.pictures import given, picture

SIDE = 16
# Two blocks of attention where the style block is, as Stable Diffusion XL has.
STYLED_XL: dict[str, Any] = {
    **SMALL_XL,
    "unet": {
        **SMALL_XL["unet"],
        "down_block_types": ("CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
    },
}


@dataclass(frozen=True)
class Styled:
    both: Pair
    folder: Path

    @property
    def network(self) -> TorchNetwork:
        found = self.both.model.loaded.network
        assert isinstance(found, TorchNetwork)
        return found


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def styled(directory: Path, sizes: dict[str, Any]) -> Styled:
    model = save_random_pipeline(directory / "model", sizes)
    folder = save_image_adapter(directory / "adapter", REFERENCE(model).unet)

    def load(path: Path) -> Network:
        return with_image_adapter(REFERENCE(path), ImageAdapterFolder(folder))

    both = pair(model, load=load)
    kind: Any = (
        StableDiffusionXLImg2ImgPipeline if "text_2" in sizes else StableDiffusionImg2ImgPipeline
    )
    pipeline = kind(**both.pipeline.components, **({} if "text_2" in sizes else _UNCHECKED))
    pipeline.load_ip_adapter(
        str(folder), subfolder="", weight_name=FILE, image_encoder_folder="image_encoder"
    )
    pipeline.set_progress_bar_config(disable=True)
    return Styled(replace(both, pipeline=pipeline), folder)


_UNCHECKED = {"requires_safety_checker": False}


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Styled:
    return styled(tmp_path_factory.mktemp("small"), SMALL)


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Styled:
    return styled(tmp_path_factory.mktemp("large"), STYLED_XL)


def stylize(index: int = 0, *, content: float = 0.0, style: float = 0.8, **asked: Any) -> Wish:
    mode = Stylize(
        given(picture(SIDE, SIDE, seed=index), "stylize.content"),
        given(picture(3 * SIDE, 2 * SIDE, seed=index + 50), "stylize.style"),
        content,
        style,
    )
    wish = Wish(
        prompt="a red star",
        mode=mode,
        steps=5,
        seed=index,
        guidance_scale=3.0 if index % 2 else 1.0,
        sampler=list(Sampler)[index % len(Sampler)],
    )
    return replace(wish, **asked)


def theirs(styled: Styled, wish: Wish, scale: Callable[[float], Any] = float) -> Pixels:
    both, mode = styled.both, wish.mode
    assert isinstance(mode, Stylize)
    order = both.order(wish)
    pipeline = both.pipeline
    pipeline.scheduler = scheduler_for(order.sampler, both.scheduler_config)
    pipeline.set_ip_adapter_scale(scale(mode.style_strength))
    made = pipeline(
        order.prompt,
        negative_prompt=order.negative_prompt or None,
        image=mode.content.load(),
        strength=(1.0 - mode.content_strength) ** 2,
        num_inference_steps=order.steps,
        guidance_scale=order.guidance_scale,
        ip_adapter_image=mode.style.load(),
        generator=[torch.Generator("cpu").manual_seed(order.seeds[0])],
    )
    return np.asarray(made.images[0])


def test_equals_diffusers(small: Styled) -> None:
    asked = [stylize(index, style=1 - index / 10) for index in range(4)]
    asked.append(stylize(5, content=0.2, steps=10))
    asked.append(stylize(7, negative_prompt="a blue circle"))
    for wish in asked:
        assert difference(small.both.ours(wish)[0], theirs(small, wish)) <= TOLERANCE


def test_the_style_is_seen(small: Styled) -> None:
    first, second = stylize(1), stylize(1)
    assert isinstance(first.mode, Stylize)
    other = replace(first.mode, style=given(picture(SIDE, SIDE, seed=8), "stylize.style"))
    pixels = small.both.ours(first, replace(second, mode=other), stylize(1, style=0.0))
    for one, two in ((0, 1), (0, 2), (1, 2)):
        assert difference(pixels[one], pixels[two]) > 10 * TOLERANCE


def test_no_style_is_image_to_image(small: Styled) -> None:
    unstyled = stylize(3, content=0.5, style=0.0, steps=8)
    assert isinstance(unstyled.mode, Stylize)
    plain = replace(unstyled, mode=ImageToImage(unstyled.mode.content, 0.25))
    assert np.array_equal(small.both.ours(unstyled)[0], small.both.ours(plain)[0])


def test_without_a_prompt_guidance_goes_towards_the_style(small: Styled) -> None:
    wish = stylize(3, prompt="", guidance_scale=None)
    assert small.both.order(wish).guided
    assert difference(small.both.ours(wish)[0], theirs(small, wish)) <= TOLERANCE
    assert not small.both.order(stylize(3, prompt="", guidance_scale=None, style=0.0)).guided


def test_alone_and_in_a_mixed_batch(small: Styled) -> None:
    asked = [stylize(index, content=index / 20) for index in range(4)]
    asked += [
        stylize(5, cache_interval=2),
        Wish(prompt="a green heart", steps=4, seed=9, guidance_scale=3.0),
        Wish(prompt="a red star", steps=5, seed=8, guidance_scale=1.0),
        Wish(mode=ImageToImage(given(picture(SIDE, SIDE)), 0.6), steps=6, guidance_scale=1.0),
    ]
    for mixed, wish in zip(small.both.ours(*asked), asked, strict=True):
        assert difference(mixed, small.both.ours(wish)[0]) <= TOLERANCE


def test_exact_pictures(small: Styled) -> None:
    wish = stylize(3, reproducibility=Reproducibility.EXACT)
    [alone] = small.both.ours(wish)
    mixed, *_ = small.both.ours(wish, stylize(4), Wish(prompt="a red star", steps=3))
    assert np.array_equal(alone, mixed)


def test_rows_without_pictures_are_as_without_the_adapter(small: Styled) -> None:
    bare = pair(small.folder.parent / "model")
    wish = Wish(prompt="a red star", steps=5, seed=3, guidance_scale=3.0)
    assert np.array_equal(small.both.ours(wish)[0], bare.ours(wish)[0])


def test_one_block_of_xl_takes_the_style(large: Styled) -> None:
    adapter = large.network.image_adapter
    assert adapter is not None
    assert adapter.versions["ip_adapter_blocks"] == STYLE_BLOCK

    def instant(scale: float) -> Any:
        return {"up": {"block_0": [0.0, scale]}}

    for index in (0, 1):
        wish = stylize(index)
        assert difference(large.both.ours(wish)[0], theirs(large, wish, instant)) <= TOLERANCE


def test_blocks_may_be_named(small: Styled) -> None:
    model = small.folder.parent / "model"
    blocks = ("up_blocks.1", "mid_block")

    def load(path: Path) -> Network:
        return with_image_adapter(REFERENCE(path), ImageAdapterFolder(small.folder, blocks))

    ours = pair(model, load=load)
    wish = stylize(1)

    def some(scale: float) -> Any:
        return {"mid": scale, "up": {"block_1": scale}}

    assert difference(ours.ours(wish)[0], theirs(small, wish, some)) <= TOLERANCE
    adapter = ours.model.loaded.network.image_adapter
    assert adapter is not None
    assert adapter.versions["ip_adapter_blocks"] == "up_blocks.1,mid_block"


def test_steered_by_a_control_too(small: Styled, tmp_path: Path) -> None:
    """Against diffusers' ControlNet pipeline that has the adapter loaded."""

    def load(path: Path) -> Network:
        return with_image_adapter(REFERENCE(path), ImageAdapterFolder(small.folder))

    both = pair(small.folder.parent / "model", load=load, controls=ControlFolder(tmp_path))
    factor = both.model.loaded.network.vae_factor
    net = save_random_control(tmp_path / "edges", both.pipeline.unet, 1, factor=factor)
    kind: Any = StableDiffusionControlNetImg2ImgPipeline
    pipeline = kind(**both.pipeline.components, **_UNCHECKED, controlnet=net)
    pipeline.load_ip_adapter(
        str(small.folder), subfolder="", weight_name=FILE, image_encoder_folder="image_encoder"
    )
    pipeline.set_progress_bar_config(disable=True)
    lines = given(picture(41, 23, seed=1), "controls.edges")
    for index in (1, 2):
        wish = stylize(index, content=0.3, controls=(ControlUse("edges", lines, scale=0.7),))
        mode, order = wish.mode, both.order(wish)
        assert isinstance(mode, Stylize)
        pipeline.scheduler = scheduler_for(order.sampler, both.scheduler_config)
        pipeline.set_ip_adapter_scale(mode.style_strength)
        made = pipeline(
            order.prompt,
            image=mode.content.load(),
            control_image=lines.load(),
            strength=(1.0 - mode.content_strength) ** 2,
            num_inference_steps=order.steps,
            guidance_scale=order.guidance_scale,
            controlnet_conditioning_scale=0.7,
            width=SIDE,
            height=SIDE,
            ip_adapter_image=mode.style.load(),
            generator=[torch.Generator("cpu").manual_seed(order.seeds[0])],
        )
        [ours] = both.ours(wish)
        assert difference(ours, np.asarray(made.images[0])) <= TOLERANCE
        for without in (
            replace(wish, controls=()),
            replace(wish, mode=replace(mode, style_strength=0.0)),
        ):
            assert difference(ours, both.ours(without)[0]) > 10 * TOLERANCE


def test_what_it_is_made_of_is_told(small: Styled) -> None:
    adapter = small.network.image_adapter
    assert adapter is not None
    assert adapter.versions["ip_adapter_blocks"] == ALL_BLOCKS
    assert adapter.versions["ip_adapter"].startswith("sha256:")
    assert adapter.versions["ip_adapter_image_encoder"].startswith("sha256:")
    bare = REFERENCE(small.folder.parent / "model")
    held = small.network.effective.bytes_in_memory - bare.effective.bytes_in_memory
    assert held == sum(weight.nbytes for weight in load_file(small.folder / FILE).values()) + sum(
        weight.nbytes
        for weight in adapter.encoder.parameters()  # type: ignore[attr-defined]
    )


class Folder:
    """A copy of an adapter, to be spoiled."""

    def __init__(self, path: Path, small: Styled) -> None:
        self.path = path / "spoiled"
        self.model = small.folder.parent / "model"
        self.network = REFERENCE(self.model)
        save_image_adapter(self.path, self.network.unet)

    def change(self, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
        tensors = load_file(self.path / FILE)
        change(tensors)
        save_file(tensors, self.path / FILE)

    def refused(self, *blocks: str) -> str:
        with pytest.raises(FailedPrecondition) as caught:
            with_image_adapter(self.network, ImageAdapterFolder(self.path, blocks))
        text = str(caught.value)
        assert text.startswith("The IP-Adapter 'spoiled': ")
        assert str(self.path) not in text
        return text


@pytest.fixture
def folder(tmp_path: Path, small: Styled) -> Folder:
    return Folder(tmp_path, small)


def test_one_file_of_safetensors_is_wanted(folder: Folder) -> None:
    file = folder.path / FILE
    second = file.with_name("ip-adapter-two.safetensors")
    second.write_bytes(file.read_bytes())
    assert "where one is wanted" in folder.refused()
    second.unlink()
    file.rename(file.with_suffix(".bin"))
    assert "ip-adapter_test.bin is no .safetensors file" in folder.refused()
    file.with_suffix(".bin").unlink()
    assert "no file ip-adapter*.safetensors" in folder.refused()
    file.write_bytes(b"\x80\x04 a pickle by another name")
    assert "not in the safetensors format" in folder.refused()


def _without(key: str) -> Callable[[dict[str, torch.Tensor]], object]:
    return lambda tensors: tensors.pop(key)


def _with(key: str, *shape: int, value: float = 0.0) -> Callable[[dict[str, torch.Tensor]], None]:
    return lambda tensors: tensors.update({key: torch.full(shape, value)})


def _narrow(tensors: dict[str, torch.Tensor]) -> None:
    _with("image_proj.proj.weight", 64, 24)(tensors)
    _with("image_proj.proj.bias", 64)(tensors)
    _with("image_proj.norm.weight", 16)(tensors)
    _with("image_proj.norm.bias", 16)(tensors)


LAST = "ip_adapter.7.to_{}_ip.weight"


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (_without("image_proj.proj.weight"), "only the plain IP-Adapter"),
        (_with("image_proj.latents", 1, 16, 8), "only the plain IP-Adapter"),
        (_with("image_proj.proj.bias", 3), "do not fit together"),
        (_with("image_proj.norm.weight", 32, value=float("nan")), "no finite numbers"),
        (_without("ip_adapter.3.to_k_ip.weight"), "ip_adapter.3 has no to_k_ip and to_v_ip"),
        (_with("ip_adapter.0.to_k_lora.down.weight", 4, 4), "belongs to no plain IP-Adapter"),
        (_narrow, "its tokens have 16 numbers, the model's cross-attention 32"),
        (
            lambda tensors: [tensors.pop(LAST.format(side)) for side in "kv"],
            "it is for 3 cross-attentions, and the model has 4",
        ),
        (
            lambda tensors: [_with(LAST.format(side), 8, 32)(tensors) for side in "kv"],
            "its keys are 8x32 where mid_block.attentions.0.transformer_blocks.0.attn2 has 64x32",
        ),
    ],
)
def test_what_does_not_fit_is_refused(
    folder: Folder, change: Callable[[dict[str, torch.Tensor]], object], told: str
) -> None:
    folder.change(change)
    assert told in folder.refused()


def test_the_image_encoder_is_part_of_it(folder: Folder) -> None:
    save_image_encoder(folder.path, embedding=32)
    assert "makes 32 numbers of a picture, and its image_proj reads 24" in folder.refused()
    weights = folder.path / "image_encoder" / "model.safetensors"
    save_image_encoder(folder.path)
    tensors = load_file(weights)
    tensors.pop("visual_projection.weight")
    save_file(tensors, weights, metadata={"format": "pt"})
    assert "image_encoder lacks visual_projection.weight" in folder.refused()
    weights.rename(weights.with_name("pytorch_model.bin"))
    assert "no image_encoder with config.json and .safetensors weights" in folder.refused()
    config = weights.with_name("config.json")
    weights.with_name("pytorch_model.bin").rename(weights)
    config.write_text(config.read_text().replace("clip_vision_model", "siglip_vision_model"))
    assert "is a siglip_vision_model, where a clip_vision_model is wanted" in folder.refused()


def test_blocks_must_be_the_models(folder: Folder) -> None:
    assert "no cross-attention of the model is in 'up_blocks.9'" in folder.refused("up_blocks.9")
    # A block of no attention, and one whose name only begins so.
    assert "'up_blocks.0'" in folder.refused("mid_block", "up_blocks.0")
    assert "'mid_bl'" in folder.refused("mid_bl")


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_halves_are_read_as_what_the_model_runs_in(folder: Folder, precision: str) -> None:
    folder.change(lambda tensors: tensors.update({k: t.half() for k, t in tensors.items()}))
    network = with_image_adapter(
        partial(pytorch.load, device="cpu", precision=precision)(folder.model),
        ImageAdapterFolder(folder.path),
    )
    assert network.image_adapter is not None
    read = network.image_adapter.tokens(network.image_adapter.pixels(picture())[None])
    assert read.shape == (1, 4, 32)
    assert read.dtype == network.image_adapter.empty.dtype == getattr(torch, precision)


def test_long_pictures_are_not_enlarged_whole(small: Styled) -> None:
    adapter = small.network.image_adapter
    assert isinstance(adapter, ImageAdapter)
    levels = np.arange(0, 256, 16, dtype=np.uint8)[:, None].repeat(3, axis=1)
    bars = Image.fromarray(levels).convert("RGB")
    wide, endless = bars.resize((60, 16)), bars.resize((2_000_000, 16))
    [expected] = adapter.processor(wide, return_tensors="pt").pixel_values
    assert torch.equal(adapter.pixels(wide), expected)
    for long in (endless, endless.transpose(Image.Transpose.TRANSPOSE)):
        seen = adapter.pixels(long)
        turned = expected if long is endless else expected.transpose(1, 2)
        torch.testing.assert_close(seen, turned, atol=0.02, rtol=0.0)


async def test_the_server_has_it_from_its_settings(small: Styled) -> None:
    settings = {
        "MODEL": str(small.folder.parent / "model"),
        "IP_ADAPTER_DIRECTORY": str(small.folder),
        "IP_ADAPTER_BLOCKS": "mid_block",
        "BACKEND": "pytorch",
        "DEVICE": "cpu",
        "THREADS": "1",
        "WARM_UP_SECONDS": "0",
    }
    environ = {f"EASEL_GENERATOR_{name}": value for name, value in settings.items()}
    app = application(load_settings(GeneratorSettings, environ=environ))
    image = common_pb2.Image(encoded=images.encode(picture(SIDE, SIDE)))
    request = pb.GenerateRequest(
        steps=4, stylize=pb.Stylize(content=image, style=image), width=SIDE, height=SIDE
    )
    async with serving(app) as channel:
        stub = generator_pb2_grpc.GeneratorServiceStub(channel)
        [*_, last] = [event async for event in stub.Generate(request)]
    versions = last.image.provenance.versions
    assert versions["ip_adapter_blocks"] == "mid_block"
    adapter = small.network.image_adapter
    assert adapter is not None
    assert versions["ip_adapter"] == adapter.versions["ip_adapter"]
