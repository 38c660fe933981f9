"""How early scores tell, and the schedule that is chosen by it."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import spearmanr

from ranker.pictures.pruning.correlation import signals, spearman
from ranker.pictures.pruning.search import grid, run, search
from ranker.pictures.pruning.trials import Trials
from ranker.pictures.schedule import check_rounds, default_rounds
from tests.unit.ranker.pictures.pruning.trial_data import NOISE, drawn


def test_spearman_is_scipys_with_ties_too() -> None:
    draw = np.random.default_rng(3)
    scores, others = draw.integers(0, 5, (2, 30, 8)).astype(float)
    scores[0] = 1.0
    found = spearman(scores, others)
    assert found[0] == 0.0
    for prompt in range(1, 30):
        wanted = spearmanr(scores[prompt], others[prompt]).statistic
        assert found[prompt] == pytest.approx(wanted)


def test_the_signal_rises_and_its_parts_are_the_truth() -> None:
    found = signals(drawn(400))
    correlations = [each.correlation for each in found]
    assert correlations == sorted(correlations)
    for each, noise in zip(found, NOISE, strict=True):
        assert each.low < each.correlation < each.high
        # Final ones have variance 1, scores that and the noise's.
        assert each.slope == pytest.approx(1.0 / (1.0 + noise**2), abs=0.03)
        assert each.spread == pytest.approx(noise / np.sqrt(1.0 + noise**2), abs=0.03)
    assert found[0].best_in_half == pytest.approx(0.5, abs=0.08)
    assert found[-1].best_in_half > 0.99


def test_intervals_cover() -> None:
    truth = signals(drawn(5000, seed=9))[1].correlation
    found = [signals(drawn(40, seed=seed))[1] for seed in range(60)]
    assert np.mean([each.low <= truth <= each.high for each in found]) >= 0.88


@pytest.mark.parametrize("max_work", [0.6, 0.65, 0.8])
def test_the_choice_takes_no_more_than_it_may_and_early_noise_drops_nobody(
    max_work: float,
) -> None:
    trials = drawn()
    found = search(trials, max_work)
    assert run(trials, found.chosen.schedule).spent.mean() <= max_work
    # Of the first checkpoint nothing can be learned.
    assert all(each.at > 0.2 for each in found.chosen.schedule)
    check_rounds(default_rounds(found.chosen.schedule, 8), 8)
    work = [each.work for each in found.front]
    loss = [each.loss for each in found.front]
    assert work == sorted(work)
    assert loss == sorted(loss, reverse=True)


def test_cross_validated_numbers_are_those_of_prompts_that_were_not_there() -> None:
    """In the mean over many draws, what is told is no better than what comes out elsewhere."""
    fresh = drawn(4000, seed=77)
    told, true = [], []
    for seed in range(8):
        found = search(drawn(24, seed=seed), 0.6).chosen
        told.append(found.regret)
        true.append(run(fresh, found.schedule).regret.mean())
    assert np.mean(told) >= 0.85 * np.mean(true)


def test_nothing_takes_as_little() -> None:
    with pytest.raises(ValueError, match=r"no schedule takes 0\.1"):
        search(drawn(), 0.1)


def test_scores_that_never_tell() -> None:
    blind = drawn()
    noise = np.random.default_rng(5).standard_normal(blind.standing.shape)
    with pytest.raises(ValueError, match="no schedule"):
        search(Trials(20, blind.checkpoints, noise, blind.final, blind.final), 0.65)


def test_steps_of_shares() -> None:
    assert grid(20, (0.2, 0.55, 0.551, 0.999)) == (4, 11, 12)
    assert grid(2, (0.1, 0.4, 0.6)) == (1,)
    assert grid(1, (0.5,)) == ()
