"""Runs a module as ``python -m`` would, in a process that ends when its parent does.

``python -m easel.supervisor.child MODULE`` with a pipe as its standard input, the other end of
which only the parent holds: the pipe closes when the parent is gone, however it went. (Linux's
PR_SET_PDEATHSIG looks simpler, but fires when the *thread* that started the child ends.)
"""

from __future__ import annotations

import os
import runpy
import signal
import sys
import threading


def main(arguments: list[str]) -> None:
    (module,) = arguments
    threading.Thread(target=_end_with_parent, name="parent-watch", daemon=True).start()
    sys.argv = [module]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def _end_with_parent() -> None:
    while os.read(0, 1):
        pass
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    main(sys.argv[1:])
