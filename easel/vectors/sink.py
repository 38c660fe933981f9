"""Where vectors go, and how an interrupted run is taken up again."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol, Self

from easel.vectors.journal import Journal
from easel.vectors.recipe import Column, Recipe, Record


class Sink(Protocol):
    """Takes vectors of one recipe. A process that is killed may lose what was added since the last
    `save`, and nothing else."""

    def kept(self, names: Collection[str]) -> set[str]:
        """Which of ``names`` are there already."""
        ...

    def begin(self, columns: tuple[Column, ...]) -> None:
        """Say what the vectors look like; once, before the first `add`."""
        ...

    def add(self, record: Record) -> None: ...

    def save(self) -> None:
        """Have everything where it survives the process."""
        ...

    def finish(self) -> None:
        """Have everything in its place; nothing is added after it."""
        ...

    def close(self) -> None:
        """Let go of files and connections, finished or not."""
        ...


class Store(Protocol):
    """What a destination names. Making one raises ``ExtraMissingError`` where its library is not
    installed, and ``ValueError`` where it cannot be one."""

    def check(self, recipe: Recipe) -> None:
        """Raises ``ValueError`` for vectors that it cannot hold."""
        ...

    def open(self, recipe: Recipe, *, resume: bool) -> Sink:
        """Raises ``ValueError`` where something is there and is not to be gone on with, or was
        made by another recipe; ``OSError``; ``StoreError`` where the library fails."""
        ...


class StoreError(Exception):
    """A destination's library failed."""


class VectorFile(Protocol):
    """A file that is written as a whole: beside it first, then put in its place."""

    path: Path

    def read(self) -> tuple[Recipe, Sequence[str]] | None:
        """The recipe and the pictures of the file that is there; None where there is none."""
        ...

    def write(self, recipe: Recipe, columns: tuple[Column, ...], records: Iterator[Record]) -> None:
        """Replace the file by one that holds what it held, then ``records``."""
        ...


class FileSink:
    """Keeps vectors in a journal beside ``file`` until there are all, then writes the file.

    The journal goes last, so whatever moment the process ends at, each vector is in one of the
    two; what is in both counts once.
    """

    def __init__(self, file: VectorFile, recipe: Recipe, *, resume: bool) -> None:
        journal = file.path.with_name(f"{file.path.name}.partial")
        for path in (file.path, journal):
            if path.exists() and not resume:
                raise ValueError(f"{path} is there already; --resume goes on with it")
        self._file = file
        self._recipe = recipe
        there = file.read()
        if there is not None:
            there[0].check_same(recipe, str(file.path))
        self._there = frozenset(there[1]) if there else frozenset()
        self._journal = Journal(journal)
        if self._journal.recipe is not None:
            try:
                self._journal.recipe.check_same(recipe, str(journal))
            except ValueError:
                self._journal.close()
                raise

    def kept(self, names: Collection[str]) -> set[str]:
        return set(names) & (self._there | set(self._journal.names))

    def begin(self, columns: tuple[Column, ...]) -> None:
        if self._journal.recipe is None:
            self._journal.begin(self._recipe, columns)
        elif self._journal.columns != columns:
            raise ValueError(f"{self._journal.path}: its vectors are of other shapes")

    def add(self, record: Record) -> None:
        self._journal.append(record)

    def save(self) -> None:
        pass  # each is safe once it was added

    def finish(self) -> None:
        new = [name for name in self._journal.names if name not in self._there]
        if new:
            records = self._journal.records(new)
            self._file.write(self._recipe, self._journal.columns, records)
        self._journal.remove()

    def close(self) -> None:
        self._journal.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: Any) -> None:
        self.close()
