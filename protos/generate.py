"""Writes the Python stubs of every contract; ``--check`` only compares.

Our own go into ``easel/``, for clients. The Open Inference Protocol's go into
``services/inference/``: other projects' clients register the same names, so that only the servers
may have ours.
"""

from __future__ import annotations

import filecmp
import sys
import tempfile
from pathlib import Path

from grpc_tools import protoc

PROTOS = Path(__file__).resolve().parent
ROOT = PROTOS.parent
PLUGINS = ("protoc-gen-mypy", "protoc-gen-mypy_grpc")
SUFFIXES = ("_pb2.py", "_pb2.pyi", "_pb2_grpc.py", "_pb2_grpc.pyi")
# Where the contracts of a folder here appear to protoc, and so their stubs to Python.
PLACES = {"easel": "easel", "inference": "services/inference"}


def generate(out: Path) -> None:
    """Runs protoc over all contracts; raises SystemExit when it fails."""
    paths = [f"-I{place}={PROTOS / folder}" for folder, place in PLACES.items()]
    contracts = sorted(
        f"{place}/{path.relative_to(PROTOS / folder)}"
        for folder, place in PLACES.items()
        for path in (PROTOS / folder).rglob("*.proto")
    )
    # mypy-protobuf types the calls too; protoc's own --pyi_out leaves them Any.
    plugins = ("python", "grpc_python", "mypy", "mypy_grpc")
    outputs = [f"--{plugin}_out={'quiet:' if 'mypy' in plugin else ''}{out}" for plugin in plugins]
    include = Path(protoc.__file__).parent / "_proto"
    # Beside this interpreter, whose folder need not be on the PATH.
    programs = Path(sys.executable).parent
    found = [f"--plugin={name}={programs / name}" for name in PLUGINS]
    code = protoc.main(["protoc", *paths, f"-I{include}", *found, *outputs, *contracts])
    if code:
        raise SystemExit(code)


def stubs(root: Path) -> set[Path]:
    """Generated files under ``root``, relative to it."""
    return {
        path.relative_to(root)
        for place in PLACES.values()
        for path in (root / place).rglob("*")
        if path.name.endswith(SUFFIXES)
    }


def differences(fresh: Path) -> list[str]:
    """One line for each stub that is missing, left over or out of step."""
    wanted, present = stubs(fresh), stubs(ROOT)
    lines = [f"missing: {path}" for path in sorted(wanted - present)]
    lines += [f"left over: {path}" for path in sorted(present - wanted)]
    lines += [
        f"out of step: {path}"
        for path in sorted(wanted & present)
        if not filecmp.cmp(fresh / path, ROOT / path, shallow=False)
    ]
    return lines


def main(arguments: list[str]) -> int:
    """0 when done or in step, 1 when ``--check`` found differences."""
    if arguments != ["--check"]:
        generate(ROOT)
        return 0
    with tempfile.TemporaryDirectory() as folder:
        generate(Path(folder))
        found = differences(Path(folder))
    for line in found:
        print(line, file=sys.stderr)
    if found:
        print("run `make protos`", file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
