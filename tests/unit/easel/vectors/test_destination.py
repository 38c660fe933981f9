from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from easel.vectors.destination import destination
from easel.vectors.faiss_index import FaissFile
from easel.vectors.milvus import Milvus
from easel.vectors.parquet import ParquetFile


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("a.parquet", ParquetFile),
        ("a/b.index", FaissFile),
        ("b.faiss", FaissFile),
        ("milvus:http://127.0.0.1:19530", Milvus),
    ],
)
def test_what_is_written_names_the_kind(text: str, kind: type) -> None:
    assert isinstance(destination(text), kind)


@pytest.mark.parametrize("text", ["", "a", "a.csv", "a.parquet.gz", "Milvus:x"])
def test_what_is_none_of_them(text: str) -> None:
    with pytest.raises(ValueError, match=r"none of FILE\.parquet, FILE\.index"):
        destination(text)


def test_milvus_is_a_server_or_a_db_file(tmp_path: Path) -> None:
    assert isinstance(destination(f"milvus:{tmp_path}/new/v.db"), Milvus)
    with pytest.raises(ValueError, match=r"neither a server's URL nor a file\.db"):
        destination("milvus:localhost")


@pytest.mark.parametrize(
    ("to", "module", "library", "extra"),
    [
        ("v.parquet", "pyarrow", "pyarrow", "parquet"),
        ("v.index", "faiss", "faiss-cpu", "faiss"),
        ("milvus:v.db", "pymilvus", "pymilvus", "milvus"),
        ("milvus:v.db", "milvus_lite", "milvus-lite", "milvus"),
    ],
)
def test_an_extra_that_is_missing_is_named(
    to: str, module: str, library: str, extra: str, tmp_path: Path
) -> None:
    program = (
        f"import sys; sys.modules[{module!r}] = None\n"
        "from easel.cli import main\n"
        f"sys.argv = ['easel', 'embed', '.', '--to', {to!r}]\n"
        "main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True, text=True, timeout=60, cwd=tmp_path,
        env={"PYTHONPATH": str(Path(__file__).parents[4])},
    )  # fmt: skip

    assert done.returncode == 2, done.stderr
    assert f"needs {library}, which is not installed: pip install 'easel[{extra}]'\n" in done.stderr
