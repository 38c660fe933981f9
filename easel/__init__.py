"""Easel's client side: generated stubs (`easel.<kind>.v1`), `Client` and the `easel` command.

The names below are loaded when they are first used, so that ``import easel`` costs next to nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from easel.client import Client as Client
    from easel.client import EaselClientError as EaselClientError

__version__ = "0.1.0"
__all__ = ["Client", "EaselClientError", "__version__"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        from easel import client

        return getattr(client, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
