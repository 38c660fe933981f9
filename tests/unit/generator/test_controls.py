"""What a request may ask of ControlNets, and when they act."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch

from services.core.errors import FailedPrecondition, InvalidInput
from services.generator.controls import (
    MAX_CONTROL_SCALE,
    MAX_CONTROLS,
    MAX_NAME_BYTES,
    ControlUse,
    as_recorded,
    checked_controls,
    pinned,
    versions,
)
from services.generator.modes import Inpaint, MaskPolarity
from services.generator.network import Look, Residuals
from services.generator.request import Order, Wish, resolve
from services.generator.steering import Control, control_picture, residuals
from tests.unit.generator.fakes import loaded_model
from tests.unit.generator.pictures import given, picture

IMAGE = given(picture(), "controls[0].image")
MANY = tuple(ControlUse(str(index), IMAGE) for index in range(MAX_CONTROLS + 1))
ONE = ControlUse("edges", IMAGE)


@pytest.mark.parametrize(
    "uses",
    [
        (),
        MANY[:-1],
        (replace(ONE, scale=0.0),),
        (replace(ONE, scale=MAX_CONTROL_SCALE),),
        (replace(ONE, start=0.999),),
        (replace(ONE, end=0.001),),
        (replace(ONE, name="x" * MAX_NAME_BYTES),),
    ],
)
def test_what_is_taken(uses: tuple[ControlUse, ...]) -> None:
    assert checked_controls(uses) == uses


@pytest.mark.parametrize(
    ("uses", "field", "limit", "told"),
    [
        (MANY, "controls", "4", "5"),
        ((replace(ONE, name=""),), "controls[0].name", "1 to 128 bytes", "0 bytes"),
        (
            (replace(ONE, name="x" * (MAX_NAME_BYTES + 1)),),
            "controls[0].name",
            "128 bytes",
            "129 bytes",
        ),
        ((ONE, ONE), "controls[1].name", "once", "edges"),
        ((replace(ONE, name="x" * 128),) * 2, "controls[1].name", "once", "x" * 80),
        ((replace(ONE, scale=2.01),), "controls[0].scale", "0 to 2", "2.01"),
        ((replace(ONE, scale=-0.01),), "controls[0].scale", "0 to 2", "-0.01"),
        ((replace(ONE, scale=math.nan),), "controls[0].scale", "0 to 2", "nan"),
        ((replace(ONE, start=-0.01),), "controls[0].start", "0 to 1", "-0.01"),
        ((replace(ONE, start=math.nan),), "controls[0].start", "0 to 1", "nan"),
        ((replace(ONE, end=1.01),), "controls[0].end", "0 to 1", "1.01"),
        ((replace(ONE, end=math.nan),), "controls[0].end", "0 to 1", "nan"),
        ((replace(ONE, start=0.5, end=0.5),), "controls[0].end", "above 0.5", "0.5"),
        ((replace(ONE, start=1.0),), "controls[0].end", "above 1", "1"),
        ((MANY[0], replace(ONE, end=0.0)), "controls[1].end", "above 0", "0"),
    ],
)
def test_what_is_refused(uses: tuple[ControlUse, ...], field: str, limit: str, told: str) -> None:
    with pytest.raises(InvalidInput) as raised:
        checked_controls(uses)
    assert (raised.value.field, raised.value.limit, raised.value.given) == (field, limit, told)


def resolved(**options: Any) -> Order:
    return resolve(Wish(**options), loaded_model().limits, draw_seed=int)


def test_steps_are_not_cached_where_controls_steer_them() -> None:
    assert resolved(controls=(ONE,), cache_interval=1).controls == (ONE,)
    with pytest.raises(InvalidInput) as raised:
        resolved(controls=(ONE,), cache_interval=2)
    assert (raised.value.field, raised.value.given) == ("cache_interval", "2")


def test_an_inpainting_that_zooms_takes_none() -> None:
    mode = Inpaint(IMAGE, IMAGE, MaskPolarity.WHITE)
    assert resolved(controls=(ONE,), mode=mode).controls == (ONE,)
    with pytest.raises(InvalidInput) as raised:
        resolved(controls=(ONE,), mode=replace(mode, padding_px=0))
    assert raised.value.field == "inpaint.padding_px"


def test_they_are_of_the_files_that_a_record_names() -> None:
    use = pinned(ONE, "sha256:ab")
    assert versions((use,)) == {"controlnet edges": "sha256:ab"}
    assert as_recorded((ONE,), {"controlnet edges": "sha256:ab"}) == (use,)
    assert as_recorded((use,), {}) == (ONE,)
    with pytest.raises(FailedPrecondition, match="ControlNet 'edges' is sha256:cd here") as raised:
        pinned(use, "sha256:cd")
    assert raised.value.reason == "OTHER_VERSION"


def test_they_are_told_with_what_is_not_the_default() -> None:
    assert str(ONE) == "edges:1"
    assert str(replace(ONE, scale=0.8, start=0.25, end=0.5)) == "edges:0.8@0.25-0.5"


@dataclass(frozen=True)
class Constant:
    """Adds the brightness of each entry's picture; keeps what it was shown."""

    name: str
    shown: list[torch.Tensor]
    digest: str = ""

    def residuals(self, look: Look, pictures: torch.Tensor) -> Residuals:
        self.shown.append(look.timesteps)
        level = pictures.mean(dim=(1, 2, 3))[:, None, None, None]
        return Residuals((level.expand(-1, 2, 4, 4), level.expand(-1, 3, 2, 2)))


def control(net: Constant, level: float, **more: Any) -> Control:
    return Control(net, torch.full((3, 8, 8), level), **more)


def look(entries: int) -> Look:
    return Look(
        torch.zeros(entries, 4, 4, 4), torch.arange(entries).float(), torch.zeros(entries, 2, 2)
    )


def test_a_net_looks_at_those_that_ask_alone() -> None:
    edges, depth = Constant("edges", []), Constant("depth", [])
    made = residuals(
        look(6),
        [
            (range(1, 3), control(edges, 0.5)),
            (range(1, 3), control(depth, 1.0, scale=0.25)),
            (range(5, 6), control(edges, 1.0, scale=2.0)),
        ],
    )
    assert [part.shape for part in made.parts] == [(6, 2, 4, 4), (6, 3, 2, 2)]
    for part in made.parts:
        assert part.amax(dim=(1, 2, 3)).tolist() == [0.0, 0.75, 0.75, 0.0, 0.0, 2.0]
        assert part.amin(dim=(1, 2, 3)).tolist() == [0.0, 0.75, 0.75, 0.0, 0.0, 2.0]
    assert [shown.tolist() for shown in edges.shown] == [[1.0, 2.0, 5.0]]
    assert [shown.tolist() for shown in depth.shown] == [[1.0, 2.0]]


def test_nobody_asks() -> None:
    assert residuals(look(2), []).parts == ()


@pytest.mark.parametrize(
    ("more", "acting"),
    [
        ({}, [0, 1, 2, 3, 4]),
        ({"start": 0.4}, [2, 3, 4]),
        ({"start": 0.41}, [3, 4]),
        ({"end": 0.6}, [0, 1, 2]),
        ({"end": 0.59}, [0, 1]),
        ({"start": 0.5, "end": 0.55}, []),
        ({"scale": 0.0}, []),
    ],
)
def test_when_it_acts_and_what_it_costs(more: dict[str, float], acting: list[int]) -> None:
    one = control(Constant("edges", []), 1.0, **more)
    assert [index for index in range(5) if one.acts(index, 5)] == acting
    assert one.cost(5) == pytest.approx(0.4 * len(acting) / 5)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L"])
def test_its_picture_is_stretched(mode: str) -> None:
    image = picture(41, 23, mode)
    made = control_picture(image, 16, 24)
    expected = np.asarray(image.convert("RGB").resize((16, 24), 1)) / 255.0
    assert made.shape == (3, 24, 16)
    assert np.allclose(made.permute(1, 2, 0).numpy(), expected, atol=1e-6)
