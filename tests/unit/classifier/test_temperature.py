import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.classifier.temperature import (
    CALIBRATION_FILE,
    HIGHEST,
    LOWEST,
    Calibration,
    calibrated,
    read_temperature,
    write_calibration,
)
from services.core.errors import FailedPrecondition

LABELS = 7


def drawn(temperature: float, seed: int = 0, pictures: int = 4000) -> tuple[np.ndarray, np.ndarray]:
    """Logits, and labels drawn with the probabilities of ``logits / temperature``."""
    random = np.random.default_rng(seed)
    logits = random.normal(0, 3, (pictures, LABELS)).astype(np.float32)
    noise = random.gumbel(size=logits.shape)
    return logits, (logits / temperature + noise).argmax(axis=1)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_the_temperature_that_the_labels_were_drawn_with(temperature: float) -> None:
    logits, targets = drawn(temperature)
    found = calibrated(logits, targets)
    assert found.temperature == pytest.approx(temperature, rel=0.1)
    assert found.nll_after <= found.nll_before
    assert found.ece_after < 0.03
    assert found.pictures == 4000


def test_an_overconfident_model_is_better_calibrated_afterwards() -> None:
    found = calibrated(*drawn(3.0))
    assert found.ece_before > 0.1 > found.ece_after
    assert found.nll_after < 0.9 * found.nll_before


def test_multi_label_scores_each_label_by_itself() -> None:
    random = np.random.default_rng(1)
    logits = random.normal(0, 4, (2000, 3)).astype(np.float32)
    targets = (random.random(logits.shape) < 1 / (1 + np.exp(-logits / 2))).astype(np.int64)
    found = calibrated(logits, targets, multi_label=True)
    assert found.temperature == pytest.approx(2.0, rel=0.1)
    assert found.ece_after < found.ece_before


@given(st.integers(0, 50), st.floats(0.3, 5))
@settings(max_examples=20)
def test_no_neighbour_is_better(seed: int, temperature: float) -> None:
    logits, targets = drawn(temperature, seed, 200)
    found = calibrated(logits, targets)

    def nll(temperature: float) -> float:
        scaled = logits.astype(np.float64) / temperature
        return float(
            np.mean(np.log(np.exp(scaled).sum(axis=1)) - scaled[np.arange(len(targets)), targets])
        )

    assert found.nll_after == pytest.approx(nll(found.temperature))
    assert found.nll_before == pytest.approx(nll(1.0))
    for other in (0.9, 1.1):
        assert nll(found.temperature) <= nll(found.temperature * other)


def test_logits_of_any_size_do_not_overflow() -> None:
    logits, targets = drawn(1.0)
    assert np.isfinite(calibrated(logits * 30, targets).temperature)


def test_no_pictures() -> None:
    with pytest.raises(FailedPrecondition, match="no labelled pictures"):
        calibrated(np.zeros((0, 3), np.float32), np.zeros(0, np.int64))


def test_pictures_that_are_all_right_bound_no_temperature() -> None:
    logits = np.eye(3, dtype=np.float32)
    with pytest.raises(FailedPrecondition, match="bound no temperature"):
        calibrated(logits, np.arange(3))


def test_pictures_that_are_all_wrong_bound_none_either() -> None:
    logits = np.eye(3, dtype=np.float32)
    with pytest.raises(FailedPrecondition, match="bound no temperature"):
        calibrated(logits, np.array([1, 2, 0]))


def test_what_is_written_is_read(tmp_path: Path) -> None:
    assert read_temperature(tmp_path) == 1.0
    write_calibration(tmp_path, Calibration(1.75, 10, 2.0, 1.0, 0.2, 0.1))
    assert read_temperature(tmp_path) == 1.75
    assert json.loads((tmp_path / CALIBRATION_FILE).read_text())["pictures"] == 10


@pytest.mark.parametrize("temperature", [LOWEST, 1, HIGHEST])
def test_temperatures_within_the_range(tmp_path: Path, temperature: float) -> None:
    (tmp_path / CALIBRATION_FILE).write_text(json.dumps({"temperature": temperature}))
    assert read_temperature(tmp_path) == temperature


@pytest.mark.parametrize("temperature", [0.0, 0.00999, 100.1, -1.0, float("nan"), float("inf")])
def test_temperatures_outside_the_range(tmp_path: Path, temperature: float) -> None:
    (tmp_path / CALIBRATION_FILE).write_text(json.dumps({"temperature": temperature}))
    with pytest.raises(FailedPrecondition, match=r"0\.01 to 100"):
        read_temperature(tmp_path)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"temperature": "warm"}', "null"])
def test_a_broken_file(tmp_path: Path, content: str) -> None:
    (tmp_path / CALIBRATION_FILE).write_text(content)
    with pytest.raises(FailedPrecondition, match=CALIBRATION_FILE):
        read_temperature(tmp_path)
