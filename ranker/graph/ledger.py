"""The counts of the match graph, from and to their rows."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from functools import lru_cache
from typing import Any, Final, TypeAlias

from sqlalchemy import Connection, Row, Table, bindparam, delete, select

from ranker.database.schema import insert_for
from ranker.graph.counts import Counts, EdgePlace, Tally
from ranker.graph.decay import Decayed
from ranker.graph.offers import Edge
from ranker.graph.tables import EDGE, EDGE_PLACE, PLACE

AnyRow: TypeAlias = Row[*tuple[Any, ...]]

NEVER: Final = 0.0
"""``weighed_at`` of what was never weighed: its weights are 0 at any time."""

_BATCH: Final = 5_000
"""Rows that are written at a time."""

_PAIRS: Final = 1 << 20

ENDS: Final = select(
    EDGE.c.key,
    EDGE.c.succeeded,
    EDGE.c.failed,
    EDGE.c.success_weight,
    EDGE.c.failure_weight,
    EDGE.c.weighed_at,
).where(EDGE.c.key.in_(bindparam("keys", expanding=True)))
"""Of the edges that ``keys`` names."""


def _pair(edge: Any, place: Any) -> Any:
    """A number of less than 63 bits that few other pairs have; of columns as of numbers."""
    return edge % _PAIRS * _PAIRS + place


# Neither database looks many pairs up by its key: SQLite reads the whole table. So the rows of the
# edges are looked up, and told apart by ``_pair``.
_SEEN: Final = (
    select(EDGE_PLACE)
    .where(EDGE_PLACE.c.edge.in_(bindparam("edges", expanding=True)))
    .where(_pair(EDGE_PLACE.c.edge, EDGE_PLACE.c.place).in_(bindparam("pairs", expanding=True)))
)
_PLACES: Final = select(PLACE).where(PLACE.c.place.in_(bindparam("places", expanding=True)))

_edge_update: Final = (
    EDGE.update()
    .where(EDGE.c.key == bindparam("edge_key"))
    .values(
        succeeded=bindparam("succeeded"),
        failed=bindparam("failed"),
        success_weight=bindparam("success_weight"),
        failure_weight=bindparam("failure_weight"),
        weighed_at=bindparam("weighed_at"),
    )
)


def keep_edges(connection: Connection, edges: Iterable[Edge]) -> None:
    """See that each is there; those that are stay as they are."""
    rows = [new_edge(edge) for edge in edges]
    connection.execute(_insert_new(connection.dialect.name), rows)


def new_edge(edge: Edge) -> dict[str, object]:
    """The row of an edge of which nothing is known."""
    return {
        "key": edge.key,
        "model": edge.model,
        "capability": edge.capability,
        "intent": edge.intent,
        "succeeded": 0,
        "failed": 0,
        "success_weight": 0.0,
        "failure_weight": 0.0,
        "weighed_at": NEVER,
    }


def read_counts(
    connection: Connection,
    half_life: float,
    edges: Collection[int],
    edge_places: Collection[EdgePlace],
    places: Collection[int],
) -> Counts:
    """Those of the edges, their places and the places that are named, as far as there are any."""
    counts = Counts(half_life)
    if edges:
        for row in connection.execute(ENDS, {"keys": list(edges)}).all():
            counts.edges[row.key] = _edge_tally(row)
    named = {
        "edges": list({edge for edge, _ in edge_places}),
        "pairs": [_pair(edge, place) for edge, place in edge_places],
    }
    for row in connection.execute(_SEEN, named).all():
        if (row.edge, row.place) in edge_places:
            counts.edge_places[row.edge, row.place] = _seen_tally(row)
    for row in connection.execute(_PLACES, {"places": list(places)}).all():
        counts.places[row.place] = _place_tally(row)
    return counts


def _edge_tally(row: AnyRow) -> Tally:
    weights = [row.success_weight, row.failure_weight]
    return Tally([row.succeeded, row.failed], _decayed(weights, row.weighed_at))


def _seen_tally(row: AnyRow) -> Tally:
    weights = [row.seen_weight, row.chosen_weight]
    return Tally([row.seen, row.chosen], _decayed(weights, row.weighed_at))


def _place_tally(row: AnyRow) -> Tally:
    weights = [row.seen_weight, row.chosen_weight, row.upper_weight, row.lower_weight]
    return Tally([row.seen, row.chosen], _decayed(weights, row.weighed_at))


def _decayed(weights: list[float], at: float) -> Decayed:
    return Decayed(weights, at if any(weights) else -math.inf)


def write_counts(connection: Connection, counts: Counts) -> None:
    """Keep what ``counts`` has; edges have to be there."""
    _update_edges(connection, counts.edges)
    _put(
        connection,
        EDGE_PLACE,
        ("edge", "place"),
        [
            {"edge": edge, "place": place, **_row(tally, "seen", "chosen")}
            for (edge, place), tally in counts.edge_places.items()
        ],
    )
    _put(
        connection,
        PLACE,
        ("place",),
        [
            {"place": place, **_row(tally, "seen", "chosen", "upper", "lower")}
            for place, tally in counts.places.items()
        ],
    )


def _row(tally: Tally, *names: str) -> dict[str, object]:
    """The plain counts under the first names, all weights under the names with ``_weight``."""
    numbers = dict(zip(names, tally.numbers, strict=False))
    weights = zip((f"{name}_weight" for name in names), tally.weights.values, strict=True)
    return {**numbers, **dict(weights), "weighed_at": _weighed_at(tally)}


def _weighed_at(tally: Tally) -> float:
    return NEVER if tally.weights.at == -math.inf else tally.weights.at


def _update_edges(connection: Connection, edges: Mapping[int, Tally]) -> None:
    if not edges:
        return
    rows = [
        {
            "edge_key": key,
            "succeeded": tally.numbers[0],
            "failed": tally.numbers[1],
            "success_weight": tally.weights.values[0],
            "failure_weight": tally.weights.values[1],
            "weighed_at": _weighed_at(tally),
        }
        for key, tally in edges.items()
    ]
    connection.execute(_edge_update, rows)


def _put(
    connection: Connection, table: Table, keys: tuple[str, ...], rows: list[dict[str, object]]
) -> None:
    if not rows:
        return
    put = _upsert(connection.dialect.name, table, keys)
    for first in range(0, len(rows), _BATCH):
        connection.execute(put, rows[first : first + _BATCH])


# Statements are kept: putting them together takes about as long as running them does.
@lru_cache
def _insert_new(dialect: str) -> Any:
    return insert_for(dialect, EDGE).on_conflict_do_nothing(index_elements=[EDGE.c.key])


@lru_cache
def _upsert(dialect: str, table: Table, keys: tuple[str, ...]) -> Any:
    insert = insert_for(dialect, table)
    changed = {
        column.name: insert.excluded[column.name]
        for column in table.columns
        if column.name not in keys
    }
    return insert.on_conflict_do_update(index_elements=list(keys), set_=changed)


def read_all_counts(connection: Connection, half_life: float) -> Counts:
    """The counts as they are kept."""
    return Counts(
        half_life,
        {row.key: _edge_tally(row) for row in connection.execute(select(EDGE))},
        {(row.edge, row.place): _seen_tally(row) for row in connection.execute(select(EDGE_PLACE))},
        {row.place: _place_tally(row) for row in connection.execute(select(PLACE))},
    )


def replace_counts(connection: Connection, counts: Counts) -> None:
    """``counts`` instead of all that are kept."""
    connection.execute(delete(EDGE_PLACE))
    connection.execute(delete(PLACE))
    write_counts(connection, counts)
