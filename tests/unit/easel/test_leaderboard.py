from __future__ import annotations

from easel.cli.leaderboard import interval_bar


def test_intervals_are_drawn_on_one_axis() -> None:
    ends = (-2.0, 2.0)
    assert interval_bar(-2.0, 0.0, 2.0, ends) == "├─────────────●─────────────┤"
    assert interval_bar(1.0, 1.5, 2.0, ends) == " " * 21 + "├──●───┤"
    assert len(interval_bar(-1.0, 0.0, 1.0, ends)) == 29


def test_an_axis_of_no_length_is_a_point() -> None:
    assert interval_bar(0.0, 0.0, 0.0, (0.0, 0.0)) == "●" + " " * 28
