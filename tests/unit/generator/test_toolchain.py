import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from services.generator.toolchain import Toolchain

WHOLE = Toolchain(
    cxx="g++ 12.2.0",
    cc="/usr/bin/gcc",
    triton="3.6.0",
    headers=True,
)


@pytest.mark.parametrize(
    ("here", "gpu", "told"),
    [
        (WHOLE, False, None),
        (WHOLE, True, None),
        (replace(WHOLE, triton=None, cc=None), False, None),
        (replace(WHOLE, cxx=None), True, None),
        (replace(WHOLE, cxx=None), False, "a C++ compiler: g++ or what CXX names"),
        (replace(WHOLE, cc=None), True, "a C compiler: gcc, clang or what CC names"),
        (replace(WHOLE, triton=None), True, "triton, which comes with PyTorch for CUDA"),
        (replace(WHOLE, headers=False), True, "Python's headers"),
        (replace(WHOLE, headers=False), False, "Python's headers"),
        (replace(WHOLE, pytorch="2.9.1"), True, "PyTorch 2.10 or later; this is 2.9.1"),
        (replace(WHOLE, pytorch="2.10.0+cu130"), True, None),
        (replace(WHOLE, pytorch="2.11.0"), False, None),
    ],
)
def test_what_is_lacking(here: Toolchain, gpu: bool, told: str | None) -> None:
    lacking = here.lacking(gpu=gpu)
    assert lacking is None if told is None else str(lacking).startswith(told)


def test_records_name_what_makes_the_kernels() -> None:
    assert WHOLE.versions(gpu=False) == {"c++": "g++ 12.2.0"}
    assert WHOLE.versions(gpu=True) == {"triton": "3.6.0"}


def test_what_this_machine_has() -> None:
    found = Toolchain.here({})
    assert (found.cxx is None) == (shutil.which("g++") is None)
    assert found.cxx is None or found.cxx.startswith("g++ ")


def test_the_environment_names_other_compilers(tmp_path: Path) -> None:
    compiler = tmp_path / "mine++"
    compiler.write_text("#!/bin/sh\necho 99.1\n")
    compiler.chmod(0o755)
    found = Toolchain.here({"CXX": str(compiler), "CC": str(tmp_path / "nothing")})
    assert found.cxx == "mine++ 99.1"
    assert found.cc is None


@pytest.mark.parametrize("text", ["#!/bin/sh\nexit 1\n", "no program at all"])
def test_a_compiler_that_cannot_run_is_none(tmp_path: Path, text: str) -> None:
    compiler = tmp_path / "broken++"
    compiler.write_text(text)
    compiler.chmod(0o755)
    assert Toolchain.here({"CXX": str(compiler)}).cxx is None
