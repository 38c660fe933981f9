from collections.abc import Iterator

import pytest
import torch
from torch import nn

from services.generator.channels_last import (
    ChannelsLastGroupNorm,
    keep_channels_last,
    normed,
)

HALVES = [torch.bfloat16, torch.float16]
WIDE = (2, 64, 64, 40)
"""(B, C, H, W) of more numbers a row than are worth a norm of their own."""


def given(shape: tuple[int, ...], dtype: torch.dtype = torch.float16) -> torch.Tensor:
    """Channels of different spreads, and far from zero."""
    chance = torch.Generator().manual_seed(0)
    each = (shape[1], *(1 for _ in shape[2:]))
    spread = 0.2 + torch.rand(each, generator=chance)
    drawn = spread * torch.randn(shape, generator=chance) + 2.0 * spread + 1.0
    return drawn.to(dtype, memory_format=torch.channels_last)


def affine(channels: int, dtype: torch.dtype) -> Iterator[torch.Tensor]:
    chance = torch.Generator().manual_seed(1)
    return (torch.randn(channels, generator=chance).to(dtype) for _ in range(2))


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("groups", [1, 8, 64])
def test_it_is_the_group_norm(dtype: torch.dtype, groups: int) -> None:
    pixels = given(WIDE, dtype)
    weight, bias = affine(WIDE[1], dtype)
    expected = nn.functional.group_norm(
        pixels.double(), groups, weight.double(), bias.double(), 1e-6
    )
    found = normed(pixels, groups, weight, bias, 1e-6)
    assert (found.dtype, found.shape) == (dtype, pixels.shape)
    assert found.is_contiguous(memory_format=torch.channels_last)
    # Half a last digit of the largest number, and what sums in float32 leave.
    digit = 0.5 * torch.finfo(dtype).eps * float(expected.abs().max())
    assert float((found.double() - expected).abs().max()) <= digit + 5e-4


@pytest.mark.parametrize("dtype", HALVES)
def test_a_group_of_one_number_is_its_bias(dtype: torch.dtype) -> None:
    pixels = torch.full(WIDE, 100.3, dtype=dtype).to(memory_format=torch.channels_last)
    pixels[1] = 3.0
    weight, bias = affine(WIDE[1], dtype)
    # With as little added to nothing, what float32 rounds off is made large by as much.
    found = normed(pixels, 8, weight, bias, 1e-6)
    assert found.isfinite().all()
    assert torch.allclose(found, bias.view(1, -1, 1, 1).expand_as(found), atol=2.0)


def test_a_row_is_the_same_in_any_company() -> None:
    pixels = given((5, 64, 64, 40))
    weight, bias = affine(64, pixels.dtype)
    together = normed(pixels, 8, weight, bias, 1e-6)
    for row in range(5):
        alone = normed(pixels[row : row + 1], 8, weight, bias, 1e-6)
        assert torch.allclose(alone[0], together[row], rtol=1e-3, atol=1e-3)


class Body(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(4, 8, eps=1e-3)
        self.layers = nn.ModuleList([nn.GroupNorm(2, 8), nn.Conv2d(8, 8, 1)])
        self.plain = nn.GroupNorm(2, 8, affine=False)


def test_a_network_keeps_its_weights_and_their_names() -> None:
    body = Body().eval()
    before = body.state_dict()
    keep_channels_last(body)
    kinds = [type(each) for each in (body.norm, body.layers[0], body.plain)]
    assert kinds == [ChannelsLastGroupNorm, ChannelsLastGroupNorm, nn.GroupNorm]
    assert (body.norm.num_groups, body.norm.num_channels, body.norm.eps) == (4, 8, 1e-3)
    assert not body.norm.training
    after = body.state_dict()
    assert list(after) == list(before)
    assert all(after[name] is not None and torch.equal(after[name], before[name]) for name in after)


def test_a_structure_without_weights_takes_them_later() -> None:
    with torch.device("meta"):
        body = Body()
    keep_channels_last(body)
    weights = Body().state_dict()
    body.load_state_dict(weights, assign=True)
    assert torch.equal(body.norm.weight, weights["norm.weight"])


@pytest.mark.parametrize(
    ("pixels", "kept"),
    [
        (given(WIDE), True),
        (given((2, 64, 64, 32)), True),
        (given((2, 64, 64, 31)), False),
        (given((2, 64, 8, 8)), False),
        (given(WIDE).contiguous(), False),
        (given(WIDE, torch.float32), False),
        (given(WIDE).flatten(2), False),
    ],
    ids=[
        "wide",
        "at the limit",
        "below it",
        "small",
        "channels first",
        "float32",
        "of three dimensions",
    ],
)
def test_which_inputs_have_their_channels_kept(pixels: torch.Tensor, kept: bool) -> None:
    plain = nn.GroupNorm(8, 64, dtype=pixels.dtype).requires_grad_(False)
    weight, bias = affine(64, pixels.dtype)
    plain.weight.copy_(weight)
    plain.bias.copy_(bias)
    holder = nn.Sequential(plain)
    expected = plain(pixels)
    keep_channels_last(holder)
    found = holder(pixels)
    assert torch.allclose(found, expected, rtol=2e-3, atol=2e-3)
    ours = normed(pixels, 8, weight, bias, 1e-5) if kept else None
    assert torch.equal(found, expected if ours is None else ours)
