"""A temperature from a folder of pictures to the probabilities that are served."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from services.classifier import fitting
from services.classifier.backends import ChosenNetwork
from services.classifier.network import Options
from services.classifier.temperature import (
    CALIBRATION_FILE,
    Calibration,
    read_temperature,
    write_calibration,
)
from services.core.artifacts import ArtifactStore
from services.core.reference import digest_of
from tests.parity.classifier.models import SMALL, Reference, save_random_vit, textures
from tests.parity.classifier.pairs import Pair, loaded


@pytest.fixture
def model(tmp_path: Path) -> Path:
    save_random_vit(tmp_path / "model", SMALL)
    return tmp_path / "model"


@pytest.fixture
def folder(tmp_path: Path, model: Path) -> Path:
    """Of every three pictures two have the label that the model gives them."""
    pair = Pair(loaded(model), Reference(model))
    pictures = textures(12)
    order = pair.logits(*pair.rows(pictures)).argsort(axis=1)
    for index, picture in enumerate(pictures):
        place = tmp_path / "pictures" / f"LABEL_{order[index, -2 if index % 3 == 0 else -1]}"
        place.mkdir(parents=True, exist_ok=True)
        picture.save(place / f"{index}.png")
    return tmp_path / "pictures"


def test_a_fitted_temperature_is_served(
    model: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = digest_of(model)
    (logits,) = Pair(loaded(model), Reference(model)).logits(
        *Pair(loaded(model), Reference(model)).rows(textures(1))
    )
    assert fitting.main([str(model), str(folder)]) == 0
    assert "on 12 pictures" in capsys.readouterr().out
    temperature = read_temperature(model)
    assert temperature != 1.0
    assert digest_of(model) != before
    labels = loaded(model).loaded.labels
    powers = np.exp(logits.astype(np.float64) / temperature)
    (best,) = labels.best(logits, top_k=1)
    assert best.score == pytest.approx(powers.max() / powers.sum())


def test_a_folder_that_cannot_be_used_leaves_the_model_as_it_is(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert fitting.main([str(model), str(tmp_path / "nothing")]) == 1
    assert "no folder 'nothing'" in capsys.readouterr().err
    assert not (model / CALIBRATION_FILE).exists()


def test_a_calibrated_model_is_not_converted_again(model: Path, tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path / "converted")
    options = Options("cpu", "float32", 1, backend="openvino")
    ChosenNetwork(options, store).load(model)
    write_calibration(model, Calibration(1.5, 12, 2.0, 1.0, 0.2, 0.1))
    ChosenNetwork(options, store).load(model)
    assert len(list(store.root.iterdir())) == 1
