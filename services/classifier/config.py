"""Settings of the classifier service: ``EASEL_CLASSIFIER_...``."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Final

from pydantic import Field

from services.classifier.network import BackendName, Options, Precision, ProviderName
from services.core.artifacts import ArtifactStore
from services.core.config import AdministeredSettings
from services.core.engine import EngineLimits
from services.core.images import ImageLimits

DEVICE: Final = r"auto|cpu|cuda(:\d+)?"
"""What ``device`` may be, as a regular expression."""


class ClassifierSettings(AdministeredSettings):
    service: ClassVar[str] = "classifier"

    model: str = Field(
        "demo", min_length=1, description='"demo", a directory, or org/name[@revision] of the hub'
    )
    model_name: str = Field(
        "", description="name it is served under; the reference's last part when empty"
    )
    models_dir: Path | None = Field(
        None, description="directory below which LoadModel may name models, by their path from it"
    )
    load_from_hub: bool = Field(True, description="LoadModel may name models of the hub")
    memory_budget_bytes: int | None = Field(
        None,
        ge=1,
        description="most bytes of weights in memory; the least recently used models make room",
    )
    device: str = Field(
        "auto", pattern=f"^({DEVICE})$", description='"auto", "cpu", "cuda" or "cuda:N"'
    )
    backend: BackendName = Field(
        "auto",
        description='"auto" is PyTorch on a GPU, and OpenVINO on an x86 processor where it is '
        "installed",
    )
    providers: tuple[ProviderName, ...] = Field(
        (),
        description="execution providers of ONNX Runtime, best first, with commas between: "
        "tensorrt, cuda, cpu; by the device when empty",
    )
    compiled: bool = Field(False, description="PyTorch compiles the layers, at the first batches")
    precision: Precision = Field(
        "auto",
        description='"auto" takes bfloat16 where the device is measured to be faster in it, and '
        "what was quantised where the model was",
    )
    threads: int | None = Field(
        None,
        ge=1,
        le=1024,
        description="threads of one step on the processor; the backend's choice",
    )
    converted_directory: str = Field(
        "~/.cache/easel/converted",
        min_length=1,
        description="where a model as another backend reads it is kept, made once",
    )
    image_size: int | None = Field(
        None,
        ge=8,
        le=4096,
        description="side of the squares that the network is given, in pixels; the model's own",
    )
    decode_threads: int = Field(2, ge=1, le=256, description="threads that decode pictures")
    decode_pending: int = Field(
        256, ge=1, le=65536, description="pictures that may wait for those threads"
    )
    max_image_bytes: int = Field(
        ImageLimits().max_bytes, ge=1, description="largest encoded picture"
    )
    max_image_pixels: int = Field(
        ImageLimits().max_pixels, ge=1, description="most pixels of a picture, by its header"
    )
    max_image_side: int = Field(
        ImageLimits().max_side, ge=1, description="longest side of a picture, in pixels"
    )
    max_in_flight: int = Field(
        32, ge=1, le=4096, description="pictures of one stream under way at a time"
    )
    max_rows: int = Field(1024, ge=1, description="pictures admitted and not finished")
    max_backlog_seconds: float = Field(
        30.0, gt=0, description="predicted seconds of admitted work; more is refused"
    )
    max_batch_rows: int = Field(64, ge=1, description="pictures in one step, at most")
    max_step_seconds: float = Field(
        0.5, gt=0, description="longest predicted step, but for one picture alone"
    )
    batch_wait_seconds: float = Field(
        0.0, ge=0, le=10, description="how long an idle device waits for company"
    )

    @property
    def network_options(self) -> Options:
        return Options(
            self.device,
            self.precision,
            self.threads,
            image_size=self.image_size,
            backend=self.backend,
            providers=self.providers,
            compiled=self.compiled,
        )

    @property
    def store(self) -> ArtifactStore:
        return ArtifactStore(Path(self.converted_directory).expanduser())

    @property
    def image_limits(self) -> ImageLimits:
        return ImageLimits(self.max_image_bytes, self.max_image_pixels, self.max_image_side)

    @property
    def engine_limits(self) -> EngineLimits:
        return EngineLimits(
            max_rows=self.max_rows,
            max_backlog_seconds=self.max_backlog_seconds,
            max_batch_rows=self.max_batch_rows,
            max_step_seconds=self.max_step_seconds,
            batch_wait_seconds=self.batch_wait_seconds,
        )
