import hashlib
from pathlib import Path

import pytest

from services.core.errors import NotFound
from services.core.reference import digest_of, manifest, resolve


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    model = tmp_path / "some-model"
    (model / "unet").mkdir(parents=True)
    (model / "unet" / "model.safetensors").write_bytes(b"weights")
    (model / "config.json").write_text("{}")
    (model / "README.md").write_text("no part of the model")
    (model / ".cache").mkdir()
    (model / ".cache" / "x.json").write_text("{}")
    return model


def no_download(repo: str, revision: str | None) -> Path:
    raise AssertionError(f"asked the hub for {repo} at {revision}")


def test_manifest_has_the_models_files_sorted(directory: Path) -> None:
    assert manifest(directory) == [
        ("config.json", hashlib.sha256(b"{}").hexdigest()),
        ("unet/model.safetensors", hashlib.sha256(b"weights").hexdigest()),
    ]


def test_digest_is_of_the_manifest(directory: Path) -> None:
    lines = "".join(f"{digest}  {path}\n" for path, digest in manifest(directory))
    assert digest_of(directory) == "sha256:" + hashlib.sha256(lines.encode()).hexdigest()


def test_digest_changes_with_a_weight_and_with_a_name(directory: Path) -> None:
    before = digest_of(directory)
    (directory / "config.json").rename(directory / "conf.json")
    renamed = digest_of(directory)
    (directory / "unet" / "model.safetensors").write_bytes(b"Weights")
    assert len({before, renamed, digest_of(directory)}) == 3


def test_directory_is_taken_as_it_is(directory: Path) -> None:
    files = resolve(str(directory), download=no_download)
    assert (files.name, files.directory) == ("some-model", directory)
    assert files.digest == digest_of(directory)
    assert files.digest.removeprefix("sha256:").startswith(files.version)


def test_name_can_be_given(directory: Path) -> None:
    assert resolve(str(directory), name="mine").name == "mine"


@pytest.mark.parametrize(
    "reference", ["/no/such/model", "./model", "../model", "~/model", "a/b/c", "model", "a b/c"]
)
def test_what_can_only_be_a_path_never_goes_to_the_hub(reference: str) -> None:
    with pytest.raises(NotFound, match="No directory"):
        resolve(reference, download=no_download)


def test_a_mistyped_path_beside_an_existing_folder_is_a_path(directory: Path) -> None:
    with pytest.raises(NotFound, match="No directory"):
        resolve(f"{directory}/unett", download=no_download)


@pytest.mark.parametrize(
    ("reference", "repo", "revision"),
    [
        ("org/model-1.5", "org/model-1.5", None),
        ("org/model@fp16", "org/model", "fp16"),
        ("org/model@refs/pr/1", "org/model", "refs/pr/1"),
    ],
)
def test_hub_names(directory: Path, reference: str, repo: str, revision: str | None) -> None:
    asked = []

    def download(name: str, at: str | None) -> Path:
        asked.append((name, at))
        return directory

    files = resolve(reference, download=download)
    assert asked == [(repo, revision)]
    assert files.name == repo.rpartition("/")[2]
    assert files.version == (revision or files.digest.removeprefix("sha256:")[:12])
