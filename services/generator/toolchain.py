"""What ``torch.compile`` needs of a machine beside PyTorch."""

from __future__ import annotations

import os
import shutil
import subprocess
import sysconfig
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch

from services.core.packages import installed_version

_VERSION: Final = ("-dumpfullversion", "-dumpversion")
_SECONDS: Final = 10.0
_CHOOSES_WITHOUT_MEASURING: Final = (2, 10)
"""The first release whose compiler can be told to: kernels that are chosen by how fast they are
would differ between starts, and so would pictures.
"""


@dataclass(frozen=True, slots=True)
class Toolchain:
    """``pytorch``: its version. ``cxx``: the C++ compiler with its version, for a processor;
    ``cc``: the C compiler, and ``triton``: its version, for a GPU; None where there is none.
    ``headers``: whether there are Python's own.
    """

    pytorch: str = str(torch.__version__)
    cxx: str | None = None
    cc: str | None = None
    triton: str | None = None
    headers: bool = False

    @classmethod
    def here(cls, environ: Mapping[str, str] = os.environ) -> Toolchain:
        """Where PyTorch and Triton look: ``CXX`` or g++, ``CC`` or gcc or clang."""
        cc = environ.get("CC") or shutil.which("gcc") or shutil.which("clang")
        return cls(
            cxx=_compiler(environ.get("CXX", "g++")),
            cc=cc and shutil.which(cc),
            triton=installed_version("triton"),
            headers=(Path(sysconfig.get_path("include")) / "Python.h").is_file(),
        )

    def lacking(self, *, gpu: bool) -> str | None:
        """What there is not and has to be, as an error tells it; None where all is there."""
        release = tuple(int(part) for part in self.pytorch.split(".")[:2])
        if release < _CHOOSES_WITHOUT_MEASURING:
            return f"PyTorch 2.10 or later; this is {self.pytorch}"
        if gpu and self.triton is None:
            return "triton, which comes with PyTorch for CUDA: pip install triton"
        if gpu and self.cc is None:
            return "a C compiler: gcc, clang or what CC names"
        if not gpu and self.cxx is None:
            return "a C++ compiler: g++ or what CXX names"
        if not self.headers:
            return "Python's headers (Python.h), as the package python3-dev has them"
        return None

    def versions(self, *, gpu: bool) -> dict[str, str]:
        """Of what makes the kernels, by name."""
        found = {"triton": self.triton} if gpu else {"c++": self.cxx}
        return {name: version for name, version in found.items() if version is not None}


NO_TOOLS: Final = Toolchain()


def _compiler(name: str) -> str | None:
    path = shutil.which(name)
    if path is None:
        return None
    asked = [path, *_VERSION]
    try:
        told = subprocess.run(
            asked, capture_output=True, text=True, errors="replace", timeout=_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired):  # not a compiler, whatever it is
        return None
    return f"{Path(name).name} {told.stdout.strip()}" if told.returncode == 0 else None
