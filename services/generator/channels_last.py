"""Group norms of an autoencoder whose convolutions have their channels last, on a GPU.

PyTorch's own takes and gives the other layout there, so that what a norm is given is copied before
it and again before the convolution behind it: four tenths of the time. On an H100 the decoder of
Stable Diffusion 1.5 made one picture in 15 ms instead of 28, and 8 in 83 instead of 137 (bfloat16).
In a U-Net it does not pay: 3 % less time for 8 rows, and a third more for one, which waits for the
processor to start kernels, and these are more.
"""

from __future__ import annotations

from typing import Final

import torch

# Below, a few kernels more cost what copies do. Of one row, so that company changes nothing.
_LEAST_NUMBERS: Final = 2**17


class ChannelsLastGroupNorm(torch.nn.GroupNorm):
    """The norm of Wu and He (2018, arXiv:1803.08494), with channels left where they are."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        if (
            input.ndim != 4
            or input.dtype is torch.float32  # where every digit counts
            or input[0].numel() < _LEAST_NUMBERS
            or not input.is_contiguous(memory_format=torch.channels_last)
            or torch.compiler.is_compiling()  # which has kernels of its own for it
        ):
            return super().forward(input)
        return normed(input, self.num_groups, self.weight, self.bias, self.eps)


def normed(
    given: torch.Tensor, groups: int, weight: torch.Tensor, bias: torch.Tensor, eps: float
) -> torch.Tensor:
    """(B, C, H, W) with its channels last to the same; ``weight`` and ``bias`` are (C,).

    Sums are in float32: of a group whose mean is n times its spread, the spread's relative error
    is some n^2 times 1e-7.
    """
    rows, channels, height, width = given.shape
    within = channels // groups
    numbers = within * height * width
    # (B, H W, C), as it lies in memory: whole rows of channels are summed, whose sums are then few.
    flat = given.permute(0, 2, 3, 1).view(rows, height * width, channels)
    sums = flat.sum(1, dtype=torch.float32).view(rows, groups, within)
    lengths = torch.linalg.vector_norm(flat, dim=1, dtype=torch.float32)
    mean = sums.sum(2, keepdim=True) / numbers
    length = torch.linalg.vector_norm(lengths.view(rows, groups, within), dim=2, keepdim=True)
    # Of a group of one number over and over, rounding may leave less than nothing.
    variance = (length.square() / numbers).addcmul_(mean, mean, value=-1.0).clamp_min_(0.0)
    factor = (variance + eps).rsqrt_() * weight.view(groups, within)
    shift = torch.addcmul(bias.view(1, groups, within).float(), mean, factor, value=-1.0)
    shape = (rows, channels, 1, 1)
    answer = torch.empty_like(given)
    torch.addcmul(shift.view(shape), given, factor.view(shape), out=answer)
    return answer


def keep_channels_last(network: torch.nn.Module) -> None:
    """Have the group norms of ``network`` do so; its weights and their names stay the same."""
    for parent in list(network.modules()):
        for name, child in list(parent.named_children()):
            if type(child) is torch.nn.GroupNorm and child.affine:
                setattr(parent, name, _kept(child))


def _kept(norm: torch.nn.GroupNorm) -> ChannelsLastGroupNorm:
    made = ChannelsLastGroupNorm(norm.num_groups, norm.num_channels, norm.eps, device="meta")
    made.weight, made.bias = norm.weight, norm.bias
    return made.train(norm.training)
