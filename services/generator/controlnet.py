"""The ControlNets of one folder: told by name, loaded when first asked for, a few of them kept."""

from __future__ import annotations

import inspect
import json
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import diffusers
import torch
from safetensors import SafetensorError

from services.core.errors import FailedPrecondition, NotFound
from services.core.reference import digest_of
from services.generator.network import Look, Network, Residuals
from services.generator.steering import ControlNet
from services.generator.weights import fill, structure
from services.memory import memory_faults

REASON: Final = "CONTROL_UNFIT"
_KIND: Final[Any] = diffusers.ControlNetModel
_TOLD_NAMES: Final = 32
# What must agree for a net's residuals to fit the U-Net's layers, and its inputs to be there.
_SHARED: Final = (
    "block_out_channels",
    "layers_per_block",
    "cross_attention_dim",
    "addition_embed_type",
    "projection_class_embeddings_input_dim",
)
_WITHOUT: Final = ("class_embed_type", "num_class_embeds", "encoder_hid_dim_type")


class UnfitControlNetError(Exception):
    """Why a folder is no ControlNet for this model; safe to show."""


@dataclass(frozen=True, slots=True, eq=False)
class TorchControlNet:
    """A ``diffusers`` net: ``ControlNetModel``."""

    name: str
    digest: str
    net: Any

    def residuals(self, look: Look, pictures: torch.Tensor) -> Residuals:
        added = {"text_embeds": look.pooled, "time_ids": look.time_ids}
        dtype = self.net.dtype
        # A U-Net for inpainting sees more than the latents.
        latents = look.latents[:, : self.net.config.in_channels]
        down, middle = self.net(
            latents.to(dtype, memory_format=torch.channels_last),
            look.timesteps,
            encoder_hidden_states=look.context.to(dtype),
            controlnet_cond=pictures.to(dtype, memory_format=torch.channels_last),
            added_cond_kwargs=None if look.pooled is None else added,
            return_dict=False,
        )
        return Residuals((*down, middle))


LoadControl = Callable[[str, Path, Network], ControlNet]


def load_control(name: str, folder: Path, network: Network) -> TorchControlNet:
    """Read the net of a ``diffusers`` folder and place it beside the network's own weights. From
    any thread, also while others compute.

    Raises ``UnfitControlNetError`` where it is none, not safetensors or of another architecture,
    and ``OutOfMemory``.
    """
    path = folder / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    except ValueError as error:
        raise UnfitControlNetError("its config.json is not JSON") from error
    if not isinstance(config, dict) or config.get("_class_name") != _KIND.__name__:
        raise UnfitControlNetError(f"its folder has no config.json of a {_KIND.__name__}")
    _check_architecture(_defaults() | config, network)
    if not any(folder.glob("*.safetensors")):
        raise UnfitControlNetError("its folder has no .safetensors weights, and no others are read")
    digest = digest_of(folder)
    return TorchControlNet(name, digest, _read(folder, network.device, network.dtype))


def _read(folder: Path, device: torch.device, dtype: torch.dtype) -> Any:
    try:
        # A GPU without room for them says so in a RuntimeError, too.
        with memory_faults():
            net = structure(_KIND, folder)
            told = fill(net, folder, device, dtype)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise UnfitControlNetError("its weights are not those of its config.json") from error
    for names, text in ((told.missing, "lack"), (told.needless, "have a needless")):
        if names:
            raise UnfitControlNetError(f"its weights {text} '{names[0]}'")
    return net


def _defaults() -> dict[str, Any]:
    """What a config.json that leaves an option out means."""
    options = inspect.signature(_KIND.__init__).parameters.values()
    return {each.name: each.default for each in options if each.default is not each.empty}


def _check_architecture(config: Mapping[str, Any], network: Network) -> None:
    unet = network.unet_config
    for option in _SHARED:
        own, models = (_plain(option, found) for found in (config, unet))
        if own != models:
            raise _another(f"its {option} is {own}, the model's {models}")
    for option in _WITHOUT:
        if config.get(option) is not None:
            raise UnfitControlNetError(f"it has {option} {config[option]}, which is not served")
    if config["in_channels"] != network.latent_channels:
        raise _another(
            f"it reads latents of {config['in_channels']} channels, "
            f"the model's have {network.latent_channels}"
        )
    factor = 2 ** (len(config["conditioning_embedding_out_channels"]) - 1)
    if factor != network.vae_factor:
        raise _another(
            f"it reads {factor} pixels to a side of a latent, the model has {network.vae_factor}"
        )
    if config["conditioning_channels"] != 3:
        raise UnfitControlNetError(
            f"it reads pictures of {config['conditioning_channels']} channels and not of 3"
        )
    if config["global_pool_conditions"]:
        raise UnfitControlNetError("it pools its picture (global_pool_conditions): not served")


def _another(why: str) -> UnfitControlNetError:
    return UnfitControlNetError(f"it is for another architecture: {why}")


def _plain(option: str, config: Mapping[str, Any]) -> Any:
    """What a configuration says, where one number may stand for as many as there are blocks."""
    value = config.get(option)
    if isinstance(value, list | tuple):
        return list(value)
    alike = option in ("layers_per_block", "cross_attention_dim")
    return [value] * len(config["block_out_channels"]) if alike else value


@dataclass(frozen=True, slots=True)
class _Edition:
    """A folder as it was when it was read; another one of the same name is loaded anew."""

    path: Path
    files: tuple[tuple[str, int, int, int, int], ...]

    @classmethod
    def of(cls, path: Path) -> _Edition:
        return cls(path, tuple(sorted(_stamps(path))))


def _stamps(folder: Path) -> Iterator[tuple[str, int, int, int, int]]:
    for path in folder.iterdir():
        found = path.stat()
        yield path.name, found.st_ino, found.st_ctime_ns, found.st_mtime_ns, found.st_size


class ControlShelf:
    """ControlNets for one network; safe to call from any thread.

    Every folder in ``folder`` is one, under its name. The ``kept`` last used stay in memory; a
    picture under way holds on to its own. A new one is found when it is first asked for. No name
    from a caller becomes a path.
    """

    def __init__(
        self,
        folder: Path | None,
        network: Network,
        *,
        kept: int = 4,
        load: LoadControl = load_control,
    ) -> None:
        self._folder = folder
        self._network = network
        self._kept = kept
        self._load = load
        self._lock = threading.Lock()
        self._paths = self._find()
        self._loaded: OrderedDict[_Edition, ControlNet] = OrderedDict()

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._paths)

    def take(self, name: str) -> ControlNet:
        """Blocking. Raises ``NotFound`` for a name that is not here, ``FailedPrecondition`` for a
        net that does not fit the model, and ``OutOfMemory``.
        """
        with self._lock:
            path = self._path(name)
            edition = _Edition.of(path)
            net = self._loaded.pop(edition, None)
            if net is None:
                net = self._read(name, path)
            self._loaded[edition] = net
            return net

    def _read(self, name: str, path: Path) -> ControlNet:
        # Room first: nets are large.
        while len(self._loaded) >= self._kept:
            self._loaded.popitem(last=False)
        try:
            return self._load(name, path, self._network)
        except UnfitControlNetError as error:
            raise FailedPrecondition(
                f"ControlNet '{name}' cannot be used: {error}.", reason=REASON
            ) from error

    def _path(self, name: str) -> Path:
        if name not in self._paths or not self._paths[name].is_dir():
            self._paths = self._find()
        if name in self._paths:
            return self._paths[name]
        told = ", ".join(list(self._paths)[:_TOLD_NAMES]) or "none"
        raise NotFound(f"There is no ControlNet '{name}' here. There are: {told}.")

    def _find(self) -> dict[str, Path]:
        if self._folder is None:
            return {}
        folders = (path for path in self._folder.iterdir() if path.is_dir())
        return {path.name: path for path in sorted(folders) if not path.name.startswith(".")}
