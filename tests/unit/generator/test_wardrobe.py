"""Who runs in which U-Net, in how many calls, and what is kept between them."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from importlib.util import find_spec

import pytest
import torch

from services.core.errors import OutOfMemory
from services.generator.lora import Adapter, LowRank, Outfit, Worn
from services.generator.network import Look
from services.memory import memory_faults

if find_spec("openvino") is None:
    pytest.skip("openvino is not installed", allow_module_level=True)

from services.generator.branches import Branch, Reach
from services.generator.wardrobe import Adapted, Wardrobe

QUERY, CONV = "unet.down_blocks.0.attentions.0.attn1.to_q", "unet.conv_in"
BRANCH = Branch(QUERY, QUERY, slice(0, 3), (2,), 3)
OF_ONE = 8 * (2 + 3)
"""Numbers of a rank of 8."""


class Recorder:
    """A U-Net that adds to each row what its branch brings; ``calls``: what it was given."""

    def __init__(self, adds: float = 0.0) -> None:
        self.adds = adds
        self.calls: list[dict[str, torch.Tensor]] = []

    def __call__(self, **inputs: torch.Tensor) -> torch.Tensor:
        self.calls.append(inputs)
        brought = inputs[BRANCH.up].amax((1, 2)) if BRANCH.up in inputs else torch.zeros(1)
        return inputs["latents"] + self.adds + brought.view(-1, 1, 1, 1)


def outfit(name: str, up: float, *layers: str) -> Outfit:
    change = LowRank(torch.ones(1, 2), torch.full((3, 1), up))
    changed = dict.fromkeys(layers or (QUERY,), change)
    return (Worn(Adapter(name, f"sha256:{name}", changed), 1.0),)


def look(outfits: Sequence[Outfit]) -> Look:
    rows = len(outfits)
    latents = torch.arange(float(rows)).view(-1, 1, 1, 1).expand(rows, 1, 2, 2)
    times, context = torch.arange(float(rows)), torch.arange(float(rows)).view(-1, 1, 1)
    return Look(latents, times, context, adapters=tuple(outfits))


def first(answer: torch.Tensor) -> list[float]:
    numbers: list[float] = answer[:, 0, 0, 0].tolist()
    return numbers


A, B = outfit("a", 10.0), outfit("b", 20.0)


def test_rows_get_what_is_theirs_in_as_many_calls_as_it_takes() -> None:
    for most, rows in ((3 * OF_ONE, [3]), (3 * OF_ONE - 1, [1, 2]), (0, [1, 2])):
        unet = Recorder()
        assert first(Adapted(unet, [BRANCH], most)(look([A, B, B]))) == [10.0, 21.0, 22.0]
        assert [len(call["latents"]) for call in unet.calls] == rows
        for call in unet.calls:
            assert call["timesteps"].tolist() == call["latents"][:, 0, 0, 0].tolist()
            assert call["context"].flatten().tolist() == call["timesteps"].tolist()


def test_one_calls_matrices_are_kept_while_the_same_is_worn() -> None:
    unet = Recorder()
    adapted = Adapted(unet, [BRANCH])
    for outfits in ([A, B], [A, B], [B, B], [A, B]):
        adapted(look(outfits))
    one, same, alike, again = (call[BRANCH.up] for call in unet.calls)
    assert one is same
    assert len(alike) == 1
    assert again is not one
    assert torch.equal(again, one)


def test_an_adapter_of_another_file_is_another_whatever_its_name() -> None:
    [worn] = A
    [other] = B
    replaced = (Worn(Adapter("a", "sha256:new", other.adapter.layers), 1.0),)
    stronger = (Worn(worn.adapter, 2.0),)
    adapted = Adapted(Recorder(), [BRANCH])
    assert [first(adapted(look([each])))[0] for each in (A, replaced, stronger)] == [10, 20, 20]


def test_matrices_that_failed_are_made_again() -> None:
    class Once(dict[str, LowRank]):
        failed = False

        def get(self, name: str, default: object = None) -> LowRank | None:  # type: ignore[override]
            if not self.failed:
                self.failed = True
                raise MemoryError
            return super().get(name)

    [worn] = A
    once = (Worn(Adapter("a", "sha256:once", Once(worn.adapter.layers)), 1.0),)
    adapted = Adapted(Recorder(), [BRANCH])
    with pytest.raises(OutOfMemory), memory_faults():
        adapted(look([once]))
    assert first(adapted(look([once]))) == [10.0]


def wardrobe() -> tuple[Wardrobe, dict[Reach | None, Recorder], list[Reach]]:
    unets = {None: Recorder(), Reach.ATTENTION: Recorder(100), Reach.EVERYTHING: Recorder(200)}
    made: list[Reach] = []

    def make(reach: Reach) -> Adapted:
        made.append(reach)
        return Adapted(unets[reach], [BRANCH])

    return Wardrobe(unets[None], make, 7, frozenset({QUERY, CONV})), unets, made


def test_every_row_runs_in_the_u_net_of_its_own_reach() -> None:
    closet, unets, made = wardrobe()
    all_of_it = outfit("c", 30.0, QUERY, CONV)
    text = outfit("d", 40.0, "text_encoder.layers.0.mlp.fc1")
    answer = closet.predict(look([(), A, A, all_of_it, text, B]))
    assert first(answer) == [0.0, 111.0, 112.0, 233.0, 4.0, 125.0]
    assert [len(unet.calls) for unet in unets.values()] == [1, 1, 1]
    assert sorted(made) == [Reach.ATTENTION, Reach.EVERYTHING]
    assert closet.bytes_in_memory == 14


def test_rows_without_adapters_make_nothing() -> None:
    closet, unets, made = wardrobe()
    bare = Look(torch.ones(2, 1, 2, 2), torch.ones(2), torch.ones(2, 1, 1))
    assert first(closet.predict(bare)) == [1.0, 1.0]
    [worn] = A
    assert first(closet.predict(look([(), (Worn(worn.adapter, 0.0),)]))) == [0.0, 1.0]
    closet.prepare(())
    closet.prepare(outfit("d", 40.0, "text_encoder.layers.0.mlp.fc1"))
    assert (made, closet.bytes_in_memory) == ([], 0)
    assert len(unets[None].calls) == 2


def test_what_several_threads_prepare_is_made_once() -> None:
    closet, _, made = wardrobe()
    threads = [threading.Thread(target=closet.prepare, args=(A,)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert made == [Reach.ATTENTION]
    assert closet.bytes_in_memory == 7


def test_one_that_could_not_be_made_is_made_later() -> None:
    tries: list[Reach] = []

    def make(reach: Reach) -> Adapted:
        tries.append(reach)
        if len(tries) == 1:
            raise RuntimeError("std::bad_alloc")
        return Adapted(Recorder(), [BRANCH])

    closet = Wardrobe(Recorder(), make, 7, frozenset({QUERY}))
    with pytest.raises(OutOfMemory), memory_faults():
        closet.prepare(A)
    assert closet.bytes_in_memory == 0
    closet.prepare(A)
    assert closet.bytes_in_memory == 7
