"""Whatever is wrong with a request, the pictures under way go on."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import grpc
import pytest
import pytest_asyncio
import torch
from PIL import Image
from safetensors.torch import save_file

from easel.client.errors import EaselClientError
from easel.common.v1 import common_pb2
from easel.generator.v1 import generator_pb2 as pb
from easel.generator.v1 import generator_pb2_grpc
from services.core import images
from services.generator.network import Feature, Look
from services.generator.service import GeneratorApp
from tests.integration.generator.server import fake_app, until
from tests.integration.serving import serving
from tests.unit.generator.fakes import FILES, FakeNetwork
from tests.unit.generator.pictures import mask, picture

LAYER = "unet.brightness"
PICTURE = pb.GenerateRequest(prompt="a star", steps=6, seed=7)
INVALID, UNFIT = grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.FAILED_PRECONDITION

Request = pb.GenerateRequest | pb.VerifyRequest
Answer = tuple[grpc.StatusCode, str, str]
"""The status, its reason, and the field at fault."""
Bad = tuple[Request, Answer, str]
"""With words of the message, which tell it from what else the field may be refused for."""


@dataclass
class HeldNetwork(FakeNetwork):
    """Shuts its gate in the step that brings ``steps_free`` down to 0; each takes one off."""

    features: frozenset[Feature] = frozenset(Feature)
    adaptable: Mapping[str, torch.Tensor] = field(
        default_factory=lambda: {LAYER: torch.zeros(1, 1)}
    )
    steps_free: int = 0

    def predict(self, look: Look) -> torch.Tensor:
        self.steps_free -= 1
        if self.steps_free == 0:
            self.gate.clear()
        return super().predict(look)


class Service:
    def __init__(self, folder: Path) -> None:
        self.network = HeldNetwork()
        self.app = fake_app(
            self.network,
            adapters_dir=str(folder / "adapters"),
            embeddings_dir=str(folder / "embeddings"),
            signing_key_file=str(folder / "keys"),
        )
        self.stub: generator_pb2_grpc.GeneratorServiceAsyncStub

    @property
    def rows(self) -> int:
        return self.app.engine.report().rows

    async def send(self, request: Request) -> None:
        # What is taken on by mistake waits for the gate, and is not to wait for ever.
        if isinstance(request, pb.VerifyRequest):
            await self.stub.Verify(request, timeout=30.0)
        else:
            [event async for event in self.stub.Generate(request, timeout=30.0)]

    async def refusal(self, request: Request) -> tuple[Answer, str]:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await self.send(request)
        error = EaselClientError.from_call(caught.value)
        at = ", ".join(each.field for each in error.violations)
        return (error.code, error.reason, at), error.message


@pytest_asyncio.fixture
async def service(tmp_path: Path) -> AsyncIterator[Service]:
    (tmp_path / "keys").write_text("5a" * 32)
    for name in ("adapters", "embeddings"):
        (tmp_path / name).mkdir()
    save_file({"emb_params": torch.ones(1, 2)}, tmp_path / "embeddings" / "cat.safetensors")
    wide = {f"{LAYER}.lora_A.weight": torch.ones(1, 3), f"{LAYER}.lora_B.weight": torch.ones(2, 1)}
    save_file(wide, tmp_path / "adapters" / "wide.safetensors")
    (tmp_path / "adapters" / "text.safetensors").write_text("no safetensors at all")
    (tmp_path / "adapters" / "old.ckpt").write_bytes(b"")
    running = Service(tmp_path)
    async with serving(running.app) as channel:
        running.stub = generator_pb2_grpc.GeneratorServiceStub(channel)
        try:
            yield running
        finally:
            running.network.gate.set()


async def painted(stub: generator_pb2_grpc.GeneratorServiceAsyncStub) -> pb.Provenance:
    [*_, last] = [event async for event in stub.Generate(PICTURE)]
    return last.image.provenance


async def painted_by(app: GeneratorApp) -> pb.Provenance:
    async with serving(app) as channel:
        return await painted(generator_pb2_grpc.GeneratorServiceStub(channel))


def png(image: Image.Image) -> common_pb2.Image:
    return common_pb2.Image(encoded=images.encode(image, "PNG"))


def into(marks: Image.Image) -> pb.Inpaint:
    polarity = pb.MASK_POLARITY_WHITE_IS_REPAINTED
    return pb.Inpaint(image=png(picture()), mask=png(marks), polarity=polarity)


def worn(name: str, scale: float = 1.0) -> pb.Adapter:
    return pb.Adapter(name=name, scale=scale)


def invalid(at: str, words: str, **asked: Any) -> Bad:
    return pb.GenerateRequest(**asked), (INVALID, "INVALID_INPUT", at), words


def unfit(words: str, name: str) -> Bad:
    return pb.GenerateRequest(adapters=[worn(name)]), (UNFIT, "ADAPTER_UNFIT", ""), words


WEAK = pb.ImageToImage(image=png(picture()), strength=0.1)
DOTTED = pb.Stylize(content=png(picture()), style=png(picture(1, 1)))
BAD = [
    invalid("image_to_image.strength", "less than one of", image_to_image=WEAK, steps=9),
    invalid("inpaint.mask", "the picture's size", inpaint=into(mask(31, 32))),
    invalid("inpaint.mask", "nothing to repaint", inpaint=into(Image.new("L", (32, 32)))),
    invalid("stylize.style", "too small", stylize=DOTTED),
    unfit("another architecture", "wide"),
    unfit("not in the safetensors format", "text"),
    unfit("only .safetensors is read", "old"),
    invalid("adapters", "add up to less than 0", adapters=[worn("wide", -0.5)]),
    invalid("prompt", "too long", prompt="x" * 2**20),
    invalid("prompt", "no embedding <dog>", prompt="a <dog>"),
    invalid("preview.every", "out of range", steps=6, preview=pb.Preview(every=7)),
    invalid("preview.at_steps", "more previews", steps=6, preview=pb.Preview(at_steps=[1] * 7)),
]


async def bad_records(own: pb.Provenance, keys: str) -> list[Bad]:
    """One that was forged, one of another server, and one of another model."""
    forged = pb.Provenance()
    forged.CopyFrom(own)
    forged.request.seed += 1
    foreign = await painted_by(fake_app(FakeNetwork()))
    other = replace(FILES, digest="sha256:" + "cd" * 32)
    unserved = await painted_by(fake_app(FakeNetwork(), files=other, signing_key_file=keys))
    records = (
        (forged, (INVALID, "FORGED_RECORD", "provenance.signature"), "does not match"),
        (foreign, (UNFIT, "FOREIGN_SIGNATURE", ""), "Another server signed"),
        (unserved, (UNFIT, "OTHER_MODEL", ""), "of another model"),
    )
    return [
        (pb.VerifyRequest(provenance=record), answer, words) for record, answer, words in records
    ]


async def test_bad_input_leaves_the_picture_under_way_alone(
    service: Service, tmp_path: Path
) -> None:
    alone = await painted(service.stub)
    bad = [*BAD, *await bad_records(alone, str(tmp_path / "keys"))]
    service.network.steps_free = 3
    call = service.stub.Generate(PICTURE)
    await until(lambda: not service.network.gate.is_set())
    for request, answer, words in bad:
        told, message = await service.refusal(request)
        assert told == answer
        assert words in message
        assert service.rows == 1
    service.network.gate.set()
    [*_, last] = [event async for event in call]
    assert last.image.provenance == alone
    assert service.network.steps_free == 3 - PICTURE.steps, "a bad request was painted too"
    await until(lambda: service.rows == 0)
    assert service.app.registry.get_sample_value("easel_backlog_seconds", {"engine": "demo"}) == 0
