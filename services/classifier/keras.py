"""Trunks in Keras 3, on JAX or on TensorFlow: the vision transformer built anew, of the same
weights.

Keras runs on one of them a process, chosen when it is first imported.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Literal

import numpy as np
import torch

from services.classifier.network import Floats, Options
from services.classifier.preprocessing import Size
from services.classifier.trunk import Runtime, Source, Trunk, tapped
from services.core.errors import FailedPrecondition, OutOfMemory

Engine = Literal["jax", "tensorflow"]
MODEL_TYPES: Final = ("vit", "deit", "vit_msn")
_VARIABLE: Final = "KERAS_BACKEND"
_APPROXIMATE: Final[Mapping[str, bool]] = {
    "gelu": False,
    "gelu_python": False,
    "gelu_new": True,
    "gelu_pytorch_tanh": True,
}
_NO_MEMORY: Final = ("RESOURCE_EXHAUSTED", "Out of memory", "OOM")


class KerasTrunk:
    """One model with an output for each state; parts of it share its weights."""

    device: Final = torch.device("cpu")

    def __init__(self, keras: Any, source: Source, engine: Engine) -> None:
        self._keras = keras
        self._place = _placed(engine, source.options)
        with keras.device(self._place):
            self._model = _built(keras, source)
        self._parts: dict[tuple[int, ...], Any] = {}
        self.runtime = self._runtime(engine, source.options)

    def __call__(self, pixels: torch.Tensor, layers: Sequence[int]) -> Mapping[int, torch.Tensor]:
        outputs = tapped(layers)
        given = pixels.permute(0, 2, 3, 1).contiguous().numpy()
        try:
            with self._keras.device(self._place):
                states = self._part(outputs).predict_on_batch(_padded(given))
        except Exception as error:  # of JAX, of TensorFlow
            if any(told in str(error) for told in _NO_MEMORY):
                raise OutOfMemory from error
            raise
        # Of one output it answers no list.
        found = states if isinstance(states, list | tuple) else [states]
        return {
            layer: torch.from_numpy(
                np.array(found[outputs.index(layer)][: len(given)], dtype=np.float32)
            )
            for layer in layers
        }

    def close(self) -> None:
        self._parts.clear()
        self._model = None

    def _part(self, outputs: tuple[int, ...]) -> Any:
        part = self._parts.get(outputs)
        if part is None:
            states = [self._model.outputs[layer] for layer in outputs]
            part = self._parts[outputs] = self._keras.Model(self._model.inputs, states)
        return part

    def _runtime(self, engine: Engine, options: Options) -> Runtime:
        weights = self._model.weights
        item = 2 if options.precision == "bfloat16" else 4
        return Runtime(
            backend=f"keras-{engine}",
            device=options.device,
            device_name=f"{engine} {self._place}",
            precision=options.precision,
            threads=options.threads or len(os.sched_getaffinity(0)),
            bytes_in_memory=sum(item * int(np.prod(weight.shape)) for weight in weights),
            extra={
                "keras": self._keras.__version__,
                engine: importlib.import_module(engine).__version__,
            },
        )


def open_trunk(source: Source, *, engine: Engine) -> Trunk:
    """Raises ``FailedPrecondition`` for a model that is no plain vision transformer, and where this
    process has Keras on something else.
    """
    check_model(source.model.config)
    _set_threads(engine, source.options.threads)
    trunk = KerasTrunk(_keras(engine), source, engine)
    source.body.forget()
    return trunk


def check_model(config: Any) -> None:
    if config.model_type not in MODEL_TYPES:
        raise FailedPrecondition(
            f"Keras runs models of type {', '.join(MODEL_TYPES)}, not {config.model_type!r}: "
            "say another backend."
        )
    if config.hidden_act not in _APPROXIMATE:
        raise FailedPrecondition(f"Keras runs models of GELU layers, not {config.hidden_act!r}.")


def check_engine(wanted: Engine, imported: str | None) -> None:
    """``imported``: what Keras runs on in this process, None before it is imported."""
    if imported not in (None, wanted):
        raise FailedPrecondition(
            f"Keras runs on {imported} in this process, and cannot run on {wanted} beside it: "
            f"serve the model of backend keras-{wanted} in a process of its own."
        )


def _keras(engine: Engine) -> Any:
    loaded = sys.modules.get("keras")
    check_engine(engine, loaded.backend.backend() if loaded is not None else None)
    os.environ[_VARIABLE] = engine
    keras = importlib.import_module("keras")
    # A file of Keras's own may say something else.
    check_engine(engine, keras.backend.backend())
    return keras


def _set_threads(engine: Engine, threads: int | None) -> None:
    if threads is None:
        return
    if engine == "jax":
        raise FailedPrecondition(
            "JAX takes no number of threads: leave EASEL_CLASSIFIER_THREADS unset."
        )
    importlib.import_module("tensorflow").config.threading.set_intra_op_parallelism_threads(threads)


def _placed(engine: Engine, options: Options) -> str:
    """As Keras says it. Raises ``FailedPrecondition`` for a device that the engine does not see."""
    kind, _, index = options.device.partition(":")
    if kind == "cpu":
        return "cpu:0"
    place = int(index or 0)
    if place >= _gpus(engine):
        raise FailedPrecondition(f"{engine} sees no device {options.device} here.")
    return f"gpu:{place}"


def _gpus(engine: Engine) -> int:
    if engine == "tensorflow":
        return len(importlib.import_module("tensorflow").config.list_physical_devices("GPU"))
    try:
        return len(importlib.import_module("jax").devices("gpu"))
    except RuntimeError:  # none of that platform
        return 0


def _padded(pixels: Floats) -> Floats:
    """To the next power of two of rows: each number of them is compiled by itself."""
    rows = 1 << (len(pixels) - 1).bit_length()
    return np.pad(pixels, ((0, rows - len(pixels)), (0, 0), (0, 0), (0, 0)))


def _built(keras: Any, source: Source) -> Any:
    base, config = source.model.base_model, source.model.config
    builder = _Builder(keras, config, source.options.precision)
    pixels = keras.Input((source.size.height, source.size.width, config.num_channels))
    states = [builder.embedded(pixels, base.embeddings, source.size)]
    for layer in base.layers:
        states.append(builder.layer(states[-1], layer))
    model = keras.Model(pixels, states)
    for assign in builder.assignments:
        assign()
    return model


class _Builder:
    """Keras layers after the PyTorch modules that it is shown; ``assignments`` fill them, once
    there is a model that has given them their shapes.
    """

    def __init__(self, keras: Any, config: Any, precision: str) -> None:
        self.assignments: list[Callable[[], None]] = []
        self._keras = keras
        self._config = config
        self._dtype = precision

    def embedded(self, pixels: Any, embeddings: Any, size: Size) -> Any:
        layers = self._keras.layers
        projection = embeddings.patch_embeddings.projection
        height, width = projection.kernel_size
        convolution = layers.Conv2D(
            projection.out_channels,
            (height, width),
            strides=(height, width),
            padding="valid",
            dtype=self._dtype,
        )
        # [out, in, height, width] to [height, width, in, out]
        self._fill(convolution, projection.weight.permute(2, 3, 1, 0), projection.bias)
        patches = (size.height // height) * (size.width // width)
        tokens = layers.Reshape((patches, projection.out_channels))(convolution(pixels))
        # Tokens that are the same for every picture are added onto zeros.
        table = _table(embeddings)
        before = table.shape[1] - patches
        padded = layers.ZeroPadding1D((before, 0), dtype=self._dtype)(tokens)
        return padded + self._keras.ops.convert_to_tensor(table, dtype=self._dtype)

    def layer(self, hidden: Any, module: Any) -> Any:
        attended = self._attention(self._norm(hidden, module.layernorm_before), module.attention)
        hidden = hidden + attended
        inner = self._dense(self._norm(hidden, module.layernorm_after), module.mlp.fc1)
        approximate = _APPROXIMATE[self._config.hidden_act]
        active = self._keras.ops.gelu(inner, approximate=approximate)
        return hidden + self._dense(active, module.mlp.fc2)

    def _attention(self, hidden: Any, module: Any) -> Any:
        tokens, heads, size = hidden.shape[1], module.num_attention_heads, module.head_dim
        split = self._keras.layers.Reshape((tokens, heads, size))
        query, key, value = (
            split(self._dense(hidden, projection))
            for projection in (module.q_proj, module.k_proj, module.v_proj)
        )
        attended = self._keras.ops.dot_product_attention(query, key, value, scale=module.scaling)
        merged = self._keras.layers.Reshape((tokens, heads * size))(attended)
        return self._dense(merged, module.o_proj)

    def _norm(self, hidden: Any, module: Any) -> Any:
        norm = self._keras.layers.LayerNormalization(epsilon=module.eps, dtype=self._dtype)
        self._fill(norm, module.weight, module.bias)
        return norm(hidden)

    def _dense(self, hidden: Any, module: Any) -> Any:
        dense = self._keras.layers.Dense(
            module.out_features, use_bias=module.bias is not None, dtype=self._dtype
        )
        self._fill(dense, module.weight.T, module.bias)
        return dense(hidden)

    def _fill(self, layer: Any, *weights: torch.Tensor | None) -> None:
        def assign() -> None:
            layer.set_weights([_array(weight) for weight in weights if weight is not None])

        self.assignments.append(assign)


def _table(embeddings: Any) -> Floats:
    """[1, tokens, hidden]: positions, and on the first of them the tokens of every picture."""
    table = embeddings.position_embeddings.detach().clone()
    table[:, 0] += embeddings.cls_token.detach()[:, 0]
    distillation = getattr(embeddings, "distillation_token", None)
    if distillation is not None:
        table[:, 1] += distillation.detach()[:, 0]
    return _array(table)


def _array(tensor: torch.Tensor) -> Floats:
    array: Floats = tensor.detach().float().contiguous().numpy()
    return array
