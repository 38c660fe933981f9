"""Many pictures over one stream, until each is answered or has failed for good."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Final, Protocol, TypeVar

import grpc

from easel.cli.exits import ExitCode, exit_code, item_line
from easel.cli.files import PictureFile
from easel.client import EaselClientError, ItemError

# What the services accept by default, less what the message has besides the picture.
MAX_PICTURE_BYTES: Final = 32 * 2**20 - 64 * 2**10
MAX_ROUNDS: Final = 6
_MAX_PAUSE_SECONDS: Final = 30.0


class Answer(Protocol):
    """A picture's answer; ``id`` is the one that was sent with it."""

    @property
    def id(self) -> str: ...
    @property
    def error(self) -> ItemError | None: ...
    @property
    def digest(self) -> str: ...


A = TypeVar("A", bound=Answer)


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a picture has no answer, in one line, and the exit code that stands for it."""

    reason: str
    code: ExitCode


class Blame(Enum):
    """Whom an item's error is about."""

    PICTURE = "this picture alone"
    REQUEST = "every picture alike"
    LOAD = "nobody: it may go well later"


def blame(error: ItemError) -> Blame:
    """Tell a bad picture from a bad request: the second would fail all of them."""
    if error.code in (grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.UNAVAILABLE):
        return Blame.LOAD
    if error.code is grpc.StatusCode.INVALID_ARGUMENT:
        about_it = error.field.partition(".")[0] in ("image", "id")
        return Blame.PICTURE if about_it else Blame.REQUEST
    return Blame.REQUEST if error.code in _OF_THE_REQUEST else Blame.PICTURE


_NO_ANSWER: Final = Failure("the stream ended without an answer to it", ExitCode.FAILED)
_OF_THE_REQUEST: Final = (
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.UNIMPLEMENTED,
    grpc.StatusCode.UNAUTHENTICATED,
    grpc.StatusCode.PERMISSION_DENIED,
)


def answered(
    pictures: Sequence[PictureFile],
    call: Callable[[Iterator[tuple[str, bytes]]], Iterator[A]],
    *,
    digest: str,
    wait: Callable[[float], None] = time.sleep,
) -> Iterator[tuple[PictureFile, A | Failure]]:
    """Yield every picture once, as it is answered by the model of ``digest`` or fails for good.

    ``call`` starts a stream of (id, picture). What the service has no room for is sent again, up
    to `MAX_ROUNDS` times in a row without a single answer. Raises ``EaselClientError`` where the
    call or every picture alike fails, ``ValueError`` when another model takes over meanwhile.
    """
    left: Sequence[int] = range(len(pictures))
    rounds = 0
    while left:
        sending = _Sending(pictures, left)
        unanswered = set(left)
        refused: dict[int, ItemError] = {}
        answers = 0
        for answer in call(sending):
            number, error = int(answer.id), answer.error
            unanswered.discard(number)
            if error is None:
                _check_model(answer, digest)
                answers += 1
                yield pictures[number], answer
            elif (about := blame(error)) is Blame.LOAD:
                refused[number] = error
            elif about is Blame.REQUEST:
                raise EaselClientError.from_item(error)
            else:
                yield pictures[number], _failure(error)
        for number in sorted(unanswered):
            yield pictures[number], sending.unreadable.get(number, _NO_ANSWER)
        rounds = 0 if answers else rounds + 1
        left = sorted(refused)
        if left and rounds == MAX_ROUNDS:
            yield from ((pictures[number], _failure(refused[number])) for number in left)
            return
        if left:
            wait(_pause(refused.values(), rounds))


def _failure(error: ItemError) -> Failure:
    return Failure(item_line(error), exit_code(error))


def _pause(errors: Iterable[ItemError], rounds: int) -> float:
    told = max(error.retry_after or 0.0 for error in errors)
    return min(max(told, 0.25 * 2.0**rounds), _MAX_PAUSE_SECONDS)


def _check_model(answer: Answer, digest: str) -> None:
    if answer.digest != digest:
        raise ValueError(
            f"the model changed meanwhile: it began with {digest}, now {answer.digest} answers"
        )


class _Sending(Iterator[tuple[str, bytes]]):
    """Reads files as the service takes them, in gRPC's thread; ``unreadable`` says which could
    not be sent, and is whole when the stream has ended."""

    def __init__(self, pictures: Sequence[PictureFile], numbers: Sequence[int]) -> None:
        self._pictures = pictures
        self._numbers = iter(numbers)
        self.unreadable: dict[int, Failure] = {}

    def __next__(self) -> tuple[str, bytes]:
        for number in self._numbers:
            try:
                data = self._pictures[number].path.read_bytes()
            except OSError as error:
                self._leave_out(number, error.strerror or str(error))
                continue
            if len(data) <= MAX_PICTURE_BYTES:
                return str(number), data
            limit = f"{MAX_PICTURE_BYTES} at most can be sent"
            self._leave_out(number, f"the file has {len(data)} bytes, {limit}")
        raise StopIteration

    def _leave_out(self, number: int, reason: str) -> None:
        self.unreadable[number] = Failure(reason, ExitCode.BAD_INPUT)
