"""Trunks in OpenVINO, on the processor: converted once, compiled for layers that are asked for."""

from __future__ import annotations

import gc
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final

import torch

from services.classifier.trunk import FORMAT, Graphs, Runtime, Source, Trunk, tapped
from services.classifier.weights import network_digest
from services.core.artifacts import ArtifactStore

# Its package reports every import and conversion to its makers unless the reporter is missing.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]

import openvino  # noqa: E402

BACKEND: Final = "openvino"
FILE: Final = "trunk.xml"
_HINTS: Final[Mapping[str, str]] = {"float32": "f32", "bfloat16": "bf16"}
_PRECISIONS: Final = {hint: name for name, hint in _HINTS.items()}


class OpenVinoTrunk:
    """A trunk that was converted to ``path``, whose outputs are the states of all layers."""

    device: Final = torch.device("cpu")

    def __init__(self, path: Path, *, precision: str, threads: int | None) -> None:
        self._core = openvino.Core()
        self._options: dict[str, Any] = {
            "INFERENCE_PRECISION_HINT": _HINTS[precision],
            "PERFORMANCE_HINT": "LATENCY",
            "NUM_STREAMS": 1,
            # The other services of this machine share its cores.
            "ENABLE_CPU_PINNING": False,
        }
        if threads is not None:
            self._options["INFERENCE_NUM_THREADS"] = threads
        # Its weights stay in the file, which is mapped.
        self._model = self._core.read_model(path)
        self._graphs: Graphs[Any] | None = Graphs(self._request, len(self._model.outputs) - 1)
        compiled = self._graphs.whole.get_compiled_model()
        self.runtime = self._runtime(compiled, path.with_suffix(".bin").stat().st_size)

    def __call__(self, pixels: torch.Tensor, layers: Sequence[int]) -> Mapping[int, torch.Tensor]:
        assert self._graphs is not None, "it is closed"
        outputs = tapped(layers)
        request = self._graphs.of(outputs)
        found = request.infer([pixels.numpy()], share_inputs=True, share_outputs=True)
        # Copied: the next call writes to the same place.
        return {layer: torch.from_numpy(found[outputs.index(layer)].copy()) for layer in layers}

    def close(self) -> None:
        self._graphs = None
        self._model = None
        gc.collect()

    def bare(self, pixels: torch.Tensor) -> Any:
        """OpenVINO's own call for the last layer, and nothing around it."""
        assert self._graphs is not None, "it is closed"
        return self._graphs.whole.infer([pixels.numpy()], share_inputs=True, share_outputs=True)

    def _request(self, outputs: tuple[int, ...]) -> Any:
        return self._compiled(outputs).create_infer_request()

    def _compiled(self, outputs: tuple[int, ...]) -> Any:
        results = self._model.get_results()
        part = openvino.Model(
            [results[layer] for layer in outputs], self._model.get_parameters(), "trunk"
        )
        return self._core.compile_model(part, "CPU", self._options)

    def _runtime(self, compiled: Any, weights: int) -> Runtime:
        hint = str(compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name())
        return Runtime(
            backend=BACKEND,
            device="cpu",
            device_name=str(self._core.get_property("CPU", "FULL_DEVICE_NAME")),
            precision=_PRECISIONS[hint],
            threads=int(compiled.get_property("INFERENCE_NUM_THREADS")),
            bytes_in_memory=weights,
            extra={"openvino": version()},
        )


def open_trunk(source: Source, *, store: ArtifactStore) -> Trunk:
    """Converts the body the first time, into ``store``."""
    options = source.options
    with stored(source, store, half=options.precision != "float32") as path:
        source.body.forget()
        return OpenVinoTrunk(path, precision=options.precision, threads=options.threads)


@contextmanager
def stored(source: Source, store: ArtifactStore, *, half: bool) -> Iterator[Path]:
    """The file of the body as ``convert`` writes it, made where ``store`` has none."""
    made_of = {
        "format": FORMAT,
        "kind": "classifier's trunk",
        "model": network_digest(source.directory),
        "openvino": version(),
        "size": f"{source.size.height}x{source.size.width}",
        "weights": "float16" if half else "float32",
    }
    with store.artifact(made_of, partial(convert, source, half=half)) as folder:
        yield folder / FILE


def convert(source: Source, target: Path, *, half: bool) -> None:
    """Write ``FILE`` into ``target``. ``half``: with weights as float16; bfloat16, which they
    become, has fewer digits.
    """
    size = source.size
    example = torch.zeros(2, 3, size.height, size.width)
    # The tracer warns of every check of a size, all of which hold for every batch.
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        model = openvino.convert_model(
            source.body, example_input=example, input=[-1, *example.shape[1:]]
        )
    openvino.save_model(model, target / FILE, compress_to_fp16=half)


def version() -> str:
    return str(openvino.get_version())
