"""The generator on the wire: convert, delegate, convert."""

from __future__ import annotations

import hashlib
import json
import re
import secrets
import time
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Final, TypeVar

import grpc
import numpy as np
from google.protobuf import json_format
from prometheus_client import CollectorRegistry

from easel.common.v1 import common_pb2
from easel.generator.v1 import generator_pb2, generator_pb2_grpc
from easel.model.v1 import model_pb2
from services.core import images
from services.core.engine import Device
from services.core.errors import EaselError, InvalidInput
from services.core.images import DEFAULT_LIMITS
from services.core.packages import installed_version
from services.core.pool import WorkerPool
from services.core.reference import served_name
from services.core.server.call import current
from services.core.server.engine_app import EngineApplication
from services.generator.adapters import MAX_ADAPTERS, AdapterUse, as_recorded
from services.generator.adapters import VERSION as ADAPTER_VERSION
from services.generator.adapters import versions as adapter_versions
from services.generator.catalogue import GeneratorCatalogue
from services.generator.config import GeneratorSettings
from services.generator.controls import MAX_CONTROLS, ControlUse
from services.generator.controls import VERSION as CONTROL_VERSION
from services.generator.controls import as_recorded as controls_as_recorded
from services.generator.controls import versions as control_versions
from services.generator.diffusion import Result
from services.generator.events import (
    Admitted,
    Blocked,
    Event,
    Failed,
    Finished,
    Previewed,
    Refused,
    Stepped,
    Stopped,
)
from services.generator.modes import (
    Given,
    ImageToImage,
    Inpaint,
    MaskPolarity,
    Mode,
    Stylize,
    TextToImage,
)
from services.generator.network import Conditioning, Effective, Pixels
from services.generator.painter import Painter
from services.generator.parameters import ModelName
from services.generator.prompt_cache import PromptCache, PromptCacheMetrics
from services.generator.provenance import (
    RECORD_KEY,
    Signer,
    check_model,
    check_versions,
    device_class,
    differing,
)
from services.generator.request import (
    ImageFormat,
    LongPrompt,
    Order,
    PreviewMethod,
    PreviewWish,
    Reproducibility,
    RequestLimits,
    Wish,
)
from services.generator.results import Results
from services.generator.samplers import Sampler
from services.generator.session import Session
from services.generator.studio import Studio
from services.generator.verification import (
    Judgement,
    judge_digest,
    judge_pixels,
    judged_from,
)
from services.wire import (
    add_model_service,
    image_from_pb,
    image_output_from_pb,
    image_to_pb,
    item_error_to_pb,
    known,
    model_ref_to_pb,
    timing_to_pb,
)

Item = TypeVar("Item")
Context = grpc.aio.ServicerContext[Any, Any]
Request = generator_pb2.GenerateRequest
Message = generator_pb2.GenerateEvent

_SAMPLERS: Final[dict[int, Sampler | None]] = {
    generator_pb2.SAMPLER_UNSPECIFIED: None,
    **{generator_pb2.Sampler.Value(f"SAMPLER_{sampler.name}"): sampler for sampler in Sampler},
}
_LONG_PROMPTS: Final[dict[int, LongPrompt]] = {
    generator_pb2.LONG_PROMPT_UNSPECIFIED: LongPrompt.ERROR,
    generator_pb2.LONG_PROMPT_ERROR: LongPrompt.ERROR,
    generator_pb2.LONG_PROMPT_TRUNCATE: LongPrompt.TRUNCATE,
    generator_pb2.LONG_PROMPT_CHUNK: LongPrompt.CHUNK,
}
_PREVIEW_METHODS: Final[dict[int, PreviewMethod]] = {
    generator_pb2.PREVIEW_METHOD_UNSPECIFIED: PreviewMethod.FAST,
    generator_pb2.PREVIEW_METHOD_FAST: PreviewMethod.FAST,
    generator_pb2.PREVIEW_METHOD_DECODED: PreviewMethod.DECODED,
}
_REPRODUCIBILITIES: Final[dict[int, Reproducibility]] = {
    generator_pb2.REPRODUCIBILITY_UNSPECIFIED: Reproducibility.CLOSE,
    generator_pb2.REPRODUCIBILITY_CLOSE: Reproducibility.CLOSE,
    generator_pb2.REPRODUCIBILITY_EXACT: Reproducibility.EXACT,
}
_POLARITY_NUMBERS: Final = {
    MaskPolarity.WHITE: generator_pb2.MASK_POLARITY_WHITE_IS_REPAINTED,
    MaskPolarity.TRANSPARENT: generator_pb2.MASK_POLARITY_TRANSPARENT_IS_REPAINTED,
}
_POLARITIES: Final[dict[int, MaskPolarity | None]] = {
    generator_pb2.MASK_POLARITY_UNSPECIFIED: None,
    **{number: polarity for polarity, number in _POLARITY_NUMBERS.items()},
}
_FORMATS: Final = {
    "PNG": common_pb2.IMAGE_FORMAT_PNG,
    "JPEG": common_pb2.IMAGE_FORMAT_JPEG,
    "WEBP": common_pb2.IMAGE_FORMAT_WEBP,
}
_VERSIONS_TOLD: Final = ("easel", "torch", "diffusers", "transformers")


class GeneratorServicer(generator_pb2_grpc.GeneratorServiceServicer):
    """At most ``max_live`` requests of one stream are under way."""

    def __init__(
        self,
        studio: Studio,
        catalogue: GeneratorCatalogue,
        archive: Archive,
        *,
        max_live: int,
    ) -> None:
        self._studio = studio
        self._catalogue = catalogue
        self._archive = archive
        self._max_live = max_live

    async def Generate(self, request: Request, context: Context) -> AsyncGenerator[Message, None]:
        del context
        self._catalogue.get_model(request.model, request.model_version)
        job = self._studio.job(_wish_from_pb(request, self._studio.model.limits), current().caller)
        failures: list[EaselError] = []
        events = job.events()
        try:
            async for event in events:
                if isinstance(event, Failed):
                    failures.append(event.error)
                yield _event_to_pb(request.id, job.order, event)
        finally:
            await events.aclose()
        if len(failures) == len(job.order.seeds):
            raise failures[0]

    async def GenerateStream(
        self,
        request_iterator: AsyncIterable[generator_pb2.GenerateStreamRequest],
        context: Context,
    ) -> AsyncGenerator[Message, None]:
        del context
        session = Session(self._studio, current().caller, max_live=self._max_live)
        told = session.events(self._read(request_iterator, session))
        try:
            async for request_id, order, event in told:
                yield _event_to_pb(request_id, order, event)
        finally:
            await told.aclose()

    async def Verify(
        self, request: generator_pb2.VerifyRequest, context: Context
    ) -> generator_pb2.VerifyResponse:
        del context
        record, prepare = request.provenance, self._studio.prepare
        if not request.HasField("provenance"):
            if not request.HasField("image"):
                raise InvalidInput(
                    "provenance",
                    "Give a record, or a picture that carries one.",
                    "provenance or image",
                    "none",
                )
            record = await prepare.run(self._archive.carried, request.image)
        self._archive.check(record, allow_other_versions=request.allow_other_versions)
        given = (
            await prepare.run(_pixels_from_pb, request.image) if request.HasField("image") else None
        )
        asked = await prepare.run(_with_given, record, request.given)
        wish = _wish_from_pb(asked, self._studio.model.limits)
        if not request.allow_other_versions:
            wish = replace(
                wish,
                adapters=as_recorded(wish.adapters, record.versions),
                controls=controls_as_recorded(wish.controls, record.versions),
            )
        made = await self._studio.picture(replace(wish, omit_steps=True), current().caller)
        if given is None:
            judgement = judge_digest(record.pixel_sha256, made.pixel_sha256)
        else:
            same = record.pixel_sha256 == made.pixel_sha256
            judgement = await prepare.run(_judged, given, made.data, as_recorded=same)
        return _verified_to_pb(judged_from(judgement, _moved(record, made.record)), made)

    async def _read(
        self,
        requests: AsyncIterable[generator_pb2.GenerateStreamRequest],
        session: Session,
    ) -> None:
        async for request in requests:
            try:
                self._act(request, session)
            except EaselError as error:
                await session.fail(_id_of(request), error)

    def _act(self, request: generator_pb2.GenerateStreamRequest, session: Session) -> None:
        limits = self._studio.model.limits
        match request.WhichOneof("action"):
            case "submit":
                submit = request.submit
                self._catalogue.get_model(submit.model, submit.model_version)
                session.submit(_wish_from_pb(submit, limits))
            case "cancel":
                cancel = request.cancel
                indices = _listed("cancel.indices", cancel.indices, limits.max_count)
                session.cancel(cancel.id, indices)
            case "keep_only":
                keep = request.keep_only
                indices = _listed("keep_only.indices", keep.indices, limits.max_count)
                session.keep_only(keep.id, indices)
            case _:
                raise InvalidInput(
                    "action",
                    "Give one of submit, cancel and keep_only.",
                    "submit, cancel or keep_only",
                    "none",
                )


class Archive:
    """A ``Scribe`` of signed ``Provenance`` messages, and the reader of what it wrote."""

    def __init__(self, model: Painter, signer: Signer) -> None:
        self._model = model
        self._signer = signer

    def record(self, order: Order, seed: int, pixel_sha256: str, painted: Effective) -> str:
        name = self._model.name
        record = generator_pb2.Provenance(
            pixel_sha256=pixel_sha256,
            model=model_ref_to_pb(name),
            request=_resolved_to_pb(order, seed, name),
            dtype=painted.precision,
            device=painted.device,
            backend=painted.backend,
            versions={
                **_versions(),
                **adapter_versions(order.adapters),
                **control_versions(order.controls),
                **self._model.versions(
                    (order.prompt, order.negative_prompt),
                    styled=_styles(order.mode),
                    backend=painted.backend,
                ),
            },
            reproducibility=_reproducibility(order),
            given=[
                generator_pb2.GivenPicture(
                    field=given.field, sha256=given.sha256, width=given.width, height=given.height
                )
                for given in order.given
            ],
            # Of the process: what decodes is the same whichever route has painted.
            device_class=device_class(self._model.loaded.effective),
        )
        record.signature = self._signer.sign(_canonical(record).encode())
        return _canonical(record)

    def check(self, record: generator_pb2.Provenance, *, allow_other_versions: bool) -> None:
        """Raises ``InvalidInput`` for a record that was forged, ``FailedPrecondition`` for one
        that cannot be made again here.
        """
        unsigned = generator_pb2.Provenance()
        unsigned.CopyFrom(record)
        unsigned.ClearField("signature")
        self._signer.check(_canonical(unsigned).encode(), record.signature)
        check_model(record.model.digest, self._model.name.digest)
        if not allow_other_versions:
            # Adapters and ControlNets are compared where they are read.
            told, apart = record.versions.items(), (ADAPTER_VERSION, CONTROL_VERSION)
            request = record.request
            own = self._model.versions(
                (request.prompt, request.negative_prompt),
                styled=request.stylize.style_strength > 0.0,
                backend=record.backend,
            )
            check_versions(
                {name: found for name, found in told if not name.startswith(apart)},
                {**_versions(), **own},
            )

    def carried(self, image: common_pb2.Image) -> generator_pb2.Provenance:
        """The record in a picture's own metadata; blocking. Raises ``InvalidInput``."""
        text = images.read_text(image.encoded, field="image.encoded")
        if RECORD_KEY not in text:
            raise InvalidInput(
                "image",
                "The picture carries no record of how it was made.",
                f"a text named {RECORD_KEY}",
                f"{len(text)} other texts",
            )
        try:
            return json_format.Parse(text[RECORD_KEY], generator_pb2.Provenance())
        except json_format.ParseError as error:
            raise InvalidInput(
                "image",
                "The record that the picture carries is broken.",
                "a Provenance as JSON",
                f"{text[RECORD_KEY][:80]!r}",
            ) from error


class GeneratorApp(EngineApplication[Any, Result]):
    """The generator's process."""

    service_names = (
        generator_pb2.DESCRIPTOR.services_by_name["GeneratorService"].full_name,
        model_pb2.DESCRIPTOR.services_by_name["ModelService"].full_name,
    )

    def __init__(
        self,
        settings: GeneratorSettings,
        model: Painter,
        *,
        prompt_cache: PromptCache[Conditioning] | None = None,
        registry: CollectorRegistry | None = None,
        device: Device | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        name = served_name(settings.model, settings.model_name)
        super().__init__(
            model,
            name=name,
            limits=settings.engine_limits,
            registry=registry,
            device=device,
            clock=clock,
        )
        self.settings = settings
        if prompt_cache is not None:
            PromptCacheMetrics(prompt_cache, name, self.registry)
        # One pool each: a rush of new prompts must not hold up finished pictures, nor weights that
        # are being read those who need none.
        prepare = WorkerPool("prepare", settings.worker_threads, settings.worker_pending)
        load = WorkerPool("load", settings.worker_threads, settings.worker_pending)
        finish = WorkerPool("finish", settings.worker_threads, settings.worker_pending)
        self.pools = (prepare, load, finish)
        signer = settings.signer
        self._archive = Archive(model, signer)
        told = {
            "signing_key": str(signer),
            "content_credentials": settings.c2pa_algorithm if settings.c2pa_key_file else "none",
        }
        self._catalogue = GeneratorCatalogue(model, self.engine, told)
        self._studio = Studio(
            model,
            self.engine,
            prepare=prepare,
            load=load,
            finish=finish,
            scribe=self._archive,
            draw_seed=lambda: secrets.randbelow(2**32),
            results=(
                Results(settings.result_cache_bytes, self.registry)
                if settings.result_cache_bytes
                else None
            ),
            credentials=settings.credentials,
            least_steps=settings.degrade_min_steps,
        )

    def register(self, server: grpc.aio.Server) -> None:
        servicer = GeneratorServicer(
            self._studio,
            self._catalogue,
            self._archive,
            max_live=self.settings.max_live_requests,
        )
        generator_pb2_grpc.add_GeneratorServiceServicer_to_server(servicer, server)
        add_model_service(server, self._catalogue)


def _wish_from_pb(request: Request, limits: RequestLimits) -> Wish:
    return Wish(
        id=request.id,
        mode=_mode_from_pb(request),
        prompt=request.prompt,
        negative_prompt=request.negative_prompt,
        width=request.width,
        height=request.height,
        steps=request.steps if request.HasField("steps") else None,
        guidance_scale=request.guidance_scale if request.HasField("guidance_scale") else None,
        guidance_rescale=request.guidance_rescale,
        sampler=known(_SAMPLERS, request.sampler, "sampler"),
        seed=request.seed if request.HasField("seed") else None,
        seeds=_listed("seeds", request.seeds, limits.max_count),
        count=request.count,
        preview=_preview_from_pb(request.preview, limits),
        output=ImageFormat(*image_output_from_pb(request.output, field="output")),
        long_prompt=known(_LONG_PROMPTS, request.long_prompt, "long_prompt"),
        reproducibility=known(_REPRODUCIBILITIES, request.reproducibility, "reproducibility"),
        allow_degrade=request.allow_degrade,
        prompt_weighting=request.prompt_weighting,
        clip_skip=request.clip_skip,
        omit_steps=request.omit_steps,
        omit_metadata=request.omit_metadata,
        in_step=request.in_step,
        adapters=_adapters_from_pb(request.adapters),
        controls=_controls_from_pb(request.controls),
        cache_interval=request.cache_interval,
        tiled=request.tiled_decode,
    )


def _adapters_from_pb(adapters: Sequence[generator_pb2.Adapter]) -> tuple[AdapterUse, ...]:
    return tuple(
        AdapterUse(adapter.name, _as_written(adapter.scale) if adapter.HasField("scale") else 1.0)
        for adapter in _listed("adapters", adapters, MAX_ADAPTERS)
    )


def _controls_from_pb(controls: Sequence[generator_pb2.Control]) -> tuple[ControlUse, ...]:
    return tuple(
        ControlUse(
            name=control.name,
            image=_given(control.image, f"controls[{index}].image"),
            scale=_as_written(control.scale) if control.HasField("scale") else 1.0,
            start=_as_written(control.start),
            end=_as_written(control.end) if control.HasField("end") else 1.0,
        )
        for index, control in enumerate(_listed("controls", controls, MAX_CONTROLS))
    )


def _mode_from_pb(request: Request) -> Mode:
    match request.WhichOneof("mode"):
        case "image_to_image":
            asked = request.image_to_image
            image = _given(asked.image, "image_to_image.image")
            return ImageToImage(image, _as_written(asked.strength))
        case "inpaint":
            return _inpaint_from_pb(request.inpaint)
        case "stylize":
            return _stylize_from_pb(request.stylize)
        case _:
            return TextToImage()


def _inpaint_from_pb(asked: generator_pb2.Inpaint) -> Inpaint:
    polarity = known(_POLARITIES, asked.polarity, "inpaint.polarity")
    if polarity is None:
        raise InvalidInput(
            "inpaint.polarity",
            "Say which part of the mask is to be repainted: it is never guessed.",
            "WHITE_IS_REPAINTED or TRANSPARENT_IS_REPAINTED",
            "UNSPECIFIED",
        )
    return Inpaint(
        image=_given(asked.image, "inpaint.image"),
        mask=_given(asked.mask, "inpaint.mask"),
        polarity=polarity,
        strength=_as_written(asked.strength) if asked.HasField("strength") else 1.0,
        feather_px=asked.feather_px,
        padding_px=asked.padding_px if asked.HasField("padding_px") else None,
    )


def _stylize_from_pb(asked: generator_pb2.Stylize) -> Stylize:
    return Stylize(
        _given(asked.content, "stylize.content"),
        _given(asked.style, "stylize.style"),
        _as_written(asked.content_strength) if asked.HasField("content_strength") else 0.5,
        _as_written(asked.style_strength) if asked.HasField("style_strength") else 0.5,
    )


def _given(image: common_pb2.Image, field: str) -> Given:
    return Given(
        field=field,
        load=partial(image_from_pb, image, field=field, limits=DEFAULT_LIMITS),
        sha256=partial(_digest, image),
    )


def _digest(image: common_pb2.Image) -> str:
    if not image.HasField("raw"):
        return hashlib.sha256(image.encoded).hexdigest()
    raw = image.raw
    shape = f"{raw.width} {raw.height} {raw.channels} {raw.dtype} {raw.layout}\n"
    return hashlib.sha256(shape.encode() + raw.data).hexdigest()


def _as_written(number: float) -> float:
    """A float32 of the wire as the decimal that its caller wrote: ten steps of 0.7 are seven."""
    return float(f"{number:.6g}")


def _preview_from_pb(preview: generator_pb2.Preview, limits: RequestLimits) -> PreviewWish:
    return PreviewWish(
        every=preview.every,
        at_steps=_listed("preview.at_steps", preview.at_steps, limits.max_steps),
        method=known(_PREVIEW_METHODS, preview.method, "preview.method"),
        output=ImageFormat(*image_output_from_pb(preview.output, field="preview.output")),
    )


def _listed(field: str, values: Sequence[Item], most: int) -> tuple[Item, ...]:
    # Counted before it is copied: one message has room for millions.
    if len(values) > most:
        raise InvalidInput(field, f"{field} has too many entries.", most, len(values))
    return tuple(values)


def _id_of(request: generator_pb2.GenerateStreamRequest) -> str:
    action = request.WhichOneof("action")
    return getattr(request, action).id if action else ""


def _event_to_pb(request_id: str, order: Order | None, event: Event) -> Message:
    message = Message(id=request_id, index=event.index)
    match event:
        case Admitted():
            message.admitted.position = event.position
            message.admitted.eta_seconds = event.eta_seconds
            message.admitted.seed = event.seed
            message.admitted.steps = event.steps
        case Stepped():
            message.step.step = event.step
            message.step.steps = event.steps
        case Previewed():
            message.preview.CopyFrom(_preview_to_pb(event))
        case Finished():
            assert order is not None
            message.image.CopyFrom(_image_to_pb(order, event))
        case Stopped():
            message.stopped.step = event.step
            message.stopped.steps = event.steps
        case Blocked():
            message.blocked.reason = event.reason
        case Failed():
            message.failed.CopyFrom(item_error_to_pb(event.error))
        case Refused():
            message.refused.CopyFrom(item_error_to_pb(event.error))
    return message


def _preview_to_pb(event: Previewed) -> generator_pb2.PreviewImage:
    return generator_pb2.PreviewImage(
        image=image_to_pb(event.data),
        step=event.step,
        steps=event.steps,
        width=event.width,
        height=event.height,
    )


def _image_to_pb(order: Order, event: Finished) -> generator_pb2.GeneratedImage:
    return generator_pb2.GeneratedImage(
        image=image_to_pb(event.data),
        seed=event.seed,
        timing=timing_to_pb(event.timing),
        provenance=json_format.Parse(event.record, generator_pb2.Provenance()),
        width=event.width,
        height=event.height,
        steps=order.steps_taken,
        cached=event.cached,
        degraded=order.degraded,
    )


def _resolved_to_pb(order: Order, seed: int, name: ModelName) -> Request:
    output = common_pb2.ImageOutput(
        format=_FORMATS[order.output.name], quality=order.output.quality
    )
    resolved = Request(
        model=name.name,
        model_version=name.version,
        prompt=order.prompt,
        negative_prompt=order.negative_prompt,
        width=order.width,
        height=order.height,
        steps=order.steps,
        guidance_scale=order.guidance_scale,
        guidance_rescale=order.guidance_rescale,
        sampler=_sampler_to_pb(order),
        seed=seed,
        count=1,
        output=output,
        long_prompt=generator_pb2.LongPrompt.Value(f"LONG_PROMPT_{order.long_prompt.name}"),
        reproducibility=_reproducibility(order),
        prompt_weighting=order.prompt_weighting,
        clip_skip=order.clip_skip,
        omit_metadata=order.omit_metadata,
        adapters=[generator_pb2.Adapter(name=use.name, scale=use.scale) for use in order.adapters],
        # Without the pictures, as the mode is.
        controls=[
            generator_pb2.Control(name=use.name, scale=use.scale, start=use.start, end=use.end)
            for use in order.controls
        ],
        cache_interval=order.cache_interval,
        tiled_decode=order.tiled,
    )
    _set_mode(resolved, order.mode)
    return resolved


def _sampler_to_pb(order: Order) -> generator_pb2.Sampler.ValueType:
    if order.scheduler:
        return generator_pb2.SAMPLER_UNSPECIFIED
    return generator_pb2.Sampler.Value(f"SAMPLER_{order.sampler.name}")


def _set_mode(resolved: Request, mode: Mode) -> None:
    """The mode without the pictures, which may be large; they are recorded beside it."""
    match mode:
        case TextToImage():
            resolved.text_to_image.SetInParent()
        case ImageToImage():
            resolved.image_to_image.strength = mode.strength
        case Inpaint():
            resolved.inpaint.polarity = _POLARITY_NUMBERS[mode.polarity]
            resolved.inpaint.strength = mode.strength
            resolved.inpaint.feather_px = mode.feather_px
            if mode.padding_px is not None:
                resolved.inpaint.padding_px = mode.padding_px
        case Stylize():
            resolved.stylize.content_strength = mode.content_strength
            resolved.stylize.style_strength = mode.style_strength


def _styles(mode: Mode) -> bool:
    return isinstance(mode, Stylize) and mode.style_strength > 0.0


def _reproducibility(order: Order) -> generator_pb2.Reproducibility.ValueType:
    return generator_pb2.Reproducibility.Value(f"REPRODUCIBILITY_{order.reproducibility.name}")


def _canonical(record: generator_pb2.Provenance) -> str:
    """One text for equal records, whatever library has read and written them in between."""
    fields = json_format.MessageToDict(record, preserving_proto_field_name=True)
    return json.dumps(fields, ensure_ascii=False, sort_keys=True, separators=(",", ":"))


def _with_given(record: generator_pb2.Provenance, pictures: Sequence[common_pb2.Image]) -> Request:
    """The recorded request with its pictures in it again; blocking. Raises ``InvalidInput``."""
    found = {_digest(picture): picture for picture in pictures}
    request = Request()
    request.CopyFrom(record.request)
    for each in record.given:
        if each.sha256 not in found:
            raise InvalidInput(
                "given",
                f"The picture that was {each.field} in the request is needed to make it again.",
                f"sha256 {each.sha256}",
                f"{len(pictures)} other pictures",
            )
        _at(request, each.field).CopyFrom(found[each.sha256])
    return request


def _at(message: Any, path: str) -> Any:
    """The message at a dotted path, whose parts may have an index: "controls[0].image"."""
    for name, index in re.findall(r"(\w+)(?:\[(\d+)\])?", path):
        message = getattr(message, name)[int(index)] if index else getattr(message, name)
    return message


def _pixels_from_pb(message: common_pb2.Image) -> Pixels:
    image = image_from_pb(message, field="image", limits=images.DEFAULT_LIMITS)
    return np.asarray(images.to_rgb(image))


def _judged(given: Pixels, data: bytes, *, as_recorded: bool) -> Judgement:
    # The format that loses a little has lost it in both.
    made = np.asarray(images.to_rgb(images.decode(data)))
    return judge_pixels(given, made, as_recorded=as_recorded)


def _moved(record: generator_pb2.Provenance, made: str) -> str:
    """What the picture was made by that it was not made by now, of what decides on its last bits
    beside the versions.
    """
    now = json_format.Parse(made, generator_pb2.Provenance())
    there, here = (
        {"dtype": each.dtype, "backend": each.backend, "device class": each.device_class}
        for each in (record, now)
    )
    return differing(there, here)


def _verified_to_pb(judgement: Judgement, made: Finished) -> generator_pb2.VerifyResponse:
    return generator_pb2.VerifyResponse(
        verdict=generator_pb2.Verdict.Value(f"VERDICT_{judgement.verdict.name}"),
        psnr_db=judgement.psnr_db,
        pixel_sha256=made.pixel_sha256,
        image=image_to_pb(made.data),
        max_difference=judgement.max_difference,
        explanation=judgement.explanation,
    )


def _versions() -> dict[str, str]:
    return {name: found for name in _VERSIONS_TOLD if (found := installed_version(name))}
