"""Settings of the generator service: ``EASEL_GENERATOR_...``."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Final, Literal

from pydantic import DirectoryPath, Field, ValidationInfo
from pydantic import field_validator as validates

from services.core.artifacts import ArtifactStore
from services.core.config import ServiceSettings
from services.core.engine import EngineLimits
from services.generator.backends import Wanted
from services.generator.credentials import Credentials
from services.generator.image_adapter import ImageAdapterFolder
from services.generator.model import AdapterFolder, Bounds, ControlFolder, Defaults
from services.generator.provenance import Signer, read_keys

_ENGINE_ONLY: Final = (
    "adapters_dir",
    "controls_dir",
    "embeddings_dir",
    "ip_adapter_directory",
    "preview_decoder",
)


class GeneratorSettings(ServiceSettings):
    service: ClassVar[str] = "generator"

    model: str = Field(
        "demo",
        min_length=1,
        description='"demo", a directory, a .safetensors file, or org/name[@revision] of the hub',
    )
    model_name: str = Field(
        "", description="name it is served under; the reference's last part when empty"
    )
    unpacked_directory: str = Field(
        "~/.cache/easel/unpacked",
        min_length=1,
        description="where a model that is one .safetensors file is unpacked, once",
    )
    device: str = Field(
        "auto", pattern=r"^(auto|cpu|cuda(:\d+)?)$", description='"auto", "cpu", "cuda" or "cuda:N"'
    )
    backend: Literal["auto", "pytorch", "openvino"] = Field(
        "auto", description='"auto" is OpenVINO on an x86 processor where it is installed'
    )
    precision: Literal["auto", "float32", "bfloat16", "float16", "int8"] = Field(
        "auto",
        description='"auto" is float16 on a GPU, and on a processor bfloat16 where it is faster in '
        "it, else float32; int8 is the U-Net's in OpenVINO, made at the first start",
    )
    compile: bool = Field(
        False,
        description="compile PyTorch's U-Net and decoder at the start, which takes minutes, for "
        "pictures of the model's own size",
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
    safety_checker: bool = Field(
        True, description="withholds what the model's safety checker flags, where it brings one"
    )
    default_steps: int | None = Field(
        None, ge=1, le=1000, description="steps where a request says none; the model's own"
    )
    default_guidance_scale: float | None = Field(
        None, ge=0, le=100, description="guidance where a request says none; the model's own"
    )
    max_pixels: int | None = Field(
        None, ge=1, description="most pixels of one picture; 4 times the model's default size"
    )
    max_steps: int = Field(150, ge=1, le=1000, description="most steps of one picture")
    degrade_min_steps: int = Field(
        8, ge=1, le=1000, description="fewest steps of a picture that may be degraded"
    )
    max_count: int = Field(16, ge=1, le=1024, description="most pictures of one request")
    adapters_dir: DirectoryPath | None = Field(
        None, description="folder of low-rank adapters, one safetensors file or folder each"
    )
    adapters_kept: int = Field(
        16, ge=1, le=4096, description="adapters that stay in memory, the last used ones"
    )
    ip_adapter_directory: DirectoryPath | None = Field(
        None,
        description="IP-Adapter that stylize uses: a folder with ip-adapter*.safetensors and "
        "image_encoder",
    )
    ip_adapter_blocks: str = Field(
        "",
        description='blocks of the U-Net that see the style, with commas between, or "all"; the '
        "style block up_blocks.0.attentions.1 for Stable Diffusion XL, else all",
    )
    controls_dir: DirectoryPath | None = Field(
        None, description="folder of ControlNets, one diffusers folder of safetensors each"
    )
    controls_kept: int = Field(
        4, ge=1, le=256, description="ControlNets that stay in memory, the last used ones"
    )
    max_live_requests: int = Field(
        64, ge=1, le=4096, description="requests of one stream under way at a time"
    )
    embeddings_dir: DirectoryPath | None = Field(
        None, description="textual inversions, as .safetensors files; loaded at the start"
    )
    preview_decoder: DirectoryPath | None = Field(
        None,
        description="directory of a diffusers AutoencoderTiny, which then decodes fast previews",
    )
    prompt_cache_mb: int = Field(
        64, ge=0, le=65536, description="megabytes of encoded prompts that are kept; 0 keeps none"
    )
    warm_up_seconds: float = Field(
        5.0, ge=0, le=600, description="about how long batches are tried out before serving"
    )
    worker_threads: int = Field(
        2, ge=1, le=256, description="threads that read prompts, and encode"
    )
    worker_pending: int = Field(
        1024, ge=1, le=65536, description="prompts and pictures that may wait for those threads"
    )
    result_cache_bytes: int = Field(
        0,
        ge=0,
        description="bytes of finished pictures kept for requests that give the same seeds again,"
        " whoever asks; 0 keeps none and shares none under way",
    )
    signing_key_file: Path | None = Field(
        None,
        description="keys that sign records, 64 hexadecimal digits a line, the first for new ones;"
        " unset, one is drawn at start",
    )
    c2pa_certificate_file: Path | None = Field(
        None,
        description="PEM certificates, the signing one first, for C2PA manifests in pictures;"
        " unset, there are none",
    )
    c2pa_key_file: Path | None = Field(None, description="PEM key (PKCS #8) of that certificate")
    c2pa_algorithm: Literal["es256", "es384", "es512", "ps256", "ps384", "ps512", "ed25519"] = (
        Field("es256", description="what that key signs with")
    )
    max_rows: int = Field(
        256, ge=1, description="pictures admitted and not finished; at least max_count"
    )
    max_backlog_seconds: float = Field(
        120.0, gt=0, description="predicted seconds of admitted work; more is refused"
    )
    max_batch_rows: int = Field(32, ge=1, description="pictures in one step, at most")
    max_step_seconds: float = Field(
        1.0, gt=0, description="longest predicted step, but for one picture alone"
    )
    batch_wait_seconds: float = Field(
        0.0, ge=0, le=10, description="how long an idle device waits for company"
    )

    @validates("max_rows")
    @classmethod
    def _room_for_one_request(cls, max_rows: int, info: ValidationInfo) -> int:
        max_count = info.data.get("max_count", 1)
        if max_rows < max_count:
            raise ValueError(f"a request of max_count {max_count} pictures must fit")
        return max_rows

    @validates("ip_adapter_blocks")
    @classmethod
    def _of_an_adapter(cls, blocks: str, info: ValidationInfo) -> str:
        if blocks and info.data.get("ip_adapter_directory", blocks) is None:
            raise ValueError("needs ip_adapter_directory")
        return blocks

    @validates("signing_key_file")
    @classmethod
    def _readable_keys(cls, path: Path | None) -> Path | None:
        try:
            if path is not None:
                read_keys(path)
        except OSError as error:
            raise ValueError(f"cannot be read: {error.strerror}") from error
        return path

    @validates("c2pa_algorithm")
    @classmethod
    def _able_to_sign(cls, algorithm: str, info: ValidationInfo) -> str:
        certificate = info.data.get("c2pa_certificate_file")
        key = info.data.get("c2pa_key_file")
        if (certificate is None) != (key is None):
            raise ValueError("c2pa_certificate_file and c2pa_key_file belong together: set both")
        try:
            if certificate is not None and key is not None:
                Credentials.load(certificate, key, algorithm)
        except OSError as error:
            raise ValueError(f"{error.filename} cannot be read: {error.strerror}") from error
        return algorithm

    @property
    def credentials(self) -> Credentials | None:
        certificate, key = self.c2pa_certificate_file, self.c2pa_key_file
        if certificate is None or key is None:
            return None
        return Credentials.load(certificate, key, self.c2pa_algorithm)

    @property
    def signer(self) -> Signer:
        return Signer.from_file(self.signing_key_file) if self.signing_key_file else Signer.drawn()

    @property
    def unpacked(self) -> Path:
        return Path(self.unpacked_directory).expanduser()

    @property
    def wanted(self) -> Wanted:
        return Wanted(self.backend, self.device, self.precision, self.compile)

    @property
    def store(self) -> ArtifactStore:
        return ArtifactStore(Path(self.converted_directory).expanduser())

    @property
    def defaults(self) -> Defaults:
        return Defaults(self.default_steps, self.default_guidance_scale)

    @property
    def bounds(self) -> Bounds:
        return Bounds(self.max_pixels, self.max_steps, self.max_count)

    @property
    def adapters(self) -> AdapterFolder:
        return AdapterFolder(self.adapters_dir, self.adapters_kept)

    @property
    def image_adapter(self) -> ImageAdapterFolder | None:
        blocks = tuple(filter(None, map(str.strip, self.ip_adapter_blocks.split(","))))
        path = self.ip_adapter_directory
        return None if path is None else ImageAdapterFolder(path, blocks)

    @property
    def engine_only(self) -> dict[str, Path]:
        """The folders that are given for what only models of the step engine use, by the names of
        their settings.
        """
        folders = {name: getattr(self, name) for name in _ENGINE_ONLY}
        return {f"EASEL_GENERATOR_{name.upper()}": path for name, path in folders.items() if path}

    @property
    def controls(self) -> ControlFolder:
        return ControlFolder(self.controls_dir, self.controls_kept)

    @property
    def engine_limits(self) -> EngineLimits:
        return EngineLimits(
            max_rows=self.max_rows,
            max_backlog_seconds=self.max_backlog_seconds,
            max_batch_rows=self.max_batch_rows,
            max_step_seconds=self.max_step_seconds,
            batch_wait_seconds=self.batch_wait_seconds,
        )
