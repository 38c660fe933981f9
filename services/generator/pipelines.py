"""Families outside the step engine, behind the same contract: rows that are whole pipeline calls.

``diffusers``' own text-to-image pipeline of the model runs each picture. It is paused after every
denoise step, so that the engine advances it as any other row: it tells its progress, takes turns
with its neighbours, and a cancel between two steps ends it.
"""

from __future__ import annotations

import copy
import dataclasses
import importlib
import inspect
import re
import time
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final

import diffusers
import numpy as np
import torch

from services import accelerator
from services.core.engine import RowFailed, Stage
from services.core.errors import FailedPrecondition, InvalidInput, ModelFault, NotReady
from services.core.reference import ModelFiles
from services.generator.diffusion import DECODE, DENOISE, Answer, Picture, Withheld
from services.generator.layout import INDEX_FILE, read_json, read_layout
from services.generator.model import Bounds, Defaults, directory_defaults
from services.generator.modes import TEXT_TO_IMAGE
from services.generator.network import Effective, Pixels
from services.generator.parameters import ModelName
from services.generator.pytorch import Placement
from services.generator.request import LongPrompt, Order, RequestLimits, Wish, resolve
from services.generator.safety import FLAGGED
from services.generator.samplers import Sampler
from services.generator.turns import Turns
from services.memory import memory_faults

_STEPS_END: Final = "callback_on_step_end"
_EARLIER_STEPS_END: Final = "callback"  # of pipelines that have not been renewed
_TOKENIZERS = ("tokenizer_3", "tokenizer_2", "tokenizer")
_DENOISERS = ("transformer", "unet", "prior", "decoder")
_FALLBACK_TOKENS = 77
_WARM_UP_STEPS = 2
_DEFAULTS: Final = Defaults()
_BOUNDS: Final = Bounds()
# What a pipeline is given, or what is done without it; all else in an order it cannot serve.
_TAKEN = frozenset(
    (
        "id", "prompt", "negative_prompt", "width", "height", "steps", "guidance_scale", "sampler",
        "scheduler", "seeds", "preview_method", "preview_output", "output", "long_prompt",
        "reproducibility", "omit_steps", "omit_metadata", "in_step",
    )
)  # fmt: skip
_PLAIN: Mapping[str, Any] = {"mode": TEXT_TO_IMAGE}


def needs_pipeline(directory: Path) -> bool:
    """Whether a ``diffusers`` directory holds what the step engine does not run, but one of the
    text-to-image pipelines that ``AutoPipelineForText2Image`` knows.

    Raises as ``read_layout`` where neither does.
    """
    try:
        read_layout(directory)
    except FailedPrecondition:
        if read_json(directory / INDEX_FILE).get("_class_name") not in _known():
            raise
        return True
    return False


def _known() -> frozenset[str]:
    """Imports them all, 18 MiB, which a process with a model for the step engine can do without."""
    auto: Any = importlib.import_module("diffusers.pipelines.auto_pipeline")
    return frozenset(kind.__name__ for kind in auto.AUTO_TEXT2IMAGE_PIPELINES_MAPPING.values())


def load_pipeline(
    directory: Path,
    *,
    backend: str = "auto",
    device: str = "auto",
    precision: str = "auto",
    threads: int | None = None,
    checked: bool = True,
) -> Pipeline:
    """Read a whole pipeline; only safetensors, and no code of the directory's own. A safety checker
    that it brings is left out unless ``checked``. ``threads`` are the whole process's.

    Raises ``FailedPrecondition`` for a ``backend`` other than PyTorch, and for a directory that
    lacks a part or its safetensors weights.
    """
    if backend not in ("auto", "pytorch"):
        raise FailedPrecondition(
            f"'{directory.name}' runs as a whole pipeline, in PyTorch and not in {backend}."
        )
    placement = Placement.choose(device, precision, alone=True)
    accelerator.keep_digits(placement.device, placement.dtype)
    if threads is not None:
        torch.set_num_threads(threads)
    unchecked: dict[str, Any] = {"safety_checker": None, "requires_safety_checker": False}
    has_checker = "safety_checker" in read_json(directory / INDEX_FILE)
    auto: Any = diffusers.AutoPipelineForText2Image
    try:
        pipeline = auto.from_pretrained(
            directory,
            variant=_variant(directory),
            use_safetensors=True,
            local_files_only=True,
            dtype=placement.dtype,
            **(unchecked if has_checker and not checked else {}),
        )
    except (OSError, ValueError) as error:
        why = str(error).strip().partition("\n")[0]
        raise FailedPrecondition(f"'{directory.name}' cannot be loaded: {why}") from error
    pipeline.set_progress_bar_config(disable=True)
    return Pipeline(pipeline.to(placement.device), placement)


@dataclass(frozen=True, slots=True)
class Pipeline:
    """A ``diffusers`` pipeline, and what its signature and configuration tell of it."""

    whole: Any
    placement: Placement

    @property
    def name(self) -> str:
        return type(self.whole).__name__

    @property
    def scheduler_name(self) -> str:
        return type(self.whole.scheduler).__name__

    @property
    def parameters(self) -> Mapping[str, inspect.Parameter]:
        return inspect.signature(self.whole.__call__).parameters

    @property
    def pauses(self) -> bool:
        """Whether it tells when a step has ended."""
        return _STEPS_END in self.parameters or _EARLIER_STEPS_END in self.parameters

    @property
    def checked(self) -> bool:
        return getattr(self.whole, "safety_checker", None) is not None

    @property
    def factor(self) -> int:
        return int(getattr(self.whole, "vae_scale_factor", 8) or 8)

    @property
    def default_side(self) -> int:
        """In pixels."""
        denoisers = [getattr(self.whole, name, None) for name in _DENOISERS]
        sizes = [getattr(each.config, "sample_size", None) for each in denoisers if each]
        known = [getattr(self.whole, "default_sample_size", None), *sizes]
        return next((int(size) for size in known if isinstance(size, int)), 128) * self.factor

    @property
    def size_multiple(self) -> int:
        """A U-Net halves its latents; every other denoiser looks at patches of two or more."""
        blocks = getattr(getattr(self.whole, "unet", None), "config", {}).get("block_out_channels")
        if blocks:
            return int(self.factor * 2 ** (len(blocks) - 1))
        patch = getattr(getattr(self.whole, "transformer", None), "config", {}).get("patch_size", 2)
        return self.factor * max(patch if isinstance(patch, int) else 2, 2)

    @property
    def max_tokens(self) -> int:
        told = self.parameters.get("max_sequence_length")
        if told is not None and isinstance(told.default, int):
            return told.default
        most = getattr(self._tokenizer, "model_max_length", _FALLBACK_TOKENS)
        return int(min(most, 8192))

    @property
    def effective(self) -> Effective:
        networks = [each for each in self.whole.components.values() if _is_network(each)]
        weights = [weight for network in networks for weight in network.parameters()]
        return Effective(
            backend="diffusers",
            device=str(self.placement.device),
            device_name=self.placement.device_name,
            precision=self.placement.precision,
            threads=torch.get_num_threads(),
            architecture=self.name,
            parameters=sum(weight.numel() for weight in weights),
            bytes_in_memory=sum(weight.numel() * weight.element_size() for weight in weights),
        )

    @property
    def default_guidance_scale(self) -> float:
        return self.default(self._guidance_parameter, 1.0)

    def default(self, parameter: str, otherwise: float) -> float:
        found = self.parameters.get(parameter)
        known = found is not None and isinstance(found.default, int | float)
        return float(found.default) if found is not None and known else otherwise

    def check(self, order: Order) -> None:
        """Raises ``InvalidInput`` for what this pipeline does not read, and for a prompt that it
        would cut.
        """
        for asked, value in _beyond(order):
            given = value if isinstance(value, int | float) else "set"
            raise InvalidInput(asked, f"{self.name} does not serve {asked}.", "unset", given)
        negative = f"{len(order.negative_prompt.encode())} bytes"
        if order.negative_prompt and "negative_prompt" not in self.parameters:
            raise InvalidInput(
                "negative_prompt", f"{self.name} reads no negative prompt.", "0 bytes", negative
            )
        if order.negative_prompt and self._distilled:
            raise InvalidInput(
                "negative_prompt",
                f"This {self.name} has its guidance built in, and reads none.",
                "0 bytes",
                negative,
            )
        if order.long_prompt is LongPrompt.CHUNK:
            raise InvalidInput(
                "long_prompt",
                f"{self.name} does not read prompts in windows.",
                "ERROR or TRUNCATE",
                order.long_prompt.name,
            )
        if order.long_prompt is LongPrompt.ERROR:
            self._check_length("prompt", order.prompt)
            self._check_length("negative_prompt", order.negative_prompt)

    def call(self, order: Order, seed: int, pause: Callable[[], None]) -> Any:
        """One picture, as the pipeline answers it. The schedule is this call's own."""
        own = _own_copy(self.whole)
        options = {
            "prompt": order.prompt,
            "width": order.width,
            "height": order.height,
            "num_inference_steps": order.steps,
            "generator": [torch.Generator("cpu").manual_seed(seed)],
            "output_type": "np",
            "use_resolution_binning": False,
            **self._guidance(order),
            **_pausing(pause),
        }
        if _STEPS_END in self.parameters:
            options.pop(_EARLIER_STEPS_END)
        return own(**{name: value for name, value in options.items() if name in self.parameters})

    @property
    def _tokenizer(self) -> Any:
        """The one that reads most."""
        found = (getattr(self.whole, name, None) for name in _TOKENIZERS)
        return next((tokenizer for tokenizer in found if tokenizer is not None), None)

    @property
    def _distilled(self) -> bool:
        """Whether the guidance is an input of the denoiser (Meng et al., 2023)."""
        transformer = getattr(self.whole, "transformer", None)
        return bool(getattr(getattr(transformer, "config", None), "guidance_embeds", False))

    @property
    def _guidance_parameter(self) -> str:
        two = "true_cfg_scale" in self.parameters and not self._distilled
        return "true_cfg_scale" if two else "guidance_scale"

    def _guidance(self, order: Order) -> dict[str, Any]:
        parameter = self._guidance_parameter
        # With a scale of that name alone, guidance is off unless a negative prompt is given.
        empty_too = parameter == "true_cfg_scale" and order.guided
        negative = {"negative_prompt": order.negative_prompt}
        return {
            parameter: order.guidance_scale,
            **(negative if order.negative_prompt or empty_too else {}),
        }

    def _check_length(self, name: str, text: str) -> None:
        if self._tokenizer is None or not text:
            return
        tokens = len(self._tokenizer(text, truncation=False, verbose=False)["input_ids"])
        if tokens > self.max_tokens:
            raise InvalidInput(
                name,
                f"{name} has more tokens than the model reads; long_prompt can allow it.",
                f"{self.max_tokens} tokens",
                f"{tokens} tokens",
            )


@dataclass(slots=True, weakref_slot=True)
class PipelineWork:
    """One picture on its way: a call that has begun and waits for its next turn."""

    order: Order
    seed: int
    pipeline: Pipeline
    default_area: int
    turns: Turns[Any] = field(init=False)
    steps_done: int = 0

    def __post_init__(self) -> None:
        order, seed, pipeline = self.order, self.seed, self.pipeline
        self.turns = Turns(lambda pause: pipeline.call(order, seed, pause))
        # A row that is dropped is let go of, and nothing more is told to anyone.
        weakref.finalize(self, self.turns.give_up)

    @property
    def area(self) -> float:
        return self.order.width * self.order.height / self.default_area


@dataclass(frozen=True, slots=True)
class LoadedPipeline:
    """A pipeline that is in memory; ``at`` in seconds since the epoch."""

    files: ModelFiles
    pipeline: Pipeline
    limits: RequestLimits
    effective: Effective
    at: float


class PipelineModel:
    """A core ``Model`` whose rows are whole pipeline calls, advanced in turns."""

    def __init__(
        self,
        find: Callable[[], ModelFiles],
        load: Callable[[Path], Pipeline],
        *,
        defaults: Defaults = _DEFAULTS,
        bounds: Bounds = _BOUNDS,
    ) -> None:
        self._find = find
        self._load = load
        self._defaults = defaults
        self._bounds = bounds
        self._loaded: LoadedPipeline | None = None

    @property
    def loaded(self) -> LoadedPipeline:
        """Raises ``NotReady`` before ``load`` and after ``close``."""
        if self._loaded is None:
            raise NotReady()
        return self._loaded

    @property
    def name(self) -> ModelName:
        files = self.loaded.files
        return ModelName(files.name, files.version, files.digest)

    @property
    def limits(self) -> RequestLimits:
        return self.loaded.limits

    def versions(self, texts: Sequence[str], *, styled: bool, backend: str) -> Mapping[str, str]:
        """None: a pipeline uses nothing beside the model."""
        del texts, styled, backend
        return {}

    def in_force(self, work: PipelineWork) -> Effective:
        """The one way that there is."""
        del work
        return self.loaded.effective

    def pinned(self, order: Order) -> Order:
        """A pipeline uses nothing beside the model."""
        return order

    def works(self, order: Order) -> list[PipelineWork]:
        """The rows of ``order``, one a picture. Raises ``InvalidInput`` for what the pipeline does
        not serve.
        """
        loaded = self.loaded
        loaded.pipeline.check(order)
        area = loaded.limits.default_width * loaded.limits.default_height
        return [PipelineWork(order, seed, loaded.pipeline, area) for seed in order.seeds]

    def load(self) -> None:
        files = self._find()
        pipeline = self._load(files.directory)
        limits = self._limits(files.directory, pipeline)
        self._loaded = LoadedPipeline(files, pipeline, limits, pipeline.effective, time.time())

    def warm_up(self) -> Iterator[Sequence[PipelineWork]]:
        """One picture of few steps: rows share no computation, so that more would teach nothing."""
        wish = Wish(steps=_WARM_UP_STEPS, seed=0)
        yield self.works(resolve(wish, self.limits, draw_seed=int))

    def plan(self, work: PipelineWork) -> list[Stage]:
        size = (work.order.width, work.order.height)
        last = Stage(DECODE, (DECODE, "pipeline", *size), work.area)
        if not work.pipeline.pauses:
            return [last]
        return [Stage(DENOISE, (DENOISE, "pipeline", *size), work.area, work.order.steps), last]

    def step(self, stage: Stage, works: Sequence[PipelineWork]) -> Sequence[Answer]:
        """One turn each, one after another; a call that fails is that row's alone."""
        advance = _finish if stage.name == DECODE else _denoise
        finish = partial(accelerator.finish, self.loaded.pipeline.placement.device)
        with accelerator.watched(finish):
            answers = [advance(work) for work in works]
            # What a step costs is told by when it ends, and a GPU's ends after its calls.
            finish()
        return answers

    def close(self) -> None:
        self._loaded = None

    def _limits(self, directory: Path, pipeline: Pipeline) -> RequestLimits:
        multiple = pipeline.size_multiple
        side = max(pipeline.default_side // multiple, 1) * multiple
        steps, guidance_scale = directory_defaults(
            directory,
            self._defaults,
            otherwise=(
                int(pipeline.default("num_inference_steps", 20)),
                pipeline.default_guidance_scale,
            ),
        )
        return RequestLimits(
            samplers=(),
            default_sampler=Sampler.EULER,
            scheduler=pipeline.scheduler_name,
            default_width=side,
            default_height=side,
            size_multiple=multiple,
            max_pixels=max(self._bounds.max_pixels or 4 * side * side, side * side),
            default_steps=min(steps, self._bounds.max_steps),
            default_guidance_scale=guidance_scale,
            max_steps=self._bounds.max_steps,
            max_count=self._bounds.max_count,
        )


def _denoise(work: PipelineWork) -> RowFailed | None:
    work.turns.take()
    if work.turns.ended:
        failure = _failure(work)
        if failure is not None:
            return failure
    work.steps_done += 1
    return None


def _finish(work: PipelineWork) -> Answer:
    while not work.turns.ended:
        work.turns.take()
    failure = _failure(work)
    if failure is not None:
        return failure
    made = work.turns.result
    if any(getattr(made, "nsfw_content_detected", None) or ()):
        return Withheld(FLAGGED)
    levels = np.asarray(made.images[0], dtype=np.float32)
    if not np.isfinite(levels).all():
        return RowFailed(ModelFault("The picture broke down to values that are no numbers."))
    pixels: Pixels = (levels * 255).round().astype(np.uint8)
    return Picture(pixels, work.order.steps, final=True)


def _failure(work: PipelineWork) -> RowFailed | None:
    # What was computed is gone with the call: it cannot be stepped again in a smaller batch.
    try:
        with memory_faults():
            work.turns.result  # noqa: B018
    except Exception as error:
        return RowFailed(error)
    return None


def _variant(directory: Path) -> str | None:
    """``fp16`` where a part has its weights in that variant alone: it is then read of every part
    that has it.
    """
    names: dict[Path, list[str]] = {}
    for path in directory.glob("*/*.safetensors"):
        names.setdefault(path.parent, []).append(path.name)
    half_alone = any(all(".fp16" in name for name in found) for found in names.values())
    return "fp16" if half_alone else None


def _own_copy(pipeline: Any) -> Any:
    """The same networks; what a call keeps on its pipeline, and its schedule, are its own."""
    own = copy.copy(pipeline)
    for name, value in list(vars(pipeline).items()):
        if isinstance(value, diffusers.SchedulerMixin):
            setattr(own, name, type(value).from_config(value.config))
        elif isinstance(value, diffusers.DiffusionPipeline):
            setattr(own, name, _own_copy(value))
    return own


def _pausing(pause: Callable[[], None]) -> dict[str, Any]:
    def on_step_end(_pipeline: Any, _step: int, _time: Any, tensors: dict[str, Any]) -> Any:
        pause()
        return tensors

    def earlier(_step: int, _time: Any, _latents: Any) -> None:
        pause()

    return {_STEPS_END: on_step_end, _EARLIER_STEPS_END: earlier}


def _beyond(order: Order) -> Iterator[tuple[str, Any]]:
    """The fields of the request, with values, that ``order`` sets and no pipeline is given."""
    for each in dataclasses.fields(order):
        value = getattr(order, each.name)
        if each.name in _TAKEN or not value or value in (_PLAIN.get(each.name), each.default):
            continue
        if each.name == "mode":
            yield re.sub(r"(?<!^)(?=[A-Z])", "_", type(value).__name__).lower(), value
        else:
            yield "preview" if each.name == "preview_steps" else each.name, value


def _is_network(component: Any) -> bool:
    return isinstance(component, torch.nn.Module)
