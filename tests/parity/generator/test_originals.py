"""One file in the original layout against the same weights as a ``diffusers`` directory."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from safetensors.torch import load_file, save_file

from services.core.errors import FailedPrecondition
from services.core.reference import sha256_of
from services.generator import pytorch
from services.generator.layout import Family, read_layout
from services.generator.originals.kinds import Kind, kind_of
from services.generator.originals.unpack import find, unpack
from services.generator.request import Wish
from tests.parity.generator.models import (
    FULL,
    FULL_XL,
    SMALL,
    SMALL_2,
    SMALL_XL,
    SMALL_XL_REFINER,
    random_parts,
    seeing_the_mask,
)
from tests.parity.generator.originals import save_original
from tests.parity.generator.pair import TOLERANCE, difference, pair

VOCABULARY = {"vocab_size": 49408, "bos_token_id": 49406, "eos_token_id": 49407}
INPAINTING = seeing_the_mask(SMALL)
KINDS: dict[str, tuple[dict[str, Any], Family]] = {
    "v1": (SMALL, Family.SD1),
    "inpainting": (INPAINTING, Family.SD1),
    "v2": (SMALL_2, Family.SD2),
    "xl_base": (SMALL_XL, Family.SDXL),
    "xl_refiner": (SMALL_XL_REFINER, Family.SDXL_REFINER),
}


def with_clip_vocabulary(sizes: dict[str, Any]) -> dict[str, Any]:
    texts = [name for name in ("text", "text_2") if name in sizes]
    return sizes | {name: {**sizes[name], **VOCABULARY} for name in texts}


def small_kind(file: Path, shapes: Mapping[str, Any], metadata: Mapping[str, str]) -> Kind:
    """The kind that is found, with the sizes of the small networks in the file."""
    kind = kind_of(file, shapes, metadata)
    parts = json.loads(file.with_suffix(".sizes").read_text())
    sections = {**kind.configurations, **parts}
    return Kind(kind.name, kind.texts, sections)


def saved(directory: Path, sizes: dict[str, Any], **extra: torch.Tensor) -> tuple[Path, Any]:
    """A file, and the networks in it."""
    parts = random_parts(with_clip_vocabulary(sizes))
    file = save_original(directory / "model.safetensors", parts, **extra)
    networks = {name: each for name, each in parts.items() if isinstance(each, torch.nn.Module)}
    configs = {name: _config(each) for name, each in networks.items()}
    file.with_suffix(".sizes").write_text(json.dumps(configs))
    return file, networks


def _config(network: Any) -> Any:
    if hasattr(network.config, "to_dict"):
        return {**network.config.to_dict(), "architectures": [type(network).__name__]}
    return dict(network.config)


@pytest.mark.parametrize("name", KINDS)
def test_every_weight_comes_through(tmp_path: Path, name: str) -> None:
    sizes, family = KINDS[name]
    file, networks = saved(tmp_path, sizes)
    directory = tmp_path / "unpacked"
    unpack(file, directory, find_kind=small_kind)
    assert read_layout(directory).family is family
    network = pytorch.load(directory, device="cpu", precision="float32")
    ours = dict(zip([text for _, text in network.layout.texts], network.text_encoders, strict=True))
    ours |= {"unet": network.unet, "vae": network.vae}
    for part, theirs in networks.items():
        expected, found = theirs.state_dict(), ours[part].state_dict()
        assert expected.keys() == found.keys()
        for key, weight in expected.items():
            assert torch.equal(weight, found[key]), f"{part} {key}"


@pytest.mark.parametrize("name", ["v2", "xl_base"])
def test_pictures_are_those_of_the_pipelines_own_single_file_loader(
    tmp_path: Path, name: str
) -> None:
    file, _ = saved(tmp_path, KINDS[name][0])
    directory = tmp_path / "unpacked"
    unpack(file, directory, find_kind=small_kind)
    ours = pair(directory)
    library: Any = diffusers
    unet = library.UNet2DConditionModel.from_single_file(
        str(file), config=str(directory), subfolder="unet", local_files_only=True
    )
    ours.pipeline.unet.load_state_dict(unet.state_dict())
    wish = Wish(prompt="a red star", negative_prompt="blue", steps=3, guidance_scale=3.0, seed=1)
    assert difference(ours.ours(wish)[0], ours.theirs(wish)) <= TOLERANCE


def test_a_file_is_unpacked_once_under_its_digest(tmp_path: Path) -> None:
    file, _ = saved(tmp_path, SMALL)
    digest, target = sha256_of(file), tmp_path / "unpacked"
    unpack(file, target / f"{digest}-1", find_kind=small_kind)
    files = find(str(file), unpacked=target)
    assert (files.name, files.version, files.digest) == ("model", digest[:12], f"sha256:{digest}")
    assert files.directory == target / f"{digest}-1"
    assert not (files.directory / "easel.json").exists()
    file.with_suffix(".easel.json").write_text('{"default_steps": 7}')
    assert find(str(file), name="mine", unpacked=target).name == "mine"
    assert json.loads((files.directory / "easel.json").read_text()) == {"default_steps": 7}


def test_what_a_file_says_of_its_schedule_is_kept(tmp_path: Path) -> None:
    file, _ = saved(tmp_path, SMALL_XL, v_pred=torch.zeros(0), ztsnr=torch.zeros(0))
    unpack(file, tmp_path / "unpacked", find_kind=small_kind)
    path = tmp_path / "unpacked" / "scheduler" / "scheduler_config.json"
    scheduler = json.loads(path.read_text())
    assert scheduler["prediction_type"] == "v_prediction"
    assert scheduler["rescale_betas_zero_snr"]
    weights = load_file(saved(tmp_path, SMALL_2)[0])
    shapes = {key: tuple(weight.shape) for key, weight in weights.items()}
    for told, kept in (({}, "v_prediction"), ({"modelspec.prediction_type": "epsilon"}, "epsilon")):
        assert kind_of(file, shapes, told).configurations["scheduler"]["prediction_type"] == kept


def test_what_is_no_whole_model_is_refused(tmp_path: Path) -> None:
    file, _ = saved(tmp_path, SMALL)
    weights = load_file(file)

    def refused(kept: dict[str, torch.Tensor]) -> str:
        save_file(kept, file)
        with pytest.raises(FailedPrecondition) as caught:
            unpack(file, tmp_path / "unpacked", find_kind=small_kind)
        assert not (tmp_path / "unpacked").exists()
        return str(caught.value)

    def without(prefix: str) -> dict[str, torch.Tensor]:
        return {key: each for key, each in weights.items() if not key.startswith(prefix)}

    assert "no text encoder" in refused(without("cond_stage_model"))
    assert "no U-Net" in refused(without("model."))
    assert "no autoencoder" in refused(without("first_stage"))
    assert "lacks" in refused(without("model.diffusion_model.time_embed.2.bias"))
    bias = {"model.diffusion_model.time_embed.2.bias": torch.ones(3)}
    assert "differs" in refused({**weights, **bias})
    narrow = {"model.diffusion_model.input_blocks.0.0.weight": torch.ones(32, 5, 3, 3)}
    assert "5 channels" in refused({**weights, **narrow})


@pytest.mark.parametrize(
    ("name", "reads"),
    [("a.ckpt", "pickles"), ("a.gguf", "cannot be read"), ("a.safetensors", "sound")],
)
def test_what_is_no_safetensors_is_refused(tmp_path: Path, name: str, reads: str) -> None:
    (tmp_path / name).write_bytes(b"\x80\x04 nothing of the kind")
    with pytest.raises(FailedPrecondition, match=reads):
        find(str(tmp_path / name), unpacked=tmp_path / "unpacked")


@pytest.mark.parametrize(("name", "sizes"), [("v1", FULL), ("xl_base", FULL_XL)])
def test_the_shipped_sizes_are_the_published_ones(name: str, sizes: dict[str, Any]) -> None:
    prefixes = {"v1": ["cond_stage_model.transformer.x"], "xl_base": _XL}[name]
    shapes: dict[str, tuple[int, ...]] = dict.fromkeys(prefixes, (1,))
    shapes["model.diffusion_model.input_blocks.0.0.weight"] = (320, 4, 3, 3)
    shapes["first_stage_model.decoder.conv_in.weight"] = (512, 4, 3, 3)
    sections = kind_of(Path("x"), shapes, {}).configurations
    for part, given in (("unet", "unet"), ("vae", "vae"), ("text_encoder", "text")):
        for option, value in sizes[given].items():
            if option != "sample_size":
                expected = list(value) if isinstance(value, tuple) else value
                assert sections[part][option] == expected, option


_XL = ["conditioner.embedders.0.transformer.x", "conditioner.embedders.1.model.x"]
PARAMETERS = {
    "v1": 859_520_964,
    "inpainting": 859_535_364,
    "v2": 865_910_724,
    "inpainting_v2": 865_925_124,
    "xl_base": 2_567_463_684,
    "xl_inpaint": 2_567_478_084,
}


@pytest.mark.parametrize("name", PARAMETERS)
def test_the_shipped_u_nets_have_the_published_number_of_parameters(name: str) -> None:
    path = Path(pytorch.__file__).parent / "originals" / f"{name}.json"
    library: Any = diffusers
    with torch.device("meta"):
        unet = library.UNet2DConditionModel.from_config(json.loads(path.read_text())["unet"])
    assert unet.num_parameters() == PARAMETERS[name]


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_full_file_unpacks_with_the_shipped_sizes(tmp_path: Path) -> None:
    parts = random_parts(with_clip_vocabulary(FULL))
    networks = {name: each for name, each in parts.items() if isinstance(each, torch.nn.Module)}
    for network in networks.values():
        network.to(torch.float16)
    file = save_original(tmp_path / "full.safetensors", parts)
    files = find(str(file), unpacked=tmp_path / "unpacked")
    assert read_layout(files.directory).family is Family.SD1
    for part, network in networks.items():
        found: dict[str, torch.Tensor] = {}
        for shard in (files.directory / part).glob("*.safetensors"):
            found |= load_file(shard)
        assert len(found) == len(network.state_dict())
        assert {weight.dtype for weight in found.values()} == {torch.float16}
    unet = load_file(next((files.directory / "unet").glob("*.safetensors")))
    assert all(torch.equal(unet[key], each) for key, each in networks["unet"].state_dict().items())
