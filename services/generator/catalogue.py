"""What the service tells about its model."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from types import MappingProxyType
from typing import Any, Final

from services.core.card import (
    BatchProfile,
    EffectiveConfig,
    GeneratorDetails,
    ModelCard,
    ModelKind,
    ModelState,
)
from services.core.engine import Engine, EngineReport, KeyReport
from services.core.errors import NotFound
from services.core.reference import formats_of
from services.generator.diffusion import Result
from services.generator.model import Loaded
from services.generator.network import ImageReader
from services.generator.painter import Painter
from services.generator.pipelines import LoadedPipeline
from services.generator.provenance import device_class

MODES: Final = ("text_to_image", "image_to_image", "inpaint", "stylize")


class GeneratorCatalogue:
    """One model, under its name and under no name."""

    def __init__(
        self,
        model: Painter,
        engine: Engine[Any, Result],
        extra: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        """``extra`` is told among what is in force."""
        self._model = model
        self._engine = engine
        self._extra = extra

    def list_models(self) -> list[ModelCard]:
        return [_card(self._model.loaded, self._engine.report(), self._extra)]

    def get_model(self, name: str, version: str) -> ModelCard:
        """Raises ``NotFound`` unless it is the served model, or nothing, that is named."""
        card = self.list_models()[0]
        if name not in ("", card.name):
            raise NotFound(f"There is no model '{name[:128]}' here; '{card.name}' is served.")
        if version not in ("", card.version):
            raise NotFound(f"'{card.name}' is served in version '{card.version}' alone.")
        return card


def _card(
    loaded: Loaded | LoadedPipeline, report: EngineReport, extra: Mapping[str, str]
) -> ModelCard:
    effective = loaded.effective
    return ModelCard(
        name=loaded.files.name,
        version=loaded.files.version,
        digest=loaded.files.digest,
        kind=ModelKind.GENERATOR,
        state=ModelState.READY,
        loaded_at=loaded.at,
        architecture=effective.architecture,
        parameters=effective.parameters,
        bytes_in_memory=effective.bytes_in_memory,
        config=_effective_config(loaded, report, extra),
        details=_pipeline_details(loaded)
        if isinstance(loaded, LoadedPipeline)
        else _details(loaded),
    )


def _pipeline_details(loaded: LoadedPipeline) -> GeneratorDetails:
    pipeline, limits = loaded.pipeline, loaded.limits
    return GeneratorDetails(
        default_width=limits.default_width,
        default_height=limits.default_height,
        size_multiple=limits.size_multiple,
        max_pixels=limits.max_pixels,
        max_steps=limits.max_steps,
        max_count=limits.max_count,
        default_steps=limits.default_steps,
        default_guidance_scale=limits.default_guidance_scale,
        max_prompt_tokens=pipeline.max_tokens,
        modes=("text_to_image",),
        step_engine=False,
        layout=pipeline.name,
        safety_checker=pipeline.checked,
    )


def _details(loaded: Loaded) -> GeneratorDetails:
    limits = loaded.limits
    return GeneratorDetails(
        samplers=tuple(sampler.name for sampler in limits.samplers),
        default_sampler=limits.default_sampler.name,
        default_width=limits.default_width,
        default_height=limits.default_height,
        size_multiple=limits.size_multiple,
        max_pixels=limits.max_pixels,
        max_steps=limits.max_steps,
        max_count=limits.max_count,
        default_steps=limits.default_steps,
        default_guidance_scale=limits.default_guidance_scale,
        max_prompt_tokens=loaded.reader.max_tokens,
        modes=MODES,
        adapters=loaded.adapters.names,
        controls=loaded.controls.names,
        step_engine=True,
        prediction_type=loaded.network.prediction_type,
        layout=loaded.network.layout.family.value,
        safety_checker=loaded.checked,
        embeddings=loaded.reader.inversions,
        max_clip_skip=limits.max_clip_skip,
    )


def _effective_config(
    loaded: Loaded | LoadedPipeline, report: EngineReport, extra: Mapping[str, str]
) -> EffectiveConfig:
    effective, limits = loaded.effective, report.limits
    return EffectiveConfig(
        backend=effective.backend,
        device=effective.device,
        device_name=effective.device_name,
        precision=effective.precision,
        threads=effective.threads,
        batches=tuple(_profile(key, limits.max_batch_rows) for key in report.keys),
        max_backlog_seconds=limits.max_backlog_seconds,
        max_rows=limits.max_rows,
        extra={
            **effective.notes,
            **_particulars(loaded),
            "device_class": device_class(effective),
            "formats": ", ".join(formats_of(loaded.files)),
            **extra,
        },
    )


def _particulars(loaded: Loaded | LoadedPipeline) -> dict[str, str]:
    if isinstance(loaded, Loaded):
        return {
            "fast_preview": loaded.diffusion.fast_preview,
            "stylize": _way_of_stylizing(loaded.network.image_adapter),
        }
    ends = "between two steps" if loaded.pipeline.pauses else "before a picture is begun"
    return {"scheduler": loaded.limits.scheduler, "cancel": f"takes effect {ends}"}


def _way_of_stylizing(adapter: ImageReader | None) -> str:
    if adapter is None:
        return "shared attention and matched statistics"
    told = "; ".join(f"{name} {found}" for name, found in adapter.versions.items())
    return f"image prompt; {told}"


def _profile(key: KeyReport, max_batch_rows: int) -> BatchProfile:
    return BatchProfile(
        key=_path(key.key),
        max_rows=int(max(1, min(key.cap_cost, max_batch_rows))),
        base_seconds=key.fixed_seconds or 0.0,
        seconds_per_cost=key.seconds_per_cost or 0.0,
        observations=key.samples,
    )


def _path(key: Hashable) -> str:
    return "/".join(map(_path, key)) if isinstance(key, tuple) else str(key)
