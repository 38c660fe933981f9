"""The echo service as a process of its own, for signals: ``python -m ... <a key of LOADS>``."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable

from services.core.config import load_settings
from services.core.server.app import run
from tests.integration.core.echo_app import EchoApplication, EchoSettings

LOADS: dict[str, Callable[[], object]] = {
    "quick": lambda: None,
    "slow": threading.Event().wait,
    "broken": lambda: 1 // 0,
    "stuck": lambda: None,
}
FREES: dict[str, Callable[[], object]] = {"stuck": threading.Event().wait}

if __name__ == "__main__":
    kind = sys.argv[1]
    free = FREES.get(kind, lambda: None)
    sys.exit(run(EchoApplication(load_settings(EchoSettings), load=LOADS[kind], free=free)))
