"""The PyTorch backend: image classifiers as transformers loads them, from safetensors alone."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from transformers import AutoConfig, AutoModelForImageClassification
from transformers.utils.logging import disable_progress_bar

from services import bfloat16
from services.accelerator import chosen_device, finish, keep_digits, placed, watched
from services.classifier.families import Family, family_of, opened, sides
from services.classifier.network import Floats, Options, Pass, Precision, Reading, Traits
from services.classifier.preprocessing import Pixels, Preprocessing, read_preprocessing
from services.classifier.trunk import Body, OpenTrunk, Runtime, Source, Trunk
from services.classifier.weights import check_weights
from services.core.errors import FailedPrecondition, NotFound
from services.memory import memory_faults

BACKEND: Final = "pytorch"
_DTYPES: Final = {"float32": torch.float32, "bfloat16": torch.bfloat16}


class TorchNetwork:
    """A ``Network`` from a directory in the Hugging Face layout.

    ``open_trunk`` opens all that lies before the last norm; PyTorch's own when None.
    """

    def __init__(self, options: Options | None = None, open_trunk: OpenTrunk | None = None) -> None:
        self._options = options or Options()
        self._open_trunk = open_trunk or open_eager
        self._family: Family | None = None
        self._trunk: Trunk | None = None
        self._normal: Normal | None = None

    def load(self, directory: Path) -> Traits:
        if self._options.threads is not None:
            torch.set_num_threads(self._options.threads)
        own, side = read_preprocessing(directory), self._options.image_size
        preprocessing = own if side is None else own.at(side)
        model = load_model(directory)
        family = opened(model, preprocessing.input, wanted=preprocessing.input != own.input)
        trunk = self._open_trunk(
            Source(directory, model, Body(family), preprocessing.input, self._options)
        )
        if trunk.device.type != "cpu":
            model.to(trunk.device)
        self._family, self._trunk = family, trunk
        self._normal = Normal(preprocessing, trunk.device)
        return _traits(family, preprocessing, trunk.runtime)

    @torch.inference_mode()
    def run(
        self, pixels: Sequence[Pixels], *, head: bool, readings: Mapping[Reading, Sequence[int]]
    ) -> Pass:
        assert self._trunk is not None, "load() comes first"
        with watched(partial(finish, self._trunk.device)), memory_faults():
            return self._run(pixels, head, readings)

    def close(self) -> None:
        trunk, self._trunk = self._trunk, None
        self._family = None
        self._normal = None
        if trunk is not None:
            trunk.close()

    def _run(
        self, pixels: Sequence[Pixels], head: bool, readings: Mapping[Reading, Sequence[int]]
    ) -> Pass:
        family, trunk, normal = self._family, self._trunk, self._normal
        assert family is not None, "load() comes first"
        assert trunk is not None, "load() comes first"
        assert normal is not None, "load() comes first"
        layers = {reading.layer for reading in readings}
        if head:
            layers.add(family.depth)
        states = trunk(normal(pixels), sorted(layers))
        vectors = {}
        for reading, rows in readings.items():
            hidden = states[reading.layer]
            chosen = hidden if len(rows) == len(hidden) else hidden[list(rows)]
            vectors[reading] = _to_numpy(family.read(chosen, reading))
        return Pass(_to_numpy(family.logits(states[family.depth])) if head else None, vectors)


def _traits(family: Family, preprocessing: Preprocessing, runtime: Runtime) -> Traits:
    config = family.model.config
    weights = list(family.model.parameters())
    here = sum(weight.nbytes for weight in weights if not weight.is_meta)
    last = family.shapes[-1]
    return Traits(
        architecture=type(family.model).__name__,
        labels=tuple(str(config.id2label[index]) for index in range(config.num_labels)),
        multi_label=config.problem_type == "multi_label_classification",
        preprocessing=preprocessing,
        patch_size=sides(config.patch_size)[0],
        rows=last.rows,
        columns=last.columns,
        depth=family.depth,
        hidden_size=last.hidden,
        parameters=sum(weight.numel() for weight in weights),
        bytes_in_memory=here + runtime.bytes_in_memory,
        backend=runtime.backend,
        device=runtime.device,
        device_name=runtime.device_name,
        precision=runtime.precision,
        threads=runtime.threads,
        extra={"torch": torch.__version__, **runtime.extra},
        poolings=family.poolings,
        shapes=family.shapes,
    )


class EagerTrunk:
    """PyTorch's own, layer by layer."""

    def __init__(
        self, body: Body, device: torch.device, dtype: torch.dtype, runtime: Runtime
    ) -> None:
        self.device = device
        self.runtime = runtime
        self._body = body
        self._dtype = dtype

    def __call__(self, pixels: torch.Tensor, layers: Sequence[int]) -> Mapping[int, torch.Tensor]:
        wanted = frozenset(layers)
        states = enumerate(self._body.states(pixels.to(self._dtype)))
        return {layer: state for layer, state in islice(states, layers[-1] + 1) if layer in wanted}

    def close(self) -> None:
        self._body.forget()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()


def open_eager(source: Source) -> Trunk:
    """Raises ``FailedPrecondition`` for a device that is not here."""
    options = source.options
    device = chosen_device(options.device)
    dtype = _chosen_dtype(options.precision, device)
    keep_digits(device, dtype)
    # The norm and the head stay in float32: rounded logits would tie.
    body = source.body.to(device, dtype)
    if options.compiled:
        for layer in body.layers:
            # Equal layers share what is compiled once, and a pass may still end after any.
            layer.compile(dynamic=True)
    runtime = Runtime(
        backend=BACKEND,
        device=str(device),
        device_name=_device_name(device),
        precision=str(dtype).removeprefix("torch."),
        threads=torch.get_num_threads(),
        extra={
            "attention": source.model.config._attn_implementation,
            "compiled": str(options.compiled).lower(),
        },
    )
    return EagerTrunk(body, device, dtype, runtime)


class Normal:
    """The arithmetic after ``Preprocessing``, on the device: float32 [batch, 3, height, width]."""

    def __init__(self, preprocessing: Preprocessing, device: torch.device) -> None:
        self._device = device
        self._scale = preprocessing.scale
        self._mean = torch.tensor(preprocessing.mean, device=device).view(1, 3, 1, 1)
        self._std = torch.tensor(preprocessing.std, device=device).view(1, 3, 1, 1)

    def __call__(self, pixels: Sequence[Pixels]) -> torch.Tensor:
        # Where a GPU copies it from by itself, which also is quicker.
        pinned = self._device.type == "cuda"
        batch = torch.empty((len(pixels), *pixels[0].shape), dtype=torch.uint8, pin_memory=pinned)
        np.stack(pixels, out=batch.numpy())
        floats = (
            placed(batch, self._device)
            .permute(0, 3, 1, 2)
            .to(torch.float32, memory_format=torch.contiguous_format)
        )
        return floats.mul_(self._scale).sub_(self._mean).div_(self._std)


def _chosen_dtype(precision: Precision, device: torch.device) -> torch.dtype:
    if precision == "auto":
        precision = "bfloat16" if bfloat16.pays(device) else "float32"
    return _DTYPES[precision]


def load_model(directory: Path) -> Any:
    """The model in ``directory`` as transformers has it: in float32, on the processor.

    Raises ``NotFound`` or ``FailedPrecondition`` where its files cannot be served.
    """
    if not (directory / "config.json").is_file():
        raise NotFound("The model's directory has no config.json.")
    check_weights(directory)
    config = _read_config(directory)
    disable_progress_bar()
    model, loading = AutoModelForImageClassification.from_pretrained(
        directory,
        config=config,
        dtype=torch.float32,
        attn_implementation="sdpa" if family_of(config.model_type).sdpa else "eager",
        use_safetensors=True,
        local_files_only=True,
        trust_remote_code=False,
        output_loading_info=True,
    )
    # transformers fills missing weights with random numbers and only warns.
    if loading["missing_keys"]:
        raise FailedPrecondition(f"The model lacks weights: {sorted(loading['missing_keys'])}.")
    return model.eval()


def _read_config(directory: Path) -> Any:
    try:
        config = AutoConfig.from_pretrained(
            directory, local_files_only=True, trust_remote_code=False
        )
    except ValueError as error:  # transformers knows no such model
        raise FailedPrecondition("The model's config.json names no known model_type.") from error
    family_of(config.model_type)
    if config.problem_type == "regression" or config.num_labels < 1:
        raise FailedPrecondition("The model has no labels: it is no classifier.")
    return config


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}"


def _to_numpy(tensor: torch.Tensor) -> Floats:
    array: Floats = tensor.cpu().numpy()
    return array
