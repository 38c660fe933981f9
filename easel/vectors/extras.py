"""Libraries of the extras, imported when they are first needed: the client alone stays light."""

from __future__ import annotations

from importlib import import_module
from typing import Any


class ExtraMissingError(Exception):
    """Something was asked for whose library is not installed."""

    def __init__(self, what: str, library: str, extra: str) -> None:
        super().__init__(
            f"{what} needs {library}, which is not installed: pip install 'easel[{extra}]'"
        )


def needed(module: str, *, what: str, library: str, extra: str) -> Any:
    """Import ``module``. Raises ``ExtraMissingError`` that names ``extra``."""
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        raise ExtraMissingError(what, library, extra) from error
