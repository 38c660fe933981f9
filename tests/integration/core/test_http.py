"""The HTTP side door, over real sockets."""

from __future__ import annotations

import http.client
from collections.abc import Iterator

import pytest
from prometheus_client import CollectorRegistry, Counter

from services.core.server.http import HttpServer


class Door:
    def __init__(self) -> None:
        self.ready = False
        registry = CollectorRegistry()
        Counter("toy_things", "Things.", registry=registry).inc(3)
        self.server = HttpServer(registry, lambda: self.ready)
        self.server.start()

    def ask(
        self, path: str, method: str = "GET", **headers: str
    ) -> tuple[int, bytes, dict[str, str]]:
        connection = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=5)
        try:
            connection.request(method, path, headers=headers)
            response = connection.getresponse()
            return response.status, response.read(), dict(response.getheaders())
        finally:
            connection.close()


@pytest.fixture
def door() -> Iterator[Door]:
    door = Door()
    yield door
    door.server.close()


def test_metrics_in_both_formats(door: Door) -> None:
    code, body, headers = door.ask("/metrics")
    assert code == 200
    assert b"toy_things_total 3.0" in body
    assert headers["Content-Type"].startswith("text/plain")
    _, body, headers = door.ask("/metrics", Accept="application/openmetrics-text; version=1.0.0")
    assert headers["Content-Type"].startswith("application/openmetrics-text")
    assert body.endswith(b"# EOF\n")


def test_alive_always_ready_when_told(door: Door) -> None:
    assert door.ask("/healthz")[0] == 200
    assert door.ask("/readyz")[0] == 503
    door.ready = True
    assert door.ask("/readyz")[0] == 200


@pytest.mark.parametrize("path", ["/", "/metricsx", "/metrics/", "/../etc/passwd", "/healthz/x"])
def test_nothing_else(door: Door, path: str) -> None:
    assert door.ask(path)[0] == 404


@pytest.mark.parametrize("path", ["/metrics", "/healthz", "/none"])
def test_reading_only(door: Door, path: str) -> None:
    assert door.ask(path, "HEAD")[:2] == (404 if path == "/none" else 200, b"")
    for method in ("POST", "PUT", "DELETE"):
        code, _, headers = door.ask(path, method)
        assert code == 405
        assert headers["Allow"] == "GET, HEAD"


def test_a_taken_port_is_an_error(door: Door) -> None:
    with pytest.raises(OSError, match="in use"):
        HttpServer(CollectorRegistry(), lambda: True, port=door.server.port)


def test_closing_before_starting() -> None:
    HttpServer(CollectorRegistry(), lambda: True).close()
