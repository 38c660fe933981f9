"""What is installed."""

from __future__ import annotations

from functools import cache
from importlib import metadata


@cache
def installed_version(package: str) -> str | None:
    """None where ``package`` is not installed, which it need not be to run from a checkout."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
