"""A histogram counts as prometheus_client's own does."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry
from prometheus_client import Histogram as Reference

from services.core.histogram import Histogram

BOUNDS = (0.001, 0.5, 1.0, 30.0)


@given(st.lists(st.sampled_from([0.0, *BOUNDS, 0.7, 31.0]) | st.floats(0.0, 1e6)))
def test_it_counts_like_the_reference(values: list[float]) -> None:
    histogram, registry = Histogram(BOUNDS), CollectorRegistry()
    reference = Reference("x", "x", buckets=BOUNDS, registry=registry)
    for value in values:
        histogram.observe(value)
        reference.observe(value)
    for bound, count in histogram.buckets():
        assert registry.get_sample_value("x_bucket", {"le": bound}) == count
    assert registry.get_sample_value("x_sum") == histogram.sum
