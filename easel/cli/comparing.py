"""`easel compare`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from easel.cli import scoring, screen
from easel.cli.catalogue import STYLES, verdict
from easel.cli.connection import TARGET, ApiKey, AsJson, Target, Timeout, connected
from easel.ranker.v1 import ranker_pb2

_BAR_COLUMNS: Final = 40


def compare(
    a: Annotated[str, typer.Argument(help="A model of the catalogue: its id, name or an alias.")],
    b: Annotated[str, typer.Argument(help="The other one.")],
    intent: Annotated[
        str, typer.Option(help="Compare for this intent alone; for all that both serve if unset.")
    ] = "",
    markdown: Annotated[
        Path | None, typer.Option(help="Write the comparison as Markdown to this file.")
    ] = None,
    html: Annotated[
        Path | None, typer.Option(help="Write it as a page that needs nothing else.")
    ] = None,
    target: Target = TARGET,
    api_key: ApiKey = None,
    timeout: Timeout = 30.0,
    as_json: AsJson = False,
) -> None:
    """Compare two models: what is claimed and measured, and whether one is better."""
    with connected(target, api_key, timeout, as_json) as client:
        found = client.compare(a, b, intent=intent)
        written = list(_written((markdown, found.markdown), (html, found.html)))
    if as_json:
        screen.print_json(as_document(found))
        return
    _print(found)
    for path in written:
        screen.out().print(screen.plain(f"written: {path}", "dim"), soft_wrap=True)


def _written(*files: tuple[Path | None, str]) -> Iterator[Path]:
    for path, text in files:
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, "utf-8")
            yield path


def as_document(found: ranker_pb2.CompareResponse) -> dict[str, object]:
    """Return the whole answer but its two renderings, as plain JSON values."""
    from google.protobuf.json_format import MessageToDict

    document: dict[str, object] = MessageToDict(
        found, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
    document.pop("markdown")
    document.pop("html")
    word = ranker_pb2.Comparison.Name(found.verdict).removeprefix("COMPARISON_").lower()
    return {**document, "verdict": word}


def _print(found: ranker_pb2.CompareResponse) -> None:
    console = screen.out()
    console.print(screen.plain(_verdict(found), "bold"))
    sentences = Table.grid(padding=(0, 1))
    for sentence in found.sentences:
        sentences.add_row("•", screen.plain(sentence))
    console.print(sentences)
    for title, made in (
        ("Which does better", _evidence(found)),
        ("Scores", _scores(found)),
        ("Side by side", _features(found)),
        *((f"What is said of {each.name}", _claims(each)) for each in (found.a, found.b)),
    ):
        if made is not None and made.row_count:
            console.print()
            console.print(screen.plain(title, "bold underline"))
            console.print(made)


def _verdict(found: ranker_pb2.CompareResponse) -> str:
    names = {
        ranker_pb2.COMPARISON_A_BETTER: f"{found.a.name} is better",
        ranker_pb2.COMPARISON_B_BETTER: f"{found.b.name} is better",
        ranker_pb2.COMPARISON_NOT_SEPARABLE: "not separable",
        ranker_pb2.COMPARISON_NOT_COMPARABLE: "not comparable",
    }
    return f"{found.a.name} and {found.b.name}: {names[found.verdict]}"


def _names(found: ranker_pb2.CompareResponse) -> tuple[str, str]:
    """For heads of tables, where Rich reads square brackets as its own."""
    return escape(found.a.name), escape(found.b.name)


def _evidence(found: ranker_pb2.CompareResponse) -> Table | None:
    if not found.shared_intents:
        return None
    a, b = _names(found)
    made = screen.table(
        "evidence", f"of {a}", f"of {b}", "", f"{a} does better", right=[f"of {a}", f"of {b}"]
    )
    for name, each in (("outcomes", found.outcomes), ("votes", found.votes)):
        made.add_row(
            name,
            str(each.a_evidence),
            str(each.b_evidence),
            _range(each.a_better),
            screen.plain(scoring.estimate(each.a_better)),
        )
    return made


def _range(estimate: ranker_pb2.Estimate) -> Text:
    """The interval on a line from 0 to 1, with its value and the middle."""
    cells = ["·"] * _BAR_COLUMNS
    cells[_BAR_COLUMNS // 2] = "┊"
    if not estimate.abstained:
        low, value, high = (
            min(round(end * _BAR_COLUMNS), _BAR_COLUMNS - 1)
            for end in (estimate.low, estimate.value, estimate.high)
        )
        cells[low : high + 1] = "━" * (high + 1 - low)
        cells[value] = "●"
    return screen.plain("".join(cells), "dim" if estimate.abstained else "cyan")


def _scores(found: ranker_pb2.CompareResponse) -> Table:
    names = _names(found)
    made = screen.table(
        "part", *(column for name in names for column in (f"points of {name}", "value")),
        right=[f"points of {name}" for name in names],
    )  # fmt: skip
    for mine, other in zip(found.a.score.components, found.b.score.components, strict=True):
        made.add_row(mine.name.replace("_", " "), *scoring.part(mine), *scoring.part(other))
    made.add_row(
        "total", *scoring.total(found.a.score), *scoring.total(found.b.score), style="bold"
    )
    return made


def _features(found: ranker_pb2.CompareResponse) -> Table:
    made = screen.table("feature", *_names(found), "source")
    for row in found.features:
        made.add_row(
            screen.plain(row.feature),
            screen.plain(row.a or scoring.NOTHING),
            screen.plain(row.b or scoring.NOTHING),
            screen.plain(row.source, "dim"),
        )
    return made


def _claims(model: ranker_pb2.CatalogueModel) -> Table:
    made = screen.table("capability", "claim", "claimed", "measured", "found")
    for capability in model.capabilities:
        for place, claim in enumerate(capability.claims):
            found = verdict(claim)
            made.add_row(
                screen.plain("" if place else capability.name),
                screen.plain(claim.name),
                screen.plain(claim.claimed or scoring.NOTHING),
                _measured(claim),
                screen.plain(found, STYLES[found]),
            )
    return made


def _measured(claim: ranker_pb2.Claim) -> Text:
    """What was measured, and below it where that stands."""
    told = screen.plain(claim.measured or scoring.NOTHING)
    return told.append(f"\n{claim.source}", "dim") if claim.source else told
