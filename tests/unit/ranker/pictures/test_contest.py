"""The rules of best-of-N, without a clock, a loop or a model."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ranker.pictures.contest import Contest, Phase
from ranker.pictures.events import (
    Admitted,
    Broken,
    Event,
    Failed,
    Finished,
    Made,
    Previewed,
    Pruned,
    Result,
    Scored,
    Started,
    Step,
    Stepped,
    Stopped,
)
from ranker.pictures.judging import Score, TopLabel
from ranker.pictures.schedule import Round, check_rounds, checkpoints
from services.core.errors import InvalidInput, ModelFault, NotReady

TOP = TopLabel(0, "red star", 0.5)
STEPS = 10
HALF = (Round(0.5, 2),)


def score(value: float) -> Score:
    return Score(value, TOP)


def admitted(contest: Contest, candidates: int, steps: int = STEPS) -> list[Event]:
    return [
        event
        for index in range(candidates)
        for event in contest.take(Admitted(index, 100 + index, steps, float(index)))
    ]


def preview(contest: Contest, index: int, step: int) -> None:
    assert list(contest.take(Previewed(index, step, b"p%d" % index))) == []


def judge(contest: Contest, index: int, step: int, value: float) -> list[Event]:
    return list(contest.judged(index, step, b"p%d" % index, score(value), final=False))


def finish(contest: Contest, index: int, value: float, steps: int = STEPS) -> list[Event]:
    assert list(contest.take(Made(index, steps, b"i%d" % index, origin=index))) == []
    return list(contest.judged(index, steps, b"i%d" % index, score(value), final=True))


def started(candidates: int, rounds: tuple[Round, ...]) -> Contest:
    contest = Contest(candidates, STEPS, rounds)
    admitted(contest, candidates)
    return contest


def test_start_is_told_first_and_once() -> None:
    contest = Contest(2, STEPS, ())
    assert list(contest.take(Admitted(0, 7, STEPS, 1.5))) == []
    assert list(contest.take(Stepped(0, 1))) == []
    told = list(contest.take(Admitted(1, 8, STEPS, 0.5)))
    assert told == [Started((7, 8), STEPS, (), 1.5), Step(0, 1, STEPS)]
    assert list(contest.take(Stepped(1, 1))) == [Step(1, 1, STEPS)]


def test_start_does_not_wait_for_one_that_failed() -> None:
    contest = Contest(2, STEPS, ())
    contest.take(Admitted(0, 7, STEPS))
    told = list(contest.take(Broken(1, NotReady())))
    assert [type(event) for event in told] == [Started, Failed]


def test_nothing_is_told_where_nothing_began() -> None:
    contest = Contest(2, STEPS, ())
    error = InvalidInput("generate.width", "No.")
    assert [list(contest.take(Broken(index, error))) for index in (0, 1)] == [[], []]
    assert contest.is_over
    with pytest.raises(InvalidInput):
        contest.result()


def test_previews_are_wanted_at_the_checkpoints() -> None:
    assert Contest(8, 20, (Round(0.6, 4), Round(0.8, 2))).preview_steps == (12, 16)
    assert Contest(8, 20, ()).preview_steps == ()


def test_the_best_go_on() -> None:
    contest = started(4, HALF)
    for index in range(4):
        preview(contest, index, 5)
    for index, value in enumerate((-4.0, -1.0, -3.0, -2.0)):
        judge(contest, index, 5, value)
    assert contest.keep() == (1, 3)
    assert contest.keep() is None


MARGIN = (Round(0.5, 4, 1.5),)


def test_who_is_too_far_behind_leaves_before_the_others_are_judged() -> None:
    contest = started(4, MARGIN)
    for index in range(4):
        preview(contest, index, 5)
    judge(contest, 0, 5, -4.0)
    assert contest.keep() is None
    judge(contest, 1, 5, -1.0)
    assert contest.keep() == (1, 2, 3)
    judge(contest, 2, 5, -2.5)  # just within
    judge(contest, 3, 5, -2.51)
    assert contest.keep() == (1, 2)


def test_the_margin_and_the_number_hold_both() -> None:
    contest = started(4, (Round(0.5, 2, 1.5),))
    for index in range(4):
        preview(contest, index, 5)
    for index, value in enumerate((-1.0, -1.1, -1.2, -9.0)):
        judge(contest, index, 5, value)
    assert contest.keep() == (0, 1)
    contest = started(2, (Round(0.5, 2, 0.0),))
    for index in range(2):
        preview(contest, index, 5)
        judge(contest, index, 5, -1.0)
    assert contest.keep() is None  # equal ones both stay


def test_gaps_are_those_of_the_evidence() -> None:
    """Near certainty log-probabilities hardly differ, and log-odds do."""
    contest = started(2, (Round(0.5, 2, 1.5),))
    for index, evidence in enumerate((9.0, 7.0)):
        preview(contest, index, 5)
        found = Score(-1e-4 * (index + 1), TOP, (), evidence)
        list(contest.judged(index, 5, b"", found, final=False))
    assert contest.keep() == (0,)


@given(st.permutations(range(5)), st.lists(st.floats(-5, 0), min_size=5, max_size=5))
def test_who_stays_by_a_margin_does_not_depend_on_the_order(
    order: list[int], values: list[float]
) -> None:
    contest = started(5, (Round(0.5, 4, 1.0),))
    for index in range(5):
        preview(contest, index, 5)
    for index in order:
        judge(contest, index, 5, values[index])
    best = sorted(range(5), key=lambda index: (-values[index], index))[:4]
    wanted = {index for index in best if values[best[0]] - values[index] <= 1.0}
    phases = contest.outcomes()
    assert {index for index in range(5) if phases[index] is Phase.FORMING} == wanted


def test_what_is_owed() -> None:
    contest = started(3, HALF)
    assert contest.is_owed(5)
    preview(contest, 0, 5)
    contest.take(Broken(1, NotReady()))
    assert contest.is_owed(5)
    contest.take(Stepped(2, 5))
    assert contest.is_owed(5)  # its preview comes after its step
    contest.take(Stepped(2, 6))
    assert not contest.is_owed(5)
    assert contest.is_owed(None)
    for index in (0, 2):
        contest.take(Made(index, STEPS, b""))
    assert not contest.is_owed(None)


def test_who_cannot_win_any_more_leaves_before_the_others_are_judged() -> None:
    contest = started(4, HALF)
    for index in range(4):
        preview(contest, index, 5)
    judge(contest, 0, 5, -1.0)
    judge(contest, 1, 5, -2.0)
    assert contest.keep() is None
    judge(contest, 2, 5, -3.0)
    assert contest.keep() == (0, 1, 3)
    judge(contest, 3, 5, -1.5)
    assert contest.keep() == (0, 3)


def test_equal_scores_are_decided_by_index_whatever_comes_first() -> None:
    for order in ((0, 1, 2), (2, 1, 0), (1, 2, 0)):
        contest = started(3, (Round(0.5, 1),))
        for index in order:
            preview(contest, index, 5)
            judge(contest, index, 5, -1.0)
        assert [phase is Phase.FORMING for phase in contest.outcomes()] == [True, False, False]


def test_pruned_tells_the_step_it_was_really_stopped_at() -> None:
    contest = started(2, (Round(0.5, 1),))
    for index in range(2):
        preview(contest, index, 5)
        judge(contest, index, 5, -float(index))
    assert list(contest.take(Stopped(1, 7))) == [Pruned(1, 7, 3, score(-1.0))]
    finish(contest, 0, -0.5)
    result = contest.result()
    assert (result.row_steps_spent, result.row_steps_saved) == (17, 3)
    first, second = result.candidates
    assert (first.rank, first.index, first.seed, first.image) == (1, 0, 100, b"i0")
    assert first.pruned_at_step is None
    assert (second.rank, second.index, second.image) == (2, 1, b"p1")
    assert (second.pruned_at_step, second.score) == (7, score(-1.0))


def test_one_that_finished_before_it_was_stopped_counts_as_finished() -> None:
    contest = started(2, (Round(0.5, 1),))
    for index in range(2):
        preview(contest, index, 5)
        judge(contest, index, 5, -float(index))
    assert contest.keep() == (0,)
    told = finish(contest, 1, -0.1)
    assert [type(event) for event in told] == [Scored, Finished]
    finish(contest, 0, -0.5)
    result = contest.result()
    assert [each.index for each in result.candidates] == [1, 0]
    assert result.row_steps_saved == 0


def test_without_a_preview_the_finished_picture_stands_in() -> None:
    contest = started(3, HALF)
    finish(contest, 0, -0.1, steps=4)
    for index in (1, 2):
        preview(contest, index, 5)
        judge(contest, index, 5, -float(index))
    assert contest.keep() == (0, 1)


def test_a_late_score_of_a_made_picture_still_decides_its_round() -> None:
    contest = started(2, (Round(0.5, 1),))
    preview(contest, 0, 5)
    preview(contest, 1, 5)
    judge(contest, 1, 5, -2.0)
    contest.take(Made(0, STEPS, b"i0"))
    assert [type(event) for event in judge(contest, 0, 5, -1.0)] == [Scored]
    assert contest.keep() == (0,)


def test_scores_that_overtake_each_other_change_nothing() -> None:
    contest = started(2, (Round(0.2, 1), Round(0.5, 1)))
    for step in (2, 5):
        preview(contest, 0, step)
    judge(contest, 0, 5, -9.0)
    preview(contest, 1, 2)
    judge(contest, 1, 2, -2.0)
    assert contest.keep() is None
    judge(contest, 0, 2, -1.0)
    assert contest.keep() == (0,)


def test_a_failed_candidate_leaves_the_others_more_room() -> None:
    contest = started(3, HALF)
    fault = ModelFault()
    assert list(contest.take(Broken(0, fault))) == [Failed(0, fault)]
    for index in (1, 2):
        preview(contest, index, 5)
        judge(contest, index, 5, -float(index))
    assert contest.keep() is None
    finish(contest, 1, -1.0)
    finish(contest, 2, -2.0)
    result = contest.result()
    assert [(each.index, each.rank) for each in result.candidates] == [(1, 1), (2, 2), (0, 0)]
    assert isinstance(result.candidates[2].error, ModelFault)


def test_one_that_cannot_be_judged_is_stopped_and_its_steps_are_counted() -> None:
    contest = started(2, (Round(0.5, 1),))
    preview(contest, 0, 5)
    told = list(contest.judged(0, 5, b"p0", NotReady(), final=False))
    assert [type(event) for event in told] == [Failed]
    assert contest.keep() == (1,)
    assert list(contest.take(Stopped(0, 6))) == []
    finish(contest, 1, -1.0)
    result = contest.result()
    assert (result.row_steps_spent, result.row_steps_saved) == (16, 4)
    assert result.candidates[1].image == b"p0"


def test_a_finished_picture_that_cannot_be_judged_keeps_its_picture() -> None:
    contest = started(2, ())
    finish(contest, 0, -1.0)
    contest.take(Made(1, STEPS, b"i1"))
    list(contest.judged(1, STEPS, b"i1", NotReady(), final=True))
    assert contest.keep() is None
    failed = contest.result().candidates[1]
    assert (failed.rank, failed.image, failed.score) == (0, b"i1", None)


def test_unasked_stop_is_a_failure() -> None:
    contest = started(1, ())
    assert [type(event) for event in contest.take(Stopped(0, 3))] == [Failed]
    with pytest.raises(ModelFault):
        contest.result()


def test_all_failed_raises_the_first_error() -> None:
    contest = started(2, ())
    contest.take(Broken(1, ModelFault()))
    contest.take(Broken(0, NotReady("Gone.")))
    with pytest.raises(NotReady, match="Gone"):
        contest.result()


def test_a_candidate_that_is_none_is_a_fault() -> None:
    with pytest.raises(ModelFault):
        started(2, ()).take(Stepped(2, 1))


# ---- any schedule, any scores, any order ----


@st.composite
def _races(draw: st.DrawFn) -> tuple[int, int, tuple[Round, ...]]:
    candidates = draw(st.integers(1, 9))
    steps = draw(st.integers(1, 12))
    keeps = sorted(draw(st.sets(st.integers(1, 8), max_size=3)), reverse=True)
    keeps = [keep for keep in keeps if keep < candidates]
    shares = sorted(draw(st.sets(st.integers(1, 99), min_size=len(keeps), max_size=len(keeps))))
    rounds = tuple(Round(at / 100, keep) for at, keep in zip(shares, keeps, strict=True))
    check_rounds(rounds, candidates)
    return candidates, steps, rounds


def _expected(race: tuple[int, int, tuple[Round, ...]], values: list[list[float]]) -> set[int]:
    """Survivors when every round is decided at once, by its scores alone."""
    candidates, steps, rounds = race
    alive = list(range(candidates))
    for point in checkpoints(rounds, steps):
        alive = sorted(alive, key=lambda index: (-values[index][point.step], index))[: point.keep]
    return set(alive)


@given(_races(), st.data())
def test_in_any_order_the_same_candidates_survive(
    race: tuple[int, int, tuple[Round, ...]], data: st.DataObject
) -> None:
    candidates, steps, rounds = race
    value = st.sampled_from([-3.0, -2.0, -1.0, -0.5])
    values = [
        data.draw(st.lists(value, min_size=steps + 1, max_size=steps + 1))
        for _ in range(candidates)
    ]
    contest = Contest(candidates, steps, rounds)
    told = admitted(contest, candidates, steps)
    kept = set(range(candidates))
    for step in range(1, steps):
        alive = sorted(kept)
        if step in contest.preview_steps:
            for index in alive:
                contest.take(Previewed(index, step, b"p"))
            for index in data.draw(st.permutations(alive)):
                told += contest.judged(index, step, b"p", score(values[index][step]), final=False)
                if (keep := contest.keep()) is not None:
                    for loser in kept - set(keep):
                        told += contest.take(Stopped(loser, step))
                    kept = set(keep)
    for index in data.draw(st.permutations(sorted(kept))):
        contest.take(Made(index, steps, b"i"))
        told += contest.judged(index, steps, b"i", score(values[index][steps]), final=True)
    assert contest.is_over
    assert kept == _expected(race, values)
    _check(contest.result(), told, candidates, steps)


def _check(result: Result, told: list[Event], candidates: int, steps: int) -> None:
    assert result.row_steps_spent + result.row_steps_saved == candidates * steps
    assert sorted(each.index for each in result.candidates) == list(range(candidates))
    ranks = [each.rank for each in result.candidates]
    assert ranks == sorted(ranks)
    assert ranks[0] == 1
    pruned = [event for event in told if isinstance(event, Pruned)]
    assert sum(event.steps_saved for event in pruned) == result.row_steps_saved
    finished = [event for event in told if isinstance(event, Finished)]
    assert len(pruned) + len(finished) == candidates
    best = result.candidates[: len(finished)]
    assert all(each.pruned_at_step is None for each in best)


_NEWS = st.one_of(
    st.builds(Admitted, st.integers(0, 2), st.integers(0, 9), st.integers(0, 12)),
    st.builds(Stepped, st.integers(0, 2), st.integers(0, 12)),
    st.builds(Previewed, st.integers(0, 2), st.integers(0, 12), st.just(b"p")),
    st.builds(Made, st.integers(0, 2), st.integers(0, 12), st.just(b"i")),
    st.builds(Stopped, st.integers(0, 2), st.integers(0, 12)),
    st.builds(Broken, st.integers(0, 2), st.just(ModelFault())),
)
_WORDS = st.tuples(
    st.integers(0, 2),
    st.integers(0, 12),
    st.floats(-9, 0).map(score) | st.just(NotReady()),
    st.booleans(),
)


@given(st.lists(_NEWS | _WORDS, max_size=30))
def test_nonsense_is_survived(
    messages: list[Admitted | Made | tuple[int, int, Score | NotReady, bool]],
) -> None:
    contest = Contest(3, STEPS, (Round(0.3, 2), Round(0.6, 1)))
    ends = 0
    for message in messages:
        if isinstance(message, tuple):
            index, step, outcome, final = message
            told = contest.judged(index, step, b"", outcome, final=final)
        else:
            told = contest.take(message)
        ends += sum(isinstance(event, Pruned | Finished | Failed) for event in told)
        contest.keep()
    assert ends <= sum(
        phase.name in ("PRUNED", "FINISHED", "FAILED") for phase in contest.outcomes()
    )
    assert contest.row_steps_spent >= 0
