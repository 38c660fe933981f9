"""Copies the assembled pair into the package, with its figures, model card and manifest."""

import hashlib
import json
import os
import platform
import shutil
from importlib.metadata import version
from pathlib import Path
from typing import Any

from models.recipe import card
from models.recipe.assemble import demo_folder

DESTINATION = Path(__file__).resolve().parent.parent / "demo"
MANIFEST = "MANIFEST.json"
LIBRARIES = ("torch", "diffusers", "transformers", "numpy", "pillow")
MODELS = ("classifier", "generator", "judge")


def publish(work: Path, destination: Path) -> dict[str, int]:
    """Replaces what is in `destination` by the assembled pair and what is known about it."""
    destination.mkdir(parents=True, exist_ok=True)
    for name in MODELS:
        shutil.rmtree(destination / name, ignore_errors=True)
        shutil.copytree(demo_folder(work) / name, destination / name)
    for file in destination.rglob("*.safetensors"):
        # The library saves weights for their owner alone.
        file.chmod(0o644)
    shutil.copy(work / "evaluate" / "sheet.png", destination)
    figures = collect(work)
    _write_json(destination / "figures.json", figures)
    (destination / "README.md").write_text(card.write(figures), encoding="utf-8")
    manifest = describe(destination)
    _write_json(destination / MANIFEST, manifest)
    sizes = [entry["bytes"] for entry in manifest["files"].values()]
    return {"files": len(sizes), "bytes": sum(sizes)}


def collect(work: Path) -> dict[str, Any]:
    """The measures of every finished stage, and the machine they were taken on."""
    done = {file.parent.name: json.loads(file.read_text()) for file in work.glob("*/done.json")}
    return {"machine": machine(), "stages": done}


def describe(folder: Path) -> dict[str, Any]:
    """The manifest: SHA-256 and size of every file below the folder, but for the manifest."""
    files = sorted(file for file in folder.rglob("*") if file.is_file() and file.name != MANIFEST)
    return {
        "files": {
            file.relative_to(folder).as_posix(): {
                "sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
                "bytes": file.stat().st_size,
            }
            for file in files
        }
    }


def machine() -> dict[str, Any]:
    """The processor and the libraries, without anything that names the host."""
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "libraries": {name: version(name) for name in LIBRARIES},
    }


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if not cpuinfo.exists():
        return platform.machine()
    pairs = (line.partition(":") for line in cpuinfo.read_text().splitlines())
    fields = {name.strip(): value.strip() for name, _, value in pairs}
    extensions = [flag for flag in fields.get("flags", "").split() if flag.endswith("bf16")]
    return " ".join([fields.get("model name", platform.machine()), *extensions])


def _write_json(file: Path, content: dict[str, Any]) -> None:
    file.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
