"""Files made from a model's files once, and found again by what they were made of."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_log = logging.getLogger(__name__)

KEY_FILE: Final = "made-of.json"


@dataclass(frozen=True, slots=True)
class ArtifactStore:
    """Directories under ``root``, each named by the sha256 of what it was made of.

    A directory appears whole or not at all: it is made beside its place and then renamed, so that
    processes may share one store, and a process that dies leaves nothing that looks finished.
    """

    root: Path

    @contextmanager
    def artifact(self, made_of: Mapping[str, str], make: Callable[[Path], None]) -> Iterator[Path]:
        """The directory for ``made_of``, filled by ``make`` where there is none yet.

        Where the store cannot be written, the directory is a temporary one, gone afterwards, and
        the log says so.
        """
        text = json.dumps(dict(made_of), indent=1, sort_keys=True)
        place = self.root / hashlib.sha256(text.encode()).hexdigest()[:32]
        if place.is_dir():
            yield place
            return
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            making = Path(tempfile.mkdtemp(prefix=".making-", dir=self.root))
        except OSError as error:
            _log.warning("what is made of the model is not kept: %s", error)
            with tempfile.TemporaryDirectory() as folder:
                make(Path(folder))
                yield Path(folder)
            return
        try:
            make(making)
            (making / KEY_FILE).write_text(text + "\n", encoding="utf-8")
            _put(making, place)
        finally:
            shutil.rmtree(making, ignore_errors=True)
        yield place


def _put(made: Path, place: Path) -> None:
    try:
        os.rename(made, place)
    except OSError:
        # Another process was quicker with the same.
        if not place.is_dir():
            raise
