"""`easel search`, `easel outcome`."""

from __future__ import annotations

import shlex
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Final

import typer

from easel.cli import screen
from easel.cli.connection import TARGET, ApiKey, AsJson, Target, Timeout, connected
from easel.ranker.v1 import ranker_pb2

_NOTHING: Final = "–"


class Became(StrEnum):
    """What became of a match."""

    CHOSEN = "chosen"
    SUCCEEDED = "succeeded"
    FAILED = "failed"


def search(
    query: Annotated[str, typer.Argument(help="What is wanted, in words.")],
    limit: Annotated[
        int, typer.Option("--limit", "-n", min=0, help="Models at most; 0 is the ranker's own.")
    ] = 0,
    type: Annotated[str, typer.Option(help="Only models of this type; all if unset.")] = "",
    target: Target = TARGET,
    api_key: ApiKey = None,
    timeout: Timeout = 30.0,
    as_json: AsJson = False,
) -> None:
    """Search the match graph: which models can do it, why, and how it went for others."""
    with connected(target, api_key, timeout, as_json) as client:
        answer = client.resolve(query, limit=limit, type=type)
    if as_json:
        screen.print_json(as_document(answer))
    elif answer.matches:
        _print(answer)
    else:
        screen.out().print("Nothing in the catalogue matches.")


def outcome(
    token: Annotated[str, typer.Argument(help="As `easel search` told it.")],
    position: Annotated[int, typer.Argument(min=1, help="Of the match that it is about.")],
    became: Annotated[Became, typer.Argument(help="What became of it.")],
    comment: Annotated[str, typer.Option(help="Kept with it.")] = "",
    target: Target = TARGET,
    api_key: ApiKey = None,
    timeout: Timeout = 30.0,
    as_json: AsJson = False,
) -> None:
    """Record what became of a match that `easel search` found; later answers learn from it."""
    with connected(target, api_key, timeout, as_json) as client:
        recorded = client.record_outcome(token, position, became.value, comment=comment)
    if as_json:
        screen.print_json(
            {
                "repeated": recorded.repeated_call,
                "outcome": became.value,
                "model": recorded.model,
                "capability": recorded.capability,
                "intent": recorded.intent,
            }
        )
        return
    known = "known already" if recorded.repeated_call else "recorded"
    about = f' for "{recorded.intent}"' if recorded.intent else ""
    line = f"{known}: {recorded.capability} {became.value}{about}"
    screen.out().print(screen.plain(line), soft_wrap=True)


def as_document(answer: ranker_pb2.ResolveResponse) -> dict[str, object]:
    """Return the whole answer as plain JSON values."""
    from google.protobuf.json_format import MessageToDict

    document: dict[str, object] = MessageToDict(
        answer, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
    return document


def _print(answer: ranker_pb2.ResolveResponse) -> None:
    table = screen.table(
        "#", "model", "why", "evidence", "success", "also", right=["#"], whole=["model"]
    )
    for match in answer.matches:
        table.add_row(
            str(match.position),
            screen.plain(match.model.id, "bold"),
            screen.plain(f"{match.capability.name}: {match.why}"),
            _evidence(match.evidence),
            _success(match.success),
            screen.plain(", ".join(match.alternatives) or _NOTHING, "dim"),
        )
    screen.out().print(table)
    until = answer.expires_at.ToDatetime(tzinfo=UTC)
    line = (
        f"\nTell what became of one, until {_shown(until)}:\n"
        f"easel outcome {shlex.quote(answer.token)} POSITION chosen|succeeded|failed"
    )
    screen.out().print(screen.plain(line, "dim"), soft_wrap=True)


def _shown(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M} UTC"


def _evidence(evidence: ranker_pb2.MatchEvidence) -> str:
    if not evidence.impressions:
        return "never shown"
    return (
        f"shown {evidence.impressions:,}, chosen {evidence.chosen:,}, "
        f"succeeded {evidence.succeeded:,}, failed {evidence.failed:,}"
    )


def _success(success: ranker_pb2.Estimate) -> str:
    if success.abstained:
        return "too little evidence"
    return f"{success.value:.0%} ({success.low:.0%} to {success.high:.0%})"
