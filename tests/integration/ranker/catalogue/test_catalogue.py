"""The catalogue's calls on a real ranker between real upstream servers."""

from __future__ import annotations

from collections.abc import Awaitable
from pathlib import Path
from typing import Any

import grpc
import pytest

from easel.client.errors import EaselClientError
from easel.model.v1 import model_pb2
from easel.ranker.v1 import ranker_pb2
from tests.integration.ranker.conftest import RunningRanker, running_ranker
from tests.integration.ranker.upstreams import upstreams

VIT = "vit-large-patch16-384"
SHIPPED = ["demo-classifier", "demo-generator", "stable-diffusion", VIT]


async def failure(call: Awaitable[Any]) -> EaselClientError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return EaselClientError.from_call(caught.value)


async def ids(ranker: RunningRanker, **request: Any) -> list[str]:
    answer = await ranker.stub.ListCatalogueModels(ranker_pb2.ListCatalogueModelsRequest(**request))
    return [model.id for model in answer.models]


async def get(ranker: RunningRanker, name: str) -> ranker_pb2.CatalogueModel:
    answer = await ranker.stub.GetCatalogueModel(ranker_pb2.GetCatalogueModelRequest(model=name))
    model: ranker_pb2.CatalogueModel = answer.model
    return model


async def put(ranker: RunningRanker, **model: Any) -> ranker_pb2.CatalogueModel:
    request = ranker_pb2.PutCatalogueModelRequest(model=ranker_pb2.CatalogueModel(**model))
    kept: ranker_pb2.CatalogueModel = (await ranker.stub.PutCatalogueModel(request)).model
    return kept


async def export(ranker: RunningRanker) -> ranker_pb2.ExportCatalogueResponse:
    answer: ranker_pb2.ExportCatalogueResponse
    answer = await ranker.stub.ExportCatalogue(ranker_pb2.ExportCatalogueRequest())
    return answer


def import_(ranker: RunningRanker, yaml: str, **options: bool) -> Any:
    return ranker.stub.ImportCatalogue(ranker_pb2.ImportCatalogueRequest(yaml=yaml, **options))


async def test_both_models_of_the_page_come_along(ranker: RunningRanker) -> None:
    assert await ids(ranker) == SHIPPED
    model = await get(ranker, "Google/ViT-Large-patch16-384")
    assert model.id == VIT
    assert len(model.capabilities) == 6
    (accuracy,) = (
        claim
        for claim in model.capabilities[0].claims
        if claim.name == "top-1 accuracy on ImageNet-1k"
    )
    assert accuracy.claimed == "90.88 %"
    assert accuracy.measured.startswith("85.1 to 85.2 %")
    assert not accuracy.verified


async def test_an_unknown_model_offers_the_nearest(ranker: RunningRanker) -> None:
    error = await failure(get(ranker, "vit-large-patch16"))
    assert error.code is grpc.StatusCode.NOT_FOUND
    assert f"'{VIT}'" in error.message
    assert (await failure(get(ranker, ""))).code is grpc.StatusCode.INVALID_ARGUMENT


async def test_pages(ranker: RunningRanker) -> None:
    request = ranker_pb2.ListCatalogueModelsRequest(page_size=3)
    first = await ranker.stub.ListCatalogueModels(request)
    request.page_token = first.next_page_token
    second = await ranker.stub.ListCatalogueModels(request)
    assert [model.id for model in (*first.models, *second.models)] == SHIPPED
    assert second.next_page_token == ""
    assert first.revision == second.revision == 1
    assert await ids(ranker, type="image-generator") == ["demo-generator", "stable-diffusion"]
    assert await ids(ranker, type="no-such-type") == []


@pytest.mark.parametrize("token", ["§", "a", "====", "gICA"])
async def test_a_page_token_that_is_none(ranker: RunningRanker, token: str) -> None:
    error = await failure(ids(ranker, page_token=token))
    assert [violation.field for violation in error.violations] == ["page_token"]


async def test_page_sizes(ranker: RunningRanker) -> None:
    for size in (999, 1000):
        assert await ids(ranker, page_size=size) == SHIPPED
    error = await failure(ids(ranker, page_size=1001))
    assert (error.limit, error.given) == ("1000", "1001")


async def test_a_model_is_put_changed_and_deleted(ranker: RunningRanker) -> None:
    kept = await put(
        ranker,
        id="resnet",
        type="image-classifier",
        aliases=["ResNet-50"],
        capabilities=[ranker_pb2.Capability(name="Image classification", intents=["classify"])],
    )
    assert kept.name == "resnet"
    assert kept.capabilities[0].id == "resnet/image-classification"
    assert kept.HasField("updated_at")
    assert await get(ranker, "RESNET-50") == kept

    kept.price = "free"
    answer = await ranker.stub.PutCatalogueModel(ranker_pb2.PutCatalogueModelRequest(model=kept))
    assert answer.model.price == "free"
    assert (await export(ranker)).revision == 3

    await ranker.stub.DeleteCatalogueModel(
        ranker_pb2.DeleteCatalogueModelRequest(model="ResNet-50")
    )
    assert await ids(ranker) == SHIPPED
    assert (await export(ranker)).revision == 4


async def test_faults_of_a_put_are_told_by_their_field(ranker: RunningRanker) -> None:
    before = await export(ranker)
    for field, model in (
        ("model.id", {}),
        ("model.type", {"id": "a"}),
        ("model.aliases[0]", {"id": "a", "type": "t", "aliases": ["google/" + VIT]}),
        ("model.same_as", {"id": "a", "same_as": "a"}),
        (
            "model.capabilities[0].claims[0].measured_at",
            {
                "id": "a",
                "type": "t",
                "capabilities": [
                    {"name": "c", "claims": [{"name": "n", "measured_at": {"seconds": 2**62}}]}
                ],
            },
        ),
    ):
        error = await failure(put(ranker, **model))
        assert error.code is grpc.StatusCode.INVALID_ARGUMENT
        assert [violation.field for violation in error.violations] == [field]
    nothing = ranker.stub.PutCatalogueModel(ranker_pb2.PutCatalogueModelRequest())
    assert (await failure(nothing)).violations[0].field == "model"
    assert await export(ranker) == before


async def test_an_export_is_imported_elsewhere(ranker: RunningRanker) -> None:
    await put(ranker, id="mirror", same_as="stable-diffusion", aliases=["a mirror"])
    exported = (await export(ranker)).yaml
    async with upstreams() as up, running_ranker(up) as other:
        told = await import_(other, exported, dry_run=True)
        assert (list(told.added), list(told.changed), list(told.removed)) == (["mirror"], [], [])
        assert (await export(other)).revision == 1
        assert await import_(other, exported) == told
        assert (await export(other)).yaml == exported
        assert (await get(other, "A mirror")).id == "stable-diffusion"


async def test_what_an_import_leaves_out_goes_unless_it_is_to_stay(ranker: RunningRanker) -> None:
    yaml = "easel_catalogue: 1\nmodels: [{id: new, type: t}]"
    told = await import_(ranker, yaml, keep_others=True)
    assert (list(told.added), list(told.removed)) == (["new"], [])
    told = await import_(ranker, yaml)
    assert list(told.removed) == SHIPPED
    assert await ids(ranker) == ["new"]


@pytest.mark.parametrize(
    ("models", "field", "told"),
    [
        ("[{id: a, type: t, colour: red}]", "yaml.models[0].colour", "Line 2: there is no such"),
        ("[{id: a, type: t, aliases: [x]},\n {id: b, type: t, aliases: [X]}]",
         "yaml.models[1].aliases[0]", "Line 3: the name 'X' is that of 'a' already"),
        ("[{id: a, same_as: b}, {id: b, same_as: a}]", "yaml.models[0].same_as", "a -> b -> a"),
        ("[", "yaml", "no YAML"),
    ],
)  # fmt: skip
async def test_a_bad_document_changes_nothing(
    ranker: RunningRanker, models: str, field: str, told: str
) -> None:
    before = await export(ranker)
    for dry_run in (True, False):
        document = f"easel_catalogue: 1\nmodels: {models}"
        error = await failure(import_(ranker, document, dry_run=dry_run))
        assert error.code is grpc.StatusCode.INVALID_ARGUMENT
        assert [violation.field for violation in error.violations] == [field]
        assert told in error.message
    assert await export(ranker) == before


async def test_limits_are_settings(ranker: RunningRanker) -> None:
    yaml = (await export(ranker)).yaml
    size = len(yaml.encode())
    async with running_ranker(ranker.upstreams, max_catalogue_bytes=size - 1) as small:
        assert (await failure(import_(small, yaml))).limit == f"{size - 1} bytes"
        assert await ids(small) == SHIPPED
    async with running_ranker(ranker.upstreams, max_catalogue_models=len(SHIPPED)) as full:
        error = await failure(import_(full, yaml + "  - {id: one-more, type: t}\n"))
        assert (error.limit, error.given) == (str(len(SHIPPED)), str(len(SHIPPED) + 1))
        assert not (await import_(full, yaml)).added
        assert await ids(full) == SHIPPED
    async with running_ranker(ranker.upstreams, max_catalogue_bytes=size) as enough:
        assert not (await import_(enough, yaml)).added


async def test_what_is_too_large_to_send_is_told(ranker: RunningRanker) -> None:
    async with running_ranker(ranker.upstreams, max_message_bytes=4096) as small:
        error = await failure(export(small))
    assert error.code is grpc.StatusCode.FAILED_PRECONDITION
    assert error.reason == "CATALOGUE_TOO_LARGE"


async def test_without_administration_it_is_read_only(ranker: RunningRanker) -> None:
    async with running_ranker(ranker.upstreams, administration=False) as closed:
        assert await ids(closed) == SHIPPED
        for call in (
            put(closed, id="a", type="t"),
            import_(closed, "x"),
            closed.stub.DeleteCatalogueModel(ranker_pb2.DeleteCatalogueModelRequest(model=VIT)),
        ):
            error = await failure(call)
            assert error.code is grpc.StatusCode.PERMISSION_DENIED
            assert "EASEL_RANKER_ADMINISTRATION" in error.message


async def test_what_is_kept_is_there_after_a_restart(tmp_path: Path) -> None:
    async with upstreams() as up:
        async with running_ranker(up, data_dir=tmp_path / "data") as first:
            delete = ranker_pb2.DeleteCatalogueModelRequest(model="demo-generator")
            await first.stub.DeleteCatalogueModel(delete)
            kept = await put(first, id="mine", type="t")
        async with running_ranker(up, data_dir=tmp_path / "data") as second:
            assert await get(second, "mine") == kept
            assert "demo-generator" not in await ids(second)
    assert (tmp_path / "data" / "easel.db").is_file()


async def test_in_postgresql(postgres_database: str) -> None:
    async with upstreams() as up:
        async with running_ranker(up, database_url=postgres_database) as first:
            assert await ids(first) == SHIPPED
            kept = await put(first, id="mine", type="t")
        async with running_ranker(up, database_url=postgres_database) as second:
            assert await get(second, "MINE") == kept


def served(**values: Any) -> model_pb2.ModelInfo:
    return model_pb2.ModelInfo(
        **{
            "name": "vit-large-patch16-384",
            "version": "1",
            "digest": "sha256:c",
            "state": model_pb2.MODEL_STATE_READY,
            "parameters": 304_715_752,
            "bytes_in_memory": 1_218_863_008,
            "traffic_share": 1.0,
            "config": model_pb2.EffectiveConfig(
                backend="openvino",
                device="cpu",
                precision="float32",
                threads=2,
                batches=[
                    model_pb2.BatchProfile(
                        key="layer 24",
                        max_rows=8,
                        base_seconds=0.5,
                        seconds_per_cost=1.0,
                        observations=17,
                    ),
                    model_pb2.BatchProfile(key="layer 3", max_rows=8),
                ],
                extra={"openvino": "2026.4"},
            ),
            "classifier": model_pb2.ClassifierDetails(
                labels=["a", "b"], image_width=384, image_height=384, hidden_size=1024
            ),
            **values,
        }
    )


async def test_live_facts_are_those_of_the_services() -> None:
    async with upstreams() as up:
        up.classifier_models.info = served()
        async with running_ranker(up) as ranker:
            facts = dict((await get(ranker, VIT)).facts)
            listed = await ranker.stub.ListCatalogueModels(ranker_pb2.ListCatalogueModelsRequest())
            assert up.classifier_models.lists == 1  # kept shortly
    assert facts.pop("read_at").endswith("Z")
    assert facts == {
        "source": "ModelService.ListModels of the classifier",
        "served_as": VIT,
        "version": "1",
        "state": "ready",
        "digest": "sha256:c",
        "parameters": "304715752",
        "memory_bytes": "1218863008",
        "backend": "openvino",
        "device": "cpu",
        "precision": "float32",
        "threads": "2",
        "input_size": "384x384",
        "labels": "2",
        "embedding_size": "1024",
        "latency_seconds[layer 24]": "1.5",
        "throughput_per_second[layer 24]": "0.941176",
        "measured[layer 24]": "per picture, at most 8 a batch, 17 observed",
        "config.openvino": "2026.4",
    }
    told = {model.id: dict(model.facts) for model in listed.models}
    assert told[VIT]["backend"] == "openvino"
    assert told["stable-diffusion"] == told["demo-classifier"] == {}


async def test_one_name_on_both_services_is_two_models() -> None:
    async with upstreams() as up:
        up.classifier_models.info = served(name="demo")
        up.generator_models.info.name = "demo"
        async with running_ranker(up) as ranker:
            classifier = await get(ranker, "demo-classifier")
            generator = await get(ranker, "demo-generator")
    assert classifier.facts["source"].endswith("the classifier")
    assert generator.facts["source"].endswith("the generator")
    assert generator.facts["default_steps"] == "10"


async def test_a_service_that_is_away_has_no_facts() -> None:
    async with upstreams() as up:
        up.classifier_models.info = served()
        async with running_ranker(up, classifier_target="127.0.0.1:1") as ranker:
            model = await get(ranker, VIT)
    assert model.id == VIT
    assert not model.facts
