"""The options that every calling command takes, and the call's errors as exit codes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import typer

from easel.cli.exits import ExitCode, exit_code, one_line
from easel.cli.screen import fail, print_json
from easel.client import Client, EaselClientError
from easel.client.client import DEFAULT_TARGET

Target = Annotated[
    str, typer.Option("--target", envvar="EASEL_TARGET", help="The gateway's host:port.")
]
ApiKey = Annotated[
    str | None, typer.Option("--api-key", envvar="EASEL_API_KEY", help="Sent as a bearer token.")
]
Timeout = Annotated[
    float | None, typer.Option("--timeout", min=0.001, help="Deadline of the call, in seconds.")
]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON document on stdout, nothing else.")]
TARGET = DEFAULT_TARGET


@contextmanager
def connected(
    target: str, api_key: str | None, timeout: float | None, as_json: bool
) -> Iterator[Client]:
    """Give a client for the block; what goes wrong inside ends the command with its exit code."""
    try:
        with Client(target, api_key=api_key, timeout=timeout) as client:
            yield client
    except EaselClientError as error:
        if as_json:
            print_json({"error": error.as_json()})
        fail(one_line(error, target), exit_code(error))
    except BrokenPipeError:
        raise
    except OSError as error:
        fail(_os_line(error), ExitCode.BAD_INPUT)
    except ValueError as error:
        fail(str(error), ExitCode.BAD_INPUT)


def _os_line(error: OSError) -> str:
    reason = error.strerror or str(error)
    return f"{error.filename}: {reason}" if error.filename else reason
