"""Layers under adapters: what is added, to whom, and what is left alone."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import pytest
import torch
from torch import nn

from services.generator.lora import AdaptableLayers, Adapter, LowRank, Outfit, Worn


class Two(nn.Module):
    """A convolution, then a linear layer over what it answers."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, stride=2, padding=1)
        self.linear = nn.Linear(4, 5)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        shrunk: torch.Tensor = self.conv(inputs)
        answer: torch.Tensor = self.linear(shrunk.flatten(2).transpose(1, 2))
        return answer


def network() -> Two:
    torch.manual_seed(0)
    return Two().requires_grad_(False)


def adapter(
    name: str, seed: int, rank: int = 2, parts: Sequence[str] = ("conv", "linear")
) -> Adapter:
    draw = torch.Generator().manual_seed(seed)
    shapes = {
        "conv": ((rank, 3, 3, 3), (4, rank, 1, 1)),
        "linear": ((rank, 4), (5, rank)),
    }
    layers = {
        f"net.{part}": LowRank(*(torch.randn(shape, generator=draw) for shape in shapes[part]))
        for part in parts
    }
    return Adapter(name, "sha256:0", layers)


def merged(outfit: Outfit) -> Two:
    """The network with the changes in its weights: what an adapter means."""
    plain = network()
    for worn in outfit:
        for name, layer in worn.adapter.layers.items():
            weight = plain.get_parameter(f"{name.removeprefix('net.')}.weight")
            change = layer.up.flatten(1) @ layer.down.flatten(1)
            weight.add_(change.view_as(weight), alpha=worn.scale)
    return plain


A, B = adapter("a", 1), adapter("b", 2, rank=3)
LINEAR = adapter("linear", 3, parts=("linear",))
OUTFITS: list[Outfit] = [
    (),
    (Worn(A, 1.0),),
    (Worn(A, 1.0),),
    (Worn(A, -0.5), Worn(B, 2.0)),
    (),
    (Worn(LINEAR, 0.3),),
    (Worn(B, 0.0),),
]


def test_each_row_is_as_if_its_adapters_were_merged() -> None:
    net = network()
    layers = AdaptableLayers({"net": net})
    inputs = torch.randn(len(OUTFITS), 3, 8, 8)
    with layers.wearing(OUTFITS):
        answers = net(inputs)
    for outfit, row, answer in zip(OUTFITS, inputs, answers, strict=True):
        torch.testing.assert_close(answer[None], merged(outfit)(row[None]), atol=1e-4, rtol=1e-4)


def test_rows_without_adapters_and_later_batches_are_untouched() -> None:
    net = network()
    layers = AdaptableLayers({"net": net})
    inputs = torch.randn(len(OUTFITS), 3, 8, 8)
    before = net(inputs)
    with layers.wearing(OUTFITS):
        during = net(inputs)
    for index in (0, 4, 6):
        assert torch.equal(during[index], before[index])
    assert torch.equal(net(inputs), before)
    with layers.wearing(None):
        assert torch.equal(net(inputs), before)


def test_an_error_inside_leaves_nobody_dressed() -> None:
    net = network()
    layers = AdaptableLayers({"net": net})
    inputs = torch.randn(1, 3, 8, 8)
    with pytest.raises(RuntimeError, match="a fault"), layers.wearing([(Worn(A, 1.0),)]):
        raise RuntimeError("a fault")
    assert torch.equal(net(inputs), network()(inputs))


def test_another_threads_batch_is_untouched() -> None:
    net = network()
    layers = AdaptableLayers({"net": net})
    inputs = torch.randn(1, 3, 8, 8)
    seen: list[torch.Tensor] = []
    with layers.wearing([(Worn(A, 1.0),)]):
        other = threading.Thread(target=lambda: seen.append(net(inputs)))
        other.start()
        other.join()
        dressed = net(inputs)
    assert torch.equal(seen[0], network()(inputs))
    assert not torch.allclose(dressed, seen[0])


def test_a_batch_of_another_size_than_fitted_fails() -> None:
    net = network()
    layers = AdaptableLayers({"net": net})
    with pytest.raises(ValueError, match="answers 2 rows, 1 are fitted"):  # noqa: SIM117
        with layers.wearing([(Worn(A, 1.0),)]):
            net(torch.randn(2, 3, 8, 8))


def test_what_an_adapter_takes_of_memory() -> None:
    assert A.bytes_in_memory == 4 * (2 * 27 + 4 * 2 + 2 * 4 + 5 * 2)
