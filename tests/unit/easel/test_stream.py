"""Many pictures on one stream: who is to blame, what is sent again, what fails for good."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest

from easel.cli.exits import ExitCode
from easel.cli.files import PictureFile
from easel.cli.stream import (
    MAX_PICTURE_BYTES,
    MAX_ROUNDS,
    Blame,
    Failure,
    answered,
    blame,
)
from easel.client import EaselClientError, ItemError

CODE = grpc.StatusCode


@dataclass(frozen=True)
class Answered:
    id: str
    error: ItemError | None = None
    digest: str = "sha256:a"


BAD = ItemError(CODE.INVALID_ARGUMENT, "Not a picture.", "INVALID_INPUT", "image.encoded")
BUSY = ItemError(CODE.RESOURCE_EXHAUSTED, "Too much work.", "OVERLOADED", retry_after=2.0)
Reply = Callable[[str, bytes, int], Answered | None]


class Service:
    """Answers each picture by ``reply(id, data, round)``; notes what was sent and the pauses."""

    def __init__(self, reply: Reply) -> None:
        self._reply = reply
        self.sent: list[list[str]] = []
        self.pauses: list[float] = []

    def call(self, sending: Iterator[tuple[str, bytes]]) -> Iterator[Answered]:
        self.sent.append([])
        for name, data in sending:
            self.sent[-1].append(name)
            answer = self._reply(name, data, len(self.sent))
            if answer is not None:
                yield answer

    def run(self, pictures: list[PictureFile]) -> dict[str, Answered | Failure]:
        found: dict[str, Answered | Failure] = {}
        for picture, answer in answered(
            pictures, self.call, digest="sha256:a", wait=self.pauses.append
        ):
            assert picture.name not in found, "answered twice"
            found[picture.name] = answer
        return found


@pytest.fixture
def pictures(tmp_path: Path) -> list[PictureFile]:
    made = []
    for number in range(4):
        path = tmp_path / f"{number}.png"
        path.write_bytes(bytes([number]))
        made.append(PictureFile(f"p{number}", path))
    return made


def test_each_is_sent_and_answered_once(pictures: list[PictureFile]) -> None:
    service = Service(lambda name, data, _: Answered(name))
    found = service.run(pictures)

    assert {name: answer for name, answer in found.items() if isinstance(answer, Failure)} == {}
    assert list(found) == ["p0", "p1", "p2", "p3"]
    assert service.sent == [["0", "1", "2", "3"]]
    assert service.pauses == []


def test_no_pictures_no_call(pictures: list[PictureFile]) -> None:
    service = Service(lambda name, data, _: Answered(name))

    assert service.run([]) == {}
    assert service.sent == []


def test_a_bad_picture_fails_alone(pictures: list[PictureFile]) -> None:
    found = Service(lambda name, data, _: Answered(name, BAD if name == "2" else None)).run(
        pictures
    )

    assert found["p2"] == Failure(
        "INVALID_ARGUMENT: image.encoded: Not a picture.", ExitCode.BAD_INPUT
    )
    assert sum(isinstance(answer, Failure) for answer in found.values()) == 1


def test_a_file_that_cannot_be_read_is_not_sent(pictures: list[PictureFile]) -> None:
    pictures[1].path.unlink()
    service = Service(lambda name, data, _: Answered(name))
    found = service.run(pictures)

    assert found["p1"] == Failure("No such file or directory", ExitCode.BAD_INPUT)
    assert service.sent == [["0", "2", "3"]]


@pytest.mark.parametrize("beyond", [-1, 0, 1])
def test_the_largest_picture(pictures: list[PictureFile], beyond: int) -> None:
    size = MAX_PICTURE_BYTES + beyond
    with pictures[0].path.open("r+b") as file:
        file.truncate(size)
    found = Service(lambda name, data, _: Answered(name)).run(pictures[:1])

    if beyond > 0:
        limit = f"the file has {size} bytes, {MAX_PICTURE_BYTES} at most can be sent"
        assert found["p0"] == Failure(limit, ExitCode.BAD_INPUT)
    else:
        assert isinstance(found["p0"], Answered)


def test_what_there_was_no_room_for_is_sent_again(pictures: list[PictureFile]) -> None:
    service = Service(
        lambda name, data, number: Answered(name, BUSY if number < 3 and name in "13" else None)
    )
    found = service.run(pictures)

    assert service.sent == [["0", "1", "2", "3"], ["1", "3"], ["1", "3"]]
    assert service.pauses == [2.0, 2.0]
    assert all(isinstance(answer, Answered) for answer in found.values())
    assert len(found) == 4


def test_without_a_single_answer_it_ends(pictures: list[PictureFile]) -> None:
    service = Service(lambda name, data, _: Answered(name, BUSY))
    found = service.run(pictures)

    assert len(service.sent) == MAX_ROUNDS
    assert len(service.pauses) == MAX_ROUNDS - 1
    assert set(found.values()) == {Failure("RESOURCE_EXHAUSTED: Too much work.", ExitCode.FAILED)}
    assert len(found) == 4


def test_one_answer_a_round_is_enough_to_go_on(tmp_path: Path) -> None:
    path = tmp_path / "p.png"
    path.write_bytes(b"x")
    many = [PictureFile(f"p{number}", path) for number in range(MAX_ROUNDS + 3)]
    service = Service(
        lambda name, data, number: Answered(name, None if int(name) < number else BUSY)
    )
    found = service.run(many)

    assert len(service.sent) == len(many)
    assert all(isinstance(answer, Answered) for answer in found.values())


def test_pauses_have_an_end(pictures: list[PictureFile]) -> None:
    long = ItemError(CODE.UNAVAILABLE, "Later.", retry_after=1e6)
    service = Service(lambda name, data, number: Answered(name, long if number == 1 else None))
    service.run(pictures)

    assert service.pauses == [30.0]


def test_a_picture_without_an_answer_is_told(pictures: list[PictureFile]) -> None:
    found = Service(lambda name, data, _: None if name == "3" else Answered(name)).run(pictures)

    assert found["p3"] == Failure("the stream ended without an answer to it", ExitCode.FAILED)
    assert len(found) == 4


def test_what_fails_every_picture_ends_it_all(pictures: list[PictureFile]) -> None:
    bad = ItemError(CODE.INVALID_ARGUMENT, "No such layer.", "INVALID_INPUT", "layers")
    service = Service(lambda name, data, _: Answered(name, bad))

    with pytest.raises(EaselClientError, match="No such layer") as raised:
        service.run(pictures)
    assert [each.field for each in raised.value.violations] == ["layers"]


def test_another_model_ends_it_all(pictures: list[PictureFile]) -> None:
    service = Service(lambda name, data, _: Answered(name, digest="sha256:" + "ab"[name == "2"]))

    with pytest.raises(ValueError, match="began with sha256:a, now sha256:b answers"):
        service.run(pictures)


@pytest.mark.parametrize(
    ("code", "field", "about"),
    [
        (CODE.INVALID_ARGUMENT, "image", Blame.PICTURE),
        (CODE.INVALID_ARGUMENT, "image.raw.width", Blame.PICTURE),
        (CODE.INVALID_ARGUMENT, "images", Blame.REQUEST),
        (CODE.INVALID_ARGUMENT, "", Blame.REQUEST),
        (CODE.NOT_FOUND, "", Blame.REQUEST),
        (CODE.FAILED_PRECONDITION, "", Blame.REQUEST),
        (CODE.UNIMPLEMENTED, "", Blame.REQUEST),
        (CODE.UNAUTHENTICATED, "", Blame.REQUEST),
        (CODE.PERMISSION_DENIED, "", Blame.REQUEST),
        (CODE.INTERNAL, "", Blame.PICTURE),
        (CODE.DEADLINE_EXCEEDED, "", Blame.PICTURE),
        (CODE.RESOURCE_EXHAUSTED, "", Blame.LOAD),
        (CODE.UNAVAILABLE, "", Blame.LOAD),
    ],
)
def test_blame(code: grpc.StatusCode, field: str, about: Blame) -> None:
    assert blame(ItemError(code, "text", field=field)) is about
