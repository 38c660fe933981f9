"""The gateway's counters, read from its /metrics (Prometheus text format 0.0.4)."""

from __future__ import annotations

import re
import time
import urllib.request
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

_SAMPLE: Final = re.compile(r"([a-zA-Z_:][\w:]*)(?:\{(.*)\})?\s+(\S+)")
_LABEL: Final = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')
# Calls taken in, messages sent back to callers, and calls passed on to the services.
FAMILIES: Final = (
    "grpc_server_handled_total",
    "grpc_server_msg_sent_total",
    "grpc_client_handled_total",
)
_METHOD: Final = "grpc_method"
_PAUSE_SECONDS: Final = 0.1


@dataclass(frozen=True, slots=True)
class Sample:
    name: str
    labels: Mapping[str, str]
    value: float


def parse(text: str) -> Iterator[Sample]:
    """Yield the samples; comments and what is no sample are passed over."""
    for line in text.splitlines():
        found = None if line.startswith("#") else _SAMPLE.match(line)
        if found is not None:
            yield Sample(found[1], dict(_LABEL.findall(found[2] or "")), float(found[3]))


def by_method(samples: Iterable[Sample], methods: Iterable[str]) -> dict[str, float]:
    """Return `family{grpc_method="..."}` with its sum over the other labels, for every family of
    ``FAMILIES`` and every one of ``methods``; 0 where the gateway has counted nothing."""
    sums: defaultdict[tuple[str, str], float] = defaultdict(float)
    for sample in samples:
        sums[sample.name, sample.labels.get(_METHOD, "")] += sample.value
    wanted = list(methods)
    return {
        f'{family}{{{_METHOD}="{method}"}}': sums[family, method]
        for family in FAMILIES
        for method in wanted
    }


def settled(http: str, methods: Iterable[str], tries: int = 20) -> dict[str, float]:
    """Return ``by_method`` of what ``http`` counts, once nothing of it is 0, or after ``tries``.

    A server counts a call after its caller has seen it end.
    """
    wanted = list(methods)
    found: dict[str, float] = {}
    for _ in range(tries):
        found = by_method(scrape(http), wanted)
        if all(found.values()):
            break
        time.sleep(_PAUSE_SECONDS)
    return found


def scrape(http: str, timeout_seconds: float = 5.0) -> list[Sample]:
    """Read ``http`` (host:port). Raises ``OSError`` when it cannot be reached."""
    # No proxy from the environment may stand between two processes of one machine.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(f"http://{http}/metrics", timeout=timeout_seconds) as answer:
        return list(parse(answer.read().decode()))
