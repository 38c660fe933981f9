"""The life of models over the wire, with requests under way."""

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable
from pathlib import Path
from typing import Any

import grpc
import pytest
import pytest_asyncio
from google.rpc import error_details_pb2, status_pb2

from easel.classifier.v1 import classifier_pb2 as pb
from easel.classifier.v1 import classifier_pb2_grpc
from easel.common.v1 import common_pb2
from easel.model.v1 import model_pb2, model_pb2_grpc
from services.classifier.catalogue import ClassifierMaker
from services.classifier.network import Options
from services.core.fleet import References
from services.inference import open_inference_pb2 as oip
from services.inference import open_inference_pb2_grpc as oip_grpc
from tests.integration.classifier.pictures import picture
from tests.integration.classifier.server import fake_app
from tests.integration.serving import serving
from tests.unit.classifier.fakes import FakeNetwork, until

GREEN = common_pb2.Image(encoded=picture("lime"))


class Service:
    """A classifier over fake networks, ``fake/1`` at first. ``made`` are those of later loads."""

    def __init__(self, root: Path, **settings: Any) -> None:
        self.root = root
        self.gate = threading.Event()
        self.gate.set()
        self.first = FakeNetwork(gate=self.gate)
        self.made: list[FakeNetwork] = []
        self.faults: list[Exception] = []
        for name, size in (("small", 3), ("large", 1000)):
            (root / name).mkdir()
            (root / name / "model.safetensors").write_bytes(b"\0" * size)
        maker = ClassifierMaker(References(root=root, hub=False), Options(), self._open)
        self.app = fake_app(self.first, maker=maker, max_in_flight=4, **settings)
        self.stub: classifier_pb2_grpc.ClassifierServiceAsyncStub
        self.models: model_pb2_grpc.ModelServiceAsyncStub
        self.inference: Any

    def _open(self, options: Options) -> FakeNetwork:
        del options
        network = FakeNetwork(faults=self.faults)
        self.made.append(network)
        return network

    async def load(self, reference: str, **fields: Any) -> model_pb2.ModelInfo:
        asked = model_pb2.LoadModelRequest(reference=reference, **fields)
        return (await self.models.LoadModel(asked)).model

    async def unload(self, name: str, version: str = "") -> model_pb2.ModelInfo:
        asked = model_pb2.UnloadModelRequest(name=name, version=version)
        return (await self.models.UnloadModel(asked)).model

    async def set_traffic(self, name: str, **shares: float) -> list[model_pb2.ModelInfo]:
        named = {version.removeprefix("v"): share for version, share in shares.items()}
        asked = model_pb2.SetTrafficRequest(name=name, shares=named)
        return list((await self.models.SetTraffic(asked)).models)

    async def listed(self) -> dict[str, float]:
        answer = await self.models.ListModels(model_pb2.ListModelsRequest())
        return {f"{model.name}/{model.version}": model.traffic_share for model in answer.models}

    async def classify(self, model: str = "", version: str = "") -> str:
        """The model that answered."""
        asked = pb.ClassifyRequest(image=GREEN, model=model, model_version=version)
        answer = await self.stub.Classify(asked)
        assert answer.labels[0].name == "green"
        return f"{answer.model.name}/{answer.model.version}"

    def engines(self) -> set[str]:
        return {
            sample.labels["engine"]
            for family in self.app.registry.collect()
            for sample in family.samples
            if "engine" in sample.labels
        }


@pytest_asyncio.fixture
async def service(tmp_path: Path) -> AsyncIterator[Service]:
    service = Service(tmp_path, memory_budget_bytes=900)
    async with serving(service.app) as channel:
        service.stub = classifier_pb2_grpc.ClassifierServiceStub(channel)
        service.models = model_pb2_grpc.ModelServiceStub(channel)
        service.inference = oip_grpc.GRPCInferenceServiceStub(channel)
        yield service
        service.gate.set()
    assert service.first.closed
    assert all(network.closed for network in service.made if network.batches)


async def refusal(call: Awaitable[Any]) -> tuple[grpc.StatusCode, str, str]:
    """The status that a call ends with, its reason, and the field that it names."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    reason = field = ""
    packed = dict(caught.value.trailing_metadata() or ())["grpc-status-details-bin"]
    for detail in status_pb2.Status.FromString(packed).details:
        info, bad = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
        if detail.Unpack(info):
            reason = info.reason
        if detail.Unpack(bad):
            field = bad.field_violations[0].field
    return caught.value.code(), reason, field


async def test_several_models_by_name_and_version(service: Service) -> None:
    loaded = await service.load("small", name="other", version="7")
    assert (loaded.name, loaded.version, loaded.state, loaded.traffic_share) == (
        "other",
        "7",
        model_pb2.MODEL_STATE_READY,
        1.0,
    )
    assert loaded.config.backend == "fake"
    assert loaded.config.batches[0].observations > 0
    await service.load("small")
    assert await service.classify() == "fake/1"
    assert await service.classify("other") == await service.classify("other", "7") == "other/7"
    assert (await service.classify("small")).startswith("small/")
    assert list(await service.listed())[:2] == ["fake/1", "other/7"]
    asked = model_pb2.GetModelRequest(name="other")
    assert (await service.models.GetModel(asked)).model.version == "7"
    embedded = await service.stub.Embed(pb.EmbedRequest(image=GREEN, model="other"))
    assert embedded.model.version == "7"


async def test_a_swap_under_load_drops_nothing(service: Service) -> None:
    """Streams and calls go on while the default is swapped four times, and each old one unloaded.
    No item fails, and what is asked after a swap is answered by the new version.
    """
    going = True
    answered: list[str] = []
    failed: list[pb.ClassifyResponse] = []

    async def requests() -> AsyncIterator[pb.ClassifyRequest]:
        while going:
            yield pb.ClassifyRequest(image=GREEN)
            await asyncio.sleep(0)

    async def stream() -> None:
        async for response in service.stub.ClassifyStream(requests()):
            if response.HasField("error"):
                failed.append(response)
            answered.append(response.model.version)

    async def calls() -> None:
        while going:
            answered.append((await service.classify()).removeprefix("fake/"))

    callers = [asyncio.create_task(work()) for work in (stream, stream, calls, calls)]
    for version in range(2, 6):
        await service.load("small", name="fake", version=str(version), make_default=True)
        await service.unload("fake", str(version - 1))
        # Of the old one no more come than may be on their way.
        del answered[:]
        await until(lambda: len(answered) > 20)
        assert set(answered[16:]) == {str(version)}
    going = False
    await asyncio.gather(*callers)
    assert not failed
    assert set(answered[16:]) == {"5"}
    assert await service.listed() == {"fake/5": 1.0}
    assert service.engines() == {"fake/5"}


async def test_what_was_admitted_to_the_old_version_finishes_there(service: Service) -> None:
    service.gate.clear()
    before = [asyncio.create_task(service.classify()) for _ in range(6)]
    old = service.app.fleet.find("", "")
    await until(lambda: old.engine.rows == 6)
    await service.load("small", name="fake", version="2", make_default=True)
    unloading = asyncio.create_task(service.unload("fake", "1"))
    watch = service.models.WatchModels(model_pb2.WatchModelsRequest())
    async for told in watch:
        if (told.model.version, told.model.state) == ("1", model_pb2.MODEL_STATE_UNLOADING):
            break
    watch.cancel()
    assert await service.classify() == "fake/2"
    not_found = (grpc.StatusCode.NOT_FOUND, "NOT_FOUND", "")
    assert await refusal(service.classify("fake", "1")) == not_found
    assert old.engine.rows == 6
    service.gate.set()
    assert await asyncio.gather(*before) == ["fake/1"] * 6
    assert (await unloading).state == model_pb2.MODEL_STATE_UNLOADED
    assert service.first.closed


async def test_a_canary(service: Service) -> None:
    await service.load("small", name="fake", version="2")
    models = await service.set_traffic("fake", v1=0.5, v2=0.5)
    assert [model.traffic_share for model in models] == [0.5, 0.5]
    answers = {await service.classify() for _ in range(60)}
    assert answers == {"fake/1", "fake/2"}
    assert await service.classify("fake", "2") == "fake/2"
    await service.set_traffic("fake", v2=1.0)
    assert await service.listed() == {"fake/1": 0.0, "fake/2": 1.0}


async def test_watching(service: Service) -> None:
    watch = service.models.WatchModels(model_pb2.WatchModelsRequest())
    told = aiter(watch)
    first = (await anext(told)).model
    assert (first.name, first.state) == ("fake", model_pb2.MODEL_STATE_READY)
    assert first.config.backend == "fake"
    await service.load("small", name="other", version="1")
    await service.unload("other")
    changes = [(await anext(told)).model for _ in range(5)]
    assert [change.state for change in changes] == [
        model_pb2.MODEL_STATE_LOADING,
        model_pb2.MODEL_STATE_WARMING_UP,
        model_pb2.MODEL_STATE_READY,
        model_pb2.MODEL_STATE_UNLOADING,
        model_pb2.MODEL_STATE_UNLOADED,
    ]
    assert [change.traffic_share for change in changes] == [0.0, 0.0, 1.0, 0.0, 0.0]


async def test_a_watch_ends_well_when_the_server_drains(tmp_path: Path) -> None:
    service = Service(tmp_path)
    async with serving(service.app) as channel:
        models = model_pb2_grpc.ModelServiceStub(channel)
        watch = models.WatchModels(model_pb2.WatchModelsRequest())
        told = aiter(watch)
        await anext(told)
        await service.app.fleet.drain(1.0)
        assert [message async for message in told] == []
        assert await watch.code() is grpc.StatusCode.OK


async def test_refused_loads(service: Service) -> None:
    argument, state = grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.FAILED_PRECONDITION
    expected = {
        "": (argument, "INVALID_INPUT", "reference"),
        "../small": (argument, "INVALID_INPUT", "reference"),
        "/etc/passwd": (argument, "INVALID_INPUT", "reference"),
        str(service.root / ".." / "x"): (argument, "INVALID_INPUT", "reference"),
        "nothing": (grpc.StatusCode.NOT_FOUND, "NOT_FOUND", ""),
        "org/vit": (state, "HUB_NOT_ALLOWED", ""),
        "large": (argument, "OVER_MEMORY_BUDGET", "reference"),
    }
    for reference, wanted in expected.items():
        assert await refusal(service.load(reference)) == wanted
    for fields in ({"backend": "x"}, {"device": "x"}, {"precision": "x"}, {"options": {"x": "y"}}):
        (field,) = fields
        wanted = (argument, "INVALID_INPUT", field)
        assert await refusal(service.load("small", **fields)) == wanted
    wanted = (state, "MODEL_EXISTS", "")
    assert await refusal(service.load("small", name="fake", version="1")) == wanted
    assert await service.listed() == {"fake/1": 1.0}


async def test_a_load_that_fails_shows_its_cause_in_the_log_alone(service: Service) -> None:
    service.faults.append(RuntimeError("secret"))
    with pytest.raises(grpc.aio.AioRpcError, match="Internal error") as caught:
        await service.load("small", name="other", version="1")
    assert caught.value.code() is grpc.StatusCode.INTERNAL
    asked = model_pb2.GetModelRequest(name="other")
    failed = (await service.models.GetModel(asked)).model
    assert failed.state == model_pb2.MODEL_STATE_FAILED
    assert "secret" not in failed.error
    wanted = (grpc.StatusCode.FAILED_PRECONDITION, "MODEL_FAILED", "")
    assert await refusal(service.classify("other")) == wanted
    assert await service.classify() == "fake/1"
    service.faults.clear()
    assert (await service.load("small", name="other", version="1")).error == ""


async def test_refused_unloads_and_traffic(service: Service) -> None:
    await service.load("small", name="fake", version="2")
    argument, state = grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.FAILED_PRECONDITION
    not_found = (grpc.StatusCode.NOT_FOUND, "NOT_FOUND", "")
    assert await refusal(service.unload("")) == (argument, "INVALID_INPUT", "name")
    assert await refusal(service.unload("fake")) == (argument, "INVALID_INPUT", "version")
    assert await refusal(service.unload("fake", "1")) == (state, "MODEL_HAS_TRAFFIC", "")
    assert await refusal(service.unload("fake", "3")) == not_found
    assert await refusal(service.unload("other")) == not_found
    assert await refusal(service.set_traffic("fake", v3=1.0)) == not_found
    for shares in ({"v1": 0.5}, {"v1": 0.6, "v2": 0.6}, {"v1": -1.0, "v2": 2.0}, {}):
        wanted = (argument, "INVALID_INPUT", "shares")
        assert await refusal(service.set_traffic("fake", **shares)) == wanted
    assert await service.listed() == {"fake/1": 1.0, "fake/2": 0.0}


async def test_administration_may_be_off(tmp_path: Path) -> None:
    service = Service(tmp_path, administration=False)
    async with serving(service.app) as channel:
        service.models = model_pb2_grpc.ModelServiceStub(channel)
        denied = (grpc.StatusCode.PERMISSION_DENIED, "ADMINISTRATION_OFF", "")
        assert await refusal(service.load("small")) == denied
        assert await refusal(service.unload("fake", "1")) == denied
        assert await refusal(service.set_traffic("fake", v1=1.0)) == denied
        assert await service.listed() == {"fake/1": 1.0}
        watch = service.models.WatchModels(model_pb2.WatchModelsRequest())
        assert (await anext(aiter(watch))).model.name == "fake"
        watch.cancel()


async def test_tensors_go_to_one_version_at_a_time(service: Service) -> None:
    """The Open Inference Protocol names one version in an answer, whatever the batch."""
    await service.load("small", name="fake", version="2")
    await service.set_traffic("fake", v1=0.5, v2=0.5)
    asked = oip.ModelInferRequest(model_name="fake")
    contents = oip.InferTensorContents(bytes_contents=[picture("lime")] * 4)
    asked.inputs.add(name="image", datatype="BYTES", shape=[4], contents=contents)
    versions = [(await service.inference.ModelInfer(asked)).model_version for _ in range(40)]
    assert set(versions) == {"1", "2"}
    found = await service.inference.ModelStatistics(oip.ModelStatisticsRequest(name="fake"))
    counted = {model.version: model.inference_count for model in found.model_stats}
    assert counted == {version: 4 * versions.count(version) for version in ("1", "2")}
    metadata = await service.inference.ModelMetadata(oip.ModelMetadataRequest(name="fake"))
    assert list(metadata.versions) == ["1", "2"]
    index = await service.inference.RepositoryIndex(oip.RepositoryIndexRequest(ready=True))
    assert [model.version for model in index.models] == ["1", "2"]
    for version, ready in (("2", True), ("3", False)):
        probe = oip.ModelReadyRequest(name="fake", version=version)
        assert (await service.inference.ModelReady(probe)).ready == ready
