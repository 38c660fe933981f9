"""`easel search` and `easel outcome` against a server of the contracts."""

from __future__ import annotations

import json
from io import StringIO
from typing import Any

import pytest
from rich.console import Console

from easel.cli import screen
from easel.client import Client, EaselClientError
from easel.ranker.v1 import ranker_pb2
from tests.integration.easel.fake_gateway import FakeGateway
from tests.integration.easel.test_cli import document, run


def test_search_prints_why_and_on_what_evidence(gateway: FakeGateway) -> None:
    result = run(gateway, "search", "classify my photos")

    assert result.exit_code == 0
    flat = " ".join(result.stdout.split())
    assert "Image [classification]" in flat
    assert '"classify" in its intents' in flat
    assert "shown 9,999" in flat
    assert "86% (60% to 96%)" in flat
    assert "never shown" in flat
    assert "too little evidence" in flat
    assert "until 2027-01-15 08:00 UTC" in flat
    assert result.stdout.splitlines()[-1] == (
        "easel outcome a-token_ POSITION chosen|succeeded|failed"
    )


def test_names_are_whole_in_a_narrow_terminal() -> None:
    made = screen.table("model", "why", whole=["model"])
    made.add_row("vit-large-patch16-384", "it has words and words " * 9)
    written = StringIO()
    Console(width=40, file=written).print(made)
    lines = written.getvalue().splitlines()
    assert all(len(line) <= 40 for line in lines)
    assert lines[1].startswith("vit-large-patch16-384 ")


def test_search_as_one_document(gateway: FakeGateway) -> None:
    found = document(
        run(gateway, "search", "classify", "-n", "7", "--type", "image-classifier", "--json")
    )

    assert found["token"] == "a-token_"
    assert found["expires_at"] == "2027-01-15T08:00:00Z"
    first, second = found["matches"]
    assert (first["model"]["id"], first["capability"]["id"]) == ("vit", "vit/classify")
    assert first["terms"] == [{"word": "classify", "fields": ["intents"]}]
    assert "similarity" not in first
    assert second["success"]["abstained"] is True
    (request,) = gateway.seen.requests
    assert request == ranker_pb2.ResolveRequest(query="classify", limit=7, type="image-classifier")


def test_search_that_finds_nothing(gateway: FakeGateway) -> None:
    result = run(gateway, "search", "nothing")

    assert (result.exit_code, result.stdout) == (0, "Nothing in the catalogue matches.\n")
    assert document(run(gateway, "search", "nothing", "--json"))["matches"] == []


def test_search_without_words(gateway: FakeGateway) -> None:
    result = run(gateway, "search", "")

    assert result.exit_code == 2
    assert "query: A query is needed. (limit at least 1 character" in result.stderr


@pytest.mark.parametrize(
    ("became", "expected"),
    [
        ("chosen", ranker_pb2.OUTCOME_CHOSEN),
        ("succeeded", ranker_pb2.OUTCOME_SUCCEEDED),
        ("failed", ranker_pb2.OUTCOME_FAILED),
    ],
)
def test_outcome_is_recorded(gateway: FakeGateway, became: str, expected: Any) -> None:
    result = run(gateway, "outcome", "--comment", "so it was", "a-token_", "1", became)

    assert result.exit_code == 0
    assert result.stdout == f'recorded: vit/classify {became} for "classify an image"\n'
    (request,) = gateway.seen.requests
    assert request == ranker_pb2.RecordOutcomeRequest(
        token="a-token_", position=1, outcome=expected, comment="so it was"
    )


def test_outcome_that_was_known(gateway: FakeGateway) -> None:
    result = run(gateway, "outcome", "a-token", "2", "failed")
    as_json = document(run(gateway, "outcome", "a-token", "2", "failed", "--json"))

    assert result.stdout == "known already: vit/classify failed\n"
    assert as_json == {
        "repeated": True,
        "outcome": "failed",
        "model": "vit",
        "capability": "vit/classify",
        "intent": "",
    }


def test_outcome_of_a_position_that_there_is_not(gateway: FakeGateway) -> None:
    result = run(gateway, "outcome", "a-token", "3", "chosen", "--json")

    assert result.exit_code == 2
    error = json.loads(result.stdout)["error"]
    assert (error["fields"], error["limit"], error["given"]) == (["position"], "1 to 2", "3")


@pytest.mark.parametrize(
    "arguments", [["a-token", "0", "chosen"], ["a-token", "1", "liked"], ["a-token", "1"]]
)
def test_wrong_usage_of_outcome(gateway: FakeGateway, arguments: list[str]) -> None:
    assert run(gateway, "outcome", *arguments).exit_code == 2
    assert gateway.seen.requests == []


def test_the_client_names_outcomes(gateway: FakeGateway) -> None:
    with Client(gateway.target) as client:
        assert client.resolve("classify").matches[0].model.id == "vit"
        assert not client.record_outcome("t", 1, "succeeded").repeated_call
        with pytest.raises(ValueError, match="liked"):
            client.record_outcome("t", 1, "liked")
        with pytest.raises(EaselClientError):
            client.resolve("")
