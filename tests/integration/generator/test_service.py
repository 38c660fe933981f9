import asyncio
import hashlib
import io
import math
from collections.abc import AsyncIterator, Iterable
from typing import Any, cast

import grpc
import numpy as np
import pytest
import pytest_asyncio
from PIL import Image, ImageOps

from easel.client.errors import EaselClientError
from easel.common.v1 import common_pb2
from easel.generator.v1 import generator_pb2 as pb
from easel.generator.v1 import generator_pb2_grpc
from easel.model.v1 import model_pb2, model_pb2_grpc
from services.generator.samplers import Sampler
from tests.integration.generator.server import fake_app, until
from tests.integration.serving import serving
from tests.unit.generator.fakes import SIDE, FakeNetwork
from tests.unit.generator.pictures import mask, picture
from tests.unit.generator.timed import TimedNetwork

INVALID = grpc.StatusCode.INVALID_ARGUMENT
WHITE = pb.MASK_POLARITY_WHITE_IS_REPAINTED
NO_PICTURE = common_pb2.Image(encoded=b"not a picture at all")


class Service:
    """A running generator; ``network.gate`` holds every step back while it is clear."""

    def __init__(self) -> None:
        self.network = FakeNetwork()
        self.app = fake_app(self.network, max_live_requests=3)
        self.stub: generator_pb2_grpc.GeneratorServiceAsyncStub
        self.models: model_pb2_grpc.ModelServiceAsyncStub

    @property
    def rows(self) -> int:
        return self.app.engine.report().rows

    async def idle(self) -> None:
        await until(lambda: self.rows == 0)

    async def generate(self, **fields: Any) -> list[pb.GenerateEvent]:
        return [event async for event in self.stub.Generate(pb.GenerateRequest(**fields))]


@pytest_asyncio.fixture
async def service() -> AsyncIterator[Service]:
    running = Service()
    async with serving(running.app) as channel:
        running.stub = generator_pb2_grpc.GeneratorServiceStub(channel)
        running.models = model_pb2_grpc.ModelServiceStub(channel)
        yield running
        running.network.gate.set()
        await running.idle()
    samples = {s.name: s.value for f in running.app.registry.collect() for s in f.samples}
    assert samples["easel_rows"] == 0
    assert samples["easel_backlog_seconds"] == 0


def kinds(events: Iterable[pb.GenerateEvent]) -> list[str]:
    return [str(event.WhichOneof("event")) for event in events]


def submit(**fields: Any) -> pb.GenerateStreamRequest:
    return pb.GenerateStreamRequest(submit=pb.GenerateRequest(**fields))


def violations(error: Any) -> list[str]:
    return [violation.field for violation in EaselClientError.from_call(error).violations]


async def test_a_pictures_life(service: Service) -> None:
    events = await service.generate(id="a", prompt="a star", steps=4, seed=7)
    assert kinds(events)[0] == "admitted"
    assert kinds(events)[-1] == "image"
    assert {event.id for event in events} == {"a"}
    assert (events[0].admitted.seed, events[0].admitted.steps) == (7, 4)
    told = [event.step.step for event in events if event.HasField("step")]
    assert told == sorted(set(told))
    assert all(event.step.steps == 4 for event in events if event.HasField("step"))
    image = events[-1].image
    assert (image.seed, image.width, image.height, image.steps) == (7, SIDE, SIDE, 4)
    assert image.timing.steps == 6
    assert image.timing.batch_rows == 1


async def test_the_picture_and_its_provenance(service: Service) -> None:
    [*_, last] = await service.generate(prompt="a star", negative_prompt="blue", steps=3, seed=9)
    picture = Image.open(io.BytesIO(last.image.image.encoded))
    assert (picture.format, picture.size) == ("PNG", (SIDE, SIDE))
    lines = picture.info["parameters"].split("\n")
    assert lines[:2] == ["a star", "Negative prompt: blue"]
    assert lines[2].startswith("Steps: 3, Sampler: DDIM, CFG scale: 3, Seed: 9, Size: 32x32, ")
    made = last.image.provenance
    assert made.pixel_sha256 == hashlib.sha256(np.asarray(picture).tobytes()).hexdigest()
    assert made.model.digest.startswith("sha256:")
    assert (made.request.steps, made.request.seed, made.request.count) == (3, 9, 1)
    assert made.request.sampler == pb.SAMPLER_DDIM
    assert (made.dtype, made.device, made.backend) == ("float32", "cpu", "fake")
    [*_, again] = [e async for e in service.stub.Generate(made.request)]
    assert again.image.provenance.pixel_sha256 == made.pixel_sha256


async def test_omitting_metadata_and_steps(service: Service) -> None:
    events = await service.generate(prompt="a star", omit_metadata=True, omit_steps=True)
    assert kinds(events) == ["admitted", "image"]
    picture = Image.open(io.BytesIO(events[-1].image.image.encoded))
    assert "parameters" not in picture.info


@pytest.mark.parametrize(
    ("number", "name"),
    [(common_pb2.IMAGE_FORMAT_JPEG, "JPEG"), (common_pb2.IMAGE_FORMAT_WEBP, "WEBP")],
)
async def test_formats(service: Service, number: Any, name: str) -> None:
    output = common_pb2.ImageOutput(format=number, quality=80)
    [*_, last] = await service.generate(output=output)
    assert Image.open(io.BytesIO(last.image.image.encoded)).format == name


@pytest.mark.parametrize("sampler", Sampler)
async def test_every_sampler_is_served(service: Service, sampler: Sampler) -> None:
    number = pb.Sampler.Value(f"SAMPLER_{sampler.name}")
    [*_, last] = await service.generate(steps=3, sampler=number)
    assert last.image.provenance.request.sampler == number


async def test_several_pictures_share_batches(service: Service) -> None:
    events = await service.generate(count=3, seed=5, steps=3)
    images = {event.index: event.image for event in events if event.HasField("image")}
    assert {index: image.seed for index, image in images.items()} == {0: 5, 1: 6, 2: 7}
    assert len({image.provenance.pixel_sha256 for image in images.values()}) == 3
    [*_, alone] = await service.generate(seed=6, steps=3)
    assert alone.image.provenance.pixel_sha256 == images[1].provenance.pixel_sha256


async def test_previews(service: Service) -> None:
    preview = pb.Preview(every=2, method=pb.PREVIEW_METHOD_DECODED)
    events = await service.generate(steps=5, preview=preview)
    shown = [event.preview for event in events if event.HasField("preview")]
    assert [(p.step, p.steps, p.width, p.height) for p in shown] == [
        (2, 5, SIDE, SIDE),
        (4, 5, SIDE, SIDE),
    ]
    assert Image.open(io.BytesIO(shown[0].image.encoded)).size == (SIDE, SIDE)
    fast = await service.generate(steps=5, preview=pb.Preview(at_steps=[3]))
    [quick] = [event.preview for event in fast if event.HasField("preview")]
    assert (quick.step, quick.width) == (3, SIDE // 4)


def encoded(image: Image.Image, format: str = "PNG") -> common_pb2.Image:
    file = io.BytesIO()
    image.save(file, format)
    return common_pb2.Image(encoded=file.getvalue())


def from_picture(image: common_pb2.Image | None = None, strength: float = 0.5) -> pb.ImageToImage:
    return pb.ImageToImage(image=image or encoded(picture(SIDE, SIDE)), strength=strength)


async def test_image_to_image(service: Service) -> None:
    mode = from_picture(encoded(picture(SIDE * 2, SIDE + 3)), 0.7)
    events = await service.generate(image_to_image=mode, steps=10, seed=3)
    assert events[0].admitted.steps == 7
    image = events[-1].image
    assert (image.width, image.height, image.steps) == (SIDE * 2, SIDE, 7)
    made = Image.open(io.BytesIO(image.image.encoded))
    assert made.size == (SIDE * 2, SIDE)
    assert "Denoising strength: 0.7" in made.info["parameters"]
    record = image.provenance
    assert (record.request.steps, record.request.width) == (10, SIDE * 2)
    assert record.request.image_to_image == pb.ImageToImage(strength=mode.strength)
    assert [(g.field, g.width, g.height) for g in record.given] == [
        ("image_to_image.image", SIDE * 2, SIDE + 3)
    ]
    assert record.given[0].sha256 == hashlib.sha256(mode.image.encoded).hexdigest()
    record.request.image_to_image.image.CopyFrom(mode.image)
    [*_, again] = [e async for e in service.stub.Generate(record.request)]
    assert again.image.provenance.pixel_sha256 == record.pixel_sha256


def stylize(**fields: Any) -> pb.Stylize:
    content, style = encoded(picture(SIDE, SIDE)), encoded(picture(SIDE, 16, seed=3))
    return pb.Stylize(**({"content": content, "style": style} | fields))


async def test_stylize(service: Service) -> None:
    mode = stylize(content_strength=0.2)
    events = await service.generate(stylize=mode, steps=10, seed=3)
    assert events[0].admitted.steps == 6
    image = events[-1].image
    made = Image.open(io.BytesIO(image.image.encoded))
    assert "Content strength: 0.2, Style strength: 0.5" in made.info["parameters"]
    record = image.provenance
    assert record.request.stylize.style_strength == 0.5
    assert record.request.guidance_scale == 1.0
    assert [(g.field, g.width, g.height) for g in record.given] == [
        ("stylize.content", SIDE, SIDE),
        ("stylize.style", SIDE, 16),
    ]
    record.request.stylize.content.CopyFrom(mode.content)
    record.request.stylize.style.CopyFrom(mode.style)
    [*_, again] = [e async for e in service.stub.Generate(record.request)]
    assert again.image.provenance.pixel_sha256 == record.pixel_sha256
    [*_, unstyled] = await service.generate(
        stylize=stylize(content_strength=0.2, style_strength=0.0), steps=10, seed=3
    )
    assert unstyled.image.provenance.pixel_sha256 != record.pixel_sha256


async def test_raw_pixels_are_told_by_their_shape_and_data(service: Service) -> None:
    image = picture(SIDE, SIDE)
    raw = common_pb2.RawImage(data=image.tobytes(), width=SIDE, height=SIDE, channels=3)
    mode = from_picture(common_pb2.Image(raw=raw))
    [*_, last] = await service.generate(image_to_image=mode)
    [*_, same] = await service.generate(image_to_image=from_picture(), seed=last.image.seed)
    told = hashlib.sha256(f"{SIDE} {SIDE} 3 0 0\n".encode() + image.tobytes()).hexdigest()
    assert last.image.provenance.given[0].sha256 == told
    assert last.image.provenance.pixel_sha256 == same.image.provenance.pixel_sha256


def into(image: Image.Image, marks: Image.Image, format: str = "PNG", **fields: Any) -> pb.Inpaint:
    fields.setdefault("polarity", WHITE)
    return pb.Inpaint(image=encoded(image, format), mask=encoded(marks), **fields)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "P", "LA"])
@pytest.mark.parametrize("options", [{}, {"feather_px": 3}, {"padding_px": 2}])
async def test_outside_the_mask_the_png_is_the_picture(
    service: Service, mode: str, options: dict[str, Any]
) -> None:
    image = picture(45, 37, "RGBA" if "A" in mode else "RGB")
    if "A" in mode:
        image.putalpha(picture(45, 37, "L", seed=4))
    image = image.convert(mode)
    marks = mask(45, 37)
    [*_, last] = await service.generate(inpaint=into(image, marks, **options), steps=3)
    made = Image.open(io.BytesIO(last.image.image.encoded))
    assert made.mode == ("RGBA" if "A" in mode else "RGB")
    assert (last.image.width, last.image.height) == made.size == (45, 37)
    before, after = np.asarray(image.convert(made.mode)), np.asarray(made)
    outside = np.asarray(marks) == 0
    assert np.array_equal(before[outside], after[outside])
    assert not np.array_equal(before[~outside], after[~outside])
    assert last.image.provenance.pixel_sha256 == hashlib.sha256(after.tobytes()).hexdigest()


async def test_a_picture_that_lies_on_its_side(service: Service) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned a quarter
    file = io.BytesIO()
    picture(40, 24).save(file, "JPEG", exif=exif, quality=95)
    upright = ImageOps.exif_transpose(Image.open(file))
    assert upright.size == (24, 40)
    marks = mask(24, 40)
    mode = into(picture(), marks)
    mode.image.encoded = file.getvalue()
    [*_, last] = await service.generate(inpaint=mode, steps=3)
    made = Image.open(io.BytesIO(last.image.image.encoded))
    outside = np.asarray(marks) == 0
    assert np.array_equal(np.asarray(made)[outside], np.asarray(upright)[outside])


async def test_large_pictures_in_tiles(service: Service) -> None:
    asked: dict[str, Any] = {"width": 2 * SIDE, "steps": 3, "seed": 4}
    [*_, whole] = await service.generate(**asked)
    [*_, tiled] = await service.generate(**asked, tiled_decode=True)
    record = tiled.image.provenance
    assert record.request.tiled_decode
    # The fake's decoder looks at single latents: its tiles agree.
    assert record.pixel_sha256 == whole.image.provenance.pixel_sha256
    assert tiled.image.timing.steps == whole.image.timing.steps + 2


async def test_an_inpainting_is_recorded(service: Service) -> None:
    mode = into(picture(), mask(), strength=0.7, feather_px=2, padding_px=5)
    events = await service.generate(inpaint=mode, steps=10, seed=5)
    assert events[0].admitted.steps == 7
    record = events[-1].image.provenance
    text = Image.open(io.BytesIO(events[-1].image.image.encoded)).info["parameters"]
    assert "Denoising strength: 0.7, Mask blur: 2, Inpaint area: Only masked" in text
    assert [given.field for given in record.given] == ["inpaint.image", "inpaint.mask"]
    assert not record.request.inpaint.HasField("image")
    record.request.inpaint.image.CopyFrom(mode.image)
    record.request.inpaint.mask.CopyFrom(mode.mask)
    assert record.request.inpaint == mode
    [*_, again] = [e async for e in service.stub.Generate(record.request)]
    assert again.image.provenance.pixel_sha256 == record.pixel_sha256


async def test_decoded_previews_show_the_whole_picture(service: Service) -> None:
    image, marks = picture(45, 37), mask(45, 37)
    preview = pb.Preview(at_steps=[2], method=pb.PREVIEW_METHOD_DECODED)
    events = await service.generate(
        inpaint=into(image, marks, padding_px=0), steps=3, preview=preview
    )
    [shown] = [event.preview for event in events if event.HasField("preview")]
    made = Image.open(io.BytesIO(shown.image.encoded))
    assert made.size == (shown.width, shown.height) == (45, 37)
    outside = np.asarray(marks) == 0
    assert np.array_equal(np.asarray(made)[outside], np.asarray(image)[outside])
    fast = await service.generate(
        inpaint=into(image, marks, padding_px=0), steps=3, preview=pb.Preview(at_steps=[2])
    )
    [quick] = [event.preview for event in fast if event.HasField("preview")]
    assert (quick.width, quick.height) == (SIDE // 4, SIDE // 4)


BAD: list[tuple[str, dict[str, Any]]] = [
    ("steps", {"steps": 0}),
    ("steps", {"steps": 10**9}),
    ("guidance_scale", {"guidance_scale": -1.0}),
    ("guidance_scale", {"guidance_scale": math.nan}),
    ("width", {"width": 30}),
    ("height", {"height": 1024}),
    ("width", {"width": 2**31}),
    ("sampler", {"sampler": 99}),
    ("count", {"count": 9}),
    ("prompt", {"prompt": " ".join(["word"] * 9)}),
    ("prompt", {"prompt": "a <toy>"}),
    ("prompt", {"prompt": "a (star", "prompt_weighting": True}),
    ("negative_prompt", {"negative_prompt": "(a:11)", "prompt_weighting": True}),
    ("clip_skip", {"clip_skip": 4}),
    ("clip_skip", {"clip_skip": 2**32 - 1}),
    ("negative_prompt", {"negative_prompt": " ".join(["word"] * 9)}),
    ("id", {"id": "x" * 129}),
    ("output.quality", {"output": common_pb2.ImageOutput(quality=3)}),
    ("long_prompt", {"long_prompt": 7}),
    ("reproducibility", {"reproducibility": 7}),
    ("steps", {"sampler": pb.SAMPLER_LCM, "steps": 60}),
    ("image_to_image.image", {"image_to_image": pb.ImageToImage(strength=0.5)}),
    ("image_to_image.image.encoded", {"image_to_image": from_picture(NO_PICTURE)}),
    ("image_to_image.strength", {"image_to_image": from_picture(strength=0.0)}),
    ("image_to_image.strength", {"image_to_image": from_picture(strength=1.5)}),
    ("image_to_image.strength", {"image_to_image": from_picture(strength=0.1), "steps": 9}),
    ("width", {"image_to_image": from_picture(), "width": 30}),
    ("inpaint.polarity", {"inpaint": into(picture(), mask(), polarity=0)}),
    ("inpaint.polarity", {"inpaint": into(picture(), mask(), polarity=9)}),
    ("inpaint.strength", {"inpaint": into(picture(), mask(), strength=0.1), "steps": 9}),
    ("inpaint.feather_px", {"inpaint": into(picture(), mask(), feather_px=129)}),
    ("inpaint.mask", {"inpaint": pb.Inpaint(image=encoded(picture()), polarity=WHITE)}),
    ("inpaint.image", {"inpaint": pb.Inpaint(mask=encoded(mask()), polarity=WHITE)}),
    ("stylize.content", {"stylize": pb.Stylize(style=encoded(picture()))}),
    ("stylize.style", {"stylize": pb.Stylize(content=encoded(picture()))}),
    ("stylize.style", {"stylize": stylize(style=encoded(picture(1, 1)))}),
    ("stylize.style", {"stylize": stylize(style=encoded(picture(15, 40)))}),
    ("stylize.style.encoded", {"stylize": stylize(style=NO_PICTURE)}),
    ("stylize.content_strength", {"stylize": stylize(content_strength=1.1)}),
    ("stylize.style_strength", {"stylize": stylize(style_strength=-0.1)}),
    ("stylize.style_strength", {"stylize": stylize(style_strength=math.nan)}),
]


@pytest.mark.parametrize(("field", "asked"), BAD)
async def test_bad_input_names_the_field(
    service: Service, field: str, asked: dict[str, Any]
) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await service.generate(**asked)
    assert caught.value.code() == INVALID
    assert violations(caught.value) == [field]


@pytest.mark.parametrize(
    ("asked", "field", "limit", "given"),
    [
        ({"prompt": "x" * 20_000}, "prompt", "16384 bytes", "20000 bytes"),
        ({"prompt": "x" * 2**20}, "prompt", "16384 bytes", "1048576 bytes"),
        ({"preview": pb.Preview(every=7)}, "preview.every", "1 to 6", "7"),
        ({"preview": pb.Preview(at_steps=[1] * 7)}, "preview.at_steps", "6", "7"),
        ({"preview": pb.Preview(at_steps=[1] * 151)}, "preview.at_steps", "150", "151"),
        (
            {"inpaint": into(picture(), mask(), polarity=0)},
            "inpaint.polarity",
            "WHITE_IS_REPAINTED or TRANSPARENT_IS_REPAINTED",
            "UNSPECIFIED",
        ),
        ({"inpaint": into(picture(), mask(31, 32))}, "inpaint.mask", "32x32", "31x32"),
        (
            {"inpaint": into(picture(), Image.new("L", (32, 32)))},
            "inpaint.mask",
            "a pixel of level 128 or more",
            "none above 0",
        ),
        (
            {"inpaint": into(picture(), mask(), polarity=2)},
            "inpaint.mask",
            "a picture with transparency",
            "L without any",
        ),
    ],
)
async def test_bad_input_tells_the_limit_and_what_was_given(
    service: Service, asked: dict[str, Any], field: str, limit: str, given: str
) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await service.generate(**asked)
    error = EaselClientError.from_call(caught.value)
    assert (error.code, [each.field for each in error.violations]) == (INVALID, [field])
    assert (error.limit, error.given) == (limit, given)


async def test_every_answer_says_how_repeatable_it_is(service: Service) -> None:
    for asked, told in (
        (pb.REPRODUCIBILITY_UNSPECIFIED, pb.REPRODUCIBILITY_CLOSE),
        (pb.REPRODUCIBILITY_CLOSE, pb.REPRODUCIBILITY_CLOSE),
        (pb.REPRODUCIBILITY_EXACT, pb.REPRODUCIBILITY_EXACT),
    ):
        [*_, last] = await service.generate(reproducibility=asked)
        provenance = last.image.provenance
        assert (provenance.reproducibility, provenance.request.reproducibility) == (told, told)


@pytest.mark.parametrize("asked", [{"model": "other"}, {"model_version": "99"}])
async def test_unknown_models(service: Service, asked: dict[str, Any]) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await service.generate(**asked)
    assert caught.value.code() == grpc.StatusCode.NOT_FOUND


async def test_long_prompts_when_allowed(service: Service) -> None:
    long = " ".join(["word"] * 30)
    for policy in (pb.LONG_PROMPT_TRUNCATE, pb.LONG_PROMPT_CHUNK):
        [*_, last] = await service.generate(prompt=long, long_prompt=policy)
        assert last.HasField("image")


async def test_a_deadline_that_passes(service: Service) -> None:
    service.network.gate.clear()
    call = service.stub.Generate(pb.GenerateRequest(steps=5), timeout=1.0)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        [event async for event in call]
    assert caught.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED


async def test_a_step_that_breaks_fails_the_call_and_nothing_else(service: Service) -> None:
    service.network.fault = RuntimeError("the fake was told to break")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await service.generate()
    assert caught.value.code() == grpc.StatusCode.INTERNAL
    assert "fake" not in str(caught.value.details())
    service.network.fault = None
    assert kinds(await service.generate())[-1] == "image"


async def test_cancelling_the_call_frees_its_rows(service: Service) -> None:
    service.network.gate.clear()
    call = service.stub.Generate(pb.GenerateRequest(count=4, steps=100))
    first: Any = await call.read()
    assert first.HasField("admitted")
    assert service.rows == 4
    call.cancel()
    service.network.gate.set()
    await service.idle()
    assert len(service.network.batches) < 100
    assert kinds(await service.generate())[-1] == "image"


async def test_two_hundred_cancels_leave_nothing(service: Service) -> None:
    for _ in range(200):
        call = service.stub.Generate(pb.GenerateRequest(steps=150, omit_steps=True))
        await call.read()
        call.cancel()
    await service.idle()
    assert service.app.engine.backlog_seconds == pytest.approx(0.0)


async def test_a_reader_that_stops_holds_its_picture_back(service: Service) -> None:
    big = pb.Preview(every=1, method=pb.PREVIEW_METHOD_DECODED)
    stream = service.stub.GenerateStream()
    await stream.write(submit(id="slow", steps=150, preview=big, width=64, height=64))
    await stream.read()
    other = await service.generate(steps=3)
    assert kinds(other)[-1] == "image"
    stream.cancel()
    await service.idle()


class Stream:
    """A GenerateStream with the events read so far."""

    def __init__(self, service: Service) -> None:
        self.call = service.stub.GenerateStream()
        self.seen: list[pb.GenerateEvent] = []

    async def until(self, kind: str, id: str = "", index: int | None = None) -> pb.GenerateEvent:
        while True:
            event: Any = await self.call.read()
            assert event is not grpc.aio.EOF
            self.seen.append(event)
            if event.WhichOneof("event") != kind or event.id != id:
                continue
            if index is None or event.index == index:
                return cast(pb.GenerateEvent, event)

    async def heard(self) -> None:
        """Wait until the service has read all that was written: it reads in order."""
        await self.call.write(submit(id="last", steps=1))
        await self.until("admitted", "last")

    async def rest(self) -> list[pb.GenerateEvent]:
        await self.call.done_writing()
        while (event := await self.call.read()) is not grpc.aio.EOF:
            self.seen.append(cast(pb.GenerateEvent, event))
        return self.seen


async def test_a_stream_answers_every_request(service: Service) -> None:
    stream = Stream(service)
    for index, steps in enumerate((9, 2, 5)):
        await stream.call.write(submit(id=f"r{index}", steps=steps, guidance_scale=1.0 + index))
    events = await stream.rest()
    images = {event.id: event.image for event in events if event.HasField("image")}
    assert {name: image.steps for name, image in images.items()} == {"r0": 9, "r1": 2, "r2": 5}


async def test_an_empty_stream(service: Service) -> None:
    assert await Stream(service).rest() == []


async def test_cancel_stops_a_request(service: Service) -> None:
    service.network.gate.clear()
    stream = Stream(service)
    await stream.call.write(submit(id="a", steps=50, count=2))
    await stream.call.write(submit(id="b", steps=3))
    await stream.until("admitted", "b")
    await stream.call.write(pb.GenerateStreamRequest(cancel=pb.Cancel(id="a")))
    await stream.heard()
    service.network.gate.set()
    events = await stream.rest()
    stopped = {e.index: e.stopped for e in events if e.HasField("stopped")}
    assert sorted(stopped) == [0, 1]
    assert all(s.step in (0, 1) and s.steps == 50 for s in stopped.values())
    assert sorted(e.id for e in events if e.HasField("image")) == ["b", "last"]


async def test_cancel_of_one_picture_and_its_repetition(service: Service) -> None:
    service.network.gate.clear()
    stream = Stream(service)
    await stream.call.write(submit(id="a", steps=3, count=3))
    await stream.until("admitted", "a", 2)
    for _ in range(2):
        await stream.call.write(pb.GenerateStreamRequest(cancel=pb.Cancel(id="a", indices=[1])))
    await stream.heard()
    service.network.gate.set()
    events = [event for event in await stream.rest() if event.id == "a"]
    assert [e.index for e in events if e.HasField("stopped")] == [1]
    assert sorted(e.index for e in events if e.HasField("image")) == [0, 2]


async def test_keep_only_tells_the_steps_taken(service: Service) -> None:
    service.network.gate.clear()
    stream = Stream(service)
    await stream.call.write(submit(id="a", steps=20, count=4))
    await stream.until("admitted", "a", 3)
    keep = pb.KeepOnly(id="a", indices=[2])
    await stream.call.write(pb.GenerateStreamRequest(keep_only=keep))
    await stream.heard()
    service.network.gate.set()
    events = [event for event in await stream.rest() if event.id == "a"]
    stopped = {e.index: e.stopped for e in events if e.HasField("stopped")}
    assert sorted(stopped) == [0, 1, 3]
    # The step that was on the device when they were stopped was taken too.
    assert all(s.step in (0, 1) and s.steps == 20 for s in stopped.values())
    assert [e.index for e in events if e.HasField("image")] == [2]


async def test_a_late_cancel_is_no_mistake(service: Service) -> None:
    stream = Stream(service)
    await stream.call.write(submit(id="a", steps=1))
    await stream.until("image", "a")
    await stream.call.write(pb.GenerateStreamRequest(cancel=pb.Cancel(id="a")))
    await stream.call.write(submit(id="a", steps=1))
    events = await stream.rest()
    assert kinds(events).count("image") == 2
    assert "failed" not in kinds(events)


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (pb.GenerateStreamRequest(cancel=pb.Cancel(id="nobody")), "cancel.id"),
        (pb.GenerateStreamRequest(keep_only=pb.KeepOnly(id="nobody")), "keep_only.id"),
        (submit(id="c", steps=0), "steps"),
        (submit(id="c", seeds=range(9)), "seeds"),
        (submit(id="c", preview=pb.Preview(at_steps=[1] * 151)), "preview.at_steps"),
        (pb.GenerateStreamRequest(), "action"),
    ],
)
async def test_a_mistake_on_a_stream_fails_alone(
    service: Service, request_: pb.GenerateStreamRequest, field: str
) -> None:
    service.network.gate.clear()
    stream = Stream(service)
    await stream.call.write(submit(id="a", steps=3, count=2))
    await stream.until("admitted", "a", 1)
    await stream.call.write(request_)
    action = request_.WhichOneof("action")
    failed = await stream.until("failed", getattr(request_, action).id if action else "")
    assert (failed.failed.field, failed.failed.code) == (field, INVALID.value[0])
    service.network.gate.set()
    assert kinds(await stream.rest()).count("image") == 2


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (pb.GenerateStreamRequest(cancel=pb.Cancel(id="a", indices=[2])), "cancel.indices"),
        (pb.GenerateStreamRequest(cancel=pb.Cancel(id="a", indices=[0] * 9)), "cancel.indices"),
        (pb.GenerateStreamRequest(keep_only=pb.KeepOnly(id="a", indices=[9])), "keep_only.indices"),
        (
            pb.GenerateStreamRequest(keep_only=pb.KeepOnly(id="a", indices=[0] * 9)),
            "keep_only.indices",
        ),
        (submit(id="a"), "id"),
    ],
)
async def test_an_action_that_is_refused_fails_no_picture(
    service: Service, request_: pb.GenerateStreamRequest, field: str
) -> None:
    service.network.gate.clear()
    stream = Stream(service)
    await stream.call.write(submit(id="a", steps=3, count=2))
    await stream.until("admitted", "a", 1)
    await stream.call.write(request_)
    told = await stream.until("refused", "a")
    assert (told.refused.field, told.refused.code) == (field, INVALID.value[0])
    service.network.gate.set()
    events = kinds(await stream.rest())
    assert events.count("image") == 2
    assert "failed" not in events


async def test_a_stream_has_a_bound_on_live_requests(service: Service) -> None:
    service.network.gate.clear()
    stream = Stream(service)
    for index in range(4):
        await stream.call.write(submit(id=f"r{index}", steps=2))
    failed = await stream.until("failed", "r3")
    assert failed.failed.code == grpc.StatusCode.RESOURCE_EXHAUSTED.value[0]
    assert failed.failed.retry_after_seconds > 0
    service.network.gate.set()
    assert kinds(await stream.rest()).count("image") == 3


async def test_a_client_that_goes_away_leaves_nothing(service: Service) -> None:
    service.network.gate.clear()
    stream = Stream(service)
    await stream.call.write(submit(id="a", steps=100, count=4))
    await stream.until("admitted", "a", 3)
    stream.call.cancel()
    service.network.gate.set()
    await service.idle()
    assert len(service.network.batches) < 100


async def test_a_full_engine_refuses_the_whole_request() -> None:
    network = FakeNetwork()
    app = fake_app(network, max_rows=4, max_count=4)
    async with serving(app) as channel:
        network.gate.clear()
        stub: generator_pb2_grpc.GeneratorServiceAsyncStub
        stub = generator_pb2_grpc.GeneratorServiceStub(channel)
        first = stub.Generate(pb.GenerateRequest(count=3, steps=9))
        events = aiter(first)
        assert (await anext(events)).HasField("admitted")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            [event async for event in stub.Generate(pb.GenerateRequest(count=2))]
        assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
        assert app.engine.report().rows == 3
        network.gate.set()
        assert kinds([event async for event in events]).count("image") == 3


async def test_the_model_tells_what_it_serves(service: Service) -> None:
    listed = await service.models.ListModels(model_pb2.ListModelsRequest())
    [info] = listed.models
    assert (info.name, info.kind) == ("fake", model_pb2.MODEL_KIND_GENERATOR)
    details = info.generator
    assert list(details.samplers) == [sampler.name for sampler in Sampler]
    assert (details.default_sampler, details.default_steps) == ("DDIM", 6)
    assert (details.default_width, details.size_multiple, details.max_count) == (SIDE, 8, 8)
    assert list(details.modes) == ["text_to_image", "image_to_image", "inpaint", "stylize"]
    assert {profile.key.split("/")[0] for profile in info.config.batches} == {
        "encode",
        "canvas",
        "denoise",
        "preview",
        "decode",
    }
    got = await service.models.GetModel(model_pb2.GetModelRequest(name="fake", version="1"))
    assert got.model.digest == info.digest
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await service.models.GetModel(model_pb2.GetModelRequest(name="other"))
    assert caught.value.code() == grpc.StatusCode.NOT_FOUND


async def test_many_calls_at_once_share_batches() -> None:
    network = TimedNetwork()
    app = fake_app(network, clock=network.clock)
    async with serving(app) as channel:
        stub: generator_pb2_grpc.GeneratorServiceAsyncStub
        stub = generator_pb2_grpc.GeneratorServiceStub(channel)

        async def batch_rows(seed: int) -> int:
            request = pb.GenerateRequest(seed=seed, steps=4, guidance_scale=1.0)
            [*_, last] = [event async for event in stub.Generate(request)]
            return last.image.timing.batch_rows

        network.gate.clear()
        calls = [asyncio.ensure_future(batch_rows(seed)) for seed in range(6)]
        await until(lambda: app.engine.report().rows == 6)
        network.gate.set()
        assert max(await asyncio.gather(*calls)) >= 2


async def test_weights_and_clip_skip_are_served_and_told(service: Service) -> None:
    asked = {"prompt": "a (red:1.5) star", "seed": 4, "steps": 2}
    [*_, plain] = await service.generate(**asked)
    [*_, last] = await service.generate(**asked, prompt_weighting=True, clip_skip=2)
    made = last.image.provenance
    assert (made.request.prompt_weighting, made.request.clip_skip) == (True, 2)
    assert made.pixel_sha256 != plain.image.provenance.pixel_sha256
    [*_, again] = [e async for e in service.stub.Generate(made.request)]
    assert again.image.provenance.pixel_sha256 == made.pixel_sha256


async def test_the_model_tells_its_clip_skip(service: Service) -> None:
    answer = await service.models.GetModel(model_pb2.GetModelRequest())
    assert answer.model.generator.max_clip_skip == 3


async def test_prompts_remembered_are_counted(service: Service) -> None:
    for _ in range(2):
        await service.generate(prompt="a star", negative_prompt="blue", steps=1)
    value = service.app.registry.get_sample_value
    for outcome in ("hit", "miss"):
        labels = {"engine": "demo", "outcome": outcome}
        assert value("easel_prompt_cache_lookups_total", labels) == 2
    assert value("easel_prompt_cache_bytes", {"engine": "demo"})
