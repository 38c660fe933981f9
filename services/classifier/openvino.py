"""Trunks in OpenVINO, on the processor: converted once, compiled for layers that are asked for."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final

import torch

from services import openvino as runtime
from services.classifier.trunk import FORMAT, Graphs, Runtime, Source, Trunk, tapped
from services.classifier.weights import network_digest
from services.core.artifacts import ArtifactStore

BACKEND: Final = runtime.NAME
FILE: Final = "trunk.xml"


class OpenVinoTrunk:
    """A trunk that was converted to ``path``, whose outputs are the states of all layers."""

    device: Final = torch.device("cpu")

    def __init__(self, path: Path, *, precision: str, threads: int | None) -> None:
        self._options = runtime.options(precision, threads)
        self._model = runtime.read(path)
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
        part = runtime.part(self._model, outputs)
        return runtime.compiled(part, self._options).create_infer_request()

    def _runtime(self, compiled: Any, weights: int) -> Runtime:
        return Runtime(
            backend=BACKEND,
            device="cpu",
            device_name=runtime.device_name(),
            precision=runtime.precision_of(compiled),
            threads=runtime.threads_of(compiled),
            bytes_in_memory=weights,
            extra={BACKEND: runtime.version()},
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
        "openvino": runtime.version(),
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
    model = runtime.converted(source.body, example, [-1, *example.shape[1:]])
    runtime.save(model, target / FILE, half=half)
