"""A client that costs less than the servers it measures: it sends one message over and over.

The Python client of gRPC takes about as long for a message as a bare server does, so that a rate
through it says as much of the client. Here requests are framed once, before the clock starts, and
answers are only gathered while it runs, then parsed: frames of data pass the HTTP/2 library by,
which takes as long for one as the bare server does.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from typing import Final, cast

import h2.config
import h2.connection
import h2.events
import h2.settings

WINDOW: Final = 2**30
READ_BYTES: Final = 2**20
HEAD_BYTES: Final = 5
FRAME_HEAD_BYTES: Final = 9  # RFC 9113, section 4.1
DATA: Final = 0
TIMEOUT_SECONDS: Final = 120.0
GATHER_SECONDS: Final = 0.001
"""Answers are taken so often: were one waited for, the server would pay for waking this process at
nearly each, which a client that is busy, as gRPC's is, does not ask of it.
"""


class Exchange:
    """One stream: what is still to send, and what has come back."""

    def __init__(self, body: bytes) -> None:
        self.unsent = memoryview(body)
        self.received = bytearray()
        self.status = ""


def framed(message: bytes) -> bytes:
    """``message`` as gRPC puts it on a stream, not compressed."""
    return b"\0" + len(message).to_bytes(4, "big") + message


def messages(received: bytes | bytearray) -> Iterator[bytes]:
    start = 0
    while start < len(received):
        size = int.from_bytes(received[start + 1 : start + HEAD_BYTES], "big")
        yield bytes(received[start + HEAD_BYTES : start + HEAD_BYTES + size])
        start += HEAD_BYTES + size


class FramedClient:
    """One connection to ``target`` (``host:port``, no TLS)."""

    def __init__(self, target: str) -> None:
        host, _, port = target.rpartition(":")
        self._authority = target
        self._socket = socket.create_connection((host, int(port)), TIMEOUT_SECONDS)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._http = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="utf-8"))
        self._http.initiate_connection()
        self._http.update_settings({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: WINDOW})
        self._http.increment_flow_control_window(WINDOW)
        self._unread = bytearray()
        self._flush()

    def close(self) -> None:
        self._socket.close()

    def run(self, method: str, bodies: list[bytes], at_once: int) -> tuple[float, list[bytes]]:
        """Seconds for one call of ``method`` a body, ``at_once`` of them at a time, and all the
        messages that came back. Raises ``RuntimeError`` where one ends with an error.
        """
        waiting, under_way = list(reversed(bodies)), dict[int, Exchange]()
        answers: list[bytes] = []
        ended: list[Exchange] = []
        began = time.perf_counter()
        while waiting or under_way:
            while waiting and len(under_way) < at_once:
                under_way[self._open(method)] = Exchange(waiting.pop())
            for number, exchange in under_way.items():
                self._send(number, exchange)
            self._flush()
            ended += self._receive(under_way)
        seconds = time.perf_counter() - began
        for exchange in ended:
            if exchange.status != "0":
                raise RuntimeError(f"{method} ended with status {exchange.status or 'unknown'}")
            answers += messages(exchange.received)
        return seconds, answers

    def _open(self, method: str) -> int:
        number = self._http.get_next_available_stream_id()
        self._http.send_headers(
            number,
            [
                (":method", "POST"),
                (":scheme", "http"),
                (":path", method),
                (":authority", self._authority),
                ("content-type", "application/grpc"),
                ("te", "trailers"),
            ],
        )
        return number

    def _send(self, number: int, exchange: Exchange) -> None:
        while exchange.unsent:
            room = self._http.local_flow_control_window(number)
            size = min(room, self._http.max_outbound_frame_size, len(exchange.unsent))
            if size == 0:
                return
            last = size == len(exchange.unsent)
            self._http.send_data(number, exchange.unsent[:size].tobytes(), end_stream=last)
            exchange.unsent = exchange.unsent[size:]

    def _receive(self, under_way: dict[int, Exchange]) -> list[Exchange]:
        """Takes in what has come; the exchanges that have ended, taken out."""
        time.sleep(GATHER_SECONDS)
        data = self._socket.recv(READ_BYTES)
        if not data:
            raise RuntimeError("the server closed the connection")
        ended: list[Exchange] = []
        self._unread += data
        unread, start = self._unread, 0
        while len(unread) - start >= FRAME_HEAD_BYTES:
            body = start + FRAME_HEAD_BYTES
            end = body + int.from_bytes(unread[start : start + 3], "big")
            if len(unread) < end:
                break
            if unread[start + 3] == DATA:
                # The window is wider than all answers together: none has to be acknowledged.
                number = int.from_bytes(unread[start + 5 : body], "big")
                under_way[number].received += unread[body:end]
            else:
                ended += self._take(bytes(unread[start:end]), under_way)
            start = end
        del unread[:start]
        return ended

    def _take(self, frame: bytes, under_way: dict[int, Exchange]) -> list[Exchange]:
        """As ``_receive``, of one frame that is not data."""
        ended = []
        for event in self._http.receive_data(frame):
            if isinstance(event, h2.events.ResponseReceived | h2.events.TrailersReceived):
                headers = dict(cast("list[tuple[str, str]]", event.headers))
                under_way[event.stream_id].status = headers.get("grpc-status", "")
            elif isinstance(event, h2.events.StreamEnded | h2.events.StreamReset):
                ended.append(under_way.pop(event.stream_id))
        return ended

    def _flush(self) -> None:
        self._socket.sendall(self._http.data_to_send())
