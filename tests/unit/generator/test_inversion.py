from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from services.core.errors import FailedPrecondition, InvalidInput, NotFound
from services.generator.inversion import MAX_VECTORS, Inversion, Vocabulary, load_inversions


def vectors(count: int = 1, width: int = 4) -> torch.Tensor:
    return torch.arange(count * width, dtype=torch.float32).reshape(count, width)


def save(directory: Path, name: str, **tensors: torch.Tensor) -> None:
    save_file(tensors, directory / name)


def test_every_spelling_of_a_file(tmp_path: Path) -> None:
    save(tmp_path, "a1111.safetensors", emb_params=vectors(3))
    save(tmp_path, "learned_embeds.safetensors", **{"<cat-toy>": vectors()[0]})
    save(tmp_path, "starred.safetensors", **{"*": vectors(2)})
    (tmp_path / "cat-toy.png").write_bytes(b"a picture of it")
    found = load_inversions(tmp_path, [4])
    assert [(one.name, one.length) for one in found] == [
        ("a1111", 3),
        ("cat-toy", 1),
        ("starred", 2),
    ]
    assert found[0].vectors[0].equal(vectors(3))


def test_a_pair_for_two_encoders(tmp_path: Path) -> None:
    save(tmp_path, "style.safetensors", clip_g=vectors(2, 6), clip_l=vectors(2, 4))
    (one,) = load_inversions(tmp_path, [4, 6])
    assert [part.shape for part in one.vectors] == [(2, 4), (2, 6)]


@pytest.mark.parametrize(
    ("tensors", "widths", "says"),
    [
        ({"emb_params": vectors(1, 5)}, [4], "another architecture: its vectors have 5"),
        ({"emb_params": vectors()}, [4, 6], "another architecture"),
        ({"clip_l": vectors(), "clip_g": vectors(1, 6)}, [4], "another architecture"),
        ({"clip_l": vectors(), "clip_g": vectors(2, 6)}, [4, 6], "as many for each"),
        ({"emb_params": vectors(MAX_VECTORS + 1)}, [4], f"1 to {MAX_VECTORS} vectors"),
        ({"emb_params": torch.empty(0, 4)}, [4], f"1 to {MAX_VECTORS} vectors"),
        ({"emb_params": vectors() * float("nan")}, [4], "no numbers"),
        ({"emb_params": torch.tensor(1.0)}, [4], "no vectors"),
        ({"emb_params": torch.ones(1, 2, 4)}, [4], "no vectors"),
        ({"a": vectors(), "b": vectors(), "c": vectors()}, [4], "3 tensors"),
    ],
)
def test_what_cannot_be_used_is_named(
    tmp_path: Path, tensors: dict[str, torch.Tensor], widths: list[int], says: str
) -> None:
    save(tmp_path, "odd.safetensors", **tensors)
    with pytest.raises(FailedPrecondition, match=says) as caught:
        load_inversions(tmp_path, widths)
    assert "'odd.safetensors'" in caught.value.message


def test_the_most_vectors_are_taken(tmp_path: Path) -> None:
    save(tmp_path, "long.safetensors", emb_params=vectors(MAX_VECTORS))
    assert load_inversions(tmp_path, [4])[0].length == MAX_VECTORS


@pytest.mark.parametrize("name", ["toy.pt", "toy.bin", "toy.safetensors"])
def test_only_safetensors(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"\x80\x04 a pickle")
    with pytest.raises(FailedPrecondition, match=f"'{name}' is not safetensors"):
        load_inversions(tmp_path, [4])


def test_names_are_said_once(tmp_path: Path) -> None:
    save(tmp_path, "one.safetensors", **{"<toy>": vectors()})
    save(tmp_path, "toy.safetensors", emb_params=vectors())
    with pytest.raises(FailedPrecondition, match=r"'toy\.safetensors' repeats the name <toy>"):
        load_inversions(tmp_path, [4])


def test_a_name_that_no_prompt_can_say(tmp_path: Path) -> None:
    save(tmp_path, "my toy.safetensors", emb_params=vectors())
    with pytest.raises(FailedPrecondition, match="no name that a prompt can say"):
        load_inversions(tmp_path, [4])


def test_no_such_directory(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="'nowhere'"):
        load_inversions(tmp_path / "nowhere", [4])


WORDS = Vocabulary([Inversion("cat-toy", (vectors(2),)), Inversion("x_1.5", (vectors(),))], 100)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("", [""]),
        ("a star", ["a star"]),
        ("a <cat-toy> here", ["a ", (100, 101), " here"]),
        ("<cat-toy><x_1.5>", ["", (100, 101), "", (102,), ""]),
        (r"a \<cat-toy> here", ["a <cat-toy> here"]),
        ("1 < 2 > 0, <3, <>, <a b>, <|endoftext|>, <é>", None),
    ],
)
def test_which_angle_brackets_are_names(
    text: str, parts: list[str | tuple[int, ...]] | None
) -> None:
    assert WORDS.split(text, "prompt") == (parts or [text])


def test_an_unknown_name_tells_what_is_there() -> None:
    with pytest.raises(InvalidInput) as caught:
        WORDS.split("a <dog> on <cat-toy>", "negative_prompt")
    assert caught.value.field == "negative_prompt"
    assert caught.value.given == "<dog>"
    assert caught.value.limit == "<cat-toy>, <x_1.5>"


def test_a_server_without_embeddings_says_so() -> None:
    with pytest.raises(InvalidInput) as caught:
        Vocabulary().split("<dog>", "prompt")
    assert caught.value.limit == "none: this server has no embeddings"


def test_what_is_there_is_told_in_short() -> None:
    many = Vocabulary([Inversion(f"n{index}", (vectors(),)) for index in range(22)])
    with pytest.raises(InvalidInput) as caught:
        many.split("<dog>", "prompt")
    assert str(caught.value.limit).endswith("<n19> and 2 more")
