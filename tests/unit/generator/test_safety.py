"""What a checker flags is withheld, with a reason; its neighbours are not."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from services.core.errors import FailedPrecondition, OutOfMemory
from services.generator.diffusion import CHECKED_PREVIEW, Picture, PictureWork, Withheld
from services.generator.model import GeneratorModel
from services.generator.request import PreviewMethod, PreviewWish, Wish, resolve
from services.generator.safety import load_checker
from tests.unit.generator.drive import Rider, drive, rider
from tests.unit.generator.fakes import SIDE, FakeChecker, FakeNetwork, loaded_model

CPU = torch.device("cpu")


def works(model: GeneratorModel, wish: Wish) -> list[PictureWork]:
    return model.works(resolve(wish, model.limits, draw_seed=int))


def test_a_flagged_picture_alone_is_withheld() -> None:
    checker = FakeChecker()
    model = loaded_model(checker=checker)
    wish = Wish(steps=2, count=3)
    made = [shown[-1] for shown in drive(model, works(model, wish))]
    checker.flagged = {made[1].pixels.tobytes()}
    batch = works(model, wish)
    stages = model.plan(batch[0])
    for stage in [stages[0], stages[1], stages[1]]:
        model.step(stage, batch)
    first, second, third = model.step(stages[2], batch)
    assert second == Withheld("unsafe")
    assert isinstance(first, Picture)
    assert isinstance(third, Picture)


def test_a_flagged_decoded_preview_is_not_shown() -> None:
    checker = FakeChecker()
    model = loaded_model(checker=checker)
    preview = PreviewWish(at_steps=(1, 3), method=PreviewMethod.DECODED)
    wish = Wish(steps=4, preview=preview)
    first, second, final = drive(model, works(model, wish))[0]
    checker.flagged = {first.pixels.tobytes()}
    shown = drive(model, works(model, wish))[0]
    assert [picture.step for picture in shown] == [second.step, final.step]


FAST = PreviewWish(at_steps=(1, 3), method=PreviewMethod.FAST)


def test_a_flagged_projected_preview_is_not_shown() -> None:
    checker = FakeChecker()
    model = loaded_model(checker=checker)
    wish = Wish(steps=4, seed=5, preview=FAST)
    first, second, final = drive(model, works(model, wish))[0]
    assert first.pixels.shape == (SIDE // 4, SIDE // 4, 3)
    checker.flagged = {first.pixels.tobytes()}
    shown = drive(model, works(model, wish))[0]
    assert [picture.step for picture in shown] == [second.step, final.step]


def test_projected_previews_are_the_same_ones_where_they_are_checked() -> None:
    wish = Wish(steps=4, seed=5, width=64, height=32, tiled=True, preview=FAST)
    bare, checked = loaded_model(), loaded_model(checker=FakeChecker())
    [[*one], [*other]] = [drive(model, works(model, wish))[0] for model in (bare, checked)]
    assert [picture.step for picture in one] == [picture.step for picture in other] == [1, 3, 4]
    for mine, same in zip(one, other, strict=True):
        assert np.array_equal(mine.pixels, same.pixels)


def test_asking_about_projected_previews_is_a_stage_that_rows_of_all_sizes_share() -> None:
    bare, checked = loaded_model(), loaded_model(checker=FakeChecker())
    wish = Wish(steps=4, preview=FAST)
    [work] = works(bare, wish)
    assert CHECKED_PREVIEW not in [stage.name for stage in bare.plan(work)]
    plans = [
        checked.plan(works(checked, replace(wish, width=width))[0]) for width in (SIDE, 2 * SIDE)
    ]
    asked = [[stage for stage in plan if stage.name == CHECKED_PREVIEW] for plan in plans]
    assert [len(stages) for stages in asked] == [2, 2]
    assert len({stage.key for stages in asked for stage in stages}) == 1


def test_the_warm_up_times_them() -> None:
    def timed(model: GeneratorModel) -> int:
        batches = list(model.warm_up())
        return sum(CHECKED_PREVIEW in _names(model, batch[0]) for batch in batches)

    assert timed(loaded_model(checker=FakeChecker())) == 2
    assert timed(loaded_model()) == 0


def _names(model: GeneratorModel, work: PictureWork) -> list[str]:
    return [stage.name for stage in model.plan(work)]


@pytest.mark.parametrize("stage", ["preview", "decode"])
def test_a_checker_out_of_memory_leaves_a_tiled_batch_as_it_was(stage: str) -> None:
    """Of the two pictures in the batch one is at its last tile, the other at its first."""
    checker = FakeChecker()
    model = loaded_model(checker=checker)
    preview = PreviewWish(at_steps=(1,), method=PreviewMethod.DECODED)
    wish = Wish(steps=2, width=2 * SIDE, tiled=True, preview=preview, seed=1)
    [expected] = drive(model, works(model, wish))
    last, first = (rider(model, work) for _ in range(2) for work in works(model, wish))
    for each, tiles in ((last, 1), (first, 3)):
        while [ahead.name for ahead in each.ahead].count(stage) > tiles or (
            each.ahead[0].name != stage
        ):
            advance(model, each)
    checker.faults = [OutOfMemory()]
    with pytest.raises(OutOfMemory):
        model.step(last.ahead[0], [last.work, first.work])
    assert checker.faults == []
    advance(model, last, first)
    for each in (last, first):
        while each.ahead:
            advance(model, each)
        assert [it.step for it in each.shown] == [it.step for it in expected]
        for one, same in zip(each.shown, expected, strict=True):
            assert one.pixels.tobytes() == same.pixels.tobytes()


def advance(model: GeneratorModel, *riders: Rider) -> None:
    answers = model.step(riders[0].ahead[0], [each.work for each in riders])
    for each, answer in zip(riders, answers, strict=True):
        each.take(answer)


def test_a_directory_without_a_checker_has_none(tmp_path: Path) -> None:
    assert load_checker(tmp_path, CPU) is None
    (tmp_path / "model_index.json").write_text('{"safety_checker": [null, null]}')
    assert load_checker(tmp_path, CPU) is None


def test_a_checker_that_is_named_and_not_there_is_no_checker_less_model(tmp_path: Path) -> None:
    named = '{"safety_checker": ["stable_diffusion", "StableDiffusionSafetyChecker"]}'
    (tmp_path / "model_index.json").write_text(named)
    (tmp_path / "safety_checker").mkdir()
    (tmp_path / "safety_checker" / "pytorch_model.bin").write_bytes(b"a pickle")
    with pytest.raises(FailedPrecondition, match="EASEL_GENERATOR_SAFETY_CHECKER=false"):
        load_checker(tmp_path, CPU)


def test_what_is_held_beside_the_network_is_counted() -> None:
    bare, checked = loaded_model(), loaded_model(checker=FakeChecker())
    held = [model.loaded.effective.bytes_in_memory for model in (bare, checked)]
    assert held[1] - held[0] == FakeChecker().bytes_in_memory
    network = FakeNetwork()
    model = loaded_model(network)
    network.bytes_in_memory += 50  # read since
    assert model.loaded.effective.bytes_in_memory == held[0] + 50
    assert bare.loaded.effective == bare.loaded.network.effective
