"""Families outside the step engine: the same pictures, in turns, with progress and cancellation."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch

from services.core.engine import RowFailed
from services.core.errors import FailedPrecondition, InvalidInput, OutOfMemory
from services.core.reference import ModelFiles
from services.generator.adapters import AdapterUse
from services.generator.diffusion import Picture
from services.generator.modes import ImageToImage
from services.generator.network import Pixels
from services.generator.pipelines import (
    PipelineModel,
    PipelineWork,
    load_pipeline,
    needs_pipeline,
)
from services.generator.request import LongPrompt, PreviewWish, Reproducibility, Wish, resolve
from services.generator.samplers import Sampler
from services.generator.turns import Turns
from tests.parity.generator.families import save_distilled, save_flux, save_pixart, save_sd3
from tests.parity.generator.models import SMALL, save_random_pipeline
from tests.parity.generator.pair import TOLERANCE, difference
from tests.unit.generator.pictures import given, picture

FAMILIES: dict[str, Callable[[Path], Path]] = {
    "SD3": save_sd3,
    "PixArt": save_pixart,
    "Flux": save_flux,
    "LCM": partial(save_distilled, sizes=SMALL),
}
WISHES = (
    Wish(prompt="a red star", steps=3, guidance_scale=4.0, seed=1),
    Wish(prompt="a blue circle", negative_prompt="red", steps=5, guidance_scale=2.0, seed=2),
    Wish(prompt="a cat", steps=2, guidance_scale=1.0, seed=3),
)


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def sd3(tmp_path_factory: pytest.TempPathFactory) -> PipelineModel:
    return model_of(save_sd3(tmp_path_factory.mktemp("sd3")))


def model_of(directory: Path) -> PipelineModel:
    assert needs_pipeline(directory)
    files = ModelFiles("family", "1", directory, "sha256:00")
    load = partial(load_pipeline, device="cpu", precision="float32")
    model = PipelineModel(lambda: files, load)
    model.load()
    return model


def works(model: PipelineModel, *wishes: Wish) -> list[PipelineWork]:
    orders = [resolve(wish, model.limits, draw_seed=int) for wish in wishes]
    return [work for order in orders for work in model.works(order)]


def driven(model: PipelineModel, rows: list[PipelineWork]) -> list[Pixels]:
    """In turns, as the engine steps rows that have become ready together."""
    ahead = [[stage for stage in model.plan(row) for _ in range(stage.steps)] for row in rows]
    pictures: dict[int, Pixels] = {}
    while any(ahead):
        for index, row in enumerate(rows):
            if ahead[index]:
                (answer,) = model.step(ahead[index].pop(0), [row])
                if answer is not None:
                    assert isinstance(answer, Picture), answer
                    pictures[index] = answer.pixels
    return [pictures[index] for index in range(len(rows))]


def theirs(directory: Path, wish: Wish) -> Pixels:
    auto: Any = diffusers.AutoPipelineForText2Image
    pipeline = auto.from_pretrained(directory, dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    options: dict[str, Any] = {}
    if "true_cfg_scale" in pipeline.__call__.__annotations__:
        options |= {"true_cfg_scale": wish.guidance_scale, "negative_prompt": wish.negative_prompt}
    else:
        options["guidance_scale"] = wish.guidance_scale
    if wish.negative_prompt and "negative_prompt" in pipeline.__call__.__annotations__:
        options["negative_prompt"] = wish.negative_prompt
    if "use_resolution_binning" in pipeline.__call__.__annotations__:
        options["use_resolution_binning"] = False
    made = pipeline(
        wish.prompt,
        num_inference_steps=wish.steps,
        width=wish.width,
        height=wish.height,
        generator=[torch.Generator().manual_seed(wish.seed or 0)],
        **options,
    )
    return np.asarray(made.images[0])


@pytest.mark.parametrize("family", FAMILIES)
def test_pictures_made_in_turns_are_the_pipelines_own(tmp_path: Path, family: str) -> None:
    directory = FAMILIES[family](tmp_path)
    model = model_of(directory)
    takes_negative = "negative_prompt" in model.loaded.pipeline.parameters
    side = min(model.limits.default_width, 32)
    wishes = [
        replace(
            wish,
            width=side,
            height=side + index % 2 * side // 2,
            negative_prompt=wish.negative_prompt if takes_negative else "",
        )
        for index, wish in enumerate(WISHES)
    ]
    made = driven(model, works(model, *wishes))
    for wish, pixels in zip(wishes, made, strict=True):
        assert difference(pixels, theirs(directory, wish)) <= TOLERANCE
    alone = driven(model, works(model, replace(wishes[1], reproducibility=Reproducibility.EXACT)))
    assert np.array_equal(alone[0], made[1])


def test_progress_is_told_after_each_step(sd3: PipelineModel) -> None:
    (row,) = works(sd3, Wish(steps=3, seed=1))
    denoise, decode = sd3.plan(row)
    assert (denoise.steps, decode.steps) == (3, 1)
    for step in (1, 2, 3):
        assert sd3.step(denoise, [row]) == [None]
        assert row.steps_done == step
        assert not row.turns.ended
    (picture,) = sd3.step(decode, [row])
    assert isinstance(picture, Picture)


def test_a_dropped_row_ends_its_call_and_frees_its_thread(sd3: PipelineModel) -> None:
    (row,) = works(sd3, Wish(steps=50, seed=1))
    sd3.step(sd3.plan(row)[0], [row])
    turns = row.turns
    assert any(thread.name == "pipeline" for thread in threading.enumerate())
    del row
    gc.collect()
    turns.join()
    assert not any(thread.name == "pipeline" for thread in threading.enumerate())
    assert not turns.ended


def test_a_call_that_fails_fails_alone(sd3: PipelineModel) -> None:
    sound, broken = works(sd3, Wish(steps=2, seed=1), Wish(steps=2, seed=2))
    denoise, decode = sd3.plan(sound)
    broken.turns = Turns(_breaking)
    assert sd3.step(denoise, [sound, broken]) == [None, None]
    going, failed = sd3.step(denoise, [sound, broken])
    assert going is None
    assert isinstance(failed, RowFailed)
    assert isinstance(failed.cause, OutOfMemory)
    (fine,) = sd3.step(decode, [sound])
    assert isinstance(fine, Picture)


def _breaking(pause: Callable[[], None]) -> None:
    pause()
    raise torch.OutOfMemoryError("CUDA")


def test_limits_and_defaults_are_the_pipelines(sd3: PipelineModel) -> None:
    limits, pipeline = sd3.limits, sd3.loaded.pipeline
    assert (limits.default_steps, limits.default_guidance_scale) == (28, 7.0)
    assert (limits.default_width, limits.default_height, limits.size_multiple) == (32, 32, 4)
    assert limits.scheduler == "FlowMatchEulerDiscreteScheduler"
    assert (pipeline.name, pipeline.max_tokens, pipeline.pauses) == (
        "StableDiffusion3Pipeline",
        256,
        True,
    )
    assert pipeline.effective.parameters > 0


@pytest.mark.parametrize(
    ("wish", "field"),
    [
        (Wish(sampler=Sampler.DDIM), "sampler"),
        (Wish(adapters=(AdapterUse("ink"),)), "adapters"),
        (Wish(guidance_rescale=0.5), "guidance_rescale"),
        (Wish(preview=PreviewWish(every=2), steps=4), "preview"),
        (Wish(long_prompt=LongPrompt.CHUNK), "long_prompt"),
        (Wish(prompt="a" * 257), "prompt"),
        (Wish(prompt="a", negative_prompt="b" * 257), "negative_prompt"),
        (Wish(width=30), "width"),
    ],
)
def test_what_a_pipeline_does_not_serve_is_refused(
    sd3: PipelineModel, wish: Wish, field: str
) -> None:
    with pytest.raises(InvalidInput) as caught:
        works(sd3, wish)
    assert caught.value.field == field


def test_long_prompts_are_cut_where_that_is_asked_for(sd3: PipelineModel) -> None:
    assert works(sd3, Wish(prompt="a" * 256))
    assert works(sd3, Wish(prompt="a" * 257, long_prompt=LongPrompt.TRUNCATE))


def test_another_mode_is_refused_by_name(sd3: PipelineModel) -> None:
    order = resolve(Wish(), sd3.limits, draw_seed=int)
    image = given(picture(), "image_to_image.image")
    with pytest.raises(InvalidInput) as caught:
        sd3.works(replace(order, mode=ImageToImage(image, 0.5)))
    assert caught.value.field == "image_to_image"


def test_a_backend_that_runs_no_pipelines_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FailedPrecondition, match="not in openvino"):
        load_pipeline(tmp_path, backend="openvino")


def test_a_part_without_safetensors_is_named(tmp_path: Path) -> None:
    directory = save_pixart(tmp_path)
    weights = next((directory / "transformer").glob("*.safetensors"))
    weights.rename(weights.with_suffix(".bin"))
    with pytest.raises(FailedPrecondition, match=r"cannot be loaded: .*safetensors"):
        load_pipeline(directory, device="cpu", precision="float32")


def test_a_part_in_half_precision_alone_is_read_beside_plain_ones(tmp_path: Path) -> None:
    directory = save_pixart(tmp_path)
    weights = next((directory / "vae").glob("*.safetensors"))
    weights.rename(weights.with_suffix(".fp16.safetensors"))
    assert load_pipeline(directory, device="cpu", precision="float32").effective.parameters > 0


def test_the_step_engine_keeps_its_own(tmp_path: Path) -> None:
    assert not needs_pipeline(save_random_pipeline(tmp_path, SMALL))
    (tmp_path / "model_index.json").write_text('{"_class_name": "MarigoldDepthPipeline"}')
    with pytest.raises(FailedPrecondition):
        needs_pipeline(tmp_path)
