"""What differs between families of networks: the way from pixels to hidden states, which of their
numbers stand for the picture, and what the head reads.

Hidden states are transformers' own: state 0 is that of the embeddings, state n that after layer n.
Where the layers of a family are stages (Swin, ConvNeXt), patches get fewer and wider on the way.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, Final

import torch
from torch import nn

from services.classifier.network import LayerShape, Pooling, Reading
from services.classifier.preprocessing import Size
from services.core.errors import FailedPrecondition

_PATCHES: Final = (Pooling.MEAN, Pooling.PATCH)


class Family(ABC):
    """One loaded network, opened at its seams, for pictures of ``size``.

    Takes the model as ``AutoModelForImageClassification`` gives it and may resize its learned
    positions. Raises ``FailedPrecondition`` where the model cannot take that size.
    """

    sdpa: ClassVar[bool] = True
    """Whether transformers has PyTorch's fused attention for it."""
    poolings: ClassVar[tuple[Pooling, ...]] = tuple(Pooling)
    head: tuple[Pooling, ...] = (Pooling.CLS,)
    """What the head reads, side by side, each after the last norm."""
    norm_after_mean: bool = False
    """The last norm comes before patches are pooled, or after."""

    def __init__(self, model: Any, size: Size) -> None:
        self.model = model
        self.base = model.base_model
        self.norm: nn.Module = self.base.layernorm
        self.shapes = self._shapes(size)
        if min(min(shape.rows, shape.columns) for shape in self.shapes) < 1:
            raise FailedPrecondition(f"The network cannot take pictures of {_text(size)}.")

    @property
    def depth(self) -> int:
        return len(self.shapes) - 1

    @property
    @abstractmethod
    def layers(self) -> Sequence[Any]:
        """In order."""

    @property
    def trunk(self) -> tuple[nn.Module, ...]:
        """All but the last norm and the head, which stay exact: rounded logits would tie."""
        return (self.base.embeddings, *self.layers)

    @abstractmethod
    def embed(self, pixels: torch.Tensor) -> torch.Tensor:
        """Hidden state 0 of [batch, 3, height, width]."""

    @abstractmethod
    def step(self, layer: int, hidden: torch.Tensor) -> torch.Tensor:
        """Hidden state ``layer``, 1 to ``depth``, from the one before."""

    @abstractmethod
    def patches(self, hidden: torch.Tensor, layer: int) -> torch.Tensor:
        """[batch, rows, columns, hidden] of hidden state ``layer``."""

    def class_token(self, hidden: torch.Tensor) -> torch.Tensor:
        """[batch, hidden]; only of families that have it among their ``poolings``."""
        return hidden[:, 0]

    def read(self, hidden: torch.Tensor, reading: Reading) -> torch.Tensor:
        """float32 [batch, hidden], or [batch, rows, columns, hidden] for every patch."""
        norm = self.norm if reading.final_norm else nn.Identity()
        if reading.pooling is Pooling.CLS:
            return _tensor(norm(self.class_token(hidden).float()))
        patches = self.patches(hidden, reading.layer).float()
        if reading.pooling is Pooling.PATCH:
            return _tensor(norm(patches))
        if self.norm_after_mean:
            return _tensor(norm(patches.mean(dim=(1, 2))))
        return _tensor(norm(patches).mean(dim=(1, 2)))

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """float32 [batch, labels] of the last hidden state."""
        read = [self.read(hidden, Reading(self.depth, one, final_norm=True)) for one in self.head]
        return _tensor(self.model.classifier(torch.cat(read, dim=-1)))

    @abstractmethod
    def _shapes(self, size: Size) -> tuple[LayerShape, ...]:
        """By layer, of pictures of ``size``."""


class ViT(Family):
    """ViT (Dosovitskiy et al., 2021) and what is built like it: a class token before the patches,
    learned positions, equal layers.
    """

    any_size: ClassVar[bool] = False
    """Whether transformers takes pictures of every size without being told to."""

    def __init__(self, model: Any, size: Size) -> None:
        super().__init__(model, size)
        _resize_positions(model, self.shapes[0], size)

    @property
    def layers(self) -> Sequence[Any]:
        found: Sequence[Any] = self.base.layers
        return found

    def embed(self, pixels: torch.Tensor) -> torch.Tensor:
        return _tensor(self.base.embeddings(pixels))

    def step(self, layer: int, hidden: torch.Tensor) -> torch.Tensor:
        return _tensor(self.layers[layer - 1](hidden, None))

    def patches(self, hidden: torch.Tensor, layer: int) -> torch.Tensor:
        shape = self.shapes[layer]
        # Other tokens, of whatever number, come before.
        tokens = hidden[:, -shape.rows * shape.columns :]
        return tokens.reshape(len(tokens), shape.rows, shape.columns, shape.hidden)

    def _shapes(self, size: Size) -> tuple[LayerShape, ...]:
        height, width = sides(self.model.config.patch_size)
        shape = LayerShape(
            size.height // height, size.width // width, self.model.config.hidden_size
        )
        return (shape,) * (len(self.layers) + 1)


class DeiT(ViT):
    """DeiT (Touvron et al., 2021): one more token, and in its distilled form a head on each."""

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        if not hasattr(self.model, "distillation_classifier"):
            return super().logits(hidden)
        normed = self.norm(hidden[:, :2].float())
        of_class = self.model.cls_classifier(normed[:, 0])
        return _tensor((of_class + self.model.distillation_classifier(normed[:, 1])) / 2)


class DINOv2(ViT):
    """DINOv2 (Oquab et al., 2023): the head reads the class token and the mean side by side."""

    any_size = True
    head = (Pooling.CLS, Pooling.MEAN)

    @property
    def layers(self) -> Sequence[Any]:
        found: Sequence[Any] = self.base.encoder.layer
        return found


class BEiT(ViT):
    """BEiT (Bao et al., 2022): positions are relative, and the head mostly reads the mean."""

    any_size = True

    def __init__(self, model: Any, size: Size) -> None:
        super().__init__(model, size)
        self._size = (size.height, size.width)
        if self.base.pooler.layernorm is not None:
            self.head = (Pooling.MEAN,)
            self.norm = self.base.pooler.layernorm
            self.norm_after_mean = True
        self._remember_positions()

    @property
    def trunk(self) -> tuple[nn.Module, ...]:
        shared = self.base.shared_position_bias
        return super().trunk if shared is None else (*super().trunk, shared)

    def step(self, layer: int, hidden: torch.Tensor) -> torch.Tensor:
        bias = self.base.shared_position_bias
        shape = self.shapes[layer]
        shared = None if bias is None else bias((shape.rows, shape.columns))
        call = self.layers[layer - 1]
        return _tensor(call(hidden, attention_mask=shared, resolution=self._size))

    def _remember_positions(self) -> None:
        """transformers keeps which pair of patches has which bias in a cache of the whole process.
        What is kept only while a graph is traced is computed in one trace and a constant in the
        next, which tracers refuse; and what inference mode has kept, gradients cannot go through.
        As a buffer it goes where the weights go: from the processor it would be copied every time.
        """
        grid = (self.shapes[0].rows, self.shapes[0].columns)
        own = (layer.relative_position_bias for layer in self.layers)
        for bias in (self.base.shared_position_bias, *own):
            if bias is not None:
                index = bias.generate_relative_position_index(grid).clone()
                bias.register_buffer("position_index", index, persistent=False)
                bias.generate_relative_position_index = lambda _grid, bias=bias: bias.position_index


class Swin(Family):
    """Swin (Liu et al., 2021): attention in windows, stages, no class token."""

    poolings = _PATCHES
    head = (Pooling.MEAN,)

    def __init__(self, model: Any, size: Size) -> None:
        super().__init__(model, size)
        self._check_windows(size)
        _resize_positions(model, self.shapes[0], size)

    @property
    def layers(self) -> Sequence[Any]:
        found: Sequence[Any] = self.base.encoder.layers
        return found

    def embed(self, pixels: torch.Tensor) -> torch.Tensor:
        return _tensor(self.base.embeddings(pixels)[0])

    def step(self, layer: int, hidden: torch.Tensor) -> torch.Tensor:
        before = self.shapes[layer - 1]
        return _tensor(self.layers[layer - 1](hidden, (before.rows, before.columns))[0])

    def patches(self, hidden: torch.Tensor, layer: int) -> torch.Tensor:
        shape = self.shapes[layer]
        return hidden.reshape(len(hidden), shape.rows, shape.columns, shape.hidden)

    def _shapes(self, size: Size) -> tuple[LayerShape, ...]:
        height, width = sides(self.model.config.patch_size)
        # What does not fill a patch is padded.
        rows, columns = -(-size.height // height), -(-size.width // width)
        found = [LayerShape(rows, columns, self.model.config.embed_dim)]
        for stage in self.layers:
            last = found[-1]
            if stage.downsample is not None:
                last = LayerShape((last.rows + 1) // 2, (last.columns + 1) // 2, last.hidden * 2)
            found.append(last)
        return tuple(found)

    def _check_windows(self, size: Size) -> None:
        for stage, shape in zip(self.layers, self.shapes, strict=False):
            window = max(block.window_size for block in stage.blocks)
            if min(shape.rows, shape.columns) < window:
                raise FailedPrecondition(
                    f"The network cannot take pictures of {_text(size)}: a stage has "
                    f"{shape.rows}x{shape.columns} patches left, and windows of {window}x{window}."
                )


class SwinV2(Swin):
    """Swin V2 (Liu et al., 2022)."""

    sdpa = False


class ConvNeXt(Family):
    """ConvNeXt (Liu et al., 2022; Woo et al., 2023): convolutions in stages, no tokens at all."""

    sdpa = False
    poolings = _PATCHES
    head = (Pooling.MEAN,)
    norm_after_mean = True

    @property
    def layers(self) -> Sequence[Any]:
        found: Sequence[Any] = self.base.encoder.stages
        return found

    def embed(self, pixels: torch.Tensor) -> torch.Tensor:
        return _tensor(self.base.embeddings(pixels))

    def step(self, layer: int, hidden: torch.Tensor) -> torch.Tensor:
        return _tensor(self.layers[layer - 1](hidden))

    def patches(self, hidden: torch.Tensor, layer: int) -> torch.Tensor:
        del layer
        return hidden.permute(0, 2, 3, 1)

    def _shapes(self, size: Size) -> tuple[LayerShape, ...]:
        height, width = sides(self.model.config.patch_size)
        widths = self.model.config.hidden_sizes
        rows, columns = size.height // height, size.width // width
        found = [LayerShape(rows, columns, widths[0])]
        for stage, hidden in enumerate(widths):
            halvings = 2**stage
            found.append(LayerShape(rows // halvings, columns // halvings, hidden))
        return tuple(found)


FAMILIES: Final[dict[str, type[Family]]] = {
    "vit": ViT,
    "vit_msn": ViT,
    "deit": DeiT,
    "beit": BEiT,
    "dinov2": DINOv2,
    "dinov2_with_registers": DINOv2,
    "swin": Swin,
    "swinv2": SwinV2,
    "convnext": ConvNeXt,
    "convnextv2": ConvNeXt,
}
"""By ``model_type`` of the model's ``config.json``."""


def family_of(model_type: str) -> type[Family]:
    """Raises ``FailedPrecondition`` where it is not served."""
    try:
        return FAMILIES[model_type]
    except KeyError:
        raise FailedPrecondition(
            f"Models of type '{model_type}' are not served; these are: {', '.join(FAMILIES)}."
        ) from None


def opened(model: Any, size: Size, *, wanted: bool = False) -> Family:
    """``model`` for pictures of ``size``; ``wanted`` where that was configured and is not what the
    model's preprocessing makes.

    Raises ``FailedPrecondition`` where the model cannot take it.
    """
    config = model.config
    family = family_of(config.model_type)
    if wanted:
        _check_multiple(size, config)
    elif issubclass(family, ViT) and not family.any_size:
        _check_own_size(size, config)
    return family(model, size)


def sides(value: Any) -> tuple[int, int]:
    """Height and width, of a configuration that gives one number or both."""
    height, width = value if isinstance(value, list | tuple) else (value, value)
    return int(height), int(width)


def _resize_positions(model: Any, grid: LayerShape, size: Size) -> None:
    """Interpolate learned positions once, in float32, as the model itself would at every pass."""
    config, embeddings = model.config, model.base_model.embeddings
    old, own = embeddings.position_embeddings, Size(*sides(config.image_size))
    if old is None or own == size:
        return
    if own.height != own.width:
        raise FailedPrecondition(
            f"The network's positions are those of {_text(own)}; only a square's can be "
            "interpolated."
        )
    if size.height != size.width:
        return  # Left to the families that interpolate at every pass.
    height, width = sides(config.patch_size)
    others = old.shape[1] - (own.height // height) * (own.width // width)
    with torch.no_grad():
        like = old.new_empty(1, others + grid.rows * grid.columns, old.shape[2])
        new = embeddings.interpolate_pos_encoding(like, size.height, size.width)
        embeddings.position_embeddings = nn.Parameter(new.clone(), requires_grad=False)
    embeddings.image_size = embeddings.patch_embeddings.image_size = (size.height, size.width)
    config.image_size = size.height


def _check_multiple(size: Size, config: Any) -> None:
    height, width = sides(config.patch_size)
    if size.height % height or size.width % width:
        raise FailedPrecondition(
            f"image_size must be a multiple of the network's patches of {height}x{width} pixels, "
            f"not {size.height}."
        )


def _check_own_size(size: Size, config: Any) -> None:
    own = Size(*sides(config.image_size))
    if own != size:
        raise FailedPrecondition(
            f"The network takes {_text(own)}, its preprocessing makes {_text(size)}. Set "
            "image_size to have its positions interpolated."
        )


def _text(size: Size) -> str:
    return f"{size.height}x{size.width}"


def _tensor(value: Any) -> torch.Tensor:
    found: torch.Tensor = value
    return found
