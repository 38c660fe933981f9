"""Several classifiers in one process: what a load may ask for, and what is told of each model."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, Final, cast, get_args

from services.classifier.config import DEVICE
from services.classifier.explanation import Explainer
from services.classifier.model import ClassifierModel, Loaded
from services.classifier.network import BackendName, Network, Options, Precision, ProviderName
from services.core.card import (
    BatchProfile,
    ClassifierDetails,
    EffectiveConfig,
    ModelCard,
    ModelKind,
    ModelState,
)
from services.core.engine import EngineReport, KeyReport
from services.core.errors import InvalidInput
from services.core.fleet import LoadOrder, References
from services.core.reference import ModelFiles, formats_of

MIN_IMAGE_SIZE: Final = 8
MAX_IMAGE_SIZE: Final = 4096


class ClassifierMaker:
    """A core ``Maker``; ``defaults`` are what an order leaves open.

    ``check`` raises ``FailedPrecondition`` for what cannot be had on this machine, before anything
    is fetched or unloaded for it; blocking.
    """

    def __init__(
        self,
        references: References,
        defaults: Options,
        open_network: Callable[[Options], Network],
        open_explainer: Callable[[Options], Explainer] | None = None,
        *,
        check: Callable[[Options], object] | None = None,
    ) -> None:
        self._references = references
        self._defaults = defaults
        self._open_network = open_network
        self._open_explainer = open_explainer
        self._check = check

    def builder(self, order: LoadOrder) -> Callable[[ModelFiles], ClassifierModel]:
        options = options_of(order, self._defaults)

        def build(files: ModelFiles) -> ClassifierModel:
            explainer = None if self._open_explainer is None else self._open_explainer(options)
            network = self._open_network(options)
            return ClassifierModel(network, partial(_given, files), explainer=explainer)

        return build

    def find(self, order: LoadOrder) -> ModelFiles:
        if self._check is not None:
            self._check(options_of(order, self._defaults))
        return self._references.find(order.reference, order.name)


def options_of(order: LoadOrder, defaults: Options) -> Options:
    """What an order leaves open is as ``defaults`` have it, but for the size of pictures, which is
    the model's own.

    Raises ``InvalidInput`` naming the field, what is allowed and what was given.
    """
    changes: dict[str, Any] = {"image_size": None}
    if order.backend:
        _check(
            "backend", order.backend in get_args(BackendName), get_args(BackendName), order.backend
        )
        changes["backend"] = order.backend
        if order.backend != defaults.backend:
            # What the server's own backend was told means nothing to another.
            changes |= {"providers": (), "compiled": False}
    if order.device:
        known = re.fullmatch(DEVICE, order.device) is not None
        _check("device", known, ("auto", "cpu", "cuda", "cuda:N"), order.device)
        changes["device"] = order.device
    if order.precision:
        precisions = get_args(Precision)
        _check("precision", order.precision in precisions, precisions, order.precision)
        changes["precision"] = cast(Precision, order.precision)
    for option, value in order.options.items():
        if option not in _READERS:
            # Not the threads: PyTorch, which every backend's head runs in, has them by process.
            message = "There is no such option."
            raise InvalidInput("options", message, ", ".join(_READERS), option[:100])
        changes[option] = _READERS[option](value)
    return replace(defaults, **changes)


def _providers(text: str) -> tuple[str, ...]:
    names = tuple(text.split(","))
    known = get_args(ProviderName)
    for name in names:
        if name not in known or names.count(name) > 1:
            message = "providers are names with commas between, each once."
            raise InvalidInput("options", message, ", ".join(known), text[:100])
    return names


def _compiled(text: str) -> bool:
    if text not in ("true", "false"):
        raise InvalidInput("options", "compiled is true or false.", "true, false", text[:100])
    return text == "true"


def _image_size(text: str) -> int:
    # Not every digit of Unicode is one to ``int``.
    size = int(text) if re.fullmatch("[0-9]{1,4}", text) else 0
    if not MIN_IMAGE_SIZE <= size <= MAX_IMAGE_SIZE:
        limit = f"{MIN_IMAGE_SIZE} to {MAX_IMAGE_SIZE}"
        raise InvalidInput("options", "image_size is a number of pixels.", limit, text[:100])
    return size


_READERS: Final[Mapping[str, Callable[[str], Any]]] = {
    "providers": _providers,
    "compiled": _compiled,
    "image_size": _image_size,
}


def _check(field: str, holds: bool, allowed: tuple[str, ...], given: str) -> None:
    if not holds:
        raise InvalidInput(
            field, f"This server has no such {field}.", ", ".join(allowed), given[:100]
        )


def _given(files: ModelFiles) -> ModelFiles:
    return files


def card(model: ClassifierModel, report: EngineReport) -> ModelCard:
    """What is told of a model that is loaded."""
    loaded = model.loaded
    traits, size = loaded.traits, loaded.traits.preprocessing.input
    return ModelCard(
        name=loaded.files.name,
        version=loaded.files.version,
        digest=loaded.files.digest,
        kind=ModelKind.CLASSIFIER,
        state=ModelState.READY,
        loaded_at=loaded.at,
        architecture=traits.architecture,
        parameters=traits.parameters,
        bytes_in_memory=model.bytes_in_memory,
        config=_effective_config(loaded, report),
        details=ClassifierDetails(
            labels=traits.labels,
            image_width=size.width,
            image_height=size.height,
            patch_size=traits.patch_size,
            layers=traits.depth,
            hidden_size=traits.hidden_size,
            multi_label=traits.multi_label,
        ),
    )


def _effective_config(loaded: Loaded, report: EngineReport) -> EffectiveConfig:
    traits = loaded.traits
    return EffectiveConfig(
        backend=traits.backend,
        device=traits.device,
        device_name=traits.device_name,
        precision=traits.precision,
        threads=traits.threads,
        batches=tuple(_profile(key, report.limits.max_batch_rows) for key in report.keys),
        max_backlog_seconds=report.limits.max_backlog_seconds,
        max_rows=report.limits.max_rows,
        extra={
            **traits.extra,
            "formats": ", ".join(formats_of(loaded.files)),
            "poolings": ", ".join(pooling.value for pooling in traits.poolings),
            "temperature": f"{loaded.labels.temperature:g}",
        },
    )


def _profile(key: KeyReport, max_batch_rows: int) -> BatchProfile:
    """Rows cost 1 each here, so that a cap in cost is one in rows."""
    return BatchProfile(
        key=f"layer {key.key}" if isinstance(key.key, int) else str(key.key),
        max_rows=max(1, int(min(key.cap_cost, max_batch_rows))),
        base_seconds=key.fixed_seconds or 0.0,
        seconds_per_cost=key.seconds_per_cost or 0.0,
        observations=key.samples,
    )
