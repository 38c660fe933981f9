"""What a network takes of memory, measured in a process of its own.

``python -m services.classifier.memory DIRECTORY BACKEND PRECISION STORE`` writes by how many bytes
the process grew while it loaded the network and ran it once.
"""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path
from typing import Any, Final, cast

import numpy as np

from services.classifier.backends import ChosenNetwork
from services.classifier.network import Options
from services.core.artifacts import ArtifactStore
from services.core.errors import ModelFault
from services.core.memory import give_back

_STATEMENT: Final = Path("/proc/self/statm")


def resident_in_child(directory: Path, options: Options, store: ArtifactStore) -> int:
    """Bytes, of the network of ``directory`` on what ``options`` say. ``store`` has what is
    converted of it. Raises ``ModelFault`` where the process fails.
    """
    done = subprocess.run(
        [
            *(sys.executable, "-m", "services.classifier.memory"),
            *(str(directory), options.backend, options.precision, str(store.root)),
        ],
        stdout=subprocess.PIPE,
        check=False,
    )
    if done.returncode:
        raise ModelFault(f"The process that was weighed ended with {done.returncode}.")
    return int(done.stdout)


def grown(directory: Path, options: Options, store: ArtifactStore) -> int:
    # The first time libraries are loaded too, which are none of the network's.
    _ready(directory, options, store).close()
    before = _resident()
    network = _ready(directory, options, store)
    after = _resident()
    network.close()
    return max(0, after - before)


def _ready(directory: Path, options: Options, store: ArtifactStore) -> ChosenNetwork:
    """Loaded, and run once."""
    network = ChosenNetwork(options, store)
    size = network.load(directory).preprocessing.input
    blank = np.zeros((size.height, size.width, 3), np.uint8)
    network.run([blank], head=True, readings={})
    return network


def _resident() -> int:
    """Bytes of this process in memory, without what it freed but the allocator keeps."""
    give_back()
    if _STATEMENT.is_file():
        pages = int(_STATEMENT.read_text().split()[1])
        return pages * resource.getpagesize()
    # Elsewhere its peak is all there is to know; kilobytes, on macOS bytes.
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def main(arguments: list[str]) -> None:
    directory, backend, precision, root = arguments
    options = Options("cpu", cast(Any, precision), backend=cast(Any, backend))
    print(grown(Path(directory), options, ArtifactStore(Path(root))))


if __name__ == "__main__":
    main(sys.argv[1:])
