"""The Makefile and the import contracts do what they say."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
PROGRAM = "import json, sys; print(json.dumps(sys.argv[1:]))"


@pytest.mark.parametrize("prompt", ["a knight's star", 'a "red" star', "a; false"])
def test_demo_passes_any_prompt(prompt: str, tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    easel = tmp_path / "bin" / "easel"
    easel.write_text(f"#!{sys.executable}\n{PROGRAM}\n")
    easel.chmod(0o755)
    (tmp_path / ".all").touch()

    done = subprocess.run(
        ["make", "--silent", "demo", f"VENV={tmp_path}", f"PROMPT={prompt}", "N=2",
         "--old-file", str(tmp_path / ".all")],
        cwd=ROOT, capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip

    told = json.loads(done.stdout)
    assert told == ["demo", "--prompt", prompt, "--n", "2", "--out", "out/demo"]


def test_the_contract_of_the_domain_names_every_module_of_it() -> None:
    tool = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]
    (contract,) = (
        each
        for each in tool["importlinter"]["contracts"]
        if each["name"] == "domain modules know no transport and no contract"
    )
    domain = {
        ".".join(file.relative_to(ROOT).with_suffix("").parts)
        for package in ("services/classifier", "services/generator", "services/inference", "ranker")
        for file in (ROOT / package).rglob("*.py")
        if file.stem not in ("__init__", "__main__", "service", "upstream", "wire")
        and not file.stem.endswith(("_pb2", "_pb2_grpc"))
    }

    assert set(contract["source_modules"]) == domain
