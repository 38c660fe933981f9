"""A preview decoder, as it is configured, told, used and refused."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from PIL import Image

from easel.generator.v1 import generator_pb2 as pb
from easel.generator.v1 import generator_pb2_grpc
from easel.model.v1 import model_pb2, model_pb2_grpc
from services.core.config import ConfigError, load_settings
from services.core.server.app import EXIT_UNUSABLE, serve
from services.generator.config import GeneratorSettings
from tests.integration.generator.server import fake_app
from tests.integration.serving import serving
from tests.unit.generator.fakes import SIDE, FakeNetwork
from tests.unit.generator.tiny import save_tiny

ASKED = pb.GenerateRequest(
    prompt="a star",
    steps=5,
    seed=1,
    preview=pb.Preview(every=2, method=pb.PREVIEW_METHOD_FAST),
)


@pytest.mark.parametrize(
    ("configured", "side", "told"),
    [(True, SIDE // 2, "tiny decoder 'tiny'"), (False, SIDE // 4, "linear projection")],
)
async def test_fast_previews_come_from_it(
    tmp_path: Path, configured: bool, side: int, told: str
) -> None:
    directory = str(save_tiny(tmp_path / "tiny")) if configured else None
    async with serving(fake_app(FakeNetwork(), preview_decoder=directory)) as channel:
        stub: generator_pb2_grpc.GeneratorServiceAsyncStub
        stub = generator_pb2_grpc.GeneratorServiceStub(channel)
        events = [event async for event in stub.Generate(ASKED)]
        models: model_pb2_grpc.ModelServiceAsyncStub = model_pb2_grpc.ModelServiceStub(channel)
        answer = await models.GetModel(model_pb2.GetModelRequest())
    previews = [event.preview for event in events if event.HasField("preview")]
    assert [(each.step, each.width, each.height) for each in previews] == [
        (2, side, side),
        (4, side, side),
    ]
    for each in previews:
        assert Image.open(io.BytesIO(each.image.encoded)).size == (side, side)
    config = answer.model.config
    assert config.extra["fast_preview"].startswith(told)
    keys = {profile.key.split("/")[0] for profile in config.batches}
    assert ("tiny_preview" in keys) == configured


async def test_one_that_does_not_fit_stops_the_start(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    directory = save_tiny(tmp_path / "tiny", latent_channels=16)
    app = fake_app(FakeNetwork(), preview_decoder=str(directory))
    assert await serve(app) == EXIT_UNUSABLE
    why = "The preview decoder 'tiny' reads latents of 16 channels, the model's have 4."
    assert why in caplog.text


def test_one_that_is_no_directory_is_a_bad_setting(tmp_path: Path) -> None:
    for path in (tmp_path / "nowhere", tmp_path / "file"):
        (tmp_path / "file").write_bytes(b"")
        with pytest.raises(ConfigError, match="PREVIEW_DECODER"):
            load_settings(GeneratorSettings, environ={"EASEL_GENERATOR_PREVIEW_DECODER": str(path)})
