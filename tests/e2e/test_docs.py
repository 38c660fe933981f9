"""Every command in the README and in docs/ runs, in the order of its page, on a real stack."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import tritonclient
from tests.e2e.stack import PATIENCE_SECONDS, Stack, up

pytestmark = pytest.mark.timeout(600)
ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def blocks(page: Path, language: str) -> list[str]:
    return [body for kind, body in FENCE.findall(page.read_text()) if kind == language]


def commands(page: Path) -> list[str]:
    lines = "".join(blocks(page, "sh")).replace("\\\n", " ").splitlines()
    return [stripped for line in lines if (stripped := re.sub(r"\s{2,}#.*", "", line).strip())]


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with up(tmp_path_factory.mktemp("stack")) as stack:
        yield stack


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working directory with an `easel` that is this interpreter's, a picture and a mask."""
    folder = tmp_path_factory.mktemp("docs")
    shim = folder / "bin" / "easel"
    shim.parent.mkdir()
    shim.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m easel "$@"\n')
    shim.chmod(0o755)
    shutil.copy(ROOT / "docs" / "demo.png", folder / "picture.png")
    (folder / "docs").mkdir()
    shutil.copy(ROOT / "docs" / "mask.png", folder / "docs")
    return folder


def run(command: list[str], stack: Stack, folder: Path) -> None:
    path = f"{folder / 'bin'}:{os.environ['PATH']}"
    done = subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, "PATH": path, "EASEL_TARGET": stack.target, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_easel_commands(page: Path, stack: Stack, folder: Path) -> None:
    for command in commands(page):
        # The stack under these very tests was started by `easel up`.
        if command.startswith("easel ") and command != "easel up":
            run(["bash", "-c", command], stack, folder)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_python_examples(page: Path, stack: Stack, folder: Path) -> None:
    for example in blocks(page, "python"):
        script = example.replace("127.0.0.1:50050", stack.target)
        python = tritonclient.interpreter() if "tritonclient" in script else sys.executable
        run([python, "-c", script], stack, folder)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_other_commands(page: Path) -> None:
    """`make` is asked what it would do: CI does it. The rest runs where its program is."""
    for command in commands(page):
        program, *arguments = shlex.split(command)
        if program == "make":
            arguments = ["--dry-run", *arguments]
        elif program == "easel" or shutil.which(program) is None:
            continue
        done = subprocess.run(
            [program, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0, f"{command}\n{done.stderr}"


def test_the_pages_have_commands() -> None:
    found = [command for page in PAGES for command in commands(page)]
    assert "make demo" in found
    assert "easel up" in found
