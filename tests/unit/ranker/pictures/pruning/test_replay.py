"""What pruning would have done: against a contest that is really held, and known numbers."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import t as student

from ranker.pictures.contest import Contest
from ranker.pictures.events import Admitted, Made, Previewed, Stepped, Stopped
from ranker.pictures.judging import Score
from ranker.pictures.pruning.replay import Replay, replay
from ranker.pictures.pruning.trials import Trials
from ranker.pictures.schedule import Checkpoint, Round, checkpoints
from tests.unit.ranker.pictures.pruning.trial_data import STEPS, drawn

SCHEDULES = [
    (),
    (Round(0.4, 4), Round(0.8, 2)),
    (Round(0.4, 8, 1.0), Round(0.6, 4, 0.5), Round(0.8, 1, 0.0)),
    (Round(0.6, 1),),
]


def contested(trials: Trials, prompt: int, rounds: tuple[Round, ...]) -> tuple[int, float]:
    """The row-steps and the best final score of a contest over one prompt."""
    contest = Contest(trials.candidates, trials.steps, rounds)
    alive = set(range(trials.candidates))
    for index in alive:
        contest.take(Admitted(index, index, trials.steps))
    for step in range(1, trials.steps + 1):
        for index in sorted(alive):
            contest.take(Stepped(index, step))
        if step in contest.preview_steps:
            column = trials.checkpoints.index(step)
            for index in sorted(alive):
                contest.take(Previewed(index, step, b""))
            for index in sorted(alive):
                value = trials.standing[prompt, index, column]
                contest.judged(index, step, b"", Score(value, None), final=False)
            if (kept := contest.keep()) is not None:
                for index in sorted(alive - set(kept)):
                    contest.take(Stopped(index, step))
                alive &= set(kept)
    for index in sorted(alive):
        contest.take(Made(index, trials.steps, b""))
    for index in sorted(alive):
        score = Score(trials.final[prompt, index], None)
        contest.judged(index, trials.steps, b"", score, final=True)
    result = contest.result()
    best = result.candidates[0].score
    assert best is not None
    return result.row_steps_spent, best.value


@pytest.mark.parametrize("rounds", SCHEDULES)
def test_it_is_what_a_contest_does(rounds: tuple[Round, ...]) -> None:
    trials = drawn(12)
    found = replay(trials, checkpoints(rounds, STEPS))
    for prompt in range(trials.prompts):
        row_steps, best = contested(trials, prompt, rounds)
        assert found.spent[prompt] == pytest.approx(row_steps / (8 * STEPS))
        assert found.regret[prompt] == pytest.approx(trials.final[prompt].max() - best)
        assert found.kept[prompt] == (found.regret[prompt] == 0.0)


def test_without_rounds_all_is_spent_and_nothing_lost() -> None:
    found = replay(drawn(), ())
    assert (found.spent == 1.0).all()
    assert (found.regret == 0.0).all()
    assert (found.kept == 1.0).all()


def test_fewer_candidates_are_every_run_of_neighbours() -> None:
    trials = drawn(3, candidates=4)
    rounds = (Checkpoint(12, 1, 0.6),)
    found = replay(trials, rounds, 2)
    for prompt in range(3):
        regrets = []
        for start in range(4):
            who = [start, (start + 1) % 4]
            chosen = max(who, key=lambda index: trials.standing[prompt, index, 2])
            regrets.append(trials.final[prompt, who].max() - trials.final[prompt, chosen])
        assert found.regret[prompt] == pytest.approx(np.mean(regrets))
    assert found.spent == pytest.approx((2 * 12 + 8) / 40)


def test_a_round_between_checkpoints_is_decided_by_the_one_before() -> None:
    trials = drawn()
    early, late = (replay(trials, (Checkpoint(step, 1, 0.0),)) for step in (12, 14))
    np.testing.assert_array_equal(early.regret, late.regret)
    assert late.spent.mean() > early.spent.mean()


@pytest.mark.parametrize(
    ("rounds", "candidates"), [((Checkpoint(3, 1, 0.1),), 8), ((), 9), ((), 0)]
)
def test_what_trials_do_not_tell(rounds: tuple[Checkpoint, ...], candidates: int) -> None:
    with pytest.raises(ValueError, match=r"candidates|round after step"):
        replay(drawn(), rounds, candidates)


def test_the_bound_is_never_below_what_was_too_rare_to_be_seen() -> None:
    none = np.zeros(60)
    found = Replay(none, none, none, none, blind_regret=2.0)
    assert found.regret_bound() == pytest.approx(3 / 60 * 2.0)
    lost = np.linspace(0.0, 1.0, 60)  # of no skewness
    seen = Replay(none, lost, lost, none, blind_regret=2.0)
    limit = lost.mean() + student.ppf(0.95, 59) * lost.std(ddof=1) / np.sqrt(60)
    assert seen.regret_bound() == pytest.approx(limit, rel=1e-3)


def test_the_bound_holds_in_nineteen_of_twenty_draws() -> None:
    """The truth is that of very many prompts."""
    rounds = checkpoints((Round(0.4, 4), Round(0.6, 1)), STEPS)
    truth = replay(drawn(20_000, seed=1), rounds).regret.mean()
    bounds = [replay(drawn(40, seed=seed), rounds).regret_bound() for seed in range(2, 402)]
    assert np.mean(np.array(bounds) >= truth) >= 0.93


@pytest.mark.parametrize(
    "fault",
    [
        {"standing": np.zeros((4, 8, 3))},
        {"final_standing": np.zeros((4, 7))},
        {"final": np.full((4, 8), np.nan)},
        {"checkpoints": (4, 4, 12, 16)},
        {"checkpoints": (0, 4, 12, 16)},
        {"checkpoints": (4, 8, 12, 20)},
        {"final": np.zeros((4, 1)), "final_standing": np.zeros((4, 1))},
    ],
)
def test_trials_that_do_not_agree(fault: dict[str, object]) -> None:
    sound = {
        "steps": 20,
        "checkpoints": (4, 8, 12, 16),
        "standing": np.zeros((4, 8, 4)),
        "final": np.zeros((4, 8)),
        "final_standing": np.zeros((4, 8)),
    }
    Trials(**sound)  # type: ignore[arg-type]
    with pytest.raises(ValueError):  # noqa: PT011
        Trials(**{**sound, **fault})  # type: ignore[arg-type]
