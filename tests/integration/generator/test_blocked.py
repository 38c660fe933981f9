"""A picture that the safety checker withholds, on the wire."""

from typing import Any

from easel.generator.v1 import generator_pb2 as pb
from easel.generator.v1 import generator_pb2_grpc
from easel.model.v1 import model_pb2, model_pb2_grpc
from services.core.images import decode
from tests.integration.generator.server import fake_app
from tests.integration.serving import serving
from tests.unit.generator.fakes import FakeChecker, FakeNetwork

ASKED: dict[str, Any] = {"id": "a", "prompt": "a star", "steps": 3, "count": 2, "seed": 4}


async def told(stub: Any) -> dict[int, pb.GenerateEvent]:
    """The last event of each picture."""
    events = [event async for event in stub.Generate(pb.GenerateRequest(**ASKED))]
    return {event.index: event for event in events}


async def previews(stub: Any) -> list[bytes]:
    request = pb.GenerateRequest(**{**ASKED, "count": 1}, preview=pb.Preview(every=1))
    events = [event async for event in stub.Generate(request)]
    return [event.preview.image.encoded for event in events if event.HasField("preview")]


async def test_a_flagged_fast_preview_is_not_sent() -> None:
    checker = FakeChecker()
    async with serving(fake_app(FakeNetwork(), checker)) as channel:
        stub = generator_pb2_grpc.GeneratorServiceStub(channel)
        first, second = await previews(stub)
        checker.flagged = {decode(first).tobytes()}
        assert await previews(stub) == [second]


async def test_a_blocked_picture_has_a_reason_and_no_pixels() -> None:
    checker = FakeChecker()
    async with serving(fake_app(FakeNetwork(), checker)) as channel:
        stub = generator_pb2_grpc.GeneratorServiceStub(channel)
        made = await told(stub)
        unsafe = decode(made[0].image.image.encoded)
        checker.flagged = {unsafe.tobytes()}
        ends = await told(stub)
        assert ends[0].WhichOneof("event") == "blocked"
        assert ends[0].blocked.reason == "unsafe"
        assert ends[1].image.image == made[1].image.image
        info = await model_pb2_grpc.ModelServiceStub(channel).GetModel(model_pb2.GetModelRequest())
        assert info.model.generator.safety_checker
        assert info.model.generator.layout == "stable-diffusion-1"
