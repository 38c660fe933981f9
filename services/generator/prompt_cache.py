"""Encoded prompts that are kept, so that the same words need no second look."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Hashable, Iterator
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

from prometheus_client import CollectorRegistry, Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector


class Sized(Protocol):
    """A tensor, or what holds some."""

    @property
    def nbytes(self) -> int: ...


V = TypeVar("V", bound=Sized)


@dataclass(frozen=True, slots=True)
class CacheReport:
    hits: int
    misses: int
    entries: int
    bytes: int


@dataclass(slots=True)
class PromptCache(Generic[V]):
    """The most recently used entries, of ``max_bytes`` together; none when 0. From any thread."""

    max_bytes: int
    _entries: OrderedDict[Hashable, V] = field(default_factory=OrderedDict)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _bytes: int = 0
    _hits: int = 0
    _misses: int = 0

    def get(self, key: Hashable) -> V | None:
        if not self.max_bytes:
            return None
        with self._lock:
            found = self._entries.get(key)
            if found is None:
                self._misses += 1
                return None
            self._hits += 1
            self._entries.move_to_end(key)
            return found

    def put(self, key: Hashable, value: V) -> None:
        """What alone is larger than the whole cache is not kept."""
        if value.nbytes > self.max_bytes:
            return
        with self._lock:
            if (replaced := self._entries.pop(key, None)) is not None:
                self._bytes -= replaced.nbytes
            self._entries[key] = value
            self._bytes += value.nbytes
            while self._bytes > self.max_bytes:
                _, oldest = self._entries.popitem(last=False)
                self._bytes -= oldest.nbytes

    def clear(self) -> None:
        with self._lock:
            self._entries.clear()
            self._bytes = 0

    def report(self) -> CacheReport:
        with self._lock:
            return CacheReport(self._hits, self._misses, len(self._entries), self._bytes)


class PromptCacheMetrics(Collector):
    """``easel_prompt_cache_*`` of one cache; a text looked up is a hit or a miss."""

    def __init__(self, cache: PromptCache[V], name: str, registry: CollectorRegistry) -> None:
        self._cache: PromptCache[V] = cache
        self._name = name
        registry.register(self)

    def collect(self) -> Iterator[Metric]:
        report = self._cache.report()
        lookups = CounterMetricFamily(
            "easel_prompt_cache_lookups",
            "Prompts looked up among those encoded before, by outcome.",
            labels=("engine", "outcome"),
        )
        lookups.add_metric((self._name, "hit"), report.hits)
        lookups.add_metric((self._name, "miss"), report.misses)
        held = GaugeMetricFamily(
            "easel_prompt_cache_bytes", "Encoded prompts that are kept.", labels=("engine",)
        )
        held.add_metric((self._name,), report.bytes)
        yield lookups
        yield held
