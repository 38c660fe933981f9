"""Adapters over the wire: named, worn by single rows, refused."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
import pytest_asyncio
import torch
from google.rpc import error_details_pb2, status_pb2
from safetensors.torch import save_file

from easel.client.errors import EaselClientError
from easel.generator.v1 import generator_pb2 as pb
from easel.generator.v1 import generator_pb2_grpc
from easel.model.v1 import model_pb2, model_pb2_grpc
from services.generator.lora import Outfit
from services.generator.network import Feature, Look
from tests.integration.generator.server import fake_app
from tests.integration.serving import serving
from tests.unit.generator.timed import TimedNetwork

LAYER = "unet.brightness"
INVALID, UNFIT = grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.FAILED_PRECONDITION


class Brightened(TimedNetwork):
    """Adds what each row's adapters make of 1 to its output; ``seen`` are the outfits."""

    def __init__(self) -> None:
        super().__init__(
            features=frozenset({Feature.ADAPTERS}), adaptable={LAYER: torch.zeros(1, 1)}
        )
        self.seen: list[tuple[Outfit, ...] | None] = []

    def route(self, needs: frozenset[Feature], size: tuple[int, int]) -> str:
        return "fake"

    def predict(self, look: Look) -> torch.Tensor:
        self.seen.append(look.adapters)
        answer = super().predict(look)
        for row, outfit in zip(answer, look.adapters or (), strict=False):
            for worn in outfit:
                change = worn.adapter.layers[LAYER]
                row += worn.scale * float(change.up @ change.down)
        return answer


class Service:
    def __init__(self, folder: Path) -> None:
        self.network = Brightened()
        self.app = fake_app(self.network, clock=self.network.clock, adapters_dir=str(folder))
        self.stub: generator_pb2_grpc.GeneratorServiceAsyncStub
        self.models: model_pb2_grpc.ModelServiceAsyncStub

    async def image(self, **fields: Any) -> pb.GeneratedImage:
        [*_, last] = [e async for e in self.stub.Generate(pb.GenerateRequest(**fields))]
        return last.image


def write(folder: Path, name: str, up: float) -> None:
    matrices = {f"{LAYER}.lora_A.weight": torch.ones(1, 1)}
    matrices[f"{LAYER}.lora_B.weight"] = torch.full((1, 1), up)
    save_file(matrices, folder / f"{name}.safetensors")


@pytest_asyncio.fixture
async def service(tmp_path: Path) -> AsyncIterator[Service]:
    for name, up in (("dawn", 0.3), ("dusk", -0.2)):
        write(tmp_path, name, up)
    save_file({"unet.other.lora_A.weight": torch.ones(1, 1)}, tmp_path / "half.safetensors")
    (tmp_path / "old.ckpt").write_bytes(b"")
    running = Service(tmp_path)
    async with serving(running.app) as channel:
        running.stub = generator_pb2_grpc.GeneratorServiceStub(channel)
        running.models = model_pb2_grpc.ModelServiceStub(channel)
        try:
            yield running
        finally:
            running.network.gate.set()


def use(name: str, scale: float | None = None) -> pb.Adapter:
    return pb.Adapter(name=name, scale=scale)


async def read(call: Any) -> pb.GenerateEvent:
    event: pb.GenerateEvent = await call.read()
    return event


async def test_adapters_are_told_of(service: Service) -> None:
    told = await service.models.GetModel(model_pb2.GetModelRequest())
    assert list(told.model.generator.adapters) == ["dawn", "dusk", "half", "old"]


async def test_a_picture_with_adapters_can_be_made_again(service: Service) -> None:
    bare = await service.image(prompt="a star", seed=1)
    asked = [use("dawn"), use("dusk", 0.5)]
    worn = await service.image(prompt="a star", seed=1, adapters=asked)
    assert worn.provenance.pixel_sha256 != bare.provenance.pixel_sha256
    told = [(adapter.name, adapter.scale) for adapter in worn.provenance.request.adapters]
    assert told == [("dawn", 1.0), ("dusk", 0.5)]
    assert b'Adapters: "dawn:1, dusk:0.5"' in worn.image.encoded
    [*_, again] = [e async for e in service.stub.Generate(worn.provenance.request)]
    assert again.image.provenance.pixel_sha256 == worn.provenance.pixel_sha256


async def test_scales_are_the_decimals_that_were_written(service: Service) -> None:
    worn = await service.image(adapters=[use("dawn", 0.7), use("dusk", -0.7)])
    assert b'Adapters: "dawn:0.7, dusk:-0.7"' in worn.image.encoded
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await service.image(adapters=[use("dawn", 10.1)])
    assert EaselClientError.from_call(caught.value).given == "10.1"


async def test_rows_with_and_without_adapters_share_a_batch(service: Service) -> None:
    service.network.gate.clear()
    calls = [
        service.stub.Generate(
            pb.GenerateRequest(prompt="a", seed=1, steps=20, adapters=adapters, omit_steps=True)
        )
        for adapters in ([use("dawn")], [], [use("dusk")], [use("dawn")])
    ]
    for call in calls:
        assert (await read(call)).HasField("admitted")
    service.network.gate.set()
    made = [(await read(call)).image.provenance.pixel_sha256 for call in calls]
    assert made[0] == made[3] != made[1] != made[2]
    batches = [
        ["".join(worn.adapter.name for worn in outfit) for outfit in outfits]
        for outfits in service.network.seen
        if outfits is not None
    ]
    assert any({"", "dawn"} <= set(names) for names in batches), "no batch was mixed"
    assert all(names == sorted(names) for names in batches), "equals are not side by side"


async def test_a_record_is_of_the_adapters_files(service: Service, tmp_path: Path) -> None:
    made = await service.image(prompt="a star", seed=1, adapters=[use("dawn", 0.5)])
    assert made.provenance.versions["adapter dawn"].startswith("sha256:")
    asked = pb.VerifyRequest(provenance=made.provenance)
    assert (await service.stub.Verify(asked)).verdict == pb.VERDICT_EQUAL
    (tmp_path / "dusk.safetensors").replace(tmp_path / "dawn.safetensors")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await service.stub.Verify(asked)
    assert caught.value.code() == UNFIT
    assert "Adapter 'dawn' is sha256:" in str(caught.value.details())
    asked.allow_other_versions = True
    assert (await service.stub.Verify(asked)).verdict == pb.VERDICT_DIFFERENT


async def test_a_replaced_adapter_is_not_answered_from_what_was_made_before(
    tmp_path: Path,
) -> None:
    write(tmp_path, "dawn", 0.3)
    app = fake_app(Brightened(), adapters_dir=str(tmp_path), result_cache_bytes=10**7)
    async with serving(app) as channel:
        stub: generator_pb2_grpc.GeneratorServiceAsyncStub
        stub = generator_pb2_grpc.GeneratorServiceStub(channel)
        asked = pb.GenerateRequest(prompt="a star", seed=1, adapters=[use("dawn")])
        images = []
        for up in (0.3, 0.3, -0.2):
            if up < 0:
                write(tmp_path, "dawn", up)
            [*_, last] = [event async for event in stub.Generate(asked)]
            images.append(last.image)
    assert [image.cached for image in images] == [False, True, False]
    digests = [image.provenance.pixel_sha256 for image in images]
    assert digests[0] == digests[1] != digests[2]


@pytest.mark.parametrize(
    ("asked", "code", "text"),
    [
        ([use("noon")], grpc.StatusCode.NOT_FOUND, "There are: dawn, dusk, half, old"),
        ([use("../dawn")], grpc.StatusCode.NOT_FOUND, "no adapter '../dawn'"),
        ([use("half")], UNFIT, "Adapter 'half' cannot be used: 'unet.other' lacks"),
        ([use("old")], UNFIT, "it is a .ckpt file, and only .safetensors is read"),
        ([use("dawn", -1.0)], INVALID, "The scales add up to less than 0"),
    ],
)
async def test_what_is_refused(
    service: Service, asked: list[pb.Adapter], code: grpc.StatusCode, text: str
) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await service.image(adapters=asked)
    assert caught.value.code() == code
    assert text in str(caught.value.details())
    assert (await service.image(adapters=[use("dawn")])).seed > 0


@pytest.mark.parametrize(
    ("asked", "field"),
    [
        ([use("dawn", float("nan"))], "adapters[0].scale"),
        ([use("dawn"), use("dawn")], "adapters[1].name"),
        ([use(str(index)) for index in range(9)], "adapters"),
    ],
)
async def test_fields_are_named(service: Service, asked: list[pb.Adapter], field: str) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await service.image(adapters=asked)
    status = status_pb2.Status.FromString(
        dict(caught.value.trailing_metadata() or ())["grpc-status-details-bin"]
    )
    bad = error_details_pb2.BadRequest()
    found = [v.field for d in status.details if d.Unpack(bad) for v in bad.field_violations]
    assert found == [field]
