"""What every benchmark prints and writes: entries with bounds, and the machine they ran on."""

from __future__ import annotations

import json
import operator
import os
import platform
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from services.core.packages import installed_version

OUT = Path("out/bench")
COMPARE = {">=": operator.ge, "<=": operator.le, ">": operator.gt}
PACKAGES = (
    "torch",
    "transformers",
    "diffusers",
    "openvino",
    "onnxruntime",
    "keras",
    "jax",
    "tensorflow",
    "grpcio",
    "protobuf",
    "prometheus_client",
    "numpy",
    "sqlalchemy",
)


@dataclass(frozen=True, slots=True)
class Bound:
    """A limit that a value is held to: ``Bound(">=", 0.6)``."""

    sense: str
    limit: float

    def holds(self, value: float) -> bool:
        return bool(COMPARE[self.sense](value, self.limit))

    def __str__(self) -> str:
        return f"{self.sense} {self.limit:g}"


@dataclass(frozen=True, slots=True)
class Entry:
    """One measured value.

    ``spread`` is half the range between the repetitions' extremes, in the value's unit;
    ``command`` is what measures it again.
    """

    name: str
    value: float
    unit: str
    command: str
    bound: Bound | None = None
    spread: float | None = None

    @property
    def holds(self) -> bool:
        return self.bound is None or self.bound.holds(self.value)

    def as_json(self) -> dict[str, Any]:
        return {
            **asdict(self),
            "bound": None if self.bound is None else str(self.bound),
            "holds": self.holds,
        }


@dataclass(frozen=True, slots=True)
class Line:
    """A named line of a chart; ``low`` and ``high``, where given, are an interval at each point."""

    name: str
    x: tuple[float, ...]
    y: tuple[float, ...]
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Chart:
    """Measured lines over one axis; ``make plots`` draws it as ``docs/bench/RECORD-NAME.svg``.

    ``log``: which axes are logarithmic, a part of "xy". ``level`` is a bound that y is held to.
    """

    name: str
    title: str
    x: str
    y: str
    lines: tuple[Line, ...]
    log: str = ""
    level: float | None = None


def quick() -> bool:
    """``QUICK=1`` asks for a short run with fewer repetitions."""
    return os.environ.get("QUICK", "") not in ("", "0")


def chosen(names: str, parts: Iterable[str], *, otherwise: Sequence[str] = ()) -> list[str]:
    """Those of ``parts`` that are named, with commas between them and in that order; where none is,
    those of ``otherwise``, or all. Raises ``ValueError`` for one that there is not.
    """
    known = list(parts)
    wanted = [name.strip() for name in names.split(",") if name.strip()]
    unknown = sorted(set(wanted) - set(known))
    if unknown:
        raise ValueError(f"no such part: {', '.join(unknown)}; there are: {', '.join(known)}")
    return wanted or list(otherwise) or known


def parts_asked(parts: Iterable[str], environ: Mapping[str, str] = os.environ) -> list[str]:
    """Those of ``parts`` that ``ONLY`` names. Ends the command with 2 for one that there is not."""
    try:
        return chosen(environ.get("ONLY", ""), parts)
    except ValueError as error:
        print(error, file=sys.stderr)
        raise SystemExit(2) from None


def _cores() -> int | None:
    """Those that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count()


def machine() -> dict[str, Any]:
    """Processor, cores and memory, as the operating system tells them."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    flags = next((set(line.split()) for line in lines if line.startswith("flags")), set())
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return {
        "processor": models[0] if models else platform.processor(),
        "cores": _cores(),
        "memory_gib": round(pages / 2**30, 1),
        "features": sorted(
            flags & {"avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_int8"}
        ),
        "load_average": os.getloadavg()[0],
        "system": f"{platform.system()} {platform.machine()}",
    }


def versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    told = {package: installed_version(package) for package in PACKAGES}
    return found | {package: version for package, version in told.items() if version is not None}


def commit() -> str:
    git = ("git", "describe", "--always", "--dirty")
    result = subprocess.run(git, capture_output=True, text=True, check=False)
    return result.stdout.strip() or "unknown"


def filled(page: str, name: str, text: str) -> str:
    """``page`` with ``text`` between ``<!-- NAME -->`` and ``<!-- /NAME -->``.

    Raises ``ValueError`` where they are missing.
    """
    begin, end = f"<!-- {name} -->", f"<!-- /{name} -->"
    before, after = page.index(begin) + len(begin), page.index(end)
    return f"{page[:before]}\n{text}\n{page[after:]}"


def publish(name: str, entries: Sequence[Entry], extra: dict[str, Any] | None = None) -> int:
    """Prints the table and writes ``out/bench/NAME.json``; 1 when a bound does not hold."""
    write(name, entries, extra)
    Console().print(table(name, entries))
    return 0 if all(entry.holds for entry in entries) else 1


def write(name: str, entries: Sequence[Entry], extra: dict[str, Any] | None = None) -> None:
    """``out/bench/NAME.json`` alone."""
    OUT.mkdir(parents=True, exist_ok=True)
    document = {
        "machine": machine(),
        "versions": versions(),
        "commit": commit(),
        "quick": quick(),
        "entries": [entry.as_json() for entry in entries],
        **(extra or {}),
    }
    (OUT / f"{name}.json").write_text(json.dumps(document, indent=1) + "\n")


def table(name: str, entries: Sequence[Entry]) -> Table:
    shown = Table(title=name)
    for column in ("what", "value", "spread", "unit", "bound", "holds"):
        shown.add_column(column, justify="left" if column in ("what", "unit") else "right")
    for entry in entries:
        holds = "" if entry.bound is None else ("yes" if entry.holds else "[red]NO")
        spread = "" if entry.spread is None else f"± {entry.spread:.3g}"
        bound = "" if entry.bound is None else str(entry.bound)
        shown.add_row(entry.name, f"{entry.value:.4g}", spread, entry.unit, bound, holds)
    return shown
