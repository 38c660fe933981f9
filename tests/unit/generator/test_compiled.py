from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from services.core.errors import FailedPrecondition
from services.generator.compiled import Compiled, Inputs, graphs, told_of_failure


class Body(nn.Module):
    """What a U-Net is made of: (B, 4, h, w) and (B, S, 8) to (B, 4, h, w)."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.Conv2d(4, 16, 3, padding=1)
        self.norm = nn.GroupNorm(4, 16)
        self.attention = nn.MultiheadAttention(16, 2, kdim=8, vdim=8, batch_first=True)
        self.up = nn.Conv2d(16, 4, 3, padding=1)

    def forward(self, latents: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
        found = torch.nn.functional.silu(self.norm(self.down(latents)))
        rows = found.flatten(2).transpose(1, 2)
        seen, _ = self.attention(rows, context, context, need_weights=False)
        output: torch.Tensor = self.up(found + seen.transpose(1, 2).reshape_as(found))
        return output


class Graphs:
    """Compiles by running what was traced as it is; ``made`` counts."""

    def __init__(self) -> None:
        self.made = 0

    def __call__(self, module: nn.Module) -> Callable[..., torch.Tensor]:
        return graphs(module, backend=self._take)

    def _take(self, graph: Any, _inputs: Any) -> Any:
        self.made += 1
        return graph.forward


def inputs(rows: int, tokens: int = 7, *, side: int = 8, seed: int = 0) -> Inputs:
    draw = torch.Generator().manual_seed(100 * rows + seed)
    latents = torch.randn(rows, 4, side, side, generator=draw)
    context = torch.randn(rows, tokens, 8, generator=draw)
    return latents.to(memory_format=torch.channels_last), context


def body() -> Body:
    torch.manual_seed(0)
    return Body().eval().requires_grad_(False)


@pytest.fixture(scope="module")
def graphs_made() -> Graphs:
    return Graphs()


@pytest.fixture(scope="module")
def compiled(graphs_made: Graphs) -> Compiled:
    made = Compiled(body(), graphs_made)
    made.make(inputs, ((), (1,)))
    return made


@pytest.mark.parametrize("rows", [1, 2, 5, 15, 16, 31, 47])
@pytest.mark.parametrize("tokens", [7, 21])
def test_any_batch_goes_through_two_graphs(
    compiled: Compiled, graphs_made: Graphs, rows: int, tokens: int
) -> None:
    given = inputs(rows, tokens)
    with torch.inference_mode():
        assert torch.allclose(compiled(*given), body()(*given), atol=1e-5)
    assert graphs_made.made == 2


def test_what_a_graph_ends_before_is_divided() -> None:
    """As PyTorch's do, with this in the error, where larger batches have other convolutions."""
    called: list[int] = []

    def ending(module: nn.Module) -> Callable[..., torch.Tensor]:
        def run(latents: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
            called.append(len(latents))
            if len(latents) > 15:
                raise RuntimeError("... torch.compile stance is 'fail_on_recompile'. ...")
            output: torch.Tensor = module(latents, context)
            return output

        return run

    divided = Compiled(body(), ending)
    for rows in (15, 33, 20):
        given = inputs(rows)
        assert torch.allclose(divided(*given), body()(*given), atol=1e-5)
    assert called == [15, 33, 11, 11, 11, 10, 10]
    with pytest.raises(RuntimeError, match="broken"):
        Compiled(body(), _broken)(*inputs(33))


def test_what_is_refused_for_another_reason_divides_nothing_after_it() -> None:
    called: list[int] = []
    refusing = True

    def run(latents: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
        called.append(len(latents))
        if refusing:
            raise RuntimeError("... torch.compile stance is 'fail_on_recompile'. ...")
        return latents

    made = Compiled(body(), lambda _module: run)
    with pytest.raises(RuntimeError, match="fail_on_recompile"):
        made(*inputs(16))
    assert called == [16, 8, 4, 2]
    refusing = False
    assert len(made(*inputs(16))) == 16
    assert called[4:] == [16]


def test_a_fault_of_the_device_is_not_the_compilers() -> None:
    with pytest.raises(torch.AcceleratorError, match="launch failure"), told_of_failure("part"):
        raise torch.AcceleratorError("launch failure")


def _broken(_module: nn.Module) -> Callable[..., torch.Tensor]:
    def run(*_given: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("broken")

    return run


def test_nothing_is_made_for_another_size(compiled: Compiled, graphs_made: Graphs) -> None:
    with torch.inference_mode(), pytest.raises(RuntimeError, match="fail_on_recompile"):
        compiled(*inputs(2, side=16))
    with torch.inference_mode():
        assert compiled(*inputs(2)).shape == (2, 4, 8, 8)
    assert graphs_made.made == 2


def test_sizes_have_graphs_of_their_own(compiled: Compiled, graphs_made: Graphs) -> None:
    counted = Graphs()
    larger = Compiled(body(), counted)
    larger.make(lambda rows: inputs(rows, side=16), ((), (1,)))
    assert counted.made == 2
    with torch.inference_mode():
        for side, each in ((16, larger), (8, compiled), (16, larger)):
            given = inputs(20, side=side)
            assert torch.allclose(each(*given), body()(*given), atol=1e-5)
    assert (counted.made, graphs_made.made) == (2, 2)


def test_what_hangs_on_values_is_not_compiled() -> None:
    class Deciding(nn.Module):
        def forward(self, latents: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
            return latents if latents.sum() > 0 else context

    made = Compiled(Deciding(), Graphs())
    failure = pytest.raises(FailedPrecondition, match=r"^The part cannot be compiled here: .")
    with failure, told_of_failure("part"):
        made.make(inputs)
