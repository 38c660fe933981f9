"""Where a model's files are: a directory of this machine, or ``org/name[@revision]`` of the hub.

The digest of a model is the sha256 of its manifest: one line ``<sha256>  <relative path>`` a
file, sorted by path, so that two directories with the same files have the same digest wherever
they lie.

Files that come with their digests are compared with them: those that ``SHA256SUMS`` in the
directory lists (``sha256sum *.safetensors *.json > SHA256SUMS``), and the hub's, whose cache names
large files by their digest.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from services.core.errors import FailedPrecondition, NotFound, NotReady

_FORMATS = {".safetensors": "safetensors", ".onnx": "ONNX", ".xml": "OpenVINO IR"}
WANTED_SUFFIXES = (".safetensors", ".json", ".txt", ".model")
DIGESTS_FILE = "SHA256SUMS"
_DIGEST_LINE = re.compile(r"^(?P<digest>[0-9a-f]{64}) [ *](?:\./)?(?P<path>.+)$")
_DIGEST = re.compile(r"^[0-9a-f]{64}$")
_TEXTS = [f"*{suffix}" for suffix in WANTED_SUFFIXES if suffix != ".safetensors"]
HUB_NAME = re.compile(r"^(?P<repo>[\w.-]+/[\w.-]+)(?:@(?P<revision>[\w./-]+))?$")
_BLOCK_BYTES = 1 << 20

# repo, revision -> directory of the snapshot
Download = Callable[[str, str | None], Path]
Snapshot = Callable[..., Any]


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """A model's files on this machine; ``digest`` is ``sha256:...`` over their manifest."""

    name: str
    version: str
    directory: Path
    digest: str


@lru_cache(maxsize=64)
def formats_of(files: ModelFiles) -> tuple[str, ...]:
    """The formats that the model's weights lie in, by name. Reads the directory the first time."""
    where = files.directory
    found = [where] if where.is_file() else [path for path in where.rglob("*") if path.is_file()]
    return tuple(sorted({_FORMATS[path.suffix] for path in found if path.suffix in _FORMATS}))


def served_name(reference: str, name: str = "") -> str:
    """What the model is called: ``name``, or else the reference's last part, without the suffix
    where that is a file.
    """
    directory = Path(reference).expanduser()
    if not name and directory.is_file():
        return directory.stem
    if name or not directory.is_dir():
        return name or reference.partition("@")[0].rpartition("/")[2]
    return directory.resolve().name


def resolve(reference: str, *, name: str = "", download: Download | None = None) -> ModelFiles:
    """Find the files that ``reference`` names, fetching them from the hub when it names a
    repository there.

    ``name`` is what the model is served under; the reference's last part when empty. The version
    is the hub's revision, or the first 12 digits of the digest for a directory.

    Raises ``NotFound`` when there is no such directory, or the hub has no such repository,
    ``NotReady`` when the hub cannot be reached, and ``FailedPrecondition`` when a file is not what
    its recorded digest says. A reference that can only be a path never goes to the hub.
    """
    directory = Path(reference).expanduser()
    if directory.is_dir():
        return described(directory, served_name(reference, name), version="")
    repo, revision = _hub_name(reference)
    snapshot = (download or fetch)(repo, revision)
    return described(snapshot, served_name(reference, name), version=revision or "")


def manifest(directory: Path) -> list[tuple[str, str]]:
    """(relative path, sha256 in hex) of every file that belongs to a model, sorted by path."""
    return [
        (path.relative_to(directory).as_posix(), sha256_of(path)) for path in model_files(directory)
    ]


def digest_of(directory: Path) -> str:
    return _digest(manifest(directory))


def check_digests(directory: Path, found: list[tuple[str, str]]) -> None:
    """Compare ``found``, the manifest of ``directory``, with the digests that came with the files.

    Raises ``FailedPrecondition`` naming the first file that differs or is missing, and both
    digests.
    """
    listed = _listed_digests(directory)
    for path, digest in found:
        expected = listed.pop(path, None) or _cached_digest(directory / path)
        if expected not in (None, digest):
            raise FailedPrecondition(
                f"'{path}' is corrupted: its digest is sha256:{digest}, and it should be "
                f"sha256:{expected}.",
                reason="DIGEST_MISMATCH",
            )
    missing = [path for path in listed if Path(path).suffix in WANTED_SUFFIXES]
    if missing:
        raise FailedPrecondition(f"'{missing[0]}' is missing, which {DIGESTS_FILE} lists.")


def _listed_digests(directory: Path) -> dict[str, str]:
    path = directory / DIGESTS_FILE
    if not path.is_file():
        return {}
    found = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        match = _DIGEST_LINE.match(line)
        if match is None:
            raise FailedPrecondition(f"Line {number} of the model's {DIGESTS_FILE} is no digest.")
        found[match["path"]] = match["digest"]
    return found


def _cached_digest(path: Path) -> str | None:
    """The hub's cache keeps ``blobs/<sha256>`` of large files, and links to them by name."""
    if not path.is_symlink():
        return None
    name = path.readlink().name
    return name if _DIGEST.match(name) else None


def _digest(found: list[tuple[str, str]]) -> str:
    lines = "".join(f"{digest}  {path}\n" for path, digest in found)
    return "sha256:" + hashlib.sha256(lines.encode()).hexdigest()


def described(directory: Path, name: str, version: str = "") -> ModelFiles:
    """The files in ``directory``, their digests checked; the version is of the digest unless given.

    Raises ``FailedPrecondition`` for a file that is not what its recorded digest says.
    """
    found = manifest(directory)
    check_digests(directory, found)
    digest = _digest(found)
    return ModelFiles(name, version or digest.removeprefix("sha256:")[:12], directory, digest)


def weight_bytes(directory: Path) -> int:
    """The size of all weights on disk."""
    return sum(
        path.stat().st_size for path in model_files(directory) if path.suffix == ".safetensors"
    )


def model_files(directory: Path) -> Iterator[Path]:
    """The files that belong to a model, sorted by their relative paths."""
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


def sha256_of(path: Path) -> str:
    """Of a file, in hex."""
    found = path.stat()
    return _sha256_once(path.resolve(), found.st_size, found.st_mtime_ns)


@lru_cache(maxsize=256)
def _sha256_once(path: Path, _bytes: int, _modified_ns: int) -> str:
    # A model of gigabytes is asked for its digest by more than one.
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()


def _hub_name(reference: str) -> tuple[str, str | None]:
    match = HUB_NAME.match(reference)
    # "weights/unet" beside an existing "weights" is a mistyped path, not a repository.
    is_path = reference.startswith((".", "~", "/")) or Path(reference).parent.is_dir()
    if match is None or is_path:
        raise NotFound(
            f"No directory '{reference}', and it does not read as org/name[@revision] of the hub."
        )
    return match["repo"], match["revision"]


def fetch(repo: str, revision: str | None, *, snapshot: Snapshot | None = None) -> Path:
    """Fetch a repository's texts, then the weights that are used, into the hub's own cache.

    Of a diffusers pipeline that is one variant of each component, the plain one where there is
    one. ``snapshot`` is ``huggingface_hub.snapshot_download``. Raises ``NotFound`` when there is no
    such repository or revision, ``NotReady`` when the hub cannot be reached.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        HFValidationError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    get = partial(snapshot or snapshot_download, repo, etag_timeout=5)
    try:
        directory = Path(get(revision=revision, allow_patterns=_TEXTS))
        # By its commit from here on: a branch may move between two calls.
        _fetch_weights(partial(get, revision=directory.name), directory)
    except (RepositoryNotFoundError, RevisionNotFoundError, HFValidationError) as error:
        at = f" at '{revision}'" if revision else ""
        raise NotFound(f"The hub has no '{repo}'{at}.") from error
    except Exception as error:  # of the hub's client, of its HTTP client, of the system
        raise NotReady(f"'{repo}' cannot be fetched from the hub now.") from error
    return directory


def _fetch_weights(get: Snapshot, directory: Path) -> None:
    parts = _components(directory)
    if not parts:
        get(allow_patterns=["*.safetensors"])
        return
    get(
        allow_patterns=[f"{part}/*.safetensors" for part in parts],
        ignore_patterns=["*.*.safetensors"],
    )
    missing = [part for part in parts if not any((directory / part).glob("*.safetensors"))]
    get(allow_patterns=[f"{part}/*.fp16*.safetensors" for part in missing])


def _components(directory: Path) -> list[str]:
    index = directory / "model_index.json"
    parts = json.loads(index.read_text(encoding="utf-8")) if index.is_file() else {}
    return [part for part, kind in parts.items() if isinstance(kind, list) and kind[0]]
