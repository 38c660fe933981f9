"""Pictures as prompts, by an IP-Adapter (Ye et al., 2023, arXiv 2308.06721).

CLIP's image encoder and a projection make a few tokens of a picture, and beside the
cross-attentions to the text there are keys and values of their own for them. InstantStyle (Wang et
al., 2024, arXiv 2404.02733) found one block of Stable Diffusion XL that takes a picture's style and
leaves its layout, so there the others do not see it.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import torch
import transformers
from diffusers.models.embeddings import ImageProjection
from PIL import Image
from safetensors import SafetensorError, safe_open

from services.accelerator import placed
from services.core.errors import FailedPrecondition
from services.core.reference import digest_of
from services.generator.attention import ImageKeys
from services.generator.layout import read_json
from services.generator.lora_file import PICKLES, SUFFIX
from services.generator.pytorch import Placement, TorchNetwork

ALL_BLOCKS: Final = "all"
STYLE_BLOCK: Final = "up_blocks.0.attentions.1"
_ENCODER: Final = "image_encoder"
_PROJECTED: Final = "image_proj.proj.weight"
_NORM: Final = "image_proj.norm.weight"
_PROJECTION: Final = (_PROJECTED, "image_proj.proj.bias", _NORM, "image_proj.norm.bias")
# Of the long side to the short one; the same middle is seen of longer pictures.
_MOST_PROPORTION: Final = 4
_ENCODER_KIND: Final = "clip_vision_model"


@dataclass(frozen=True, slots=True)
class ImageAdapterFolder:
    """Where the IP-Adapter is. ``blocks``: the U-Net's blocks that see the picture, as diffusers
    names them, or ``"all"``; when empty, InstantStyle's style block where the U-Net is of Stable
    Diffusion XL and has it, all of them elsewhere.
    """

    path: Path
    blocks: tuple[str, ...] = ()


class UnfitImageAdapterError(Exception):
    """What is wrong with the folder, in words; without its name."""


@dataclass(frozen=True, slots=True, eq=False)
class ImageAdapter:
    """An ``ImageReader`` in PyTorch. ``processor``: as CLIPImageProcessor."""

    encoder: Any
    processor: Any
    projection: Any
    versions: Mapping[str, str]
    empty: torch.Tensor
    bytes_in_memory: int

    def pixels(self, picture: Image.Image) -> torch.Tensor:
        """(3, S, S) of RGB: its middle square, normalised."""
        read: torch.Tensor = self.processor(_middle(picture), return_tensors="pt").pixel_values[0]
        return read

    def tokens(self, pixels: torch.Tensor) -> torch.Tensor:
        given = placed(pixels, self.encoder.device).to(self.encoder.dtype)
        read: torch.Tensor = self.projection(self.encoder(given).image_embeds)
        return read


@dataclass(frozen=True, slots=True)
class _Weights:
    """What the file has. ``keys`` in the order of the U-Net's cross-attentions."""

    projection: Mapping[str, torch.Tensor]
    keys: tuple[ImageKeys, ...]
    digest: str

    @property
    def width(self) -> int:
        """Of a token."""
        return len(self.projection[_NORM])

    @property
    def embedding(self) -> int:
        """Of a picture."""
        return int(self.projection[_PROJECTED].shape[1])


def with_image_adapter(network: TorchNetwork, folder: ImageAdapterFolder) -> TorchNetwork:
    """``network``, taking pictures as prompts.

    Raises ``FailedPrecondition`` for a folder without exactly one ``ip-adapter*.safetensors`` or
    without its ``image_encoder``, for what is in no published layout that is read here, and for an
    adapter of another architecture.
    """
    try:
        return _with_image_adapter(network, folder)
    except UnfitImageAdapterError as error:
        raise FailedPrecondition(f"The IP-Adapter '{folder.path.name}': {error}.") from error


def _with_image_adapter(network: TorchNetwork, folder: ImageAdapterFolder) -> TorchNetwork:
    layers = network.attention.crossing
    weights = _read(_file(folder.path))
    _check_fits(weights, layers)
    blocks = _blocks(folder.blocks, layers, xl=network.layout.xl)
    encoder = _encoder(folder.path / _ENCODER, weights, network.placement)
    seeing = {
        name: keys.to(network.placement.device, network.placement.dtype)
        for name, keys in zip(layers, weights.keys, strict=True)
        if blocks == (ALL_BLOCKS,) or any(_inside(name, block) for block in blocks)
    }
    adapter = _assembled(weights, encoder, folder.path / _ENCODER, blocks, network.placement)
    network.attention.adopt(seeing)
    held = adapter.bytes_in_memory + sum(keys.nbytes for keys in seeing.values())
    effective = network.effective
    effective = replace(effective, bytes_in_memory=effective.bytes_in_memory + held)
    return replace(network, image_adapter=adapter, effective=effective)


def _assembled(
    weights: _Weights, encoder: Any, folder: Path, blocks: tuple[str, ...], placement: Placement
) -> ImageAdapter:
    projection = _projection(weights).to(placement.device, placement.dtype)
    size = int(encoder.config.image_size)
    held = [*encoder.parameters(), *projection.parameters()]
    with torch.inference_mode():
        nothing = torch.zeros((1, weights.embedding), device=placement.device)
        empty = projection(nothing)[0]
    return ImageAdapter(
        encoder=encoder,
        processor=transformers.CLIPImageProcessorPil(size=size, crop_size=size),
        projection=projection,
        versions={
            "ip_adapter": weights.digest,
            "ip_adapter_blocks": ",".join(blocks),
            "ip_adapter_image_encoder": digest_of(folder),
        },
        empty=empty,
        bytes_in_memory=sum(weight.nbytes for weight in held),
    )


def _middle(picture: Image.Image) -> Image.Image:
    """Enough of a long picture for its middle square: the processor enlarges a short side to S,
    and with it all of the long one.
    """
    width, height = picture.size
    longest = _MOST_PROPORTION * min(width, height)
    if max(width, height) <= longest:
        return picture
    across, down = max(0, width - longest) // 2, max(0, height - longest) // 2
    return picture.crop((across, down, across + min(width, longest), down + min(height, longest)))


def _file(folder: Path) -> Path:
    found = sorted(folder.glob("ip-adapter*"))
    files = [path for path in found if path.suffix == SUFFIX]
    if len(files) == 1:
        return files[0]
    if files:
        names = ", ".join(path.name for path in files)
        raise UnfitImageAdapterError(f"it has {names}, where one is wanted")
    pickles = [path.name for path in found if path.suffix in PICKLES]
    if pickles:
        raise UnfitImageAdapterError(f"{pickles[0]} is no {SUFFIX} file, and only those are read")
    raise UnfitImageAdapterError(f"it has no file ip-adapter*{SUFFIX}")


def _read(path: Path) -> _Weights:
    with _told_of(path), safe_open(str(path), framework="pt") as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    for key, tensor in tensors.items():
        if not tensor.is_floating_point() or not bool(tensor.isfinite().all()):
            raise UnfitImageAdapterError(f"'{key}' has values that are no finite numbers")
    projection = {key: tensors.pop(key) for key in _PROJECTION if key in tensors}
    if len(projection) != len(_PROJECTION) or any(key.startswith("image_proj.") for key in tensors):
        raise UnfitImageAdapterError(
            "its image_proj is not one linear layer and a norm: only the plain IP-Adapter is "
            "read, not its kinds plus, full or FaceID"
        )
    _check_projection(projection)
    return _Weights(projection, tuple(_keys(tensors)), _digest(path))


@contextmanager
def _told_of(path: Path) -> Iterator[None]:
    try:
        yield
    except SafetensorError as error:
        raise UnfitImageAdapterError(f"{path.name} is not in the safetensors format") from error


def _check_projection(projection: Mapping[str, torch.Tensor]) -> None:
    weight, bias, norm, offset = (projection[key] for key in _PROJECTION)
    shaped = weight.ndim == 2 and norm.ndim == 1 and norm.shape == offset.shape
    if not shaped or bias.shape != weight.shape[:1] or len(weight) % len(norm) or not len(weight):
        raise UnfitImageAdapterError("the shapes of its image_proj do not fit together")


def _keys(tensors: dict[str, torch.Tensor]) -> Iterator[ImageKeys]:
    """They are numbered 1, 3, 5 ...: the even ones stand for self-attentions."""
    for number in itertools.count(1, 2):
        names = [f"ip_adapter.{number}.to_{side}_ip.weight" for side in "kv"]
        if not any(name in tensors for name in names):
            break
        key, value = (tensors.pop(name, None) for name in names)
        if key is None or value is None or key.ndim != 2 or key.shape != value.shape:
            raise UnfitImageAdapterError(
                f"ip_adapter.{number} has no to_k_ip and to_v_ip of one shape"
            )
        yield ImageKeys(key, value)
    if tensors:
        raise UnfitImageAdapterError(f"'{next(iter(tensors))}' belongs to no plain IP-Adapter")


def _check_fits(weights: _Weights, layers: Mapping[str, Any]) -> None:
    widths = sorted({int(layer.to_k.in_features) for layer in layers.values()})
    if widths != [weights.width]:
        has = " and ".join(map(str, widths)) or "none"
        raise UnfitImageAdapterError(
            f"it is of another architecture: its tokens have {weights.width} numbers, the "
            f"model's cross-attention {has}"
        )
    if len(weights.keys) != len(layers):
        raise UnfitImageAdapterError(
            f"it is of another architecture: it is for {len(weights.keys)} cross-attentions, and "
            f"the model has {len(layers)}"
        )
    for (name, layer), keys in zip(layers.items(), weights.keys, strict=True):
        if keys.key.shape != layer.to_k.weight.shape:
            has, wants = (
                "x".join(map(str, shape)) for shape in (keys.key.shape, layer.to_k.weight.shape)
            )
            raise UnfitImageAdapterError(
                f"it is of another architecture: its keys are {has} where {name} has {wants}"
            )


def _blocks(wanted: tuple[str, ...], layers: Mapping[str, Any], *, xl: bool) -> tuple[str, ...]:
    if not wanted:
        styled = xl and any(_inside(name, STYLE_BLOCK) for name in layers)
        return (STYLE_BLOCK,) if styled else (ALL_BLOCKS,)
    for block in wanted:
        if wanted != (ALL_BLOCKS,) and not any(_inside(name, block) for name in layers):
            raise UnfitImageAdapterError(f"no cross-attention of the model is in '{block[:128]}'")
    return wanted


def _inside(name: str, block: str) -> bool:
    return name.startswith(f"{block}.")


def _encoder(folder: Path, weights: _Weights, placement: Placement) -> Any:
    config = folder / "config.json"
    files = list(folder.glob(f"*{SUFFIX}"))
    if not config.is_file() or not files:
        raise UnfitImageAdapterError(f"it has no {_ENCODER} with config.json and {SUFFIX} weights")
    told = read_json(config)
    if told.get("model_type") != _ENCODER_KIND:
        raise UnfitImageAdapterError(
            f"its {_ENCODER} is a {told.get('model_type')}, where a {_ENCODER_KIND} is wanted"
        )
    size = int(transformers.CLIPVisionConfig(**told).projection_dim)
    if size != weights.embedding:
        raise UnfitImageAdapterError(
            f"its {_ENCODER} makes {size} numbers of a picture, and its image_proj reads "
            f"{weights.embedding}"
        )
    with _told_of(files[0]):
        encoder, found = transformers.CLIPVisionModelWithProjection.from_pretrained(
            folder,
            variant=None if any(".fp16." not in path.name for path in files) else "fp16",
            use_safetensors=True,
            local_files_only=True,
            dtype=placement.dtype,
            output_loading_info=True,
        )
    missing = sorted(found["missing_keys"])
    if missing:
        raise UnfitImageAdapterError(f"its {_ENCODER} lacks {missing[0]}")
    return encoder.eval().requires_grad_(False).to(placement.device)


def _projection(weights: _Weights) -> Any:
    kind: Any = ImageProjection
    count = len(weights.projection[_PROJECTED]) // weights.width
    projection = kind(weights.embedding, weights.width, count)
    named = {
        key.removeprefix("image_proj.").replace("proj.", "image_embeds."): tensor.float()
        for key, tensor in weights.projection.items()
    }
    projection.load_state_dict(named)
    return projection.eval().requires_grad_(False)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"
