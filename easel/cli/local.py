"""Commands that work on files of this machine with model libraries, in a process of their own.

The command line is a client and loads no such library: the process does, and answers with one JSON
document on its stdout, ``{"result": …}`` or ``{"error": {"message": …, "bad_input": …}}``.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any, Final

from easel.cli import screen
from easel.cli.exits import ExitCode

# Threads that spin while they wait take the cores from those that they wait for, and those that
# sleep at once are woken for each operation of PyTorch's: these spin from one to the next.
_DEFAULTS: Final = {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "10000"}


def run_tool(module: str, arguments: Sequence[str], *, as_json: bool, extra: str) -> Any:
    """Run ``python -m module`` and return its result; what goes wrong ends the command.

    Its progress goes to stderr. ``extra`` is the one of the package that the module needs.
    """
    if find_spec("torch") is None:
        screen.fail(f"this needs: pip install 'easel[{extra}]'", ExitCode.FAILED)
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        env={**_DEFAULTS, **os.environ},
        check=False,
    )
    try:
        answer = json.loads(done.stdout)
    except ValueError:
        screen.fail(f"the process ended with {done.returncode} and no answer", ExitCode.FAILED)
    if "error" in answer:
        if as_json:
            screen.print_json(answer)
        error = answer["error"]
        code = ExitCode.BAD_INPUT if error["bad_input"] else ExitCode.FAILED
        screen.fail(error["message"], code)
    return answer["result"]
