"""A real stack under `easel up`, and the command line as people run it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Long enough for a loaded machine; on an idle one all of this takes seconds.
PATIENCE_SECONDS = 280.0


@dataclass
class Stack:
    """`easel up` at work. ``mark`` is in the environment of every process it started."""

    process: subprocess.Popen[str]
    mark: str
    state: dict[str, Any]

    @property
    def target(self) -> str:
        return str(self.state["target"])

    def easel(self, *arguments: object) -> subprocess.CompletedProcess[str]:
        """Run a command against this stack."""
        return easel(*arguments, environment={"EASEL_TARGET": self.target})

    def stop(self) -> int:
        """Press Ctrl-C and wait."""
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(PATIENCE_SECONDS)


def easel(
    *arguments: object, environment: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run `easel` to its end."""
    return subprocess.run(
        [sys.executable, "-m", "easel", *map(str, arguments)],
        env={**os.environ, "COLUMNS": "160", **(environment or {})},
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
    )


@contextmanager
def up(folder: Path) -> Iterator[Stack]:
    """Run all services with the demo pair for the block; nothing is left after it."""
    mark = uuid.uuid4().hex
    ports = ["--gateway-port", "0", "--http-port", "0"]
    files = ["--logs", str(folder / "logs"), "--state-file", str(folder / "state.json")]
    files += ["--data", str(folder / "data")]
    with (folder / "up.log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "easel", "up", "--json", *ports, *files],
            env={**os.environ, "EASEL_TEST_MARK": mark},
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line, (folder / "up.log").read_text()
        yield Stack(process, mark, json.loads(line))
    finally:
        process.kill()
        process.communicate()
        wait_until(lambda: not survivors(mark))


def survivors(mark: str) -> list[int]:
    """Return the processes that have ``mark`` in their environment."""
    wanted = f"EASEL_TEST_MARK={mark}".encode()
    found = []
    for entry in Path("/proc").glob("[0-9]*/environ"):
        try:
            variables = entry.read_bytes().split(b"\0")
        except OSError:
            continue  # it ended meanwhile
        if wanted in variables:
            found.append(int(entry.parent.name))
    return found


def wait_until(true: Callable[[], bool]) -> None:
    """Look every moment until ``true``; fails after a long while."""
    end = time.monotonic() + PATIENCE_SECONDS
    while not true():
        assert time.monotonic() < end, "did not happen"
        time.sleep(0.05)
