"""Steps as the command line counts them, against the server's own count."""

from __future__ import annotations

import math

import pytest

from easel.cli.previews import steps_run
from easel.client import GenerateOptions
from services.generator.modes import Given, ImageToImage, Inpaint, MaskPolarity, Stylize
from services.generator.request import steps_taken
from tests.unit.generator.pictures import given, picture

SHARES = [index / 40 for index in range(41)]
STEPS = (1, 2, 3, 7, 10, 20, 50, 150)
GIVEN: Given = given(picture())


@pytest.mark.parametrize("steps", STEPS)
def test_from_noise_all_are_run(steps: int) -> None:
    assert steps_run(GenerateOptions(), steps) == steps


@pytest.mark.parametrize("steps", STEPS)
def test_from_a_picture_as_the_server_counts(steps: int) -> None:
    for share in SHARES:
        asked = GenerateOptions(image=b"", strength=share)
        # None is refused.
        assert steps_run(asked, steps) == max(1, steps_taken(ImageToImage(GIVEN, share), steps))
        inpaint = Inpaint(GIVEN, GIVEN, MaskPolarity.WHITE, share)
        assert steps_run(GenerateOptions(**asked, mask=b""), steps) == max(
            1, steps_taken(inpaint, steps)
        )
    unsaid = Inpaint(GIVEN, GIVEN, MaskPolarity.WHITE)
    assert steps_run(GenerateOptions(image=b"", mask=b""), steps) == steps_taken(unsaid, steps)


@pytest.mark.parametrize("steps", STEPS)
def test_of_a_stylization_as_the_server_counts(steps: int) -> None:
    for share in SHARES:
        asked = GenerateOptions(image=b"", style=b"", content_strength=share)
        assert steps_run(asked, steps) == steps_taken(Stylize(GIVEN, GIVEN, share), steps)
    assert steps_run(GenerateOptions(image=b"", style=b""), steps) == steps_taken(
        Stylize(GIVEN, GIVEN), steps
    )


@pytest.mark.parametrize("value", [-1.0, 2.0, math.nan, math.inf, -math.inf, 1e200])
def test_what_the_server_will_refuse_is_counted_somehow(value: float) -> None:
    for asked in (
        GenerateOptions(image=b"", strength=value),
        GenerateOptions(image=b"", style=b"", content_strength=value),
    ):
        assert 1 <= steps_run(asked, 20) <= 20
    assert steps_run(GenerateOptions(), -3) == 1
