"""What a directory holds, by its index and its configurations."""

import json
from pathlib import Path
from typing import Any

import pytest

from services.core.errors import FailedPrecondition, NotFound
from services.generator.layout import Family, Layout, read_layout

PLAIN: dict[str, Any] = {
    "_class_name": "StableDiffusionPipeline",
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "text_encoder": ["transformers", "CLIPTextModel"],
    "unet": ["diffusers", "UNet2DConditionModel"],
    "vae": ["diffusers", "AutoencoderKL"],
}
XL = PLAIN | {
    "_class_name": "StableDiffusionXLPipeline",
    "tokenizer_2": ["transformers", "CLIPTokenizer"],
    "text_encoder_2": ["transformers", "CLIPTextModelWithProjection"],
    "force_zeros_for_empty_prompt": True,
}
REFINER = XL | {
    "_class_name": "StableDiffusionXLImg2ImgPipeline",
    "tokenizer": [None, None],
    "text_encoder": [None, None],
    "requires_aesthetics_score": True,
    "force_zeros_for_empty_prompt": False,
}
SIZED = {"addition_embed_type": "text_time"}
FIRST, SECOND = ("tokenizer", "text_encoder"), ("tokenizer_2", "text_encoder_2")


def written(directory: Path, index: dict[str, Any], **configs: dict[str, Any]) -> Path:
    (directory / "model_index.json").write_text(json.dumps(index))
    for part, config in configs.items():
        (directory / part).mkdir()
        (directory / part / "config.json").write_text(json.dumps(config))
    return directory


@pytest.mark.parametrize(
    ("index", "configs", "expected"),
    [
        (PLAIN, {}, Layout(Family.SD1, (FIRST,))),
        (PLAIN, {"text_encoder": {"hidden_act": "gelu"}}, Layout(Family.SD2, (FIRST,))),
        (XL, {"unet": SIZED}, Layout(Family.SDXL, (FIRST, SECOND), zeros_for_empty=True)),
        (
            XL | {"force_zeros_for_empty_prompt": False},
            {"unet": SIZED},
            Layout(Family.SDXL, (FIRST, SECOND)),
        ),
        (REFINER, {"unet": SIZED}, Layout(Family.SDXL_REFINER, (SECOND,), aesthetic=True)),
    ],
)
def test_layouts(tmp_path: Path, index: Any, configs: Any, expected: Layout) -> None:
    assert read_layout(written(tmp_path, index, **configs)) == expected


@pytest.mark.parametrize(
    ("index", "unet", "told"),
    [
        (PLAIN | {"vae": ["diffusers", "AutoencoderTiny"]}, {}, "its vae is AutoencoderTiny"),
        (PLAIN | {"text_encoder": ["x", "T5EncoderModel"]}, {}, "text_encoder is T5EncoderModel"),
        (XL | {"text_encoder_2": [None, None]}, SIZED, "text_encoder_2 is None"),
        (PLAIN, {"time_cond_proj_dim": 256}, "time_cond_proj_dim 256"),
        (PLAIN, {"class_embed_type": "projection"}, "class_embed_type projection"),
        (PLAIN, {"addition_embed_type": "image"}, "addition_embed_type image"),
        ({"_class_name": "FluxPipeline"}, {}, "its tokenizer is None"),
    ],
)
def test_what_the_step_engine_does_not_run_is_named(
    tmp_path: Path, index: Any, unet: Any, told: str
) -> None:
    with pytest.raises(FailedPrecondition, match=told):
        read_layout(written(tmp_path, index, unet=unet))


def test_no_diffusers_directory(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=r"no model_index\.json"):
        read_layout(tmp_path)


def test_sizes_are_told_to_xl_alone() -> None:
    assert Layout(Family.SD2, (FIRST,)).size_ids(640, 512, guided=True) is None
    base, refiner = Layout(Family.SDXL, (FIRST, SECOND)), Layout(Family.SDXL_REFINER, (SECOND,))
    told = [512.0, 640.0, 0.0, 0.0, 512.0, 640.0]
    assert base.size_ids(640, 512, guided=False) == [told]
    assert base.size_ids(640, 512, guided=True) == [told, told]
    assert refiner.size_ids(640, 512, guided=False) == [told]


def test_the_refiner_is_told_an_aesthetic_score() -> None:
    refiner = Layout(Family.SDXL_REFINER, (SECOND,), aesthetic=True)
    assert refiner.size_ids(640, 512, guided=False) == [[512.0, 640.0, 0.0, 0.0, 6.0]]
    assert refiner.size_ids(640, 512, guided=True) == [
        [512.0, 640.0, 0.0, 0.0, 2.5],
        [512.0, 640.0, 0.0, 0.0, 6.0],
    ]
