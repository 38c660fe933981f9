import torch

from benchmarks.stylize import grams, least_gain, pairs, statistics


def test_pairs_differ_in_all_that_is_style_and_content() -> None:
    found = pairs(60)
    assert found == pairs(80)[:60]
    for pair in found:
        assert pair.content.shape != pair.style.shape
        assert pair.content.colour != pair.style.colour
        assert pair.content.ground != pair.style.ground


def test_the_style_distance_knows_no_places() -> None:
    features = {"layer": torch.randn((2, 3, 16), generator=torch.Generator().manual_seed(0))}
    moved = {"layer": features["layer"].roll(5, dims=2)}
    shifted = {"layer": features["layer"] + torch.tensor([3.0, 0.0, 4.0])[:, None]}
    for distance in (statistics, grams):
        assert distance(features, moved).max() < 1e-4
        assert distance(features, shifted).min() > 1.0
    assert abs(statistics(features, shifted) - 5.0).max() < 1e-4


def test_the_least_gain_tells_of_a_fall() -> None:
    assert least_gain([1.0, 3.0, 4.0]) == 1.0
    assert least_gain([1.0, 3.0, 2.5]) == -0.5
