"""The interpreter that has tritonclient: of an environment of its own, inside of this one.

tritonclient needs a protobuf before 7, and its stubs register the names that our servers' do.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest


def interpreter() -> str:
    """Fails the test where `make setup` has not made that environment."""
    found = Path(sys.prefix) / "tritonclient" / "bin" / "python"
    if not found.exists():
        pytest.fail(f"{found} is missing; `make setup` makes it")
    return str(found)
