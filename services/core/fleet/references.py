"""Which models a caller may name: the server's own, those below its directory, the hub's.

No path of a caller's reaches the file system outside of that directory, be it absolute, by ``..``,
by ``~`` or by a symbolic link.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Final

from services.core.errors import FailedPrecondition, InvalidInput, NotFound
from services.core.fleet.order import last_part
from services.core.reference import (
    HUB_NAME,
    Download,
    ModelFiles,
    described,
    fetch,
)

_FORMS: Final = "a model's name, a directory below the server's own, or org/name[@revision]"


@dataclass(frozen=True, slots=True)
class References:
    """``known`` are the server's own names and their directories. ``root`` is the directory below
    which models may be named, by their path from there or in full; None for none. ``hub`` allows
    names of the hub.
    """

    known: Mapping[str, Path] = field(default_factory=dict)
    root: Path | None = None
    hub: bool = True
    download: Download | None = None

    def find(self, reference: str, name: str = "") -> ModelFiles:
        """The model's files, fetched where the hub has them. Blocking.

        Raises ``InvalidInput`` for what is no such reference, ``NotFound``, and
        ``FailedPrecondition`` for the hub where it is not allowed.
        """
        name = name or last_part(reference)
        if reference in self.known:
            return described(self.known[reference], name)
        directory = self._directory(reference)
        if directory is not None:
            return described(directory, name)
        repo, revision = _hub_name(reference)
        if not self.hub:
            raise FailedPrecondition(
                "There is no such model here, and this server loads none from the hub.",
                reason="HUB_NOT_ALLOWED",
            )
        return described((self.download or fetch)(repo, revision), name, revision or "")

    def _directory(self, reference: str) -> Path | None:
        """The directory that is meant; None where the reference may still be of the hub."""
        path = PurePosixPath(reference)
        if ".." in path.parts or reference.startswith("~"):
            raise _outside()
        if self.root is None:
            if path.is_absolute():
                raise _outside()
            return None
        # Compared as text first: a path elsewhere is not even looked at.
        root = Path(os.path.abspath(self.root))
        found = Path(os.path.normpath(root / path))
        if found == root or not found.is_relative_to(root):
            raise _outside()
        if not found.is_dir():
            if path.is_absolute():
                raise NotFound("The server's directory has no such model.")
            return None
        _check_inside(found, root.resolve())
        return found


def _check_inside(directory: Path, root: Path) -> None:
    for path in (directory, *directory.rglob("*")):
        if not path.resolve().is_relative_to(root):
            raise _outside()


def _outside() -> InvalidInput:
    return InvalidInput(
        "reference",
        "The reference leaves the directory that this server loads models from.",
        _FORMS,
    )


def _hub_name(reference: str) -> tuple[str, str | None]:
    match = HUB_NAME.match(reference)
    if match is None or reference.startswith("."):
        raise NotFound(f"There is no model '{reference[:100]}' here.")
    repo, revision = match["repo"], match["revision"]
    # Both become parts of paths in the hub's cache.
    parts = [*repo.split("/"), *(revision or "x").split("/")]
    if any(part.startswith(".") or not part for part in parts):
        raise NotFound(f"There is no model '{reference[:100]}' here.")
    return repo, revision
