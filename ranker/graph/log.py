"""The log of the match graph: answers, what became of them, and the counts that follow it.

Functions take a connection within a transaction; those that write stand alone while they do
(``ranker.database``), so that reading, deciding and writing is one step.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Connection, bindparam, select

from ranker.database.schema import insert_into
from ranker.graph.counts import Counts, ShownResult, touched
from ranker.graph.ledger import keep_edges, read_counts, replace_counts, write_counts
from ranker.graph.offers import Edge
from ranker.graph.outcome import Outcome, news
from ranker.graph.tables import ANSWER, EDGE, OUTCOME, STATE
from services.core.errors import EaselError, NotFound

_BATCH: Final = 5_000
"""Rows that are read at a time."""

_ANSWERS: Final = select(ANSWER.c.id, ANSWER.c.at, ANSWER.c.shown).where(
    ANSWER.c.id.in_(bindparam("ids", expanding=True))
)
_OUTCOMES: Final = select(OUTCOME.c.answer, OUTCOME.c.position, OUTCOME.c.outcome).where(
    OUTCOME.c.answer.in_(bindparam("answers", expanding=True))
)
_EDGES: Final = select(EDGE.c.key, EDGE.c.model, EDGE.c.capability, EDGE.c.intent).where(
    EDGE.c.key.in_(bindparam("keys", expanding=True))
)


@dataclass(frozen=True, slots=True)
class Answer:
    """What Resolve showed. ``edges`` are those of ``shown``, in its order."""

    id: str
    at: datetime
    query: str
    type: str
    exploration: float
    catalogue_revision: int
    edges: tuple[Edge, ...]
    shown: tuple[ShownResult, ...]


@dataclass(frozen=True, slots=True)
class Report:
    """An outcome as it was reported, at a position that the answer has."""

    answer: str
    position: int
    outcome: Outcome
    at: datetime
    comment: str = ""


@dataclass(frozen=True, slots=True)
class Recorded:
    """``repeated``: it was known already, and nothing changed."""

    edge: Edge
    repeated: bool


def log_answer(connection: Connection, answer: Answer, half_life: float) -> None:
    """Keep the answer and count its impressions."""
    connection.execute(
        ANSWER.insert(),
        {
            "id": answer.id,
            "at": answer.at,
            "query": answer.query,
            "type": answer.type,
            "exploration": answer.exploration,
            "catalogue_revision": answer.catalogue_revision,
            "shown": [[each.edge, each.base, each.propensity] for each in answer.shown],
        },
    )
    if not answer.shown:
        return
    keep_edges(connection, answer.edges)
    edge_places = {(each.edge, place) for place, each in enumerate(answer.shown, 1)}
    counts = read_counts(connection, half_life, (), edge_places, range(1, len(answer.shown) + 1))
    counts.answered(answer.shown, answer.at.timestamp())
    write_counts(connection, counts)


def record(
    connection: Connection, reports: Sequence[Report], half_life: float
) -> list[Recorded | EaselError]:
    """Keep the outcomes in their order, and count those that are news.

    What is wrong with one is its answer, and no other's: ``NotFound`` for an answer that is not in
    the log, ``FailedPrecondition`` for an end where there is another.
    """
    shown = _read_shown(connection, {report.answer for report in reports})
    known = _read_outcomes(connection, shown)
    edges = _read_edges(
        connection,
        {
            shown[report.answer].results[report.position - 1].edge
            for report in reports
            if report.answer in shown
        },
    )
    found: list[Recorded | EaselError] = []
    rows: list[dict[str, object]] = []
    counted: list[tuple[Outcome, Report]] = []
    for report in reports:
        at = shown.get(report.answer)
        if at is None:
            found.append(NotFound("The answer of the token is not known here."))
            continue
        heard = known[report.answer, report.position]
        try:
            added = news(report.outcome, heard, report.position)
        except EaselError as error:
            found.append(error)
            continue
        heard.update(added)
        counted += [(outcome, report) for outcome in added]
        rows += [_outcome_row(report, outcome) for outcome in added]
        edge = edges[at.results[report.position - 1].edge]
        found.append(Recorded(edge, repeated=not added))
    if rows:
        connection.execute(OUTCOME.insert(), rows)
        _count(connection, counted, shown, half_life)
    return found


def count_again(connection: Connection, half_life: float) -> Counts:
    """The counts as the log has them, from its first to its last row; changes nothing."""
    counts = Counts(half_life)
    answers = select(ANSWER.c.id, ANSWER.c.at, ANSWER.c.shown).order_by(ANSWER.c.id)
    wanted = select(OUTCOME.c.answer, OUTCOME.c.position, OUTCOME.c.outcome, OUTCOME.c.at)
    # Both in the order of the answers' ids, so that neither need be held.
    ordered = wanted.order_by(OUTCOME.c.answer)
    outcomes = iter(connection.execute(ordered).yield_per(_BATCH))
    following = next(outcomes, None)
    for row in connection.execute(answers).yield_per(_BATCH):
        shown, at = _shown(row.shown), row.at.timestamp()
        counts.answered(shown, at)
        while following is not None and following.answer == row.id:
            outcome, ended = Outcome(following.outcome), following.at.timestamp()
            counts.happened(outcome, following.position, shown, at, ended)
            following = next(outcomes, None)
    return counts


def settle(connection: Connection, half_life: float) -> bool:
    """See that the counts were made with this half-life; where they were not, make them from the
    log again, and return True."""
    kept = connection.scalar(select(STATE.c.half_life_seconds))
    if kept == half_life:
        return False
    state = insert_into(connection, STATE).values(id=1, half_life_seconds=half_life)
    connection.execute(
        state.on_conflict_do_update(
            index_elements=[STATE.c.id], set_={"half_life_seconds": half_life}
        )
    )
    if kept is None:
        return False
    replace_counts(connection, count_again(connection, half_life))
    return True


def _count(
    connection: Connection,
    counted: Sequence[tuple[Outcome, Report]],
    shown: Mapping[str, _LoggedAnswer],
    half_life: float,
) -> None:
    results = [
        (each.position, answer.results[each.position - 1], len(answer.results))
        for _, each in counted
        for answer in (shown[each.answer],)
    ]
    edge_places, places = touched(results)
    edges = {result.edge for _, result, _ in results}
    counts = read_counts(connection, half_life, edges, edge_places, places)
    for outcome, each in counted:
        answer = shown[each.answer]
        counts.happened(outcome, each.position, answer.results, answer.at, each.at.timestamp())
    write_counts(connection, counts)


@dataclass(frozen=True, slots=True)
class _LoggedAnswer:
    at: float
    results: tuple[ShownResult, ...]


def _read_shown(connection: Connection, answers: Collection[str]) -> dict[str, _LoggedAnswer]:
    return {
        row.id: _LoggedAnswer(row.at.timestamp(), _shown(row.shown))
        for row in connection.execute(_ANSWERS, {"ids": list(answers)}).all()
    }


def _read_edges(connection: Connection, keys: Collection[int]) -> dict[int, Edge]:
    rows = connection.execute(_EDGES, {"keys": list(keys)}).all()
    return {key: Edge(model, capability, intent) for key, model, capability, intent in rows}


def _read_outcomes(
    connection: Connection, answers: Collection[str]
) -> defaultdict[tuple[str, int], set[Outcome]]:
    known: defaultdict[tuple[str, int], set[Outcome]] = defaultdict(set)
    for row in connection.execute(_OUTCOMES, {"answers": list(answers)}).all():
        known[row.answer, row.position].add(Outcome(row.outcome))
    return known


def _outcome_row(report: Report, outcome: Outcome) -> dict[str, object]:
    return {
        "answer": report.answer,
        "position": report.position,
        "outcome": outcome.value,
        "at": report.at,
        "comment": report.comment if outcome is report.outcome else "",
    }


def _shown(rows: Iterable[Sequence[Any]]) -> tuple[ShownResult, ...]:
    return tuple(ShownResult(int(edge), int(base), float(p)) for edge, base, p in rows)
