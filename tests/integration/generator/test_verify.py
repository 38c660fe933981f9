"""Records: written into every picture, signed, and made again on request."""

from __future__ import annotations

import io
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import c2pa
import grpc
import numpy as np
import pytest
import pytest_asyncio
import torch
from google.protobuf import json_format
from google.rpc import error_details_pb2, status_pb2
from PIL import Image
from safetensors.torch import save_file

from easel.client.errors import EaselClientError
from easel.common.v1 import common_pb2
from easel.generator.v1 import generator_pb2 as pb
from easel.generator.v1 import generator_pb2_grpc
from easel.model.v1 import model_pb2, model_pb2_grpc
from services.core import images
from services.generator.network import Look
from tests.integration.generator.server import fake_app
from tests.integration.serving import serving
from tests.unit.generator.certificates import identity
from tests.unit.generator.fakes import EFFECTIVE, FILES, FakeImageReader, FakeNetwork

FORMATS = (
    common_pb2.ImageOutput(),
    common_pb2.ImageOutput(format=common_pb2.IMAGE_FORMAT_JPEG, quality=80),
    common_pb2.ImageOutput(format=common_pb2.IMAGE_FORMAT_WEBP),
)


class Service:
    def __init__(self, channel: grpc.aio.Channel) -> None:
        self.stub = generator_pb2_grpc.GeneratorServiceStub(channel)
        self.models = model_pb2_grpc.ModelServiceStub(channel)

    async def made(self, **fields: Any) -> pb.GeneratedImage:
        request = pb.GenerateRequest(**{"prompt": "a stár ✦", "steps": 3, "seed": 5, **fields})
        [*_, last] = [event async for event in self.stub.Generate(request)]
        return last.image

    async def verify(self, **fields: Any) -> pb.VerifyResponse:
        answer: pb.VerifyResponse = await self.stub.Verify(pb.VerifyRequest(**fields))
        return answer

    async def refusal(self, **fields: Any) -> tuple[grpc.StatusCode, str, str]:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await self.verify(**fields)
        trailing: Any = dict(caught.value.trailing_metadata() or ())
        status = status_pb2.Status.FromString(trailing["grpc-status-details-bin"])
        info = error_details_pb2.ErrorInfo()
        reasons = [info.reason for detail in status.details if detail.Unpack(info)]
        return caught.value.code(), reasons[0], str(caught.value.details())


@pytest_asyncio.fixture
async def service() -> AsyncIterator[Service]:
    async with serving(fake_app(FakeNetwork())) as channel:
        yield Service(channel)


def pixels(data: bytes) -> Any:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).copy()


def png(array: Any) -> common_pb2.Image:
    file = io.BytesIO()
    Image.fromarray(array).save(file, "PNG")
    return common_pb2.Image(encoded=file.getvalue())


@pytest.mark.parametrize("output", FORMATS, ids=["png", "jpeg", "webp"])
async def test_a_picture_carries_what_made_it(
    service: Service, output: common_pb2.ImageOutput
) -> None:
    made = await service.made(output=output)
    text = images.read_text(made.image.encoded)
    assert text["parameters"].startswith("a stár ✦\nSteps: 3, Sampler: DDIM")
    carried = json_format.Parse(text["easel"], pb.Provenance())
    assert carried == made.provenance
    assert len(carried.signature) == 40
    for told in ("dtype", "device", "backend", "device_class", "pixel_sha256"):
        assert getattr(carried, told)
    assert {"torch", "diffusers", "transformers"} <= set(carried.versions)
    answer = await service.verify(image=made.image)
    assert (answer.verdict, answer.max_difference) == (pb.VERDICT_EQUAL, 0)
    assert not answer.HasField("psnr_db")
    assert answer.pixel_sha256 == made.provenance.pixel_sha256
    assert answer.image == made.image


@pytest.mark.parametrize("tier", [pb.REPRODUCIBILITY_CLOSE, pb.REPRODUCIBILITY_EXACT])
async def test_a_record_alone_is_compared_by_its_digest(service: Service, tier: Any) -> None:
    made = await service.made(reproducibility=tier, omit_metadata=True)
    assert "easel" not in images.read_text(made.image.encoded)
    answer = await service.verify(provenance=made.provenance)
    assert answer.verdict == pb.VERDICT_EQUAL
    assert not answer.HasField("max_difference")


@pytest.mark.parametrize(("by", "verdict"), [(2, pb.VERDICT_CLOSE), (3, pb.VERDICT_DIFFERENT)])
async def test_a_picture_that_was_changed(service: Service, by: int, verdict: Any) -> None:
    made = await service.made()
    changed = pixels(made.image.encoded)
    level = int(changed[0, 0, 0])
    changed[0, 0, 0] = level + by if level < 128 else level - by
    answer = await service.verify(provenance=made.provenance, image=png(changed))
    assert (answer.verdict, answer.max_difference) == (verdict, by)
    assert answer.psnr_db > 40
    small = await service.verify(provenance=made.provenance, image=png(changed[:8]))
    assert small.verdict == pb.VERDICT_DIFFERENT
    assert "32x8" in small.explanation


async def test_a_forged_record(service: Service) -> None:
    made = await service.made()
    for field, value in (("pixel_sha256", "00" * 32), ("device", "abacus")):
        forged = pb.Provenance()
        forged.CopyFrom(made.provenance)
        setattr(forged, field, value)
        code, reason, text = await service.refusal(provenance=forged)
        assert (code, reason) == (grpc.StatusCode.INVALID_ARGUMENT, "FORGED_RECORD")
        assert "signature" in text
    forged.CopyFrom(made.provenance)
    forged.request.seed += 1
    assert (await service.refusal(provenance=forged))[1] == "FORGED_RECORD"
    forged.CopyFrom(made.provenance)
    forged.ClearField("signature")
    assert (await service.refusal(provenance=forged))[1] == "UNSIGNED_RECORD"
    again = await service.verify(provenance=made.provenance)
    assert again.verdict == pb.VERDICT_EQUAL


def carrying(text: dict[str, str]) -> common_pb2.Image:
    return common_pb2.Image(encoded=images.encode(Image.new("RGB", (8, 8)), text=text))


@pytest.mark.parametrize(
    ("asked", "words", "field", "limit", "given"),
    [
        ({}, "Give a record", "provenance", "provenance or image", "none"),
        (
            {"image": carrying({})},
            "carries no record",
            "image",
            "a text named easel",
            "0 other texts",
        ),
        (
            {"image": carrying({"parameters": "a star"})},
            "carries no record",
            "image",
            "a text named easel",
            "1 other texts",
        ),
        ({"image": carrying({"easel": "{"})}, "broken", "image", "a Provenance as JSON", "'{'"),
        (
            {"image": carrying({"easel": "x" * 81})},
            "broken",
            "image",
            "a Provenance as JSON",
            f"'{'x' * 80}'",
        ),
    ],
)
async def test_nothing_to_verify(
    service: Service, asked: dict[str, Any], words: str, field: str, limit: str, given: str
) -> None:
    with pytest.raises(grpc.aio.AioRpcError, match=words) as caught:
        await service.verify(**asked)
    error = EaselClientError.from_call(caught.value)
    assert error.code == grpc.StatusCode.INVALID_ARGUMENT
    assert [each.field for each in error.violations] == [field]
    assert (error.limit, error.given) == (limit, given)


async def test_a_record_of_another_server(service: Service) -> None:
    made = await service.made()
    async with serving(fake_app(FakeNetwork())) as channel:
        code, reason, _ = await Service(channel).refusal(provenance=made.provenance)
    assert (code, reason) == (grpc.StatusCode.FAILED_PRECONDITION, "FOREIGN_SIGNATURE")


@pytest.fixture
def keys(tmp_path: Path) -> str:
    file = tmp_path / "keys"
    file.write_text("5a" * 32)
    return str(file)


async def test_a_record_of_another_model(keys: str) -> None:
    other = replace(FILES, digest="sha256:" + "cd" * 32)
    async with serving(fake_app(FakeNetwork(), files=other, signing_key_file=keys)) as channel:
        made = await Service(channel).made()
    async with serving(fake_app(FakeNetwork(), signing_key_file=keys)) as channel:
        for asked in ({"image": made.image}, {"provenance": made.provenance}):
            for any_version in (False, True):
                code, reason, text = await Service(channel).refusal(
                    **asked, allow_other_versions=any_version
                )
                assert (code, reason) == (grpc.StatusCode.FAILED_PRECONDITION, "OTHER_MODEL")
                assert f"{other.digest}, where {FILES.digest} is served" in text


async def test_servers_with_one_key_know_each_others_records(keys: str) -> None:
    async with serving(fake_app(FakeNetwork(), signing_key_file=keys)) as channel:
        made = await Service(channel).made()
        shown = await Service(channel).models.GetModel(model_pb2.GetModelRequest())
        assert shown.model.config.extra["signing_key"].endswith("the key file")
    async with serving(fake_app(FakeNetwork(), signing_key_file=keys)) as channel:
        other = Service(channel)
        assert (await other.verify(image=made.image)).verdict == pb.VERDICT_EQUAL


class Brighter(FakeNetwork):
    """As another precision might be, only more so."""

    def predict(self, look: Look) -> torch.Tensor:
        return super().predict(look) - 0.1


async def test_a_record_of_another_device(keys: str) -> None:
    elsewhere = replace(EFFECTIVE, precision="bfloat16", threads=7)
    network = Brighter(effective=elsewhere)
    async with serving(fake_app(network, signing_key_file=keys)) as channel:
        there = await Service(channel).made()
    async with serving(fake_app(FakeNetwork(), signing_key_file=keys)) as channel:
        here = Service(channel)
        own = await here.made()
        for asked in ({"image": there.image}, {"provenance": there.provenance}):
            answer = await here.verify(**asked)
            assert answer.verdict == pb.VERDICT_DIFFERENT
            moved = (there.provenance.device_class, own.provenance.device_class)
            assert f"device class {moved[0]} there, {moved[1]} here" in answer.explanation
            assert "dtype bfloat16 there, float32 here" in answer.explanation
            assert "backend" not in answer.explanation
    same = FakeNetwork(effective=elsewhere)
    async with serving(fake_app(same, signing_key_file=keys)) as channel:
        answer = await Service(channel).verify(image=own.image)
        assert answer.verdict == pb.VERDICT_EQUAL
        assert "device class" not in answer.explanation


async def test_the_model_tells_of_a_drawn_key(service: Service) -> None:
    shown = await service.models.GetModel(model_pb2.GetModelRequest())
    assert shown.model.config.extra["signing_key"].endswith("drawn at start")


async def test_a_deadline_holds_for_a_verification() -> None:
    network = FakeNetwork()
    async with serving(fake_app(network)) as channel:
        service = Service(channel)
        made = await service.made(steps=150)
        # It is taken on, for it is predicted to end long before, and then hangs.
        network.gate.clear()
        try:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await service.stub.Verify(pb.VerifyRequest(provenance=made.provenance), timeout=2.0)
        finally:
            network.gate.set()
    assert caught.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    assert json.loads(images.read_text(made.image.encoded)["easel"])["request"]["steps"] == 150


async def test_a_record_with_given_pictures_needs_them(service: Service) -> None:
    begun = png(np.arange(32 * 32 * 3, dtype=np.uint8).reshape(32, 32, 3))
    other = png(np.zeros((32, 32, 3), np.uint8))
    mode = pb.ImageToImage(image=begun, strength=0.7)
    made = await service.made(steps=10, image_to_image=mode)
    answer = await service.verify(image=made.image, given=[other, begun])
    assert answer.verdict == pb.VERDICT_EQUAL
    for given in ([], [other]):
        code, _, text = await service.refusal(image=made.image, given=given)
        assert code == grpc.StatusCode.INVALID_ARGUMENT
        assert "image_to_image.image" in text


async def test_content_credentials_leave_the_picture_as_it_is(tmp_path: Path) -> None:
    papers = identity(tmp_path)
    app = fake_app(
        FakeNetwork(),
        c2pa_certificate_file=str(papers.certificates),
        c2pa_key_file=str(papers.key),
    )
    library: Any = c2pa
    async with serving(app) as channel:
        service = Service(channel)
        shown = await service.models.GetModel(model_pb2.GetModelRequest())
        assert shown.model.config.extra["content_credentials"] == "es256"
        for output, kind in zip(FORMATS, ("png", "jpeg", "webp"), strict=True):
            made = await service.made(output=output)
            with library.Reader(f"image/{kind}", io.BytesIO(made.image.encoded)) as reader:
                assert reader.get_validation_state() == "Valid"
                assertions = reader.get_active_manifest()["assertions"]
            told = {each["label"]: each["data"] for each in assertions}
            recorded = told["easel.provenance"]["pixel_sha256"]
            assert recorded == made.provenance.pixel_sha256
            assert (await service.verify(image=made.image)).verdict == pb.VERDICT_EQUAL
        bare = await service.made(omit_metadata=True)
        assert b"easel.provenance" not in bare.image.encoded
        assert b"c2pa.actions" in bare.image.encoded


async def test_an_inpainting_is_made_again_from_picture_and_mask(service: Service) -> None:
    picture = png(np.arange(32 * 32 * 3, dtype=np.uint8).reshape(32, 32, 3))
    painted = np.zeros((32, 32, 3), np.uint8)
    painted[8:24, 8:24] = 255
    mode = pb.Inpaint(
        image=picture, mask=png(painted), polarity=pb.MASK_POLARITY_WHITE_IS_REPAINTED
    )
    made = await service.made(inpaint=mode)
    answer = await service.verify(image=made.image, given=[png(painted), picture])
    assert answer.verdict == pb.VERDICT_EQUAL
    _, _, text = await service.refusal(image=made.image, given=[picture])
    assert "inpaint.mask" in text


async def test_a_stylization_is_of_its_adapter(tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text("5a" * 32)
    content = png(np.arange(32 * 32 * 3, dtype=np.uint8).reshape(32, 32, 3))
    style = png(np.full((32, 32, 3), 99, np.uint8))
    mode = pb.Stylize(content=content, style=style, content_strength=0.0)

    def app(reader: FakeImageReader | None) -> Any:
        return fake_app(FakeNetwork(image_adapter=reader), signing_key_file=str(keys))

    async with serving(app(FakeImageReader())) as channel:
        service = Service(channel)
        shown = await service.models.GetModel(model_pb2.GetModelRequest())
        told = shown.model.config.extra["stylize"]
        assert told == "image prompt; ip_adapter sha256:" + "cd" * 32
        made, plain = await service.made(stylize=mode), await service.made()
        assert made.provenance.versions["ip_adapter"] == "sha256:" + "cd" * 32
        assert made.provenance.request.guidance_scale == 3.0
        assert "ip_adapter" not in plain.provenance.versions
        again = await service.verify(image=made.image, given=[content, style])
        assert again.verdict == pb.VERDICT_EQUAL
    others = (None, FakeImageReader({"ip_adapter": "sha256:" + "ef" * 32}))
    for other in others:
        async with serving(app(other)) as channel:
            service = Service(channel)
            code, reason, text = await service.refusal(image=made.image, given=[content, style])
            assert (code, reason) == (grpc.StatusCode.FAILED_PRECONDITION, "OTHER_VERSION")
            assert "ip_adapter sha256:cd" in text
            assert (await service.verify(image=plain.image)).verdict == pb.VERDICT_EQUAL
            answer = await service.verify(
                image=made.image, given=[content, style], allow_other_versions=True
            )
            assert (answer.verdict == pb.VERDICT_EQUAL) == (other is not None)


PLAIN_ROUTE = replace(
    EFFECTIVE,
    backend="openvino",
    precision="int8",
    versions={"openvino": "2026.1", "nncf": "3.0"},
)
STYLED_ROUTE = replace(
    PLAIN_ROUTE, backend="fake+style", precision="bfloat16", versions={"openvino": "2026.1"}
)


def routed(**versions: str) -> FakeNetwork:
    """Plain looks in int8, by other ``versions``; those of a style by a route of their own."""
    plain = replace(PLAIN_ROUTE, versions={**PLAIN_ROUTE.versions, **versions})
    return FakeNetwork(effective=plain, routes={"fake+style": STYLED_ROUTE})


async def test_a_record_tells_the_route_that_painted(keys: str) -> None:
    content, style = (png(np.full((32, 32, 3), level, np.uint8)) for level in (40, 99))
    async with serving(fake_app(routed(), signing_key_file=keys)) as channel:
        service = Service(channel)
        plain = await service.made()
        styled = await service.made(stylize=pb.Stylize(content=content, style=style))
        assert (plain.provenance.backend, plain.provenance.dtype) == ("openvino", "int8")
        told = styled.provenance
        assert (told.backend, told.dtype) == ("fake+style", "bfloat16")
        assert told.device_class == plain.provenance.device_class
        for made, given in ((plain, []), (styled, [content, style])):
            answer = await service.verify(image=made.image, given=given)
            assert answer.verdict == pb.VERDICT_EQUAL
    # What only the plain route is made with does not matter to the other.
    async with serving(fake_app(routed(nncf="3.1"), signing_key_file=keys)) as channel:
        service = Service(channel)
        answer = await service.verify(image=styled.image, given=[content, style])
        assert answer.verdict == pb.VERDICT_EQUAL
        assert (await service.refusal(image=plain.image))[1] == "OTHER_VERSION"


@pytest.mark.parametrize("library", ["openvino", "nncf"])
async def test_a_picture_is_of_the_versions_that_computed_it(keys: str, library: str) -> None:
    async with serving(fake_app(routed(), signing_key_file=keys)) as channel:
        made = await Service(channel).made()
        assert made.provenance.versions[library] == PLAIN_ROUTE.versions[library]
    for network, here in ((routed(**{library: "9"}), "9"), (FakeNetwork(), "unknown")):
        async with serving(fake_app(network, signing_key_file=keys)) as channel:
            service = Service(channel)
            code, reason, text = await service.refusal(image=made.image)
            assert (code, reason) == (grpc.StatusCode.FAILED_PRECONDITION, "OTHER_VERSION")
            assert f"{library} {PLAIN_ROUTE.versions[library]} there, {here} here" in text
            answer = await service.verify(image=made.image, allow_other_versions=True)
            assert answer.verdict == pb.VERDICT_EQUAL


async def test_a_picture_is_of_the_embeddings_that_its_prompt_names(tmp_path: Path) -> None:
    keys, folder = tmp_path / "keys", tmp_path / "embeddings"
    keys.write_text("5a" * 32)
    folder.mkdir()

    def app(**embeddings: float) -> Any:
        for name, value in embeddings.items():
            vectors = {"emb_params": torch.full((1, 2), value)}
            save_file(vectors, folder / f"{name}.safetensors")
        return fake_app(FakeNetwork(), signing_key_file=str(keys), embeddings_dir=str(folder))

    async with serving(app(cat=0.25, dog=0.5)) as channel:
        service = Service(channel)
        one = await service.made(prompt="a <cat>", negative_prompt="no \\<dog>")
        both = await service.made(prompt="a <cat>", negative_prompt="<dog>")
        assert (await service.verify(image=both.image)).verdict == pb.VERDICT_EQUAL
    told = [
        {name for name in made.provenance.versions if name.startswith("embedding ")}
        for made in (one, both)
    ]
    assert told == [{"embedding cat"}, {"embedding cat", "embedding dog"}]
    async with serving(app(dog=0.75)) as channel:
        service = Service(channel)
        assert (await service.verify(image=one.image)).verdict == pb.VERDICT_EQUAL
        code, reason, text = await service.refusal(image=both.image)
        assert (code, reason) == (grpc.StatusCode.FAILED_PRECONDITION, "OTHER_VERSION")
        assert "embedding dog" in text
    (folder / "cat.safetensors").unlink()
    async with serving(app()) as channel:
        code, reason, text = await Service(channel).refusal(image=one.image)
        assert (code, reason) == (grpc.StatusCode.FAILED_PRECONDITION, "OTHER_VERSION")
        assert "embedding cat" in text
        assert "unknown here" in text
