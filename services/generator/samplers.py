"""Samplers as tables: every step of a linear sampler is a weighted sum.

A sampler without clipping is linear in what it starts from, the network's outputs so far and the
noise drawn on the way. So its whole run is a lower-triangular table: the network's input at step
``i`` is ``inputs[i] @ basis``, where the basis is ``[start, output_0, noise_0?, output_1, ...]``.
The start is noise, or a given picture with noise when the run begins at a later step.
The tables are read off the ``diffusers`` schedulers themselves, by running each once on unit
vectors, so that a picture equals ``StableDiffusionPipeline``'s with the same scheduler; rows of
different samplers and step counts then advance side by side in one batch.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache
from typing import Any

import diffusers
import torch

from services.core.errors import InvalidInput

_PROBE_CHANNELS = 64  # columns that only noise reaches, to tell its weight
_LINEARITY_TOLERANCE = 2e-3


class Sampler(Enum):
    """The samplers of the contract; the value is the name people know it by."""

    DDIM = "DDIM"
    EULER = "Euler"
    EULER_ANCESTRAL = "Euler a"
    DPMPP_2M = "DPM++ 2M"
    DPMPP_2M_KARRAS = "DPM++ 2M Karras"
    UNIPC = "UniPC"
    LCM = "LCM"
    DPMPP_2M_SDE = "DPM++ 2M SDE"
    DPMPP_2M_SDE_KARRAS = "DPM++ 2M SDE Karras"
    HEUN = "Heun"
    PNDM = "PLMS"
    TCD = "TCD"
    EULER_KARRAS = "Euler Karras"
    DDPM = "DDPM"


_DPMPP: dict[str, Any] = {"algorithm_type": "dpmsolver++", "solver_order": 2}
_DPMPP_SDE: dict[str, Any] = {"algorithm_type": "sde-dpmsolver++", "solver_order": 2}

_SCHEDULERS: dict[Sampler, tuple[str, dict[str, Any]]] = {
    Sampler.DDIM: ("DDIMScheduler", {}),
    Sampler.EULER: ("EulerDiscreteScheduler", {"use_karras_sigmas": False}),
    Sampler.EULER_ANCESTRAL: ("EulerAncestralDiscreteScheduler", {}),
    Sampler.DPMPP_2M: ("DPMSolverMultistepScheduler", {**_DPMPP, "use_karras_sigmas": False}),
    Sampler.DPMPP_2M_KARRAS: ("DPMSolverMultistepScheduler", {**_DPMPP, "use_karras_sigmas": True}),
    Sampler.UNIPC: ("UniPCMultistepScheduler", {}),
    Sampler.LCM: ("LCMScheduler", {}),
    Sampler.DPMPP_2M_SDE: (
        "DPMSolverMultistepScheduler",
        {**_DPMPP_SDE, "use_karras_sigmas": False},
    ),
    Sampler.DPMPP_2M_SDE_KARRAS: (
        "DPMSolverMultistepScheduler",
        {**_DPMPP_SDE, "use_karras_sigmas": True},
    ),
    Sampler.HEUN: ("HeunDiscreteScheduler", {}),
    Sampler.PNDM: ("PNDMScheduler", {"skip_prk_steps": True}),
    Sampler.TCD: ("TCDScheduler", {}),
    Sampler.EULER_KARRAS: ("EulerDiscreteScheduler", {"use_karras_sigmas": True}),
    Sampler.DDPM: ("DDPMScheduler", {}),
}


@dataclass(frozen=True, slots=True)
class SamplerTable:
    """One sampler at one number of steps; E evaluations of the network, a basis of K vectors.

    inputs:    float32 (E + 1, K): the network's input at each evaluation, then the clean latents.
    clean:     float32 (E, 2): predicted clean latents = a * input + b * output, at each.
    timesteps: float32 (E,).
    outputs:   basis index that each evaluation's output is written to.
    noises:    basis index of the noise drawn after each evaluation, or None.
    steps:     that are run; E differs from it for samplers of two evaluations a step.
    start:     basis[0] of a run that starts from a given picture = a * its latents + b * noise.
               A run from nothing starts from the noise itself.
    kept:      float32 (E + 1, 2): a * a given picture's latents + b * the noise of the start is
               that picture as noisy as the network's input is at each evaluation, then clean:
               what an inpainting keeps of it (Lugmayr et al., 2022, eq. 8a).
    """

    steps: int
    inputs: torch.Tensor
    clean: torch.Tensor
    timesteps: torch.Tensor
    outputs: tuple[int, ...]
    noises: tuple[int | None, ...]
    start: tuple[float, float]
    kept: torch.Tensor

    @property
    def evaluations(self) -> int:
        return len(self.outputs)

    @property
    def width(self) -> int:
        return self.inputs.shape[1]

    def filled(self, evaluation: int) -> int:
        """Basis vectors known before this evaluation."""
        return self.outputs[evaluation] if evaluation < self.evaluations else self.width

    def steps_done(self, evaluations: int) -> int:
        """Whole steps that so many evaluations make."""
        return evaluations * self.steps // self.evaluations

    def evaluations_for(self, steps: int) -> int:
        """Evaluations after which so many whole steps are done."""
        return -(-steps * self.evaluations // self.steps)


class SamplerTables:
    """The tables of one model, read off on first use and kept. Safe to call from any thread."""

    def __init__(self, scheduler_config: Mapping[str, Any]) -> None:
        self._config = dict(scheduler_config)
        self._table = lru_cache(maxsize=256)(self._read)

    def table(self, sampler: Sampler, steps: int, begin: int = 0) -> SamplerTable:
        """The run of ``steps`` steps without the first ``begin`` of them.

        Raises ``InvalidInput`` (``steps``, ``sampler``) where the sampler cannot do it.
        """
        return self._table(sampler, steps, begin)

    def usable(self) -> tuple[Sampler, ...]:
        """The samplers that run with this model's noise schedule."""
        return tuple(sampler for sampler in Sampler if self._runs(sampler))

    def default(self) -> Sampler:
        """The model's own scheduler; DDIM, or else the first that runs, when it is none of ours."""
        usable = self.usable()
        own = self._own()
        if own in usable or not usable:
            return own
        return Sampler.DDIM if Sampler.DDIM in usable else usable[0]

    def _own(self) -> Sampler:
        own = self._config.get("_class_name")
        karras = bool(self._config.get("use_karras_sigmas"))
        for sampler, (name, options) in _SCHEDULERS.items():
            if name == own and options.get("use_karras_sigmas", karras) == karras:
                return sampler
        return Sampler.DDIM

    def _runs(self, sampler: Sampler) -> bool:
        try:
            self.table(sampler, 4)
        except InvalidInput:
            return False
        return True

    def _read(self, sampler: Sampler, steps: int, begin: int) -> SamplerTable:
        try:
            table = _read_table(scheduler_for(sampler, self._config), steps, begin)
            error = _departure(scheduler_for(sampler, self._config), table, steps, begin)
        except NotImplementedError as cause:
            raise InvalidInput(
                "sampler",
                f"{sampler.value} does not run with a model of "
                f"{self._config.get('prediction_type')} prediction.",
                given=sampler.name,
            ) from cause
        except (ValueError, IndexError, ZeroDivisionError, AssertionError) as cause:
            raise InvalidInput(
                "steps", f"{sampler.value} cannot run with this many steps.", given=steps
            ) from cause
        if not error < _LINEARITY_TOLERANCE:
            raise InvalidInput(
                "sampler",
                f"{sampler.value} does not run with this model's noise schedule at {steps} steps.",
                given=sampler.name,
            )
        return table


def scheduler_for(sampler: Sampler, config: Mapping[str, Any]) -> Any:
    """The ``diffusers`` scheduler that ``sampler`` stands for, with a model's noise schedule."""
    name, options = _SCHEDULERS[sampler]
    return getattr(diffusers, name).from_config(dict(config), **options)


def _begin(scheduler: Any, steps: int, begin: int) -> torch.Tensor:
    """The timesteps to run, as StableDiffusionImg2ImgPipeline.get_timesteps has them."""
    scheduler.set_timesteps(steps)
    first = begin * scheduler.order
    # Left to itself a scheduler looks its first index up by the timestep, and takes the second
    # index and in the end one too many where rounding has made the first two timesteps equal.
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(first)
    timesteps: torch.Tensor = scheduler.timesteps[first:]
    return timesteps


def _step_options(scheduler: Any, generator: torch.Generator) -> dict[str, Any]:
    # As StableDiffusionPipeline.prepare_extra_step_kwargs does.
    accepted = inspect.signature(scheduler.step).parameters
    options: dict[str, Any] = {"eta": 0.0, "generator": generator}
    return {name: value for name, value in options.items() if name in accepted}


def _read_table(scheduler: Any, steps: int, begin: int) -> SamplerTable:
    timesteps = _begin(scheduler, steps, begin)
    evaluations = len(timesteps)
    generator = torch.Generator("cpu").manual_seed(0)
    options = _step_options(scheduler, generator)
    columns = 1 + 2 * evaluations
    sample = torch.zeros(1, 1, 1, columns + _PROBE_CHANNELS, dtype=torch.float32)
    sample[..., 0] = float(scheduler.init_noise_sigma)
    inputs: list[torch.Tensor] = []
    kept: list[torch.Tensor] = []
    clean: list[tuple[float, float]] = []
    outputs: list[int] = []
    noises: list[int | None] = []
    free = 1
    for timestep in timesteps:
        noised = _noised(scheduler, timestep)
        if not inputs:
            start = noised / sample[0, 0, 0, 0]
        kept.append(scheduler.scale_model_input(noised, timestep))
        scaled = scheduler.scale_model_input(sample, timestep)
        clean.append(_clean_weights(scheduler, timestep))
        inputs.append(scaled[0, 0, 0, :columns].clone())
        outputs.append(free)
        output = torch.zeros_like(sample)
        output[..., free] = 1.0
        free += 1
        replay = torch.Generator("cpu")
        replay.set_state(generator.get_state())
        sample = scheduler.step(output, timestep, sample, **options, return_dict=False)[0]
        drawn = not torch.equal(replay.get_state(), generator.get_state())
        weight = _remove_noise(sample, replay, columns) if drawn else 0.0
        noises.append(free if drawn else None)
        if drawn:
            sample[..., free:] = 0.0  # nothing but rounding can be there
            sample[..., free] = weight
            free += 1
    inputs.append(sample[0, 0, 0, :columns].clone())
    kept.append(torch.tensor([1.0, 0.0], dtype=torch.float32))
    return SamplerTable(
        steps=steps - begin,
        inputs=torch.stack(inputs)[:, :free].float().contiguous(),
        clean=torch.tensor(clean, dtype=torch.float32),
        timesteps=timesteps.to(torch.float32),
        outputs=tuple(outputs),
        noises=tuple(noises),
        start=(float(start[0]), float(start[1])),
        kept=torch.stack(kept).float(),
    )


def _noised(scheduler: Any, timestep: torch.Tensor) -> torch.Tensor:
    """(a, b): a picture as noisy as the scheduler's sample is now = a * picture + b * noise."""
    picture, noise = torch.eye(2, dtype=torch.float32)
    noised: torch.Tensor = scheduler.add_noise(picture, noise, timestep[None])
    return noised


def _remove_noise(sample: torch.Tensor, replay: torch.Generator, columns: int) -> float:
    """Take the drawn noise out of ``sample`` in place; returns the weight it had."""
    noise = torch.randn(sample.shape, generator=replay, dtype=torch.float32)
    probe, seen = noise[..., columns:], sample[..., columns:]
    weight = float((probe * seen).sum() / (probe * probe).sum())
    sample -= weight * noise
    sample[..., columns:] = 0.0
    return weight


def _clean_weights(scheduler: Any, timestep: torch.Tensor) -> tuple[float, float]:
    """(a, b): clean latents = a * network input + b * network output (Song et al., 2021, eq. 9)."""
    signal, noise = _signal_and_noise(scheduler, timestep)
    match scheduler.config.prediction_type:
        case "epsilon":
            # Without any signal the output says nothing of the clean latents.
            return (1.0 / signal, -noise / signal) if signal > 1e-3 else (0.0, 0.0)
        case "v_prediction":
            return signal, -noise
        case _:
            return 0.0, 1.0


def _signal_and_noise(scheduler: Any, timestep: torch.Tensor) -> tuple[float, float]:
    sigmas = getattr(scheduler, "sigmas", None)
    if sigmas is not None:
        variance = float(sigmas[scheduler.step_index or 0]) ** 2
        signal = (1.0 / (1.0 + variance)) ** 0.5
    else:
        signal = float(scheduler.alphas_cumprod[int(timestep)]) ** 0.5
    return signal, (1.0 - signal**2) ** 0.5


def _departure(scheduler: Any, table: SamplerTable, steps: int, begin: int) -> float:
    """How far the scheduler's own run lies from the table's, relative to the latents' size.

    Not small when the sampler clips or thresholds (it is not linear then), or breaks down.
    """
    timesteps = _begin(scheduler, steps, begin)
    source = torch.Generator("cpu").manual_seed(1)
    generator, replay = (torch.Generator("cpu").manual_seed(2) for _ in range(2))
    shape = (1, 4, 4, 4)
    basis = torch.randn((table.width, *shape[1:]), generator=source, dtype=torch.float32)
    sample = basis[:1] * float(scheduler.init_noise_sigma)
    options = _step_options(scheduler, generator)
    for index, timestep in enumerate(timesteps):
        noise = table.noises[index]
        if noise is not None:
            basis[noise] = torch.randn(shape, generator=replay, dtype=torch.float32)[0]
        scheduler.scale_model_input(sample, timestep)
        output = basis[table.outputs[index]][None]
        sample = scheduler.step(output, timestep, sample, **options, return_dict=False)[0]
    told = torch.tensordot(table.inputs[-1], basis, dims=1)
    return float((sample[0] - told).abs().max() / sample.abs().max().clamp(min=1.0))
