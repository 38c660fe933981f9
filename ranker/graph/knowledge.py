"""What the match graph knows: of edges, of places, of models."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from sqlalchemy import Connection, bindparam, select

from ranker.graph import bias
from ranker.graph.bias import Shown, Swaps
from ranker.graph.decay import Decayed
from ranker.graph.ledger import ENDS, AnyRow
from ranker.graph.offers import Edge
from ranker.graph.ranking import NO_EVIDENCE, Evidence, Means
from ranker.graph.tables import EDGE_PLACE, PLACE


@dataclass(frozen=True, slots=True)
class Knowledge:
    """What the graph knows: of some edges, of places, and of everything together."""

    evidence: Mapping[Edge, Evidence]
    alphas: tuple[float, ...]
    means: Means

    def of(self, edge: Edge) -> Evidence:
        return self.evidence.get(edge, NO_EVIDENCE)


def knowledge(
    connection: Connection, edges: Collection[Edge], now: float, half_life: float
) -> Knowledge:
    """What is known of the edges as of ``now`` (seconds since 1970)."""
    places = {row.place: row for row in connection.execute(_PLACES)}
    alphas = _alphas(places, now, half_life)
    evidence = _evidence(connection, edges, alphas, now, half_life)
    return Knowledge(evidence, alphas, _means(places, alphas, now, half_life))


_PLACES: Final = select(PLACE)
_LOOKS: Final = select(
    EDGE_PLACE.c.edge,
    EDGE_PLACE.c.place,
    EDGE_PLACE.c.seen,
    EDGE_PLACE.c.chosen,
    EDGE_PLACE.c.seen_weight,
    EDGE_PLACE.c.chosen_weight,
    EDGE_PLACE.c.weighed_at,
).where(EDGE_PLACE.c.edge.in_(bindparam("edges", expanding=True)))


def _alphas(places: Mapping[int, AnyRow], now: float, half_life: float) -> tuple[float, ...]:
    swaps = {}
    for place, row in places.items():
        weights = Decayed([row.upper_weight, row.lower_weight], row.weighed_at)
        swaps[place] = Swaps(*weights.worth(now, half_life))
    return bias.examination(swaps, max(places, default=0))


def _evidence(
    connection: Connection,
    edges: Collection[Edge],
    alphas: Sequence[float],
    now: float,
    half_life: float,
) -> dict[Edge, Evidence]:
    """Of the edges that were ever shown."""
    keys = {edge.key: edge for edge in edges}
    ends = {key: row for key, *row in connection.execute(ENDS, {"keys": list(keys)})}
    order = {key: number for number, key in enumerate(ends)}
    rows = connection.execute(_LOOKS, {"edges": list(order)}).all()
    owners = np.asarray([order[row[0]] for row in rows], np.int64)
    table = np.asarray([row[1:] for row in rows], np.float64).reshape(len(rows), 6)
    places, seen, chosen, seen_weight, chosen_weight, at = table.T
    shares = np.exp2(np.minimum(at - now, 0.0) / half_life)
    found = bias.attractions(
        owners,
        len(order),
        places.astype(np.int64),
        seen_weight * shares,
        chosen_weight * shares,
        alphas,
    )
    looked = np.bincount(owners, weights=seen, minlength=len(order)).tolist()
    counted = np.bincount(owners, weights=chosen, minlength=len(order)).tolist()
    evidence = {}
    for number, (key, (succeeded, failed, *weights, weighed_at)) in enumerate(ends.items()):
        good, bad = Decayed(weights, weighed_at).worth(now, half_life)
        evidence[keys[key]] = Evidence(
            found[number], good, bad, int(looked[number]), int(counted[number]), succeeded, failed
        )
    return evidence


def _means(
    places: Mapping[int, AnyRow], alphas: Sequence[float], now: float, half_life: float
) -> Means:
    looks = [_looks(row, now, half_life) for place, row in places.items() if place > 0]
    ended = _looks(places[0], now, half_life) if 0 in places else Shown(0, 0.0, 0.0)
    everything = bias.attraction(looks, alphas)
    return Means.of(everything, ended.chosen, max(ended.seen - ended.chosen, 0.0))


def _looks(row: AnyRow, now: float, half_life: float) -> Shown:
    weights = Decayed([row.seen_weight, row.chosen_weight], row.weighed_at)
    return Shown(row.place, *weights.worth(now, half_life))
