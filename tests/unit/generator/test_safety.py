"""What a checker flags is withheld, with a reason; its neighbours are not."""

from pathlib import Path

import pytest
import torch

from services.core.errors import FailedPrecondition
from services.generator.diffusion import Picture, PictureWork, Withheld
from services.generator.model import GeneratorModel
from services.generator.request import PreviewMethod, PreviewWish, Wish, resolve
from services.generator.safety import load_checker
from tests.unit.generator.drive import drive
from tests.unit.generator.fakes import FakeChecker, loaded_model

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
    assert bare.loaded.effective == bare.loaded.network.effective
