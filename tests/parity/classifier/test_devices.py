"""Every family on a device that is not the processor: nothing is left behind on the other side. No
GPU is needed: see ``tests/crossings.py``.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from services.classifier.families import opened
from services.classifier.network import Options, Pooling, Reading
from services.classifier.preprocessing import read_preprocessing
from services.classifier.pytorch import Normal, load_model, open_eager
from services.classifier.trunk import Body, Source
from tests.crossings import DEVICE, Crossings
from tests.parity.classifier.models import textures
from tests.parity.classifier.zoo import ZOO, save


@pytest.mark.parametrize("name", ZOO)
def test_a_pass_is_made_on_the_device_alone(name: str, tmp_path: Path) -> None:
    save(tmp_path, ZOO[name])
    preprocessing = read_preprocessing(tmp_path)
    model = load_model(tmp_path)
    family = opened(model, preprocessing.input, wanted=False)
    options = Options(DEVICE.type, "bfloat16")
    trunk = open_eager(Source(tmp_path, model, Body(family), preprocessing.input, options))
    model.to(DEVICE)
    normal = Normal(preprocessing, DEVICE)
    pixels = [preprocessing.prepare(picture) for picture in textures(3)]
    crossings = Crossings()
    with torch.inference_mode(), crossings.watched():
        states = trunk(normal(pixels), range(family.depth + 1))
        found = [family.logits(states[family.depth])]
        for layer, state in states.items():
            found += [family.read(state, Reading(layer, each)) for each in family.poolings]
        if Pooling.MEAN in family.poolings:
            last = Reading(family.depth, Pooling.MEAN, final_norm=True)
            found.append(family.read(states[family.depth], last))
    assert {each.device for each in found} == {DEVICE}
    assert {each.dtype for each in found} == {torch.float32}
    assert not crossings.mixed
    assert not crossings.waited
    assert crossings.copies == 1, "the pictures, and nothing else"
