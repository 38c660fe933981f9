"""The `easel` command."""

from __future__ import annotations


def main() -> None:
    """Run the command line; ends the process with the exit code."""
    from easel.cli.app import app

    app(prog_name="easel")
