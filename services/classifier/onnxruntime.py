"""Trunks in ONNX Runtime: exported once, and a session for the layers that are asked for."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final

import onnx
import onnxruntime
import torch

from services.classifier.network import Options, ProviderName
from services.classifier.trunk import FORMAT, Body, Graphs, Runtime, Source, Trunk, tapped
from services.classifier.weights import network_digest
from services.core.artifacts import ArtifactStore
from services.core.errors import FailedPrecondition, OutOfMemory

BACKEND: Final = "onnxruntime"
FILE: Final = "trunk.onnx"
INPUT: Final = "pixels"
NAMES: Final[Mapping[ProviderName, str]] = {
    "tensorrt": "TensorrtExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "cpu": "CPUExecutionProvider",
}
# It is where shapes are computed, whatever else there is, and so is always in force.
_LAST: Final = NAMES["cpu"]
_ERRORS_ONLY: Final = 3
_WEIGHTS_FOLDER: Final = "session.model_external_initializers_file_folder_path"
_NO_MEMORY: Final = ("Failed to allocate memory", "out of memory", "bad_alloc")


class OnnxTrunk:
    """A trunk that was exported to ``path``, whose outputs are the states of all layers."""

    device: Final = torch.device("cpu")

    def __init__(
        self,
        path: Path,
        *,
        providers: Sequence[ProviderName],
        options: Options,
        held: ExitStack | None = None,
    ) -> None:
        """``held`` is closed with the trunk: the files have to be there until then."""
        self._held = held or ExitStack()
        self._providers = providers
        self._device = options.device
        self._settings = _settings(path, options)
        # Weights that lie beside it are read by the sessions.
        self._model: onnx.ModelProto | None = onnx.load(path, load_external_data=False)
        self._names = [port.name for port in self._model.graph.output]
        self._graphs: Graphs[Any] | None = Graphs(self._session, len(self._names) - 1)
        in_force = self._graphs.whole.get_providers()
        self.runtime = Runtime(
            backend=BACKEND,
            device="cpu" if providers[0] == "cpu" else options.device,
            device_name=f"{onnxruntime.get_device()} {in_force[0]}",
            precision="float32",
            threads=self._settings.intra_op_num_threads,
            bytes_in_memory=_weights(path).stat().st_size,
            extra={"onnxruntime": onnxruntime.__version__, "providers": ", ".join(in_force)},
        )

    def __call__(self, pixels: torch.Tensor, layers: Sequence[int]) -> Mapping[int, torch.Tensor]:
        assert self._graphs is not None, "it is closed"
        session = self._graphs.of(tapped(layers))
        names = [self._names[layer] for layer in layers]
        try:
            states = session.run(names, {INPUT: pixels.numpy()})
        except Exception as error:  # its own have no base beyond this one
            if any(told in str(error) for told in _NO_MEMORY):
                raise OutOfMemory from error
            raise
        return {layer: torch.from_numpy(state) for layer, state in zip(layers, states, strict=True)}

    def close(self) -> None:
        self._graphs = None
        self._model = None
        self._held.close()

    def _session(self, outputs: tuple[int, ...]) -> Any:
        """A session runs all that its graph has, whatever is asked of it: so one for each part."""
        assert self._model is not None, "it is closed"
        session = onnxruntime.InferenceSession(
            part(self._model, [self._names[layer] for layer in outputs]),
            self._settings,
            providers=_arguments(self._providers, self._device),
        )
        session.disable_fallback()
        check_in_force(self._providers, session.get_providers())
        return session


def open_trunk(source: Source, *, store: ArtifactStore) -> Trunk:
    """Exports the body the first time, into ``store``.

    Raises ``FailedPrecondition`` where a provider that is wanted is not to be had.
    """
    providers = wanted_providers(source.options)
    check_available(providers, onnxruntime.get_available_providers())
    with ExitStack() as held:
        path = held.enter_context(stored(source, store))
        source.body.forget()
        return OnnxTrunk(path, providers=providers, options=source.options, held=held.pop_all())


@contextmanager
def stored(source: Source, store: ArtifactStore) -> Iterator[Path]:
    """The file of the body as ``export`` writes it, made where ``store`` has none."""
    made_of = {
        "format": FORMAT,
        "kind": "classifier's trunk",
        "model": network_digest(source.directory),
        "onnx": "torch " + torch.__version__,
        "size": f"{source.size.height}x{source.size.width}",
        "weights": "float32",
    }
    with store.artifact(made_of, partial(export, source)) as folder:
        yield folder / FILE


def wanted_providers(options: Options) -> tuple[ProviderName, ...]:
    """Raises ``FailedPrecondition`` where ``device`` and ``providers`` say different things."""
    on_gpu = options.device.startswith("cuda")
    if not options.providers:
        return ("cuda",) if on_gpu else ("cpu",)
    if on_gpu == (options.providers[0] == "cpu"):
        raise FailedPrecondition(
            f"Provider {options.providers[0]} does not run on device {options.device}."
        )
    return options.providers


def check_available(wanted: Sequence[ProviderName], available: Sequence[str]) -> None:
    """Raises ``FailedPrecondition`` for a provider that this build of ONNX Runtime lacks."""
    missing = [name for name in wanted if NAMES[name] not in available]
    if missing:
        raise FailedPrecondition(
            f"ONNX Runtime has no provider {', '.join(missing)} here: "
            "pip install 'easel[classifier,onnxruntime-gpu]' in place of onnxruntime, or say "
            "device cpu."
        )


def check_in_force(wanted: Sequence[ProviderName], in_force: Sequence[str]) -> tuple[str, ...]:
    """``in_force``, if it begins with what was wanted. ONNX Runtime itself only warns, and goes on
    with the next provider. Raises ``FailedPrecondition``.
    """
    names = [NAMES[name] for name in wanted]
    if list(in_force[: len(names)]) != names or set(in_force) - {*names, _LAST}:
        raise FailedPrecondition(
            f"ONNX Runtime runs the model on {', '.join(in_force)}, "
            f"not on {', '.join(names)}: their libraries or devices are missing."
        )
    return tuple(in_force)


def _arguments(providers: Sequence[ProviderName], device: str) -> list[tuple[str, dict[str, Any]]]:
    _, _, index = device.partition(":")
    given = {"device_id": int(index or 0)}
    return [(NAMES[name], {} if name == "cpu" else given) for name in providers]


def part(model: onnx.ModelProto, names: Sequence[str]) -> bytes:
    """What makes the outputs ``names`` of ``model``, as a model of its own."""
    graph = model.graph
    needed, kept = set(names), []
    # Nodes stand in an order in which they can run.
    for node in reversed(graph.node):
        if needed.intersection(node.output):
            kept.append(node)
            needed.update(_inputs(node))
    found = onnx.ModelProto()
    found.CopyFrom(model)
    _keep(found.graph.node, kept[::-1])
    _keep(found.graph.initializer, [each for each in graph.initializer if each.name in needed])
    _keep(found.graph.output, [each for each in graph.output if each.name in names])
    return bytes(found.SerializeToString())


def _keep(field: Any, wanted: Sequence[Any]) -> None:
    del field[:]
    field.extend(wanted)


def _inputs(node: onnx.NodeProto) -> Iterator[str]:
    """Those of its branches too, which may read whatever is outside."""
    yield from node.input
    for attribute in node.attribute:
        for inner in attribute.g.node:
            yield from _inputs(inner)
        yield from (output.name for output in attribute.g.output)


def _settings(path: Path, options: Options) -> Any:
    settings = onnxruntime.SessionOptions()
    # Left to itself it counts the machine's cores, not the process's.
    settings.intra_op_num_threads = options.threads or torch.get_num_threads()
    settings.inter_op_num_threads = 1
    settings.log_severity_level = _ERRORS_ONLY
    # The other services of this machine share its cores.
    settings.add_session_config_entry("session.intra_op.allow_spinning", "0")
    settings.add_session_config_entry(_WEIGHTS_FOLDER, str(path.parent))
    return settings


def _weights(path: Path) -> Path:
    """Beside the graph, or in it."""
    beside = path.with_name(f"{path.name}.data")
    return beside if beside.is_file() else path


def export(source: Source, target: Path) -> None:
    size = source.size
    names = [f"state_{layer}" for layer in range(source.body.depth + 1)]
    # Exported programs keep what gradients would need unless told otherwise.
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            source.body,
            (torch.zeros(2, 3, size.height, size.width),),
            input_names=[INPUT],
            output_names=names,
            dynamic_shapes=({0: torch.export.Dim("batch", min=1, max=65536)},),
            dynamo=True,
            verbose=False,
        )
    assert program is not None, "the exporter of torch.export answers one"
    # Beside the graph: a protobuf holds 2 GB at most.
    program.save(str(target / FILE), external_data=True)
    _check_free_batch(program, source.body)


def _check_free_batch(program: Any, body: Body) -> None:
    """An exporter that could not keep the batch free fixes it to the example's without a word."""
    inputs = program.model.graph.inputs
    if isinstance(inputs[0].shape[0], int):
        raise FailedPrecondition(
            f"{type(body).__name__} of this model does not export with a free batch."
        )
