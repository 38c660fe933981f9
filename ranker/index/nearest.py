"""Vectors of one collection in memory, by number, in a FAISS index: exact or a graph, by size."""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Lock
from typing import Any, BinaryIO, Final

import numpy as np
from numpy.typing import NDArray

from ranker.index.sharing import SharedLock
from ranker.index.store import library_missing

Numbers = NDArray[np.int64]
Vectors = NDArray[np.float32]

_MAGIC: Final = b"easel graph 1\n"
# A search waits for one chunk at most, some 50 ms of adding to a graph.
_CHUNK: Final = 64
_BUILD_CHUNK: Final = 4096
_MAX_DEAD_SHARE: Final = 0.2
_FEW: Final = 64


@dataclass(frozen=True, slots=True)
class Graph:
    """The parameters of HNSW (Malkov and Yashunin, 2016): ``links`` is M, the widths are
    efConstruction and efSearch."""

    links: int = 16
    build_width: int = 64
    search_width: int = 128


class Nearest:
    """Unit vectors, float32 [dimensions], by numbers that are never used again.

    Above ``exact_size`` vectors ``tend`` builds a graph; until then, and for searches among some of
    them, every vector is compared. Blocking, and safe from several threads.
    """

    def __init__(self, dimensions: int, exact_size: int, graph: Graph) -> None:
        """Raises ``FailedPrecondition`` where FAISS is not installed."""
        self._faiss = library()
        self.dimensions = dimensions
        self._exact_size = exact_size
        self._graph = graph
        self._lock = SharedLock()
        self._tending = Lock()
        self._stopping = Event()
        self._hold(self._faiss.IndexFlatIP(dimensions), np.empty(0, "int64"))

    def __len__(self) -> int:
        return len(self._slots)

    @property
    def has_graph(self) -> bool:
        return hasattr(self._index, "hnsw")

    @property
    def numbers(self) -> set[int]:
        with self._lock.shared():
            return set(self._slots)

    def add(self, numbers: Sequence[int], vectors: Vectors) -> None:
        """``vectors`` are float32 [len(numbers), dimensions]."""
        for first in range(0, len(numbers), _CHUNK):
            with self._lock.alone():
                self._add(numbers[first : first + _CHUNK], vectors[first : first + _CHUNK])

    def remove(self, numbers: Collection[int]) -> None:
        """Those that are not there are passed over."""
        with self._lock.alone():
            for number in numbers:
                slot = self._slots.pop(number, None)
                if slot is not None:
                    self._is_live[slot] = False

    def vector(self, number: int) -> Vectors | None:
        with self._lock.shared():
            slot = self._slots.get(number)
            return None if slot is None else self._flat.reconstruct(slot)

    def search(
        self, vector: Vectors, count: int, among: Collection[int] | None = None
    ) -> list[tuple[int, float]]:
        """The numbers of the ``count`` most similar vectors with the similarities, best first.

        Exactly so where ``among`` says which are meant, and where there is no graph.
        """
        with self._lock.shared():
            live = self._live_slots()
            if among is not None:
                chosen = np.zeros(self._total, bool)
                chosen[[self._slots[number] for number in among if number in self._slots]] = True
                return self._compare_all(vector, count, chosen)
            count = min(count, len(self._slots))
            if self.has_graph and count:
                found = self._follow_graph(vector, count, live)
                if len(found) == count:
                    return found
            return self._compare_all(vector, count, live)

    def tend(self) -> bool:
        """Build the index anew where its kind, or what was removed, calls for it, and tell whether
        that was done. Searches and additions go on meanwhile."""
        with self._tending:
            return self._needs_rebuilding() and self._rebuild()

    def stop(self) -> None:
        """Have ``tend`` give up, now and from now on."""
        self._stopping.set()

    def save(self, path: Path) -> None:
        """Write all to ``path``; additions wait for it, searches do not."""
        beside = path.with_name(f".{path.name}.new")
        with self._lock.shared(), beside.open("wb") as file:
            head = {"dimensions": self.dimensions, "total": self._total}
            file.write(_MAGIC + json.dumps(head).encode() + b"\n")
            file.write(self._numbers[: self._total].tobytes())
            self._faiss.write_index(self._index, self._faiss.PyCallbackIOWriter(file.write))
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)

    def load(self, path: Path) -> None:
        """Hold what ``save`` wrote. Raises ``OSError``, and ``ValueError`` where it is not that."""
        with path.open("rb") as file:
            numbers = self._read_numbers(file)
            try:
                index = self._faiss.read_index(self._faiss.PyCallbackIOReader(file.read))
            except RuntimeError as error:
                raise ValueError(f"FAISS cannot read it: {error}") from error
        if index.d != self.dimensions or index.ntotal != len(numbers):
            raise ValueError("its parts do not belong together")
        with self._lock.alone():
            self._hold(index, numbers)

    def _read_numbers(self, file: BinaryIO) -> Numbers:
        if file.read(len(_MAGIC)) != _MAGIC:
            raise ValueError("it does not begin as an index of this release")
        head = json.loads(file.readline(200))
        if head.get("dimensions") != self.dimensions:
            raise ValueError(f"it is not of {self.dimensions} dimensions")
        data = file.read(8 * int(head.get("total", 0)))
        return np.frombuffer(data, "int64").copy()

    def _hold(self, index: Any, numbers: Numbers) -> None:
        self._index = index
        self._total = len(numbers)
        self._numbers = numbers
        self._is_live = np.ones(self._total, bool)
        self._slots = {int(number): slot for slot, number in enumerate(numbers)}

    @property
    def _flat(self) -> Any:
        """The vectors by slot, however they are linked."""
        return self._faiss.downcast_index(self._index.storage) if self.has_graph else self._index

    def _add(self, numbers: Sequence[int], vectors: Vectors) -> None:
        self._index.add(vectors)
        first, self._total = self._total, self._total + len(numbers)
        if self._total > len(self._numbers):
            room = np.zeros(max(self._total, 1024), "int64")
            self._numbers = np.concatenate([self._numbers[:first], room])
            self._is_live = np.concatenate([self._is_live[:first], room.astype(bool)])
        self._numbers[first : self._total] = numbers
        self._is_live[first : self._total] = True
        self._slots.update(zip(numbers, range(first, self._total), strict=True))

    def _live_slots(self) -> Any | None:
        """Whether each slot is live; None where all are."""
        return None if self._total == len(self._slots) else self._is_live[: self._total]

    def _follow_graph(self, vector: Vectors, count: int, chosen: Any) -> list[tuple[int, float]]:
        width = max(self._graph.search_width, 2 * count)
        with self._selector(chosen) as selector:
            params = self._faiss.SearchParametersHNSW(efSearch=width, sel=selector)
            return self._found(*self._index.search(vector[None], count, params=params))

    def _compare_all(self, vector: Vectors, count: int, chosen: Any) -> list[tuple[int, float]]:
        there = self._total if chosen is None else int(chosen.sum())
        if there == 0:
            return []
        with self._selector(chosen) as selector:
            params = self._faiss.SearchParameters(sel=selector)
            return self._found(*self._flat.search(vector[None], min(count, there), params=params))

    @contextmanager
    def _selector(self, chosen: Any) -> Iterator[Any]:
        if chosen is None:
            yield None
        else:
            bits = np.packbits(chosen, bitorder="little")
            yield self._faiss.IDSelectorBitmap(bits)

    def _found(self, similarities: Any, slots: Any) -> list[tuple[int, float]]:
        pairs = zip(slots[0].tolist(), similarities[0].tolist(), strict=True)
        return [(int(self._numbers[slot]), value) for slot, value in pairs if slot >= 0]

    def _needs_rebuilding(self) -> bool:
        with self._lock.shared():
            dead = self._total - len(self._slots)
            is_worn = dead > max(_FEW, _MAX_DEAD_SHARE * self._total)
            return is_worn or (len(self._slots) > self._exact_size and not self.has_graph)

    def _rebuild(self) -> bool:
        new, numbers = self._empty(), []
        seen = 0
        while not self._stopping.is_set():
            with self._lock.shared():
                slots = self._live_from(seen, _BUILD_CHUNK)
                vectors = self._flat.reconstruct_batch(slots)
                is_last = len(slots) < _CHUNK
            if is_last:
                break
            new.add(vectors)
            numbers.append(self._numbers[slots])
            seen = int(slots[-1]) + 1
        else:
            return False
        with self._lock.alone():
            slots = self._live_from(seen, self._total)
            new.add(self._flat.reconstruct_batch(slots))
            numbers.append(self._numbers[slots])
            live = self._slots
            self._hold(new, np.concatenate(numbers))
            for number in [number for number in self._slots if number not in live]:
                self._is_live[self._slots.pop(number)] = False
        return True

    def _live_from(self, slot: int, count: int) -> Any:
        """The next ``count`` live slots."""
        return slot + np.flatnonzero(self._is_live[slot : self._total])[:count]

    def _empty(self) -> Any:
        if len(self._slots) <= self._exact_size:
            return self._faiss.IndexFlatIP(self.dimensions)
        graph = self._graph
        metric = self._faiss.METRIC_INNER_PRODUCT
        index = self._faiss.IndexHNSWFlat(self.dimensions, graph.links, metric)
        index.hnsw.efConstruction = graph.build_width
        return index


def library() -> Any:
    """FAISS. Raises ``FailedPrecondition`` where it is not installed."""
    try:
        import faiss
    except ModuleNotFoundError:
        raise library_missing("The image index", "faiss-cpu", "ranker") from None
    return faiss
