"""gRPC metrics by the names and labels that go-grpc-middleware made customary."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

import grpc
from prometheus_client import CollectorRegistry, Metric
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector

from services.core.histogram import Histogram

UNKNOWN: Final = "unknown"
OTHER: Final = "other"
_CALL_LABELS: Final = ("grpc_type", "grpc_service", "grpc_method")
_CODE_LABELS: Final = (*_CALL_LABELS, "grpc_code")
_SECONDS_BUCKETS: Final = (
    *(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5),
    *(1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0),
)

_IRREGULAR: Final = {grpc.StatusCode.OK: "OK", grpc.StatusCode.CANCELLED: "Canceled"}


def code_label(code: grpc.StatusCode) -> str:
    """Spell a code as Go does: ``OK``, ``InvalidArgument``, ``Canceled`` (with one l)."""
    if code in _IRREGULAR:
        return _IRREGULAR[code]
    return code.name.title().replace("_", "")


CODE_LABELS: Final = {code: code_label(code) for code in grpc.StatusCode}


def call_type(request_streaming: bool, response_streaming: bool) -> str:
    if request_streaming:
        return "bidi_stream" if response_streaming else "client_stream"
    return "server_stream" if response_streaming else "unary"


def split_method(method: str) -> tuple[str, str]:
    """Split ``/package.Service/Method``."""
    service, _, name = method.lstrip("/").rpartition("/")
    return service, name


class MethodMetrics:
    """The numbers of one method; plain integers, to be changed on the event loop alone."""

    __slots__ = ("handled", "received", "seconds", "sent", "started")

    def __init__(self) -> None:
        self.started = 0
        self.received = 0
        self.sent = 0
        self.handled: dict[grpc.StatusCode, int] = {}
        self.seconds = Histogram(_SECONDS_BUCKETS)

    def start(self) -> None:
        self.started += 1

    def end(self, code: grpc.StatusCode, seconds: float, received: int = 0, sent: int = 0) -> None:
        """Record a call's end, with the messages it had in both directions."""
        self.handled[code] = self.handled.get(code, 0) + 1
        self.seconds.observe(seconds)
        self.received += received
        self.sent += sent


class _CallMetrics(Collector):
    """All methods of one side, server or client, as a collector of one registry."""

    def __init__(self, registry: CollectorRegistry, side: str) -> None:
        self._side = side
        self._methods: dict[tuple[str, str, str], MethodMetrics] = {}
        registry.register(self)

    def method(self, kind: str, service: str, name: str) -> MethodMetrics:
        return self._methods.setdefault((kind, service, name), MethodMetrics())

    def describe(self) -> Iterable[Metric]:
        return self._families().values()

    def collect(self) -> Iterable[Metric]:
        families = self._families()
        for labels, method in list(self._methods.items()):
            self._add(families, labels, method)
        return families.values()

    def _families(self) -> dict[str, Any]:
        prefix = f"grpc_{self._side}"
        return {
            "started": CounterMetricFamily(
                f"{prefix}_started", "Calls started.", labels=_CALL_LABELS
            ),
            "handled": CounterMetricFamily(
                f"{prefix}_handled", "Calls ended, by code.", labels=_CODE_LABELS
            ),
            "seconds": HistogramMetricFamily(
                f"{prefix}_handling_seconds",
                "Time from a call's start to its end.",
                labels=_CALL_LABELS,
            ),
        }

    def _add(self, families: dict[str, Any], labels: Sequence[str], method: MethodMetrics) -> None:
        families["started"].add_metric(labels, method.started)
        for code, count in list(method.handled.items()):
            families["handled"].add_metric((*labels, CODE_LABELS[code]), count)
        families["seconds"].add_metric(labels, method.seconds.buckets(), method.seconds.sum)


class ServerMetrics(_CallMetrics):
    """``grpc_server_*`` of one registry, for the calls that this process serves."""

    def __init__(self, registry: CollectorRegistry) -> None:
        super().__init__(registry, "server")

    def _families(self) -> dict[str, Any]:
        return {
            **super()._families(),
            "received": CounterMetricFamily(
                "grpc_server_msg_received", "Messages received.", labels=_CALL_LABELS
            ),
            "sent": CounterMetricFamily(
                "grpc_server_msg_sent", "Messages sent.", labels=_CALL_LABELS
            ),
        }

    def _add(self, families: dict[str, Any], labels: Sequence[str], method: MethodMetrics) -> None:
        super()._add(families, labels, method)
        families["received"].add_metric(labels, method.received)
        families["sent"].add_metric(labels, method.sent)


class ClientMetrics(_CallMetrics):
    """``grpc_client_*`` of one registry, for the calls that this process makes."""

    def __init__(self, registry: CollectorRegistry) -> None:
        super().__init__(registry, "client")
