"""Controls over the wire: named, acting on single rows, recorded, refused."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
import pytest_asyncio
import torch
from google.rpc import error_details_pb2, status_pb2

from easel.common.v1 import common_pb2
from easel.generator.v1 import generator_pb2 as pb
from easel.generator.v1 import generator_pb2_grpc
from easel.model.v1 import model_pb2, model_pb2_grpc
from services.core import images
from services.generator.controlnet import UnfitControlNetError
from services.generator.network import Feature, Look, Network, Residuals
from services.generator.steering import ControlNet
from tests.integration.generator.server import fake_app
from tests.integration.serving import serving
from tests.unit.generator.pictures import picture
from tests.unit.generator.timed import TimedNetwork

INVALID, UNFIT = grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.FAILED_PRECONDITION


class Steered(TimedNetwork):
    """Adds the residuals to its output; ``seen`` are those of each batch."""

    def __init__(self) -> None:
        super().__init__(features=frozenset({Feature.RESIDUALS}))
        self.seen: list[Residuals | None] = []

    def route(self, needs: frozenset[Feature], size: tuple[int, int]) -> str:
        return "fake"

    def predict(self, look: Look) -> torch.Tensor:
        self.seen.append(look.residuals)
        answer = super().predict(look)
        parts = () if look.residuals is None else look.residuals.parts
        return answer + sum(parts) if parts else answer


@dataclass(frozen=True)
class Brightness:
    """A fake net: a share of its picture's brightness."""

    name: str
    digest: str
    share: float

    def residuals(self, look: Look, pictures: torch.Tensor) -> Residuals:
        level = self.share * pictures.mean(dim=(1, 2, 3))
        return Residuals((level[:, None, None, None].expand_as(look.latents).contiguous(),))


def read(name: str, folder: Path, _network: Network) -> ControlNet:
    text = (folder / "share").read_text()
    if not text:
        raise UnfitControlNetError("it is empty")
    return Brightness(name, "sha256:" + hashlib.sha256(text.encode()).hexdigest(), float(text))


def write(folder: Path, name: str, share: str) -> None:
    (folder / name).mkdir(exist_ok=True)
    (folder / name / "share").write_text(share)


class Service:
    def __init__(self, folder: Path) -> None:
        self.network = Steered()
        self.app = fake_app(
            self.network,
            clock=self.network.clock,
            load_control=read,
            controls_dir=str(folder),
            result_cache_bytes=10**7,
        )
        self.stub: generator_pb2_grpc.GeneratorServiceAsyncStub
        self.models: model_pb2_grpc.ModelServiceAsyncStub

    async def image(self, **fields: Any) -> pb.GeneratedImage:
        [*_, last] = [e async for e in self.stub.Generate(pb.GenerateRequest(**fields))]
        return last.image


@pytest_asyncio.fixture
async def service(tmp_path: Path) -> AsyncIterator[Service]:
    for name, share in (("edges", "0.6"), ("depth", "-0.4"), ("empty", "")):
        write(tmp_path, name, share)
    running = Service(tmp_path)
    async with serving(running.app) as channel:
        running.stub = generator_pb2_grpc.GeneratorServiceStub(channel)
        running.models = model_pb2_grpc.ModelServiceStub(channel)
        try:
            yield running
        finally:
            running.network.gate.set()


PNG = images.encode(picture(20, 30), "PNG")
OTHER = images.encode(picture(20, 30, seed=3), "PNG")


def control(name: str = "edges", data: bytes = PNG, **more: Any) -> pb.Control:
    return pb.Control(name=name, image=common_pb2.Image(encoded=data), **more)


async def read_one(call: Any) -> pb.GenerateEvent:
    event: pb.GenerateEvent = await call.read()
    return event


async def test_they_are_told_of(service: Service) -> None:
    told = await service.models.GetModel(model_pb2.GetModelRequest())
    assert list(told.model.generator.controls) == ["depth", "edges", "empty"]


async def test_a_steered_picture_can_be_made_again(service: Service, tmp_path: Path) -> None:
    bare = await service.image(prompt="a star", seed=1)
    asked = [control(scale=0.7, start=0.25), control("depth", OTHER, end=0.5)]
    made = await service.image(prompt="a star", seed=1, controls=asked)
    record = made.provenance
    assert record.pixel_sha256 != bare.provenance.pixel_sha256
    assert b'Controls: "edges:0.7@0.25-1, depth:1@0-0.5"' in made.image.encoded
    told = [(each.name, each.image.encoded, each.end) for each in record.request.controls]
    assert told == [("edges", b"", 1.0), ("depth", b"", 0.5)]
    assert record.versions["controlnet edges"].startswith("sha256:")
    assert [(each.field, each.sha256, each.width, each.height) for each in record.given] == [
        ("controls[0].image", hashlib.sha256(PNG).hexdigest(), 20, 30),
        ("controls[1].image", hashlib.sha256(OTHER).hexdigest(), 20, 30),
    ]
    given = [common_pb2.Image(encoded=data) for data in (OTHER, PNG)]
    verify = pb.VerifyRequest(provenance=record, given=given)
    assert (await service.stub.Verify(verify)).verdict == pb.VERDICT_EQUAL
    with pytest.raises(grpc.aio.AioRpcError, match=r"controls\[1\].image in the request is needed"):
        await service.stub.Verify(pb.VerifyRequest(provenance=record, given=given[1:]))
    write(tmp_path, "edges", "0.1")
    with pytest.raises(grpc.aio.AioRpcError, match="ControlNet 'edges' is sha256:") as caught:
        await service.stub.Verify(verify)
    assert caught.value.code() == UNFIT
    verify.allow_other_versions = True
    assert (await service.stub.Verify(verify)).verdict == pb.VERDICT_DIFFERENT


async def test_another_picture_or_net_is_not_answered_from_what_was_made_before(
    service: Service, tmp_path: Path
) -> None:
    made = []
    for asked in (control(), control(), control(data=OTHER), control(scale=0.5), None):
        if asked is None:
            write(tmp_path, "edges", "0.5")
        fields = {"prompt": "a star", "seed": 1, "controls": [asked or control()]}
        made.append(await service.image(**fields))
    assert [each.cached for each in made] == [False, True, False, False, False]
    assert len({each.provenance.pixel_sha256 for each in made}) == 4


async def test_rows_with_and_without_controls_share_a_batch(service: Service) -> None:
    service.network.gate.clear()
    calls = [
        service.stub.Generate(
            pb.GenerateRequest(prompt="a", seed=1, steps=20, controls=asked, omit_steps=True)
        )
        for asked in ([control()], [], [control("depth")])
    ]
    for call in calls:
        assert (await read_one(call)).HasField("admitted")
    service.network.gate.set()
    made = [(await read_one(call)).image.provenance.pixel_sha256 for call in calls]
    assert len(set(made)) == 3
    rows = [
        [bool(row.any()) for row in found.parts[0]]
        for found in service.network.seen
        if found is not None
    ]
    assert any({True, False} == set(each) for each in rows), "no batch was mixed"
    service.network.seen.clear()
    alone = await service.image(prompt="a", seed=1, steps=20)
    assert alone.provenance.pixel_sha256 == made[1]


@pytest.mark.parametrize(
    ("asked", "code", "text"),
    [
        ([control("lines")], grpc.StatusCode.NOT_FOUND, "There are: depth, edges, empty"),
        ([control("../edges")], grpc.StatusCode.NOT_FOUND, "no ControlNet '../edges'"),
        ([control("empty")], UNFIT, "ControlNet 'empty' cannot be used: it is empty"),
    ],
)
async def test_what_is_refused(
    service: Service, asked: list[pb.Control], code: grpc.StatusCode, text: str
) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await service.image(controls=asked)
    assert caught.value.code() == code
    assert text in str(caught.value.details())
    assert (await service.image(controls=[control()])).seed > 0


@pytest.mark.parametrize(
    ("asked", "field"),
    [
        ({"controls": [control(scale=2.1)]}, "controls[0].scale"),
        ({"controls": [control(), control("depth", scale=float("nan"))]}, "controls[1].scale"),
        ({"controls": [control(start=0.6, end=0.6)]}, "controls[0].end"),
        ({"controls": [control(), control()]}, "controls[1].name"),
        ({"controls": [control(str(index)) for index in range(5)]}, "controls"),
        ({"controls": [control(data=b"no picture")]}, "controls[0].image.encoded"),
        ({"controls": [pb.Control(name="edges")]}, "controls[0].image"),
        ({"controls": [control()], "cache_interval": 2}, "cache_interval"),
    ],
)
async def test_fields_are_named(service: Service, asked: dict[str, Any], field: str) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await service.image(**asked)
    assert caught.value.code() == INVALID
    status = status_pb2.Status.FromString(
        dict(caught.value.trailing_metadata() or ())["grpc-status-details-bin"]
    )
    bad = error_details_pb2.BadRequest()
    found = [v.field for d in status.details if d.Unpack(bad) for v in bad.field_violations]
    assert found == [field]
