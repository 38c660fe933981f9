"""``python -m gateway`` as a process of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

ROOT = Path(__file__).parents[3]
TARGETS = {
    f"EASEL_GATEWAY_{name}_TARGET": "127.0.0.1:1" for name in ("CLASSIFIER", "GENERATOR", "RANKER")
}
HEAVY = (
    "torch",
    "transformers",
    "diffusers",
    "services.classifier",
    "services.generator",
    "ranker",
)


@contextmanager
def running(**environ: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-m", "gateway"],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], **environ},
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def line_of(stream: IO[str] | None, event: str) -> dict[str, object]:
    """Read log lines up to the one of ``event``."""
    assert stream is not None
    for line in stream:
        entry: dict[str, object] = json.loads(line)
        if entry["event"] == event:
            return entry
    raise AssertionError(f"the process ended before it logged {event!r}")


def get(port: object, path: str) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
        return str(answer.read().decode())


def test_serves_alone_until_a_signal() -> None:
    with running(**TARGETS) as process:
        port = line_of(process.stderr, "serving")["metrics_port"]
        assert get(port, "/healthz") == "alive\n"
        # Ready with every service behind it down: it can answer Status.
        assert get(port, "/readyz") == "ready\n"
        assert 'easel_gateway_upstream_in_flight{upstream="classifier"} 0.0' in get(
            port, "/metrics"
        )
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0


def test_names_every_bad_setting_at_once() -> None:
    with running(EASEL_GATEWAY_PORT="many", EASEL_GATEWAY_NONSENSE="1") as process:
        _, complaint = process.communicate(timeout=30)
        assert process.returncode == 2
    for name in (*TARGETS, "EASEL_GATEWAY_PORT", "EASEL_GATEWAY_NONSENSE"):
        assert name in complaint


def test_imports_nothing_heavy() -> None:
    program = f"import sys, gateway.__main__; print([m for m in {HEAVY} if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout.strip() == "[]"
