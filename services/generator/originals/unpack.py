"""One file in the original layout to a ``diffusers`` directory, once, without a network.

Everything after it then reads one layout. The weights are renamed, not changed: the directory has
the file's own precision.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import diffusers
import torch
import transformers
from diffusers.loaders.single_file_utils import (
    convert_ldm_clip_checkpoint,
    convert_ldm_unet_checkpoint,
    convert_ldm_vae_checkpoint,
    convert_open_clip_checkpoint,
)
from safetensors import SafetensorError, safe_open

from services.core.errors import FailedPrecondition
from services.core.reference import ModelFiles, resolve, served_name, sha256_of
from services.generator.originals.kinds import (
    UNET,
    VAE,
    Kind,
    clip_tokenizer,
    kind_of,
)

SUFFIX: Final = ".safetensors"
_PICKLES = (".ckpt", ".pt", ".pth", ".bin")
_SIDECAR = "easel.json"
_VERSION: Final = 1  # of the directories written; a new one has them written anew
_CLIP_FOLDER = "text_encoder"
Weights = dict[str, torch.Tensor]
FindKind = Callable[[Path, Mapping[str, tuple[int, ...]], Mapping[str, str]], Kind]


def find(reference: str, *, name: str = "", unpacked: Path) -> ModelFiles:
    """As ``services.core.reference.resolve``; a reference may also be one ``.safetensors`` file.

    That is unpacked below ``unpacked``, under its sha256, which is its digest too. Raises
    ``FailedPrecondition`` for a file that is no safetensors, or no Stable Diffusion.
    """
    file = Path(reference).expanduser()
    if not file.is_file():
        return resolve(reference, name=name)
    digest = sha256_of(file)
    directory = unpacked / f"{digest}-{_VERSION}"
    if not directory.is_dir():
        unpack(file, directory)
    _copy_sidecar(file, directory)
    return ModelFiles(served_name(reference, name), digest[:12], directory, f"sha256:{digest}")


def unpack(file: Path, directory: Path, *, find_kind: FindKind = kind_of) -> None:
    """Write ``file`` as ``directory``, all or nothing. Raises as ``find``."""
    if file.suffix != SUFFIX:
        reads = "pickles are never read" if file.suffix in _PICKLES else "it cannot be read"
        raise FailedPrecondition(f"'{file.name}' is no {SUFFIX} file: {reads}.")
    directory.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=directory.parent) as scratch:
        written = Path(scratch) / "model"
        try:
            with safe_open(file, framework="pt") as weights:
                _Original(file, weights, find_kind).write(written)
        except SafetensorError as error:
            raise FailedPrecondition(f"'{file.name}' is no sound safetensors file.") from error
        except KeyError as error:
            raise FailedPrecondition(
                f"'{file.name}' is not of the architecture it looks like: it lacks {error}."
            ) from error
        if not directory.is_dir():  # another process may have been quicker
            written.rename(directory)


def _copy_sidecar(file: Path, directory: Path) -> None:
    """``NAME.easel.json`` beside ``NAME.safetensors`` has the model's own defaults."""
    sidecar, copy = file.with_suffix(f".{_SIDECAR}"), directory / _SIDECAR
    if sidecar.is_file():
        shutil.copyfile(sidecar, copy)
    else:
        copy.unlink(missing_ok=True)


@dataclass(frozen=True, slots=True)
class _Original:
    """``weights``: the open file."""

    file: Path
    weights: Any
    find_kind: FindKind

    @property
    def _keys(self) -> list[str]:
        return list(self.weights.keys())

    def write(self, directory: Path) -> None:
        shapes = {key: tuple(self.weights.get_slice(key).get_shape()) for key in self._keys}
        kind = self.find_kind(self.file, shapes, self.weights.metadata() or {})
        sections = kind.configurations
        _write_json(directory / "model_index.json", sections["model_index"])
        _write_json(directory / "scheduler" / "scheduler_config.json", sections["scheduler"])
        self._write_unet(sections["unet"], directory / "unet")
        self._write_vae(sections["vae"], directory / "vae")
        for folder, prefix in kind.texts.items():
            self._write_text(sections[folder], prefix, directory / folder)
            own = prefix.endswith(".transformer.")
            tokenizer = clip_tokenizer(pad_token="<|endoftext|>" if own else "!")
            tokenizer.save_pretrained(directory / folder.replace("text_encoder", "tokenizer"))

    def _write_unet(self, section: Mapping[str, Any], folder: Path) -> None:
        kind: Any = diffusers.UNet2DConditionModel
        with torch.device("meta"):
            unet = kind.from_config(dict(section))
        self._fill(unet, convert_ldm_unet_checkpoint(self._under(UNET), unet.config), folder)

    def _write_vae(self, section: Mapping[str, Any], folder: Path) -> None:
        kind: Any = diffusers.AutoencoderKL
        with torch.device("meta"):
            vae = kind.from_config(dict(section))
        self._fill(vae, convert_ldm_vae_checkpoint(self._under(VAE), vae.config), folder)

    def _write_text(self, section: Mapping[str, Any], prefix: str, folder: Path) -> None:
        kind: Any = getattr(transformers, section["architectures"][0])
        with torch.device("meta"):
            text = kind(transformers.CLIPTextConfig(**section))
        found = self._under(prefix)
        if prefix.endswith(".transformer."):
            converted = convert_ldm_clip_checkpoint(found)
        else:
            converted = convert_open_clip_checkpoint(text, found, prefix=prefix)
        if not hasattr(text, "text_model"):
            converted = {key.removeprefix("text_model."): each for key, each in converted.items()}
        # Of 2.x's tower the last layer and the projection are never used.
        known = text.state_dict()
        self._fill(text, {key: converted[key] for key in converted if key in known}, folder)

    def _under(self, prefix: str) -> Weights:
        return {key: self.weights.get_tensor(key) for key in self._keys if key.startswith(prefix)}

    def _fill(self, network: Any, converted: Weights, folder: Path) -> None:
        known = network.state_dict()
        missing = sorted(known.keys() - converted.keys())
        extra = sorted(converted.keys() - known.keys())
        other = sorted(
            key
            for key in known.keys() & converted.keys()
            if known[key].shape != converted[key].shape
        )
        for keys, what in ((missing, "lacks"), (extra, "has an unknown"), (other, "differs in")):
            if keys:
                raise FailedPrecondition(
                    f"'{self.file.name}' is not of the architecture it looks like: its "
                    f"{folder.name} {what} {keys[0]} ({len(keys)} in all)."
                )
        network.load_state_dict(converted, assign=True)
        network.save_pretrained(folder, safe_serialization=True)


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
