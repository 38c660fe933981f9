"""Networks that the ranker runs itself, in ONNX Runtime; the library comes with the first of them.

Opening and running block: a service does both in threads of its own. A network may run in several
threads at once.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from services.core.errors import FailedPrecondition, ModelFault

log = logging.getLogger("easel.ranker")

ProviderName: TypeAlias = Literal["cpu", "cuda", "tensorrt"]
PROVIDERS: Final[Mapping[ProviderName, str]] = MappingProxyType(
    {
        "cpu": "CPUExecutionProvider",
        "cuda": "CUDAExecutionProvider",
        "tensorrt": "TensorrtExecutionProvider",
    }
)
EXTRA: Final = "meaning"
# It computes shapes, whatever else there is, and so is always in force.
_LAST: Final = PROVIDERS["cpu"]
_ERRORS_ONLY: Final = 3
_DTYPES: Final[Mapping[str, np.dtype[Any]]] = MappingProxyType(
    {
        f"tensor({told})": np.dtype(kind)
        for told, kind in (
            ("float", "float32"),
            ("float16", "float16"),
            ("double", "float64"),
            ("int64", "int64"),
            ("int32", "int32"),
            ("uint8", "uint8"),
            ("bool", "bool"),
        )
    }
)

Importer = Callable[[str], Any]


@dataclass(frozen=True, slots=True)
class Runtime:
    """Where a network runs. ``providers``: each has to be there, the first takes what it can.
    ``threads``: of one run, at least 1."""

    providers: tuple[ProviderName, ...] = ("cpu",)
    threads: int = 1


@dataclass(frozen=True, slots=True)
class Port:
    """An input or output. ``shape`` has None for a side that is free."""

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int | None, ...]


class Network:
    """An opened network: arrays by the names of its inputs in, by those of its outputs out."""

    def __init__(self, title: str, session: Any) -> None:
        self.title = title
        self.inputs = {port.name: port for port in _ports(title, session.get_inputs())}
        self.outputs = {port.name: port for port in _ports(title, session.get_outputs())}
        self._session = session

    def run(
        self, given: Mapping[str, NDArray[Any]], wanted: Sequence[str] = ()
    ) -> dict[str, NDArray[Any]]:
        """The outputs ``wanted``, all of them when empty. Inputs are cast to what it reads;
        those it has no use for are passed over.

        Raises ModelFault where it cannot be run on them; the cause is in the log.
        """
        names = list(wanted or self.outputs)
        try:
            # A name that is missing here fails as a shape that does not fit would.
            fed = {
                name: np.ascontiguousarray(given[name], port.dtype)
                for name, port in self.inputs.items()
            }
            return dict(zip(names, self._session.run(names, fed), strict=True))
        except Exception as error:  # the library's own have no base beyond this one
            log.exception("%s could not be run", self.title)
            raise ModelFault(f"The network {self.title} could not be run.") from error

    def need(self, *, inputs: Sequence[str] = (), outputs: Sequence[str] = ()) -> None:
        """Raises FailedPrecondition unless it reads exactly some of ``inputs``, and has all of
        ``outputs``."""
        for kind, odd in (
            ("reads", [name for name in self.inputs if name not in inputs]),
            ("does not tell", [name for name in outputs if name not in self.outputs]),
        ):
            if odd:
                raise FailedPrecondition(
                    f"The network {self.title} {kind} {', '.join(odd)}: it is of another kind."
                )


def open_network(
    path: Path, runtime: Runtime | None = None, *, importer: Importer = import_module
) -> Network:
    """The network of an ``.onnx`` file, with weights in it or in files beside it.

    Raises FailedPrecondition where the file, the library or a provider that is wanted is missing,
    or the file is no network.
    """
    runtime = runtime or Runtime()
    title = f"{path.parent.name}/{path.name}"
    if not path.is_file():
        raise FailedPrecondition(f"There is no file {title}.")
    library = need_library("onnxruntime", importer)
    names = [PROVIDERS[name] for name in runtime.providers]
    if missing := [name for name in names if name not in library.get_available_providers()]:
        raise FailedPrecondition(f"ONNX Runtime has no {', '.join(missing)} here, for {title}.")
    try:
        session = library.InferenceSession(
            str(path), _settings(library, runtime.threads), providers=names
        )
    except Exception as error:  # as above
        log.exception("%s could not be opened", title)
        raise FailedPrecondition(f"{title} could not be opened as an ONNX network.") from error
    session.disable_fallback()
    in_force = session.get_providers()
    # Where a device is missing the library only warns, and goes on with the next provider.
    if in_force[: len(names)] != names or set(in_force) - {*names, _LAST}:
        raise FailedPrecondition(
            f"{title} runs on {', '.join(in_force)}, not on {', '.join(names)}: "
            "their libraries or devices are missing."
        )
    return Network(title, session)


def need_library(name: str, importer: Importer = import_module) -> Any:
    """The module ``name``. Raises FailedPrecondition, saying what brings it."""
    try:
        return importer(name)
    except ImportError as error:
        raise FailedPrecondition(
            f"{name} is not installed: pip install 'easel[ranker,{EXTRA}]'."
        ) from error


def _settings(library: Any, threads: int) -> Any:
    settings = library.SessionOptions()
    # Left to itself it counts the machine's cores, not the process's.
    settings.intra_op_num_threads = threads
    settings.inter_op_num_threads = 1
    settings.log_severity_level = _ERRORS_ONLY
    # The other services of this machine share its cores.
    settings.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return settings


def _ports(title: str, told: Sequence[Any]) -> list[Port]:
    if strange := [port.type for port in told if port.type not in _DTYPES]:
        raise FailedPrecondition(f"The network {title} has ports of {', '.join(strange)}.")
    return [
        Port(
            port.name,
            _DTYPES[port.type],
            tuple(side if isinstance(side, int) else None for side in port.shape),
        )
        for port in told
    ]
