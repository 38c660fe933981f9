"""Lines of calls wait for each other on an event loop, but not for longer than a record."""

from __future__ import annotations

import io
import json
import logging

from services.core.log import JsonHandler


def events(stream: io.StringIO) -> list[str]:
    return [json.loads(line)["event"] for line in stream.getvalue().splitlines()]


async def test_lines_of_calls_keep_their_place() -> None:
    stream = io.StringIO()
    handler = JsonHandler("toy", stream)
    handler.write_call(logging.INFO, '"tenant":"a"')
    handler.write_call(logging.INFO, '"tenant":"b"')
    assert events(stream) == []
    handler.handle(logging.makeLogRecord({"msg": "between", "levelno": logging.INFO}))
    handler.write_call(logging.INFO, '"tenant":"c"')
    assert events(stream) == ["call", "call", "between"]
    handler.flush()
    assert events(stream) == ["call", "call", "between", "call"]


def test_without_a_loop_nothing_waits() -> None:
    stream = io.StringIO()
    JsonHandler("toy", stream).write_call(logging.INFO, '"tenant":"a"')
    assert events(stream) == ["call"]
