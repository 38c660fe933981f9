"""Directories that appear whole or not at all, and what a quantised one says of itself."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Final

from services.classifier.network import Options
from services.classifier.temperature import CALIBRATION_FILE
from services.core.errors import FailedPrecondition, InvalidInput
from services.core.reference import sha256_of

CONFIGURATION: Final = ("config.json", "preprocessor_config.json", CALIBRATION_FILE)
RECORD_FILE: Final = "quantisation.json"
FORMAT: Final = 1
QUANTISED: Final = ("int8", "int4")
"""Precisions that only a quantised directory has."""


@dataclass(frozen=True, slots=True)
class Record:
    """What is in a published directory beside the model it was made of.

    ``scheme``: how it was quantised; ``precision``: what that is called in settings; ``backend``:
    which one runs it; ``artefact``: the file that this backend reads, relative to the directory, ""
    where it reads the safetensors. ``height`` and ``width``: of the pictures it was made for.
    ``source``: digest of the model it was made of. ``sha256`` of each file of the artefact.
    ``figures``: what was measured before it was published.
    """

    scheme: str
    precision: str
    backend: str
    artefact: str
    height: int
    width: int
    source: str
    sha256: Mapping[str, str] = field(default_factory=dict)
    figures: Mapping[str, Any] = field(default_factory=dict)

    def write(self, directory: Path) -> None:
        document = {"format": FORMAT, **asdict(self)}
        text = json.dumps(document, indent=2)
        (directory / RECORD_FILE).write_text(text + "\n", encoding="utf-8")


def read_record(directory: Path) -> Record | None:
    """None where the directory was not quantised.

    Raises ``FailedPrecondition`` where the record cannot be used, and where a file of the artefact
    is missing or is not the one that was published.
    """
    path = directory / RECORD_FILE
    if not path.is_file():
        return None
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        if document["format"] != FORMAT:
            raise ValueError(f"format {document['format']}, not {FORMAT}")
        del document["format"]
        record = Record(**document)
        _check_names(record)
        _check_files(directory, record.sha256)
    except (AttributeError, KeyError, OSError, TypeError, ValueError) as error:
        raise FailedPrecondition(f"The model's {RECORD_FILE} cannot be used: {error!r}.") from error
    return record


def runs_artefact(options: Options, record: Record | None) -> bool:
    """Whether ``options`` ask for what was quantised; by default they do where there is such.

    Raises ``FailedPrecondition`` where they ask for what the directory has not: nothing that was
    asked for is exchanged for something else.
    """
    asked = options.precision if options.precision in QUANTISED else None
    if record is None or not record.artefact:
        if asked:
            raise FailedPrecondition(
                f"Precision {asked} is for a model that was quantised to it, and this one was not: "
                "`easel quantize` makes one."
            )
        return False
    if options.precision not in ("auto", record.precision):
        if asked:
            raise FailedPrecondition(
                f"This model was quantised to {record.precision}, not to {asked}."
            )
        return False
    if options.backend not in ("auto", record.backend):
        raise FailedPrecondition(
            f"This model was quantised for {record.backend}: say backend auto or {record.backend}, "
            f"not {options.backend!r}, or precision float32 for the weights that it was made of."
        )
    return True


def _check_names(record: Record) -> None:
    """Raises ``ValueError`` for a name that leaves the directory, or an artefact without digest."""
    for name in record.sha256:
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts:
            raise ValueError(name)
    if record.artefact and record.artefact not in record.sha256:
        raise ValueError(f"no digest of {record.artefact}")


def _check_files(directory: Path, digests: Mapping[str, str]) -> None:
    for name, expected in digests.items():
        if not (directory / name).is_file():
            raise FailedPrecondition(f"The model lacks {name}, which {RECORD_FILE} names.")
        found = sha256_of(directory / name)
        if found != expected:
            raise FailedPrecondition(
                f"The model's {name} is damaged: its sha256 is {found}, "
                f"where {RECORD_FILE} has {expected}."
            )


@contextmanager
def appearing(out: Path) -> Iterator[Path]:
    """A new folder that is renamed to ``out`` when the block ends well, and is gone otherwise.

    Raises ``InvalidInput`` where there is something at ``out`` already.
    """
    if out.exists():
        raise InvalidInput("out", f"{out} is there already; name a new folder.", given=out)
    out.parent.mkdir(parents=True, exist_ok=True)
    making = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    try:
        yield making
        # mkdtemp's own are for its owner alone.
        making.chmod(0o755)
        os.rename(making, out)
    finally:
        shutil.rmtree(making, ignore_errors=True)


def copied(source: Path, target: Path, names: Sequence[str]) -> None:
    """Copy those of ``names`` that are there."""
    for name in names:
        if (source / name).is_file():
            shutil.copyfile(source / name, target / name)


def digests(directory: Path, folder: str) -> dict[str, str]:
    """sha256 of every file below ``folder`` of ``directory``, by its path in it."""
    return {
        path.relative_to(directory).as_posix(): sha256_of(path)
        for path in sorted((directory / folder).rglob("*"))
        if path.is_file()
    }


def bytes_below(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
