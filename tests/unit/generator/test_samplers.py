"""The tables against the schedulers they are read from, on a network that is far from linear."""

import json
from typing import Any

import pytest
import torch

from services.core.errors import InvalidInput
from services.generator.samplers import (
    Sampler,
    SamplerTable,
    SamplerTables,
    scheduler_for,
)
from tests.unit.generator.defaults import default_dtype

EPSILON: dict[str, Any] = {
    "_class_name": "PNDMScheduler",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "clip_sample": False,
    "set_alpha_to_one": False,
    "steps_offset": 1,
    "skip_prk_steps": True,
}
ZERO_SNR: dict[str, Any] = {
    "_class_name": "DDIMScheduler",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "clip_sample": False,
    "prediction_type": "v_prediction",
    "rescale_betas_zero_snr": True,
    "timestep_spacing": "trailing",
    "set_alpha_to_one": True,
}
SCHEDULES = {"epsilon": EPSILON, "zero-snr": ZERO_SNR}
SHAPE = (1, 4, 8, 8)
PICTURE = torch.linspace(-2.0, 2.0, 256).view(SHAPE)


def network(latents: torch.Tensor, timestep: float) -> torch.Tensor:
    output: torch.Tensor
    output = torch.sin(latents * 1.3) * 0.7 + torch.cos(latents) * (timestep / 2000)
    return output


def by_scheduler(
    sampler: Sampler, config: dict[str, Any], steps: int, begin: int | None = None
) -> torch.Tensor:
    """As ``StableDiffusionPipeline`` does it, or from a picture as its Img2Img kind does."""
    generator = torch.Generator().manual_seed(3)
    scheduler = scheduler_for(sampler, config)
    scheduler.set_timesteps(steps)
    options: dict[str, Any] = {}
    if sampler in (Sampler.DDIM, Sampler.TCD):
        options["eta"] = 0.0
    if sampler not in (Sampler.PNDM, Sampler.UNIPC, Sampler.HEUN):
        options["generator"] = generator
    sample: torch.Tensor
    sample = torch.randn(SHAPE, generator=generator) * scheduler.init_noise_sigma
    timesteps = scheduler.timesteps
    if begin is not None:
        first = begin * scheduler.order
        timesteps = timesteps[first:]
        if hasattr(scheduler, "set_begin_index"):
            scheduler.set_begin_index(first)
        noise = sample / scheduler.init_noise_sigma
        sample = scheduler.add_noise(PICTURE, noise, timesteps[:1])
    for timestep in timesteps:
        scaled = scheduler.scale_model_input(sample, timestep)
        output = network(scaled, float(timestep))
        sample = scheduler.step(output, timestep, sample, **options, return_dict=False)[0]
    return sample


def by_table(table: SamplerTable, *, given: bool = False) -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    basis = torch.zeros(table.width, *SHAPE[1:])
    basis[0] = torch.randn(SHAPE, generator=generator)[0]
    if given:
        of_picture, of_noise = table.start
        basis[0] = of_picture * PICTURE[0] + of_noise * basis[0]
    for index in range(table.evaluations):
        scaled = torch.tensordot(table.inputs[index], basis, dims=1)
        basis[table.outputs[index]] = network(scaled, float(table.timesteps[index]))
        noise = table.noises[index]
        if noise is not None:
            basis[noise] = torch.randn(SHAPE, generator=generator)[0]
    latents: torch.Tensor = torch.tensordot(table.inputs[-1], basis, dims=1)
    return latents[None]


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("sampler", Sampler)
@pytest.mark.parametrize("steps", [1, 4, 11])
def test_a_table_runs_as_its_scheduler(sampler: Sampler, schedule: str, steps: int) -> None:
    config = SCHEDULES[schedule]
    expected = by_scheduler(sampler, config, steps)
    told = by_table(SamplerTables(config).table(sampler, steps))
    assert (told - expected).abs().max() < 1e-3 * expected.abs().max().clamp(min=1.0)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("sampler", Sampler)
@pytest.mark.parametrize("begin", [0, 1, 6, 10])
def test_a_table_begins_at_a_picture(sampler: Sampler, schedule: str, begin: int) -> None:
    config = SCHEDULES[schedule]
    expected = by_scheduler(sampler, config, 11, begin)
    table = SamplerTables(config).table(sampler, 11, begin)
    assert table.steps == 11 - begin
    told = by_table(table, given=True)
    assert (told - expected).abs().max() < 1e-3 * expected.abs().max().clamp(min=1.0)


# diffusers itself multiplies whole timesteps by a number here, which is of the default dtype.
OF_THE_DEFAULT = {Sampler.LCM, Sampler.TCD}


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("sampler", [each for each in Sampler if each not in OF_THE_DEFAULT])
def test_another_default_dtype_changes_no_table(sampler: Sampler, schedule: str) -> None:
    expected = SamplerTables(SCHEDULES[schedule]).table(sampler, 5)
    with default_dtype(torch.bfloat16):
        told = SamplerTables(SCHEDULES[schedule]).table(sampler, 5)
    for part in ("inputs", "clean", "timesteps", "kept"):
        ours, theirs = getattr(told, part), getattr(expected, part)
        assert ours.dtype == torch.float32
        assert torch.equal(ours, theirs), part
    assert (told.outputs, told.noises) == (expected.outputs, expected.noises)
    assert told.start == expected.start


@pytest.mark.parametrize("sampler", Sampler)
def test_nothing_is_weighed_before_it_is_known(sampler: Sampler) -> None:
    table = SamplerTables(EPSILON).table(sampler, 5)
    for index in range(table.evaluations + 1):
        assert not table.inputs[index, table.filled(index) :].any()


@pytest.mark.parametrize("sampler", Sampler)
@pytest.mark.parametrize("steps", [1, 2, 7])
def test_steps_and_evaluations(sampler: Sampler, steps: int) -> None:
    table = SamplerTables(EPSILON).table(sampler, steps)
    assert table.steps_done(0) == 0
    assert table.steps_done(table.evaluations) == steps
    for step in range(1, steps + 1):
        evaluations = table.evaluations_for(step)
        assert table.steps_done(evaluations) == step
        assert table.steps_done(evaluations - 1) == step - 1


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_predicted_clean_latents(schedule: str) -> None:
    """The last DDIM step goes to the predicted clean latents where alpha ends at one."""
    config = {**SCHEDULES[schedule], "set_alpha_to_one": True}
    table = SamplerTables(config).table(Sampler.DDIM, 5)
    of_input, of_output = table.clean[-1].tolist()
    predicted = of_input * table.inputs[-2]
    predicted[table.outputs[-1]] += of_output
    assert (predicted - table.inputs[-1]).abs().max() < 1e-4


def test_every_sampler_runs_on_both_schedules() -> None:
    for config in SCHEDULES.values():
        assert SamplerTables(config).usable() == tuple(Sampler)


def test_a_sampler_that_clips_is_refused() -> None:
    tables = SamplerTables({**EPSILON, "clip_sample": True})
    assert Sampler.DDIM not in tables.usable()
    with pytest.raises(InvalidInput) as caught:
        tables.table(Sampler.DDIM, 10)
    assert caught.value.field == "sampler"


def test_more_steps_than_the_sampler_has_name_the_field() -> None:
    with pytest.raises(InvalidInput) as caught:
        SamplerTables(EPSILON).table(Sampler.LCM, 51)
    assert caught.value.field == "steps"


def test_equal_first_timesteps_do_not_run_over_the_end() -> None:
    # diffusers' own lookup fails here: rounding makes the first two timesteps equal.
    table = SamplerTables(ZERO_SNR).table(Sampler.DPMPP_2M_KARRAS, 50)
    assert table.inputs.isfinite().all()


@pytest.mark.parametrize(
    ("own", "sampler"),
    [
        ({"_class_name": "PNDMScheduler"}, Sampler.PNDM),
        ({"_class_name": "EulerDiscreteScheduler"}, Sampler.EULER),
        (
            {"_class_name": "DPMSolverMultistepScheduler", "use_karras_sigmas": True},
            Sampler.DPMPP_2M_KARRAS,
        ),
        ({"_class_name": "SomethingNew", "clip_sample": False}, Sampler.DDIM),
    ],
)
def test_the_models_own_sampler_is_the_default(own: dict[str, Any], sampler: Sampler) -> None:
    assert SamplerTables(json.loads(json.dumps(own))).default() is sampler


def test_a_sampler_without_the_models_prediction_is_refused() -> None:
    tables = SamplerTables({**EPSILON, "prediction_type": "sample"})
    with pytest.raises(InvalidInput, match="sample prediction") as caught:
        tables.table(Sampler.EULER_ANCESTRAL, 4)
    assert caught.value.field == "sampler"
    assert Sampler.EULER_ANCESTRAL not in tables.usable()
    assert tables.default() in tables.usable()


def test_the_default_is_one_that_runs() -> None:
    assert SamplerTables({**EPSILON, "clip_sample": True}).default() is Sampler.PNDM
    own = {**EPSILON, "_class_name": "EulerAncestralDiscreteScheduler"}
    assert SamplerTables(own).default() is Sampler.EULER_ANCESTRAL
    assert SamplerTables({**own, "prediction_type": "sample"}).default() is Sampler.DDIM
