from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from services.core.errors import InvalidInput
from services.generator.adapters import AdapterUse
from services.generator.modes import ImageToImage
from services.generator.pipelines import Pipeline
from services.generator.pytorch import Placement
from services.generator.request import LongPrompt, Wish, resolve
from tests.unit.generator.fakes import loaded_model
from tests.unit.generator.pictures import given as given_picture
from tests.unit.generator.pictures import picture

CPU = Placement(torch.device("cpu"), torch.float32)


class Plain:
    def __call__(self, prompt: str) -> None: ...


@dataclass
class Guided:
    guidance_embeds: bool = False

    @property
    def transformer(self) -> Any:
        return SimpleNamespace(config=self)

    def __call__(self, prompt: str, negative_prompt: str) -> None: ...


def check(whole: Any, **asked: Any) -> None:
    order = resolve(Wish(steps=4), loaded_model().limits, draw_seed=int)
    Pipeline(whole, CPU).check(replace(order, **asked))


@pytest.mark.parametrize(
    ("whole", "asked"),
    [
        (Plain(), {"cache_interval": 1, "long_prompt": LongPrompt.TRUNCATE}),
        (Guided(), {"negative_prompt": "é"}),
        (Guided(guidance_embeds=True), {"negative_prompt": ""}),
    ],
)
def test_what_is_taken(whole: Any, asked: dict[str, Any]) -> None:
    check(whole, **asked)


@pytest.mark.parametrize(
    ("whole", "asked", "field", "limit", "given"),
    [
        (Plain(), {"cache_interval": 2}, "cache_interval", "unset", "2"),
        (Plain(), {"guidance_rescale": 0.5}, "guidance_rescale", "unset", "0.5"),
        (Plain(), {"tiled": True}, "tiled", "unset", "True"),
        (Plain(), {"adapters": (AdapterUse("ink"),)}, "adapters", "unset", "set"),
        (Plain(), {"preview_steps": (2,)}, "preview", "unset", "set"),
        (
            Plain(),
            {"mode": ImageToImage(given_picture(picture()), 0.5)},
            "image_to_image",
            "unset",
            "set",
        ),
        (Plain(), {"negative_prompt": "é"}, "negative_prompt", "0 bytes", "2 bytes"),
        (
            Guided(guidance_embeds=True),
            {"negative_prompt": "é"},
            "negative_prompt",
            "0 bytes",
            "2 bytes",
        ),
        (
            Plain(),
            {"long_prompt": LongPrompt.CHUNK},
            "long_prompt",
            "ERROR or TRUNCATE",
            "CHUNK",
        ),
    ],
)
def test_what_is_refused(
    whole: Any, asked: dict[str, Any], field: str, limit: str, given: str
) -> None:
    with pytest.raises(InvalidInput) as caught:
        check(whole, **asked)
    error = caught.value
    assert (error.field, error.limit, error.given) == (field, limit, given)
