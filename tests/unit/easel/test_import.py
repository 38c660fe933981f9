"""A base install is the client alone: nothing heavy may come in by an import."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

HEAVY = (
    "torch", "numpy", "PIL", "transformers", "pydantic_settings", "prometheus_client",
    "pyarrow", "faiss", "pymilvus", "milvus_lite",
)  # fmt: skip
SERVER_SIDE = ("services", "ranker", "gateway", "models")


def loaded_after(code: str) -> list[str]:
    program = f"import sys, json\n{code}\nprint(json.dumps(sorted(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True
    )
    modules: list[str] = json.loads(done.stdout)
    return modules


@pytest.mark.parametrize("code", ["from easel import Client", "from easel.cli.app import app"])
def test_nothing_heavy_is_imported(code: str) -> None:
    loaded = {name.split(".")[0] for name in loaded_after(code)}

    assert loaded.isdisjoint(HEAVY + SERVER_SIDE)


def test_the_package_alone_loads_no_grpc() -> None:
    assert "grpc" not in loaded_after("import easel; easel.__version__; dir(easel)")


def test_an_unknown_name_is_an_attribute_error() -> None:
    import easel

    with pytest.raises(AttributeError, match="nonsense"):
        _ = easel.nonsense
