import hashlib
import json
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

from services.core.errors import EaselError, FailedPrecondition, NotFound, NotReady
from services.core.reference import (
    DIGESTS_FILE,
    ModelFiles,
    digest_of,
    fetch,
    formats_of,
    manifest,
    resolve,
)


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


def listed(directory: Path, content: str) -> str:
    (directory / DIGESTS_FILE).write_text(content)
    return str(directory)


WEIGHTS_DIGEST = hashlib.sha256(b"weights").hexdigest()


@pytest.mark.parametrize("mark", ["  ", " *", "  ./"])
def test_files_that_are_what_their_digests_say(directory: Path, mark: str) -> None:
    before = digest_of(directory)
    reference = listed(directory, f"{WEIGHTS_DIGEST}{mark}unet/model.safetensors\n")
    assert resolve(reference, download=no_download).digest == before


def test_a_file_that_is_not_what_its_digest_says(directory: Path) -> None:
    reference = listed(directory, f"{WEIGHTS_DIGEST}  unet/model.safetensors\n")
    (directory / "unet" / "model.safetensors").write_bytes(b"weighs")
    found = hashlib.sha256(b"weighs").hexdigest()
    with pytest.raises(FailedPrecondition) as caught:
        resolve(reference, download=no_download)
    assert caught.value.reason == "DIGEST_MISMATCH"
    for part in ("'unet/model.safetensors'", found, WEIGHTS_DIGEST):
        assert part in caught.value.message


def test_a_listed_file_that_is_missing(directory: Path) -> None:
    reference = listed(directory, f"{WEIGHTS_DIGEST}  vae/model.safetensors\n")
    with pytest.raises(FailedPrecondition, match=r"'vae/model\.safetensors' is missing"):
        resolve(reference, download=no_download)


def test_listed_files_that_are_no_part_of_the_model(directory: Path) -> None:
    resolve(listed(directory, f"{'0' * 64}  README.md\n{'0' * 64}  LICENSE\n"))


def test_a_list_that_is_none(directory: Path) -> None:
    with pytest.raises(FailedPrecondition, match=r"Line 2 of the model's SHA256SUMS"):
        resolve(listed(directory, f"{WEIGHTS_DIGEST}  unet/model.safetensors\nmodel.bin\n"))


def test_the_hubs_cache_names_large_files_by_their_digest(directory: Path) -> None:
    blobs = directory.parent / "blobs"
    blobs.mkdir()
    file = directory / "unet" / "model.safetensors"
    file.rename(blobs / WEIGHTS_DIGEST)
    file.symlink_to(blobs / WEIGHTS_DIGEST)
    small = directory / "config.json"  # small ones have a name of git's
    small.rename(blobs / "bf1b9f6d4e1c0d84b5d1d1e13bb9f9b4ce9ff3d1")
    small.symlink_to(blobs / "bf1b9f6d4e1c0d84b5d1d1e13bb9f9b4ce9ff3d1")
    resolve(str(directory))
    (blobs / WEIGHTS_DIGEST).write_bytes(b"weighs")
    with pytest.raises(FailedPrecondition, match="is corrupted"):
        resolve(str(directory))


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


class Hub:
    """Answers as ``snapshot_download`` does, from the files of one repository."""

    def __init__(self, cache: Path, files: dict[str, str]) -> None:
        self.cache = cache
        self.files = files

    def __call__(
        self, repo: str, *, allow_patterns: list[str], ignore_patterns: Any = (), **_: object
    ) -> str:
        del repo
        for name, text in self.files.items():
            wanted = any(fnmatch(name, pattern) for pattern in allow_patterns)
            if wanted and not any(fnmatch(name, pattern) for pattern in ignore_patterns):
                (self.cache / name).parent.mkdir(parents=True, exist_ok=True)
                (self.cache / name).write_text(text)
        return str(self.cache)


PIPELINE = {
    "_class_name": "StableDiffusionPipeline",
    "unet": ["diffusers", "UNet2DConditionModel"],
    "vae": ["diffusers", "AutoencoderKL"],
    "text_encoder_2": ["transformers", "CLIPTextModelWithProjection"],
    "tokenizer_2": ["transformers", "CLIPTokenizer"],
    "feature_extractor": ["transformers", "CLIPImageProcessor"],
    "safety_checker": ["stable_diffusion", "StableDiffusionSafetyChecker"],
    "image_encoder": [None, None],
}


def test_of_a_pipeline_one_variant_of_what_is_used_is_fetched(tmp_path: Path) -> None:
    wanted = {
        "model_index.json": json.dumps(PIPELINE),
        "unet/config.json": "{}",
        "unet/diffusion_pytorch_model.safetensors": "",
        "vae/diffusion_pytorch_model.fp16.safetensors": "",
        "text_encoder_2/model.safetensors": "",
        "text_encoder_2/config.json": "{}",
        "tokenizer_2/vocab.json": "{}",
        "tokenizer_2/merges.txt": "",
        "safety_checker/model.safetensors": "",
        "feature_extractor/preprocessor_config.json": "{}",
    }
    unwanted = dict.fromkeys(
        [
            "v1-5-pruned.safetensors",
            "unet/diffusion_pytorch_model.fp16.safetensors",
            "unet/diffusion_pytorch_model.non_ema.safetensors",
            "safety_checker/pytorch_model.bin",
            "text_encoder_2/openvino_model.bin",
            "unet/diffusion_pytorch_model.bin",
        ],
        "",
    )
    directory = fetch("org/model", None, snapshot=Hub(tmp_path, wanted | unwanted))
    found = {p.relative_to(directory).as_posix() for p in directory.rglob("*") if p.is_file()}
    assert found == set(wanted)


def test_of_another_model_all_weights_are_fetched(tmp_path: Path) -> None:
    files = {"config.json": "{}", "model-00001-of-00002.safetensors": "", "a.bin": ""}
    directory = fetch("org/model", "main", snapshot=Hub(tmp_path, files))
    assert {path.name for path in directory.iterdir()} == set(files) - {"a.bin"}


@pytest.mark.parametrize(
    ("raised", "error"),
    [
        (HFValidationError("no such name"), NotFound),
        (LocalEntryNotFoundError("offline, and not in the cache"), NotReady),
        (ConnectionError("no route"), NotReady),
    ],
)
def test_only_what_the_hub_does_not_have_is_not_found(
    raised: Exception, error: type[EaselError]
) -> None:
    def snapshot(*_: object, **__: object) -> str:
        raise raised

    with pytest.raises(error):
        fetch("org/model", None, snapshot=snapshot)


def test_formats_are_those_of_the_weights(tmp_path: Path) -> None:
    def of(*names: str) -> tuple[str, ...]:
        directory = tmp_path / f"model-{len(list(tmp_path.iterdir()))}"
        for name in names:
            (directory / name).parent.mkdir(parents=True, exist_ok=True)
            (directory / name).write_bytes(b"")
        return formats_of(ModelFiles("m", "1", directory, "sha256:0"))

    assert of("config.json", "model.safetensors") == ("safetensors",)
    assert of("unet/a.safetensors", "int8/trunk.xml", "x.onnx") == (
        "ONNX",
        "OpenVINO IR",
        "safetensors",
    )
    assert of("config.json") == ()
    file = tmp_path / "one.safetensors"
    file.write_bytes(b"")
    assert formats_of(ModelFiles("m", "1", file, "sha256:0")) == ("safetensors",)
