"""The PyTorch backend: vision transformers as transformers loads them, from safetensors alone."""

from __future__ import annotations

import contextlib
import platform
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from transformers import AutoConfig, AutoModelForImageClassification
from transformers.utils.logging import disable_progress_bar

from services.classifier.network import Floats, Options, Pass, Pooling, Precision, Reading, Traits
from services.classifier.preprocessing import Pixels, Preprocessing, read_preprocessing
from services.core.errors import FailedPrecondition, NotFound, OutOfMemory

# Networks of embeddings, equal layers, one norm and a linear head on the class token.
MODEL_TYPES: Final = ("vit", "deit", "vit_msn")
_DTYPES: Final = {"float32": torch.float32, "bfloat16": torch.bfloat16}


class TorchNetwork:
    """A ``Network`` from a directory in the Hugging Face layout."""

    def __init__(self, options: Options | None = None) -> None:
        self._options = options or Options()
        self._model: Any = None
        self._device = torch.device("cpu")
        self._dtype = torch.float32
        self._normal: Normal | None = None
        self._grid = (0, 0)

    def load(self, directory: Path) -> Traits:
        if self._options.threads is not None:
            torch.set_num_threads(self._options.threads)
        self._device = chosen_device(self._options.device)
        self._dtype = _chosen_dtype(self._options.precision, self._device)
        preprocessing = read_preprocessing(directory)
        self._model = load_model(directory).to(self._device)
        # The norm and the head stay in float32: rounded logits would tie.
        self._model.base_model.embeddings.to(self._dtype)
        self._model.base_model.layers.to(self._dtype)
        self._normal = Normal(preprocessing, self._device)
        self._grid = _checked_grid(self._model.config, preprocessing)
        return self._traits(preprocessing)

    @torch.inference_mode()
    def run(
        self, pixels: Sequence[Pixels], *, head: bool, readings: Mapping[Reading, Sequence[int]]
    ) -> Pass:
        with memory_faults():
            return self._run(pixels, head, readings)

    def close(self) -> None:
        self._model = None
        self._normal = None
        if self._device.type == "cuda":
            torch.cuda.empty_cache()

    def _run(
        self, pixels: Sequence[Pixels], head: bool, readings: Mapping[Reading, Sequence[int]]
    ) -> Pass:
        assert self._normal is not None, "load() comes first"
        base = self._model.base_model
        depth = len(base.layers)
        deepest = depth if head else max(reading.layer for reading in readings)
        vectors: dict[Reading, Floats] = {}
        hidden = base.embeddings(self._normal(pixels).to(self._dtype))
        for layer in range(deepest + 1):
            if layer > 0:
                hidden = base.layers[layer - 1](hidden, None)
            for reading, rows in readings.items():
                if reading.layer == layer:
                    vectors[reading] = self._read(hidden, reading, rows)
        return Pass(self._logits(hidden) if head else None, vectors)

    def _logits(self, hidden: torch.Tensor) -> Floats:
        normed = self._model.base_model.layernorm(hidden[:, 0].float())
        return _to_numpy(self._model.classifier(normed))

    def _read(self, hidden: torch.Tensor, reading: Reading, rows: Sequence[int]) -> Floats:
        chosen = hidden if len(rows) == len(hidden) else hidden[list(rows)]
        if reading.pooling is Pooling.CLS:
            return _to_numpy(self._normed(chosen[:, 0], reading))
        patches = self._grid[0] * self._grid[1]
        tokens = self._normed(chosen[:, -patches:], reading)
        if reading.pooling is Pooling.MEAN:
            return _to_numpy(tokens.mean(dim=1))
        return _to_numpy(tokens.view(len(tokens), *self._grid, -1))

    def _normed(self, tokens: torch.Tensor, reading: Reading) -> torch.Tensor:
        floats = tokens.float()
        if not reading.final_norm:
            return floats
        normed: torch.Tensor = self._model.base_model.layernorm(floats)
        return normed

    def _traits(self, preprocessing: Preprocessing) -> Traits:
        config = self._model.config
        weights = list(self._model.parameters())
        return Traits(
            architecture=type(self._model).__name__,
            labels=tuple(str(config.id2label[index]) for index in range(config.num_labels)),
            multi_label=config.problem_type == "multi_label_classification",
            preprocessing=preprocessing,
            patch_size=config.patch_size,
            rows=self._grid[0],
            columns=self._grid[1],
            depth=len(self._model.base_model.layers),
            hidden_size=config.hidden_size,
            parameters=sum(weight.numel() for weight in weights),
            bytes_in_memory=sum(weight.numel() * weight.element_size() for weight in weights),
            backend="pytorch",
            device=str(self._device),
            device_name=_device_name(self._device),
            precision=str(self._dtype).removeprefix("torch."),
            threads=torch.get_num_threads(),
            extra={"attention": config._attn_implementation, "torch": torch.__version__},
        )


class Normal:
    """The arithmetic after ``Preprocessing``, on the device: float32 [batch, 3, height, width]."""

    def __init__(self, preprocessing: Preprocessing, device: torch.device) -> None:
        self._device = device
        self._scale = preprocessing.scale
        self._mean = torch.tensor(preprocessing.mean, device=device).view(1, 3, 1, 1)
        self._std = torch.tensor(preprocessing.std, device=device).view(1, 3, 1, 1)

    def __call__(self, pixels: Sequence[Pixels]) -> torch.Tensor:
        batch = torch.from_numpy(np.stack(pixels)).to(self._device)
        floats = batch.permute(0, 3, 1, 2).to(torch.float32, memory_format=torch.contiguous_format)
        return floats.mul_(self._scale).sub_(self._mean).div_(self._std)


def bfloat16_computes(device: torch.device) -> bool:
    """Whether ``device`` has instructions for bfloat16; emulating it is slower than float32."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if platform.machine() in ("x86_64", "AMD64"):
        return bool(torch.cpu._is_avx512_bf16_supported())
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def chosen_device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
    device = torch.device(name)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise FailedPrecondition(f"This server has no device {name}.")
    return device


def _chosen_dtype(precision: Precision, device: torch.device) -> torch.dtype:
    if precision == "auto":
        precision = "bfloat16" if bfloat16_computes(device) else "float32"
    return _DTYPES[precision]


def load_model(directory: Path) -> Any:
    """In float32, on the processor."""
    if not (directory / "config.json").is_file():
        raise NotFound("The model's directory has no config.json.")
    if not any(directory.glob("*.safetensors")):
        raise FailedPrecondition("The model has no safetensors file; other formats are not loaded.")
    config = AutoConfig.from_pretrained(directory, local_files_only=True, trust_remote_code=False)
    if config.model_type not in MODEL_TYPES:
        raise FailedPrecondition(
            f"Models of type {config.model_type} are not served; these are: {MODEL_TYPES}."
        )
    disable_progress_bar()
    model, loading = AutoModelForImageClassification.from_pretrained(
        directory,
        config=config,
        dtype=torch.float32,
        attn_implementation="sdpa",
        use_safetensors=True,
        local_files_only=True,
        trust_remote_code=False,
        output_loading_info=True,
    )
    # transformers fills missing weights with random numbers and only warns.
    if loading["missing_keys"]:
        raise FailedPrecondition(f"The model lacks weights: {sorted(loading['missing_keys'])}.")
    return model.eval()


def _checked_grid(config: Any, preprocessing: Preprocessing) -> tuple[int, int]:
    """Rows and columns of patches."""
    size = preprocessing.input
    sides = config.image_size
    height, width = sides if isinstance(sides, list | tuple) else (sides, sides)
    if (height, width) != (size.height, size.width):
        raise FailedPrecondition(
            f"The network takes {height}x{width}, "
            f"its preprocessing makes {size.height}x{size.width}."
        )
    return height // config.patch_size, width // config.patch_size


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}"


def _to_numpy(tensor: torch.Tensor) -> Floats:
    array: Floats = tensor.cpu().numpy()
    return array


@contextlib.contextmanager
def memory_faults() -> Iterator[None]:
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise OutOfMemory from error
    except RuntimeError as error:
        if "can't allocate memory" in str(error):
            raise OutOfMemory from error
        raise
