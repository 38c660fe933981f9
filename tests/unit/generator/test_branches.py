"""Branches for adapters in a converted model: what each row gets, and who goes together."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec

import pytest
import torch
from torch import nn

from services.generator.lora import AdaptableLayers, Adapter, LowRank, Outfit, Worn

if find_spec("openvino") is None:
    pytest.skip("openvino is not installed", allow_module_level=True)

from services import openvino as runtime
from services.generator import branches
from services.generator.branches import Reach, rank_run, reach_of, together

QUERY = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"
INTO = "down_blocks.0.attentions.0.proj_in"


class Layers(nn.Module):
    """Of each kind that a U-Net has, beside each other."""

    def __init__(self) -> None:
        super().__init__()
        self.plain = nn.Conv2d(3, 4, 3, padding=1)
        self.halving = nn.Conv2d(3, 4, 3, stride=2, padding=1)
        self.uneven = nn.Conv2d(3, 5, (3, 2), padding=(2, 0), dilation=(2, 1), bias=False)
        self.shortcut = nn.Conv2d(3, 4, 1)
        self.places = nn.Linear(6, 5)
        self.no_bias = nn.Linear(6, 5, bias=False)
        self.zeros = nn.Linear(6, 5)
        nn.init.zeros_(self.zeros.bias)
        self.time = nn.Linear(2, 4)

    def forward(
        self, pictures: torch.Tensor, tokens: torch.Tensor, times: torch.Tensor
    ) -> tuple[torch.Tensor, ...]:
        over = (self.plain, self.halving, self.uneven, self.shortcut)
        return (
            *(layer(pictures) for layer in over),
            self.places(tokens),
            self.no_bias(tokens),
            self.zeros(tokens),
            self.time(times),
        )


class Holder(nn.Module):
    def __init__(self, unet: nn.Module) -> None:
        super().__init__()
        self.unet = unet

    def forward(
        self, pictures: torch.Tensor, tokens: torch.Tensor, times: torch.Tensor
    ) -> tuple[torch.Tensor, ...]:
        answers: tuple[torch.Tensor, ...] = self.unet(pictures, tokens, times)
        return answers


def adapter(name: str, layers: AdaptableLayers, rank: int, left_out: Sequence[str] = ()) -> Adapter:
    draw = torch.Generator().manual_seed(sum(name.encode()))

    def change(weight: torch.Tensor) -> LowRank:
        ends = (1,) * (weight.ndim - 2)
        down = torch.randn((rank, *weight.shape[1:]), generator=draw)
        return LowRank(down, torch.randn((len(weight), rank, *ends), generator=draw))

    found = {layer: change(weight) for layer, weight in layers.weights.items()}
    kept = {layer: each for layer, each in found.items() if not layer.endswith(tuple(left_out))}
    return Adapter(name, f"sha256:{name}", kept)


def named(name: str, *layers: str, rank: int = 1) -> Outfit:
    one = LowRank(torch.ones(rank, 2), torch.ones(3, rank))
    return (Worn(Adapter(name, f"sha256:{name}", dict.fromkeys(layers, one)), 1.0),)


@torch.no_grad()
@pytest.mark.parametrize("rows", [1, 4])
def test_every_kind_of_layer_changes_as_in_pytorch(rows: int) -> None:
    torch.manual_seed(0)
    unet = Layers()
    layers = AdaptableLayers({"unet": unet})
    given = (torch.randn(rows, 3, 7, 5), torch.randn(rows, 9, 6), torch.randn(rows, 2))
    shapes = {"pictures": [-1, 3, -1, -1], "tokens": [-1, -1, 6], "times": [-1, 2]}
    model = runtime.converted(Holder(unet), dict(zip(shapes, given, strict=True)), shapes)
    names = [port.get_any_name() for port in model.inputs]
    beside = branches.added(model, Reach.EVERYTHING)
    assert {branch.layer for branch in beside} == set(layers.weights)
    compiled = runtime.compiled(model, runtime.options("float32", 1))
    a, b = adapter("a", layers, 2), adapter("b", layers, 9, left_out=("plain", "time"))
    worn: list[list[Outfit]] = [
        [()] * rows,
        [(Worn(b, -0.5),)] * rows,
        [(Worn(a, 0.5), Worn(b, 2.0))] * rows,
        [(), (Worn(a, 1.0),), (Worn(a, 1.0), Worn(b, 0.0)), (Worn(b, 0.3),)][:rows],
    ]
    for outfits in worn:
        with layers.wearing(outfits):
            theirs = unet(*given)
        inputs = dict(zip(names, given, strict=True)) | branches.matrices(beside, outfits)
        ours = compiled({name: each.numpy() for name, each in inputs.items()})
        for index, expected in enumerate(theirs):
            assert torch.allclose(torch.from_numpy(ours[index]), expected, atol=1e-5)


def test_a_reach_is_the_least_that_has_all_layers() -> None:
    attention, transformer = named("a", f"unet.{QUERY}"), named("b", f"unet.{INTO}")
    rest, text = named("c", "unet.conv_in"), named("d", "text_encoder.layers.0.mlp.fc1")
    assert reach_of(attention) is Reach.ATTENTION
    assert reach_of(attention + transformer) is Reach.TRANSFORMERS
    assert reach_of(transformer + rest) is Reach.EVERYTHING
    assert reach_of(text) is None
    assert reach_of(text + attention) is Reach.ATTENTION
    assert reach_of((Worn(attention[0].adapter, 0.0),)) is None
    assert reach_of(()) is None


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.proj_in, self.attn1 = nn.Linear(6, 6), nn.ModuleDict({"to_q": nn.Linear(6, 6)})

    def forward(self, given: torch.Tensor) -> torch.Tensor:
        answer: torch.Tensor = self.attn1["to_q"](self.proj_in(given))
        return answer


class Unet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attentions, self.time = nn.ModuleList([Block()]), nn.Linear(6, 6)

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        answer: torch.Tensor = self.time(self.attentions[0](pictures))
        return answer


class Alone(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.unet = Unet()

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        answer: torch.Tensor = self.unet(pictures)
        return answer


def test_branches_are_those_within_reach() -> None:
    found = {}
    for reach in Reach:
        shapes = {"pictures": [-1, -1, 6]}
        model = runtime.converted(Alone(), {"pictures": torch.randn(2, 3, 6)}, shapes)
        found[reach] = [branch.layer for branch in branches.added(model, reach)]
        assert len(model.inputs) == 1 + 2 * len(found[reach])
    query, into = "unet.attentions.0.attn1.to_q", "unet.attentions.0.proj_in"
    assert found[Reach.ATTENTION] == [query]
    assert sorted(found[Reach.TRANSFORMERS]) == [query, into]
    assert sorted(found[Reach.EVERYTHING]) == [query, into, "unet.time"]


@pytest.mark.parametrize(
    ("rank", "run"), [(0, 0), (1, 8), (8, 8), (9, 16), (16, 16), (17, 32), (128, 128), (129, 256)]
)
def test_ranks_are_run_in_few_numbers(rank: int, run: int) -> None:
    assert rank_run(rank) == run


BRANCH = branches.Branch("unet.to_q", "unet.to_q", slice(0, 3), (2,), 3)
OF_ONE = 8 * (2 + 3)
"""Numbers of a rank of 8."""


def test_rows_go_together_until_their_matrices_are_too_many() -> None:
    a, b = named("a", "unet.to_q"), named("b", "unet.to_q")
    outfits = [(), (), a, b, b]
    assert together([BRANCH], outfits, 5 * OF_ONE + 1) == [slice(0, 5)]
    assert together([BRANCH], outfits, 5 * OF_ONE) == [slice(0, 5)]
    assert together([BRANCH], outfits, 5 * OF_ONE - 1) == [slice(0, 3), slice(3, 5)]
    assert together([BRANCH], outfits, 3 * OF_ONE) == [slice(0, 3), slice(3, 5)]
    assert together([BRANCH], outfits, 3 * OF_ONE - 1) == [slice(0, 2), slice(2, 3), slice(3, 5)]
    assert together([BRANCH], outfits, 0) == [slice(0, 2), slice(2, 3), slice(3, 5)]


def test_rows_that_are_alike_always_go_together() -> None:
    a = named("a", "unet.to_q", rank=100)
    assert together([BRANCH], [a] * 4, 1) == [slice(0, 4)]
    [down, up] = branches.matrices([BRANCH], [a] * 4).values()
    assert (down.shape, up.shape) == ((1, 2, 128), (1, 128, 3))


def test_scales_are_in_the_matrices_and_the_rest_is_zeros() -> None:
    [worn] = named("a", "unet.to_q", rank=2)
    row = (Worn(worn.adapter, 0.5), Worn(worn.adapter, -3.0))
    down, up = BRANCH.matrices(row, 8)
    assert down.tolist() == [[1.0] * 4 + [0.0] * 4] * 2
    assert up.tolist() == [[0.5] * 3] * 2 + [[-3.0] * 3] * 2 + [[0.0] * 3] * 4


def test_a_gated_layer_has_its_half_of_the_change() -> None:
    up = torch.arange(6.0).reshape(6, 1)
    change = LowRank(torch.ones(1, 2), up)
    outfit = (Worn(Adapter("a", "sha256:a", {"unet.ff.net.0.proj": change}), 1.0),)
    layer = "unet.ff.net.0"
    value = branches.Branch(f"{layer}.value", f"{layer}.proj", slice(0, 3), (2,), 3)
    gate = branches.Branch(f"{layer}.gate", f"{layer}.proj", slice(3, 6), (2,), 3)
    assert value.matrices(outfit, 1)[1].tolist() == [[0.0, 1.0, 2.0]]
    assert gate.matrices(outfit, 1)[1].tolist() == [[3.0, 4.0, 5.0]]
