"""What keeps vectors: one Protocol, and what its implementations raise."""

from __future__ import annotations

from collections.abc import Collection as Several
from collections.abc import Sequence
from datetime import datetime
from typing import Protocol

from ranker.index.collection import Collection, Origin
from ranker.index.entry import Entry, Filter, Image, Match, Vector
from services.core.errors import FailedPrecondition, NotFound


class VectorStore(Protocol):
    """Collections of pictures with their vectors, searched by the cosine of the angle between them.

    All vectors are float32 of length 1. What was put is found from then on, by searches of this
    process at least, and is there after a restart. Methods run beside each other; those that name
    a collection raise ``NotFound`` where there is none. A store that is away is ``NotReady``.
    """

    async def open(self) -> None:
        """Connect. Raises ``FailedPrecondition`` for what can never work, such as a library that
        is not installed."""
        ...

    async def close(self) -> None: ...

    async def collections(self) -> Sequence[Collection]:
        """By name."""
        ...

    async def find(self, name: str) -> Collection: ...

    async def create(self, name: str, origin: Origin, created_at: datetime) -> Collection:
        """The collection of that name: made now, or, where there is one, as it is."""
        ...

    async def drop(self, name: str) -> int:
        """Delete the collection with all it has, and return how many pictures that were."""
        ...

    async def put(
        self, name: str, origin: Origin, entries: Sequence[Entry], *, max_size: int
    ) -> Sequence[str]:
        """Keep ``entries``, of different ids, each in the place of one with the same id.

        Once the collection has ``max_size`` pictures it takes no new ids: those are returned.
        Raises ``FailedPrecondition`` where the collection is of another origin.
        """
        ...

    async def existing(self, name: str, ids: Several[str]) -> set[str]:
        """Those of ``ids`` that are there."""
        ...

    async def vector(self, name: str, id: str) -> Vector | None:
        """That of one picture; None where there is none."""
        ...

    async def nearest(
        self, name: str, vector: Vector, top_k: int, where: Filter
    ) -> Sequence[Match]:
        """The ``top_k`` most similar pictures of those that ``where`` lets pass, best first.

        Where a filter lets few pass, they are exactly these; else a large collection may be
        searched by a graph, which misses few.
        """
        ...

    async def likeliest(self, name: str, top_k: int, where: Filter) -> Sequence[Match]:
        """The pictures that ``where`` lets pass (it names labels), those first that most probably
        show one of its labels, equal ones by id."""
        ...

    async def page(self, name: str, after: str, count: int, where: Filter) -> Sequence[Image]:
        """The first ``count`` pictures that ``where`` lets pass and whose ids come after ``after``,
        by the order of their UTF-8 bytes."""
        ...

    async def delete(self, name: str, ids: Several[str]) -> int:
        """Return how many were there."""
        ...

    async def tend(self, name: str) -> None:
        """Put in order what writes left: build or mend the graph, flush. It may take minutes, and
        everything else goes on meanwhile; a collection that is gone by then is none of its
        concern."""
        ...


def no_collection(name: str) -> NotFound:
    return NotFound(f"There is no collection {name!r}.", reason="NO_COLLECTION")


def library_missing(what: str, library: str, extra: str) -> FailedPrecondition:
    return FailedPrecondition(
        f"{what} needs {library}, which is not installed: pip install 'easel[{extra}]'.",
        reason="LIBRARY_MISSING",
    )
