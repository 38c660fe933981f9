from pathlib import Path

import pytest

from services.core.errors import EaselError, FailedPrecondition, InvalidInput, NotFound
from services.core.fleet.references import References


def model(directory: Path) -> Path:
    directory.mkdir(parents=True)
    (directory / "config.json").write_text("{}")
    (directory / "model.safetensors").write_bytes(b"weights")
    return directory


def no_download(repo: str, revision: str | None) -> Path:
    raise AssertionError(f"asked the hub for {repo} at {revision}")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    model(tmp_path / "outside")
    model(tmp_path / "root" / "vit")
    model(tmp_path / "root" / "org" / "vit")
    return tmp_path / "root"


@pytest.fixture
def references(root: Path, tmp_path: Path) -> References:
    demo = model(tmp_path / "package" / "demo")
    return References({"demo": demo}, root, download=no_download)


def test_names_and_directories(references: References, root: Path) -> None:
    assert references.find("demo").directory.parent.name == "package"
    for reference in ("vit", "./vit", "org/vit", str(root / "vit")):
        files = references.find(reference)
        assert files.directory == root / Path(reference)
        assert files.name == "vit"
        assert files.digest.startswith("sha256:")
    assert references.find("vit", "mine").name == "mine"


@pytest.mark.parametrize(
    "reference",
    [
        "..",
        "../outside",
        "vit/../../outside",
        "~/models",
        "~root",
        ".",
        "/",
        "/etc",
        "/etc/passwd",
        "vit/..",
    ],
)
def test_what_leaves_the_directory(references: References, reference: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        references.find(reference)
    assert caught.value.field == "reference"
    assert "/" not in caught.value.message


def test_the_directory_itself_and_its_neighbours(references: References, root: Path) -> None:
    (root.parent / "rooted").mkdir()
    for path in (root, root.parent / "outside", root.parent / "rooted"):
        with pytest.raises(InvalidInput):
            references.find(str(path))


def test_a_link_that_leaves_it(references: References, root: Path) -> None:
    (root / "linked").symlink_to(root.parent / "outside")
    (root / "alias").symlink_to(root / "vit")
    (root / "partly").mkdir()
    (root / "partly" / "config.json").write_text("{}")
    weights = root.parent / "outside" / "model.safetensors"
    (root / "partly" / "model.safetensors").symlink_to(weights)
    (root / "deep" / "openvino").mkdir(parents=True)
    (root / "deep" / "openvino" / "model.bin").symlink_to(weights)
    for reference in ("linked", "partly", "deep", str(root / "linked")):
        with pytest.raises(InvalidInput):
            references.find(reference)
    assert references.find("alias").digest == references.find("vit").digest


def test_without_a_directory_no_path_is_looked_at(tmp_path: Path) -> None:
    references = References(download=no_download)
    with pytest.raises(InvalidInput):
        references.find(str(model(tmp_path / "there")))
    with pytest.raises(NotFound):
        references.find("there")


def test_the_hub(root: Path) -> None:
    asked: list[tuple[str, str | None]] = []

    def download(repo: str, revision: str | None) -> Path:
        asked.append((repo, revision))
        return root / "vit"

    references = References(root=root, download=download)
    assert references.find("some/vit@refs/pr/1").version == "refs/pr/1"
    plain = references.find("some/vit")
    assert plain.digest.removeprefix("sha256:").startswith(plain.version)
    assert asked == [("some/vit", "refs/pr/1"), ("some/vit", None)]
    with pytest.raises(FailedPrecondition) as caught:
        References(root=root, hub=False, download=download).find("some/vit")
    assert caught.value.reason == "HUB_NOT_ALLOWED"
    assert len(asked) == 2


@pytest.mark.parametrize(
    "reference",
    [
        "nothing",
        "a/b/c",
        "http://host/model",
        "a/b@",
        "a/.b",
        ".a/b",
        "a/b@../../secret",
        "a/b@/etc/passwd",
        "a/b@x//y",
    ],
)
def test_what_never_reaches_the_hub(references: References, reference: str) -> None:
    with pytest.raises(EaselError) as caught:
        references.find(reference)
    assert isinstance(caught.value, NotFound | InvalidInput)


def test_an_absolute_path_to_nothing(references: References, root: Path) -> None:
    with pytest.raises(NotFound):
        references.find(str(root / "nothing"))
