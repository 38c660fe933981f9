"""The small HTTP side door: ``/metrics``, ``/healthz`` and ``/readyz``, from threads of its own.

Because it never touches the event loop, a busy or stuck loop still answers probes and scrapes:
liveness says that the process runs, readiness that it should get calls.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterable
from socketserver import TCPServer, ThreadingMixIn
from typing import Any, Final
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from prometheus_client import CollectorRegistry, make_wsgi_app

_IDLE_SECONDS: Final = 10.0
_TEXT: Final = [("Content-Type", "text/plain; charset=utf-8"), ("Cache-Control", "no-store")]


class HttpServer:
    """Serves ``registry`` and two probes on ``host``; ``port`` is the one really bound.

    ``/healthz`` is 200 while the server runs. ``/readyz`` is 200 while ``is_ready()`` is true and
    503 otherwise. OpenMetrics is served to those who ask for it. Raises ``OSError`` where the
    port is taken.
    """

    def __init__(
        self,
        registry: CollectorRegistry,
        is_ready: Callable[[], bool],
        *,
        host: str = "127.0.0.1",
        port: int = 0,
    ) -> None:
        server_class = _Server6 if ":" in host else _Server
        self._server = server_class((host.strip("[]"), port), _QuietHandler)
        self._server.set_app(_application(registry, is_ready))
        self.port = int(self._server.server_address[1])
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.1,), name="http", daemon=True
        )

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join()
        self._server.server_close()


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True
    block_on_close = False

    def server_bind(self) -> None:
        # The stock one looks the host's name up in DNS, which can take many seconds.
        TCPServer.server_bind(self)
        self.server_name = str(self.server_address[0])
        self.server_port = int(self.server_address[1])
        self.setup_environ()


class _Server6(_Server):
    address_family = socket.AF_INET6


class _QuietHandler(WSGIRequestHandler):
    timeout = _IDLE_SECONDS

    def log_message(self, format: str, *args: Any) -> None:
        del format, args


def _application(registry: CollectorRegistry, is_ready: Callable[[], bool]) -> Any:
    metrics = make_wsgi_app(registry)

    def application(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        if environ["REQUEST_METHOD"] not in ("GET", "HEAD"):
            start_response("405 Method Not Allowed", [*_TEXT, ("Allow", "GET, HEAD")])
            return [b"only GET and HEAD\n"]
        body = answer(environ, start_response)
        return [] if environ["REQUEST_METHOD"] == "HEAD" else body

    def answer(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        path = environ["PATH_INFO"]
        if path == "/metrics":
            # The metrics application knows no HEAD; its body is dropped above.
            asked = {**environ, "REQUEST_METHOD": "GET"}
            body: Iterable[bytes] = metrics(asked, start_response)
            return body
        if path == "/healthz":
            return _text(start_response, "200 OK", b"alive\n")
        if path == "/readyz":
            ready = is_ready()
            line = "200 OK" if ready else "503 Service Unavailable"
            return _text(start_response, line, b"ready\n" if ready else b"not ready\n")
        return _text(start_response, "404 Not Found", b"not found\n")

    return application


def _text(start_response: Any, line: str, body: bytes) -> Iterable[bytes]:
    start_response(line, [*_TEXT, ("Content-Length", str(len(body)))])
    return [body]
