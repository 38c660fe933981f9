from dataclasses import dataclass

import pytest
from prometheus_client import CollectorRegistry

from services.generator.prompt_cache import CacheReport, PromptCache, PromptCacheMetrics


@dataclass(frozen=True)
class Entry:
    nbytes: int


def test_a_second_look_is_a_hit() -> None:
    cache = PromptCache[Entry](10)
    assert cache.get("a") is None
    cache.put("a", Entry(4))
    assert cache.get("a") == Entry(4)
    assert cache.report() == CacheReport(hits=1, misses=1, entries=1, bytes=4)


def test_the_least_recently_used_goes_first() -> None:
    cache = PromptCache[Entry](10)
    for key in "ab":
        cache.put(key, Entry(5))
    cache.get("a")
    cache.put("c", Entry(1))
    assert [cache.get(key) is not None for key in "abc"] == [True, False, True]
    assert cache.report().bytes == 6


@pytest.mark.parametrize(("size", "kept"), [(9, True), (10, True), (11, False)])
def test_the_bound_is_in_bytes(size: int, kept: bool) -> None:
    cache = PromptCache[Entry](10)
    cache.put("a", Entry(size))
    assert (cache.get("a") is not None) == kept
    assert cache.report().bytes == (size if kept else 0)


def test_an_entry_put_again_is_counted_once() -> None:
    cache = PromptCache[Entry](10)
    cache.put("a", Entry(4))
    cache.put("a", Entry(6))
    assert cache.report().bytes == 6
    cache.clear()
    assert (cache.get("a"), cache.report().bytes) == (None, 0)


def test_off_keeps_and_counts_nothing() -> None:
    cache = PromptCache[Entry](0)
    cache.put("a", Entry(1))
    assert cache.get("a") is None
    assert cache.report() == CacheReport(0, 0, 0, 0)


def test_the_metrics_are_read_from_the_cache() -> None:
    registry, cache = CollectorRegistry(), PromptCache[Entry](10)
    PromptCacheMetrics(cache, "demo", registry)
    cache.put("a", Entry(3))
    for key in "aab":
        cache.get(key)
    lookups = "easel_prompt_cache_lookups_total"
    assert registry.get_sample_value(lookups, {"engine": "demo", "outcome": "hit"}) == 2
    assert registry.get_sample_value(lookups, {"engine": "demo", "outcome": "miss"}) == 1
    assert registry.get_sample_value("easel_prompt_cache_bytes", {"engine": "demo"}) == 3
