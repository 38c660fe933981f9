"""JSON lines: one object each, with ids, without pictures and prompts."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest

from services.core import log as logs


class Lines:
    def __init__(self) -> None:
        self.stream = io.StringIO()
        self.handler = logs.JsonHandler("toy", self.stream)
        self.log = logging.Logger("test")
        self.log.addHandler(self.handler)

    def last(self) -> dict[str, Any]:
        line: dict[str, Any] = json.loads(self.stream.getvalue().splitlines()[-1])
        return line


@pytest.fixture
def lines() -> Lines:
    return Lines()


@pytest.fixture
def root() -> Iterator[logging.Logger]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield root
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(False)


def test_fields_of_a_line(lines: Lines) -> None:
    lines.log.warning("low on %s", "paint", extra={"tubes": 3, "colours": ["red"], "path": None})
    line = lines.last()
    assert line.pop("ts").endswith("Z")
    assert line == {
        "level": "warning",
        "service": "toy",
        "logger": "test",
        "event": "low on paint",
        "tubes": 3,
        "colours": ["red"],
        "path": None,
    }


def test_request_id_comes_from_the_context(lines: Lines) -> None:
    token = logs.REQUEST_ID.set("abc")
    lines.log.info("inside")
    logs.REQUEST_ID.reset(token)
    assert lines.last()["request_id"] == "abc"
    lines.log.info("outside")
    assert "request_id" not in lines.last()


def test_an_exception_is_one_field_on_one_line(lines: Lines) -> None:
    try:
        raise ValueError("broken\nbrush")
    except ValueError:
        lines.log.exception("failed")
    assert len(lines.stream.getvalue().splitlines()) == 1
    assert "broken\nbrush" in lines.last()["exception"]


def test_pictures_and_prompts_stay_out(lines: Lines) -> None:
    request = {"prompt": "a secret cat", "mask": b"xx", "steps": 4}
    lines.log.info(
        "asked", extra={"prompt": "a secret cat", "data": b"\x89PNG" * 9, "request": request}
    )
    line = lines.last()
    assert "secret" not in lines.stream.getvalue()
    assert line["prompt"] == "<masked>"
    assert line["data"] == "<36 bytes>"
    assert line["request"] == {"prompt": "<masked>", "mask": "<masked>", "steps": 4}


def test_long_texts_are_cut(lines: Lines) -> None:
    lines.log.info("long", extra={"text": "x" * (logs.MAX_TEXT_CHARS + 1)})
    assert len(lines.last()["text"]) < logs.MAX_TEXT_CHARS + 40
    assert lines.last()["text"].endswith(f"({logs.MAX_TEXT_CHARS + 1} characters)")


def test_the_line_of_a_call_looks_like_the_others(lines: Lines) -> None:
    lines.handler.write_call(logging.INFO, f'"tenant":{logs.quoted(chr(34) + "x")}')
    line = lines.last()
    assert (line["level"], line["service"], line["event"]) == ("info", "toy", "call")
    assert line["tenant"] == '"x'
    lines.handler.setLevel(logging.WARNING)
    lines.handler.write_call(logging.INFO, '"tenant":""')
    assert len(lines.stream.getvalue().splitlines()) == 1


def test_configure_replaces_what_was_there(root: logging.Logger) -> None:
    stream = io.StringIO()
    logs.configure("first", "INFO", stream=io.StringIO())
    handler = logs.configure("second", "WARNING", stream=stream)
    logging.getLogger("anywhere").info("quiet")
    logging.getLogger("anywhere").warning("loud")
    assert root.handlers == [handler]
    assert [json.loads(line)["event"] for line in stream.getvalue().splitlines()] == ["loud"]
