"""Previews on a terminal: a real pseudo-terminal, and what goes to it."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from easel.generator.v1 import generator_pb2
from easel.model.v1 import model_pb2
from easel.ranker.v1 import ranker_pb2
from tests.integration.easel.fake_gateway import FakeGateway

BLUE = "38;2;0;0;255;48;2;0;0;255"  # the colour of the fake gateway's previews


def on_a_terminal(gateway: FakeGateway, *arguments: object, **environment: str) -> str:
    """Run a command with a terminal as its output; return what was written to it."""
    mine, its = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "easel", *map(str, arguments)],
        env={
            "PATH": os.environ["PATH"],
            "EASEL_TARGET": gateway.target,
            "TERM": "xterm-256color",
            "COLORTERM": "truecolor",
            "COLUMNS": "100",
            "LINES": "40",
            **environment,
        },
        stdin=its,
        stdout=its,
        stderr=its,
    )
    os.close(its)
    written = b"".join(iter(lambda: _read(mine), b""))
    os.close(mine)
    assert process.wait(60) == 0, written.decode()
    return written.decode()


def _read(file: int) -> bytes:
    try:
        return os.read(file, 65536)
    except OSError:  # how Linux says that the other end is closed
        return b""


def test_generate_shows_pictures_while_they_form(gateway: FakeGateway, tmp_path: Path) -> None:
    shown = on_a_terminal(gateway, "generate", "x", "--steps", "10", "--out", tmp_path)

    request = generated(gateway)
    assert request.preview.every == 2
    assert request.preview.method == generator_pb2.PREVIEW_METHOD_FAST
    assert BLUE in shown


def generated(gateway: FakeGateway) -> generator_pb2.GenerateRequest:
    """What was generated, after the model was asked for."""
    asked, request = gateway.seen.requests
    assert isinstance(asked, model_pb2.GetModelRequest)
    assert gateway.seen.metadata[0]["easel-service"] == "generator"
    assert isinstance(request, generator_pb2.GenerateRequest)
    return request


@pytest.mark.parametrize(
    ("arguments", "every"),
    [
        (["--image", "a.png", "--strength", "0.3", "--steps", "50"], 3),
        (["--image", "a.png", "--strength", "0.1", "--steps", "50"], 1),
        (
            ["--image", "a.png", "--style", "a.png", "--content-strength", "0.75", "--steps", "20"],
            1,
        ),
    ],
)
def test_previews_are_spread_over_the_steps_that_are_taken(
    arguments: list[str], every: int, gateway: FakeGateway, picture: Path
) -> None:
    given = [str(picture) if each == "a.png" else each for each in arguments]
    on_a_terminal(gateway, "generate", "x", *given, "--out", picture.parent)

    assert generated(gateway).preview.every == every


@pytest.mark.parametrize("step_engine", [False, None])
def test_a_model_that_makes_no_previews_is_not_asked_for_them(
    step_engine: bool | None, gateway: FakeGateway, tmp_path: Path
) -> None:
    gateway.models.step_engine = step_engine
    shown = on_a_terminal(gateway, "generate", "x", "--model", "demo", "--out", tmp_path)

    assert not generated(gateway).HasField("preview")
    asked = gateway.seen.requests[0]
    assert asked == model_pb2.GetModelRequest(name="demo")
    assert BLUE not in shown


@pytest.mark.parametrize("step_engine", [False, None])
def test_previews_that_are_asked_for_are_the_servers_to_refuse(
    step_engine: bool | None, gateway: FakeGateway, tmp_path: Path
) -> None:
    gateway.models.step_engine = step_engine
    on_a_terminal(gateway, "generate", "x", "--previews", "--out", tmp_path)

    assert generated(gateway).preview.every == 1


def test_best_of_shows_candidates_while_they_form(gateway: FakeGateway, tmp_path: Path) -> None:
    kitty = {"KITTY_WINDOW_ID": "1"}  # whose own pictures cannot be drawn over and over
    shown = on_a_terminal(gateway, "best-of", "a red star", "--out", tmp_path, **kitty)

    (request,) = gateway.seen.requests
    assert isinstance(request, ranker_pb2.BestOfRequest)
    assert request.previews
    assert BLUE in shown


@pytest.mark.parametrize("arguments", [["--no-previews"], ["--no-show"], ["--json"]])
@pytest.mark.parametrize("command", ["generate", "best-of"])
def test_none_where_none_are_wanted(
    command: str, arguments: list[str], gateway: FakeGateway, tmp_path: Path
) -> None:
    shown = on_a_terminal(gateway, command, "x", *arguments, "--out", tmp_path)

    (request,) = gateway.seen.requests
    assert "preview" not in {field.name for field, _ in request.ListFields()}
    assert "previews" not in {field.name for field, _ in request.ListFields()}
    assert BLUE not in shown
    if arguments == ["--json"]:
        json.loads(shown)
