"""`easel leaderboard`."""

from __future__ import annotations

from typing import Annotated, Final

import typer

from easel.cli import screen
from easel.cli.connection import TARGET, ApiKey, AsJson, Target, Timeout, connected
from easel.ranker.v1 import ranker_pb2

_BAR: Final = 29
_WHY: Final = {
    ranker_pb2.UNRANKED_FEW_VOTES: "too few votes",
    ranker_pb2.UNRANKED_NOT_CONNECTED: "not compared with the others",
}

Intent = Annotated[
    str, typer.Option("--intent", help="Which arena: what the pictures are for. One may be empty.")
]


def leaderboard(
    intent: Intent = "",
    target: Target = TARGET,
    api_key: ApiKey = None,
    timeout: Timeout = None,
    as_json: AsJson = False,
) -> None:
    """Rank the contenders of an arena, with how sure that is."""
    with connected(target, api_key, timeout, as_json) as client:
        board = client.leaderboard(intent)
    if as_json:
        screen.print_json(_board_json(board))
    else:
        _print_board(board)


def interval_bar(low: float, value: float, high: float, ends: tuple[float, float]) -> str:
    """An interval as text of ``_BAR`` characters on the axis between ``ends``: ``  ├─●──┤  ``."""
    first, last = ends
    scale = (_BAR - 1) / (last - first) if last > first else 0.0
    places = [round((each - first) * scale) for each in (low, value, high)]
    left, middle, right = (min(max(place, 0), _BAR - 1) for place in places)
    drawn = [" "] * _BAR
    drawn[left : right + 1] = "─" * (right + 1 - left)
    drawn[left], drawn[right], drawn[middle] = "├", "┤", "●"
    return "".join(drawn)


def _print_board(board: ranker_pb2.ListLeaderboardResponse) -> None:
    told = [row.strength for row in board.rows if not row.strength.abstained]
    ends = (min((each.low for each in told), default=0.0),
            max((each.high for each in told), default=0.0))  # fmt: skip
    table = screen.table(
        "rank", "contender", "strength", "95 % interval", "wins", "losses", "ties",
        right=["rank", "strength", "wins", "losses", "ties"],
    )  # fmt: skip
    for row in board.rows:
        own = row.strength
        if own.abstained:
            strength, bar = "–", _WHY.get(row.unranked, "")
        else:
            strength, bar = f"{own.value:+.2f}", interval_bar(own.low, own.value, own.high, ends)
        table.add_row(
            _rank_text(row),
            screen.plain(f"{row.model} (withdrawn)" if row.withdrawn else row.model),
            strength,
            bar,
            *map(str, (row.wins, row.losses, row.ties)),
        )
    console = screen.out()
    console.print(table)
    for line in _notes(board):
        console.print(screen.plain(line, "dim"), soft_wrap=True)


def _notes(board: ranker_pb2.ListLeaderboardResponse) -> list[str]:
    """What the numbers rest on, in sentences."""
    notes = [f"{board.votes} votes, computed {board.computed_at.ToJsonString()}."]
    if all(row.strength.abstained for row in board.rows):
        return [*notes, "Too few votes to rank anybody."]
    notes.append(
        "Strengths are log-odds against the average; ranks hold all together in 95 of 100 cases."
    )
    if board.groups > 1:
        notes.append(
            f"{board.groups} groups that no vote links; the one with most votes is ranked."
        )
    if board.clustered_by_judge:
        notes.append(f"Votes of a judge are taken together: {board.effective_judges:.0f} voices.")
    if board.HasField("tie"):
        share = board.tie.value / (2 + board.tie.value)
        notes.append(f"Two equals tie in {share:.0%} of votes.")
    if board.HasField("votes_to_change_leader"):
        notes.append(f"Without {board.votes_to_change_leader} votes {board.rival} would lead.")
    return notes


def _rank_text(row: ranker_pb2.LeaderboardRow) -> str:
    if not row.rank_low:
        return "–"
    return f"{row.rank_low}" if row.rank_low == row.rank_high else f"{row.rank_low}–{row.rank_high}"


def _board_json(board: ranker_pb2.ListLeaderboardResponse) -> dict[str, object]:
    changes = board.votes_to_change_leader if board.HasField("votes_to_change_leader") else None
    return {
        "rows": [_row_json(row) for row in board.rows],
        "votes": board.votes,
        "computed_at": board.computed_at.ToJsonString(),
        "votes_to_change_leader": changes,
        "rival": board.rival or None,
        "tie": estimate_json(board.tie) if board.HasField("tie") else None,
        "groups": board.groups,
        "ranks": {"draws": board.rank_draws, "seed": board.rank_seed},
        "clustered_by_judge": board.clustered_by_judge,
        "effective_judges": board.effective_judges,
    }


def _row_json(row: ranker_pb2.LeaderboardRow) -> dict[str, object]:
    ranked = not row.strength.abstained
    return {
        "contender": row.model,
        "strength": estimate_json(row.strength),
        "rank": [row.rank_low, row.rank_high] if ranked else None,
        "wins": row.wins,
        "losses": row.losses,
        "ties": row.ties,
        "unranked": None if ranked else _WHY.get(row.unranked),
        "withdrawn": row.withdrawn,
    }


def estimate_json(estimate: ranker_pb2.Estimate) -> dict[str, object]:
    """An estimate, or that there is none."""
    if estimate.abstained:
        return {"abstained": True, "evidence": estimate.evidence}
    return {
        "value": estimate.value,
        "low": estimate.low,
        "high": estimate.high,
        "evidence": estimate.evidence,
    }
