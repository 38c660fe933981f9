"""What a model service tells about its model: one plain record, no contract in it.

``services.wire`` turns a card into ``easel.model.v1.ModelInfo``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum


class ModelKind(Enum):
    CLASSIFIER = "classifier"
    GENERATOR = "generator"


class ModelState(Enum):
    LOADING = "loading"
    WARMING_UP = "warming_up"
    READY = "ready"
    UNLOADING = "unloading"
    UNLOADED = "unloaded"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class BatchProfile:
    """The measured cost of one kind of step: ``seconds = base_seconds + seconds_per_cost * cost``.

    ``max_rows`` is the cap in force now, after the cost model and any out-of-memory.
    """

    key: str
    max_rows: int
    base_seconds: float = 0.0
    seconds_per_cost: float = 0.0
    observations: int = 0


@dataclass(frozen=True, slots=True)
class EffectiveConfig:
    """What is really in force, not what was asked for."""

    backend: str = ""
    device: str = ""
    device_name: str = ""
    precision: str = ""
    threads: int = 0
    batches: tuple[BatchProfile, ...] = ()
    max_backlog_seconds: float = 0.0
    max_rows: int = 0
    extra: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ClassifierDetails:
    """``labels`` by index; ``layers`` is the largest hidden layer ``Embed`` may name."""

    labels: tuple[str, ...] = ()
    image_width: int = 0
    image_height: int = 0
    patch_size: int = 0
    layers: int = 0
    hidden_size: int = 0
    multi_label: bool = False


@dataclass(frozen=True, slots=True)
class GeneratorDetails:
    """Sizes in pixels; ``size_multiple`` divides every served width and height."""

    samplers: tuple[str, ...] = ()
    default_sampler: str = ""
    default_width: int = 0
    default_height: int = 0
    size_multiple: int = 0
    max_pixels: int = 0
    max_steps: int = 0
    max_count: int = 0
    default_steps: int = 0
    default_guidance_scale: float = 0.0
    max_prompt_tokens: int = 0
    modes: tuple[str, ...] = ()
    adapters: tuple[str, ...] = ()
    step_engine: bool = False
    prediction_type: str = ""
    layout: str = ""
    safety_checker: bool = False
    embeddings: tuple[str, ...] = ()
    controls: tuple[str, ...] = ()
    max_clip_skip: int = 0


@dataclass(frozen=True, slots=True)
class ModelCard:
    """One served model.

    ``digest`` is ``"sha256:..."`` over the manifest of its files; ``loaded_at`` is in seconds
    since the epoch, None until it is ready; ``traffic_share`` is 0 to 1.
    """

    name: str
    kind: ModelKind
    state: ModelState
    version: str = ""
    digest: str = ""
    error: str = ""
    loaded_at: float | None = None
    architecture: str = ""
    parameters: int = 0
    bytes_in_memory: int = 0
    config: EffectiveConfig = EffectiveConfig()
    details: ClassifierDetails | GeneratorDetails | None = None
    traffic_share: float = 1.0
    licence: str = ""
