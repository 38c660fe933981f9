"""Where a model's files are: a directory of this machine, or ``org/name[@revision]`` of the hub.

The digest of a model is the sha256 of its manifest: one line ``<sha256>  <relative path>`` a
file, sorted by path, so that two directories with the same files have the same digest wherever
they lie.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from services.core.errors import NotFound

WANTED_SUFFIXES = (".safetensors", ".json", ".txt", ".model")
_HUB_NAME = re.compile(r"^(?P<repo>[\w.-]+/[\w.-]+)(?:@(?P<revision>[\w./-]+))?$")
_BLOCK_BYTES = 1 << 20

# repo, revision -> directory of the snapshot
Download = Callable[[str, str | None], Path]


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """A model's files on this machine; ``digest`` is ``sha256:...`` over their manifest."""

    name: str
    version: str
    directory: Path
    digest: str


def served_name(reference: str, name: str = "") -> str:
    """What the model is called: ``name``, or else the reference's last part."""
    directory = Path(reference).expanduser()
    if name or not directory.is_dir():
        return name or reference.partition("@")[0].rpartition("/")[2]
    return directory.resolve().name


def resolve(reference: str, *, name: str = "", download: Download | None = None) -> ModelFiles:
    """Find the files that ``reference`` names, fetching them from the hub when it names a
    repository there.

    ``name`` is what the model is served under; the reference's last part when empty. The version
    is the hub's revision, or the first 12 digits of the digest for a directory.

    Raises ``NotFound`` when there is no such directory, or the hub has no such repository or
    cannot be reached. A reference that can only be a path never goes to the hub.
    """
    directory = Path(reference).expanduser()
    if directory.is_dir():
        return _described(directory, served_name(reference, name), version="")
    repo, revision = _hub_name(reference)
    snapshot = (download or _download)(repo, revision)
    return _described(snapshot, served_name(reference, name), version=revision or "")


def manifest(directory: Path) -> list[tuple[str, str]]:
    """(relative path, sha256 in hex) of every file that belongs to a model, sorted by path."""
    return [
        (path.relative_to(directory).as_posix(), _sha256(path)) for path in _model_files(directory)
    ]


def digest_of(directory: Path) -> str:
    lines = "".join(f"{digest}  {path}\n" for path, digest in manifest(directory))
    return "sha256:" + hashlib.sha256(lines.encode()).hexdigest()


def _described(directory: Path, name: str, version: str) -> ModelFiles:
    digest = digest_of(directory)
    return ModelFiles(name, version or digest.removeprefix("sha256:")[:12], directory, digest)


def _model_files(directory: Path) -> Iterator[Path]:
    found = (path for path in directory.rglob("*") if path.suffix in WANTED_SUFFIXES)
    visible = (
        path
        for path in found
        if not any(part.startswith(".") for part in path.relative_to(directory).parts)
    )
    yield from sorted(
        (path for path in visible if path.is_file()),
        key=lambda path: path.relative_to(directory).as_posix(),
    )


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()


def _hub_name(reference: str) -> tuple[str, str | None]:
    match = _HUB_NAME.match(reference)
    # "weights/unet" beside an existing "weights" is a mistyped path, not a repository.
    is_path = reference.startswith((".", "~", "/")) or Path(reference).parent.is_dir()
    if match is None or is_path:
        raise NotFound(
            f"No directory '{reference}', and it does not read as org/name[@revision] of the hub."
        )
    return match["repo"], match["revision"]


def _download(repo: str, revision: str | None) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        return Path(
            snapshot_download(
                repo,
                revision=revision,
                allow_patterns=[f"*{suffix}" for suffix in WANTED_SUFFIXES],
                etag_timeout=5,
            )
        )
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError, ValueError) as error:
        at = f" at '{revision}'" if revision else ""
        raise NotFound(f"The hub has no '{repo}'{at}, or it cannot be reached.") from error
