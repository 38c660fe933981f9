"""One real process of a service."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Final, Self

from easel.supervisor.plan import Service

_TAIL_BYTES: Final = 16 * 1024
# The services share the cores. OpenMP's threads spin while they wait for each other, and take the
# cores from the very threads they wait for: steps were seen to take a hundred times as long.
_DEFAULTS: Final = {"OMP_WAIT_POLICY": "PASSIVE"}


class ChildProcess:
    """A service's process: in a session of its own, so that a terminal's Ctrl-C reaches it only
    through the supervisor, and tied to this process, so that it never outlives it."""

    def __init__(self, process: subprocess.Popen[bytes], service: Service, log_start: int) -> None:
        self._process = process
        self._service = service
        self._log_start = log_start
        self.pid = process.pid

    @classmethod
    def start(cls, service: Service) -> Self:
        """Start ``service``; its output is appended to its log file."""
        service.ready_file.unlink(missing_ok=True)
        with service.log_file.open("ab") as log:
            log_start = log.tell()
            process = subprocess.Popen(
                [sys.executable, "-m", "easel.supervisor.child", service.module],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                env={**_DEFAULTS, **os.environ, **service.environment},
                start_new_session=True,
            )
        return cls(process, service, log_start)

    def poll(self) -> int | None:
        """Return the exit code, minus a signal's number where one killed it; None while it runs."""
        return self._process.poll()

    def is_ready(self) -> bool:
        return self._service.ready_file.exists()

    def terminate(self) -> None:
        self._process.terminate()

    def kill(self) -> None:
        self._process.kill()

    def last_lines(self, count: int = 15) -> list[str]:
        """Return the end of what this process said, as people read it."""
        with self._service.log_file.open("rb") as file:
            end = file.seek(0, os.SEEK_END)
            file.seek(max(self._log_start, end - _TAIL_BYTES))
            text = file.read().decode(errors="replace")
        return [line for line in map(readable, text.splitlines()) if line][-count:]


def readable(line: str) -> str:
    """Return a line of a service's log without its JSON; "" for one that is mere routine."""
    try:
        record = json.loads(line)
        level, event = record["level"], record["event"]
    except (ValueError, KeyError, TypeError):
        return line.rpartition("\r")[2].rstrip()
    if level in ("debug", "info"):
        return ""
    cause = str(record.get("exception", "")).strip().rpartition("\n")[2]
    return f"{event}: {cause}" if cause else str(event)
