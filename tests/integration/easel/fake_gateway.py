"""A gateway that answers from the contracts alone: what the client and the CLI see of one."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Event
from typing import Any, Never

import grpc
from google.protobuf import timestamp_pb2
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from easel.classifier.v1 import classifier_pb2, classifier_pb2_grpc
from easel.common.v1 import common_pb2
from easel.gateway.v1 import gateway_pb2, gateway_pb2_grpc
from easel.generator.v1 import generator_pb2, generator_pb2_grpc
from easel.model.v1 import model_pb2, model_pb2_grpc
from easel.ranker.v1 import ranker_pb2, ranker_pb2_grpc
from tests.unit.easel.pictures import png

TIMING = common_pb2.Timing(queue_seconds=0.1, compute_seconds=0.5, batch_rows=4, steps=8)
STAR = common_pb2.Label(index=1, name="red star", score=0.9)
MOON = common_pb2.Label(index=2, name="white moon", score=0.1)
PREVIEW = common_pb2.Image(encoded=png("blue"))
STEPS = 8


@dataclass
class Seen:
    """What callers sent."""

    metadata: list[dict[str, str | bytes]] = field(default_factory=list)
    requests: list[Message] = field(default_factory=list)
    deadlines: list[float | None] = field(default_factory=list)
    hanging: Event = field(default_factory=Event)  # a call of "hang" has begun
    given_up: Event = field(default_factory=Event)  # and its caller has gone

    def note(self, request: Message, context: Any) -> None:
        self.requests.append(request)
        self.metadata.append(dict(context.invocation_metadata()))
        self.deadlines.append(context.time_remaining())


def refuse(context: Any, code: grpc.StatusCode, text: str, *details: Message) -> Never:
    """End the call as the services do: a status with its details."""
    status = status_pb2.Status(code=code.value[0], message=text)
    for detail in (*details, error_details_pb2.RequestInfo(request_id="req-1")):
        status.details.add().Pack(detail)
    context.set_trailing_metadata((("grpc-status-details-bin", status.SerializeToString()),))
    context.abort(code, text)
    raise AssertionError("abort raises")


def bad_field(context: Any, name: str, text: str, limit: str, given: str) -> Never:
    violation = error_details_pb2.BadRequest.FieldViolation(field=name, description=text)
    info = error_details_pb2.ErrorInfo(
        reason="INVALID_INPUT", domain="easel", metadata={"limit": limit, "given": given}
    )
    bad = error_details_pb2.BadRequest(field_violations=[violation])
    refuse(context, grpc.StatusCode.INVALID_ARGUMENT, text, info, bad)


class FakeClassifier(classifier_pb2_grpc.ClassifierServiceServicer):
    def __init__(self, seen: Seen) -> None:
        self._seen = seen

    def Classify(
        self, request: classifier_pb2.ClassifyRequest, context: Any
    ) -> classifier_pb2.ClassifyResponse:
        self._seen.note(request, context)
        if not request.image.encoded.startswith(b"\x89PNG"):
            bad_field(context, "image", "Not a picture.", "JPEG, PNG or WebP", "other bytes")
        return _classified(request)

    def ClassifyStream(
        self, request_iterator: Any, context: Any
    ) -> Iterator[classifier_pb2.ClassifyResponse]:
        for request in request_iterator:
            self._seen.note(request, context)
            yield _classified(request)

    def Embed(
        self, request: classifier_pb2.EmbedRequest, context: Any
    ) -> classifier_pb2.EmbedResponse:
        self._seen.note(request, context)
        half = request.dtype == classifier_pb2.EMBEDDING_DTYPE_FLOAT16
        data = struct.pack("<6e" if half else "<6f", *range(6))
        layers = [layer % 12 for layer in request.layers] or [12]
        embeddings = [
            classifier_pb2.Embedding(layer=layer, data=data, shape=[6], dtype=request.dtype)
            for layer in layers
        ]
        return classifier_pb2.EmbedResponse(id=request.id, embeddings=embeddings)

    def EmbedStream(self, request_iterator: Any, context: Any) -> Any:
        raise NotImplementedError

    def Explain(
        self, request: classifier_pb2.ExplainRequest, context: Any
    ) -> classifier_pb2.ExplainResponse:
        self._seen.note(request, context)
        if request.label not in ("", STAR.name, MOON.name):
            text = f"The model has no label '{request.label}'."
            bad_field(context, "label", text, "", request.label)
        kind = "WEBP" if request.output.format == common_pb2.IMAGE_FORMAT_WEBP else "PNG"
        answer = classifier_pb2.ExplainResponse(
            id=request.id,
            label=MOON if request.label == MOON.name else STAR,
            relevance=[0.0, 0.125, 0.125, 0.0, 0.25, 0.5],
            rows=2,
            columns=3,
            timing=TIMING,
        )
        answer.model.name = "demo"
        if request.overlay:
            answer.heat_map.encoded = png("orange", format=kind)
        return answer


def _classified(request: classifier_pb2.ClassifyRequest) -> classifier_pb2.ClassifyResponse:
    answer = classifier_pb2.ClassifyResponse(id=request.id, timing=TIMING)
    answer.model.name = "demo"
    if request.image.encoded.startswith(b"\x89PNG"):
        answer.labels.extend([STAR, MOON][: request.top_k or 2])
    else:
        answer.error.CopyFrom(
            common_pb2.ItemError(
                code=3, message="Not a picture.", reason="INVALID_INPUT", field="image"
            )
        )
    return answer


class FakeGenerator(generator_pb2_grpc.GeneratorServiceServicer):
    """Prompts choose what happens: "hang", "overloaded", "half fails"; 0 steps is refused."""

    def __init__(self, seen: Seen) -> None:
        self._seen = seen

    def Generate(
        self, request: generator_pb2.GenerateRequest, context: Any
    ) -> Iterator[generator_pb2.GenerateEvent]:
        self._seen.note(request, context)
        if request.HasField("steps") and request.steps == 0:
            bad_field(context, "steps", "steps is out of range.", "1 to 50", "0")
        if request.prompt == "overloaded":
            retry = error_details_pb2.RetryInfo()
            retry.retry_delay.FromSeconds(2)
            refuse(context, grpc.StatusCode.RESOURCE_EXHAUSTED, "Too much work.", retry)
        first = request.seed if request.HasField("seed") else 1000
        for index in range(request.count or 1):
            yield from self._picture(request, index, first + index, context)

    def _picture(
        self, request: generator_pb2.GenerateRequest, index: int, seed: int, context: Any
    ) -> Iterator[generator_pb2.GenerateEvent]:
        event = generator_pb2.GenerateEvent
        steps = request.steps or STEPS
        admitted = generator_pb2.Admitted(eta_seconds=0.2, seed=seed, steps=steps)
        yield event(id=request.id, index=index, admitted=admitted)
        if request.prompt == "hang":
            assert context.add_callback(self._seen.given_up.set)
            self._seen.hanging.set()
            self._seen.given_up.wait(30)
            return
        for step in range(1, steps + 1):
            yield event(index=index, step=generator_pb2.Step(step=step, steps=steps))
            if request.preview.every and step % request.preview.every == 0:
                preview = generator_pb2.PreviewImage(image=PREVIEW, step=step, steps=steps)
                yield event(index=index, preview=preview)
        if request.prompt == "half fails" and index % 2:
            failed = common_pb2.ItemError(code=13, message="The model failed.", reason="X")
            yield event(index=index, failed=failed)
            return
        kind = "JPEG" if request.output.format == common_pb2.IMAGE_FORMAT_JPEG else "PNG"
        image = generator_pb2.GeneratedImage(
            image=common_pb2.Image(encoded=png(format=kind)),
            seed=seed,
            timing=TIMING,
            width=8,
            height=8,
            steps=steps,
        )
        yield event(index=index, image=image)

    def GenerateStream(self, request_iterator: Any, context: Any) -> Any:
        raise NotImplementedError

    def Verify(
        self, request: generator_pb2.VerifyRequest, context: Any
    ) -> generator_pb2.VerifyResponse:
        """Small pictures are equal, others differ; a picture given besides makes it close."""
        self._seen.note(request, context)
        if request.given:
            verdict = generator_pb2.VERDICT_CLOSE
        elif request.image.encoded == png():
            verdict = generator_pb2.VERDICT_EQUAL
        else:
            verdict = generator_pb2.VERDICT_DIFFERENT
        answer = generator_pb2.VerifyResponse(
            verdict=verdict, pixel_sha256="ab", image=request.image, explanation="As scripted."
        )
        if verdict != generator_pb2.VERDICT_EQUAL:
            answer.psnr_db, answer.max_difference = 48.0, 2
        return answer


class FakeRanker(ranker_pb2_grpc.RankerServiceServicer):
    """Keeps the first half of the candidates, drops the rest at step 4."""

    def __init__(self, seen: Seen) -> None:
        self._seen = seen

    def BestOf(
        self, request: ranker_pb2.BestOfRequest, context: Any
    ) -> Iterator[ranker_pb2.BestOfEvent]:
        self._seen.note(request, context)
        event = ranker_pb2.BestOfEvent
        count = request.candidates or 4
        seeds = [2**64 - 1 - index for index in range(count)]
        yield event(started=ranker_pb2.BestOfStarted(seeds=seeds, steps=STEPS))
        for index in range(count):
            step = ranker_pb2.CandidateStep(index=index, step=4, steps=STEPS)
            yield event(step=step)
            score = ranker_pb2.CandidateScore(
                index=index,
                step=4,
                score=-0.5 * index,
                top=STAR,
                preview=PREVIEW if request.previews else None,
            )
            yield event(score=score)
        kept = max(1, count // 2)
        for index in range(kept, count):
            pruned = ranker_pb2.CandidatePruned(index=index, step=4, steps_saved=4)
            yield event(pruned=pruned)
        for index in range(kept):
            yield event(finished=ranker_pb2.CandidateFinished(index=index, timing=TIMING))
        result = ranker_pb2.BestOfResult(
            candidates=[_ranked(index, seeds[index], kept) for index in range(count)],
            row_steps_spent=count * STEPS - 4 * (count - kept),
            row_steps_saved=4 * (count - kept),
            regret_bound=0.25,
            seconds=1.5,
        )
        yield event(result=result)

    def RankImages(
        self, request: ranker_pb2.RankImagesRequest, context: Any
    ) -> ranker_pb2.RankImagesResponse:
        self._seen.note(request, context)
        if not request.prompt and not request.judges:
            bad_field(context, "judges", "No label in the prompt.", "a known label", "")
        images = sorted(request.images, key=lambda image: -len(image.image.encoded))
        sizes = [len(image.image.encoded) for image in images]
        return ranker_pb2.RankImagesResponse(
            images=[
                ranker_pb2.RankedImage(
                    rank=1 + sizes.index(size),
                    id=image.id,
                    score=-float(1 + sizes.index(size)),
                    top=STAR,
                    tied=sizes.count(size) > 1,
                )
                for image, size in zip(images, sizes, strict=True)
            ]
        )

    def CalibratePruning(
        self, request: ranker_pb2.CalibratePruningRequest, context: Any
    ) -> Iterator[ranker_pb2.CalibratePruningEvent]:
        self._seen.note(request, context)
        prompts = len(request.prompts)
        if prompts < 4:
            bad_field(context, "prompts", "A calibration needs several prompts.", "4", str(prompts))
        event = ranker_pb2.CalibratePruningEvent
        for done in range(1, prompts + 1):
            progress = ranker_pb2.CalibrationProgress(done=done, prompts=prompts, left_out=1)
            yield event(progress=progress)
        steps = [
            ranker_pb2.CalibratedStep(
                step=4 * place,
                at=0.2 * place,
                correlation=0.2 * place,
                low=0.2 * place - 0.1,
                high=0.2 * place + 0.1,
                best_in_half=0.5 + 0.1 * place,
            )
            for place in (1, 2, 3, 4)
        ]
        rounds = [
            ranker_pb2.PruneRound(at=0.4, keep=4),
            ranker_pb2.PruneRound(at=0.8, keep=2, margin=1.5),
        ]
        schedules = [
            ranker_pb2.CalibratedSchedule(
                pruning=ranker_pb2.Pruning(rounds=rounds),
                work=work,
                regret=0.01,
                regret_bound=0.05,
                best_kept=work,
            )
            for work in (0.4, 0.62, 0.9)
        ]
        calibration = ranker_pb2.PruningCalibration(
            json='{"format":"x"}',
            steps=steps,
            chosen=schedules[1],
            schedules=schedules,
            prompts=prompts - 1,
            candidates=request.candidates or 8,
        )
        yield event(calibration=calibration)

    def Resolve(
        self, request: ranker_pb2.ResolveRequest, context: Any
    ) -> ranker_pb2.ResolveResponse:
        self._seen.note(request, context)
        if not request.query:
            bad_field(context, "query", "A query is needed.", "at least 1 character", "''")
        if request.query == "nothing":
            return ranker_pb2.ResolveResponse(exploration=0.1)
        known = ranker_pb2.Match(
            position=1,
            model=ranker_pb2.CatalogueModel(id="vit", name="ViT", type="image-classifier"),
            capability=ranker_pb2.Capability(id="vit/classify", name="Image [classification]"),
            relevance=1.0,
            why='"classify" in its intents; closest to its intent "classify an image"',
            success=ranker_pb2.Estimate(value=0.8571, low=0.6, high=0.9603, evidence=1234),
            propensity=0.95,
            alternatives=["resnet"],
            intent="classify an image",
            terms=[ranker_pb2.MatchedTerm(word="classify", fields=["intents"])],
            evidence=ranker_pb2.MatchEvidence(
                impressions=9999, chosen=2000, succeeded=1100, failed=134, choice_rate=0.2
            ),
            base_position=1,
            score=1.2,
        )
        new = ranker_pb2.Match(
            position=2,
            model=ranker_pb2.CatalogueModel(id="resnet", type="image-classifier"),
            capability=ranker_pb2.Capability(id="resnet/classify", name="Classification"),
            success=ranker_pb2.Estimate(low=0.0, high=1.0, abstained=True),
            evidence=ranker_pb2.MatchEvidence(),
        )
        return ranker_pb2.ResolveResponse(
            matches=[known, new],
            token="a-token_",
            expires_at=timestamp_pb2.Timestamp(seconds=1_800_000_000),
            exploration=0.1,
            catalogue_revision=3,
        )

    def RecordOutcome(
        self, request: ranker_pb2.RecordOutcomeRequest, context: Any
    ) -> ranker_pb2.RecordOutcomeResponse:
        self._seen.note(request, context)
        if request.position > 2:
            given = str(request.position)
            bad_field(context, "position", "The answer had no result there.", "1 to 2", given)
        return ranker_pb2.RecordOutcomeResponse(
            repeated_call=request.position == 2,
            model="vit",
            capability="vit/classify",
            intent="classify an image" if request.position == 1 else "",
        )


def _ranked(index: int, seed: int, kept: int) -> ranker_pb2.RankedCandidate:
    return ranker_pb2.RankedCandidate(
        rank=index + 1,
        index=index,
        seed=seed,
        score=-0.5 * index,
        parts=[-0.5 * index],
        top=STAR,
        pruned_at_step=4 if index >= kept else None,
        image=common_pb2.Image(encoded=png()),
        timing=TIMING,
    )


class FakeStatus(gateway_pb2_grpc.GatewayServiceServicer):
    def __init__(self, seen: Seen) -> None:
        self._seen = seen
        self.down = False

    def Status(
        self, request: gateway_pb2.StatusRequest, context: Any
    ) -> gateway_pb2.StatusResponse:
        self._seen.note(request, context)
        model = model_pb2.ModelInfo(
            name="demo",
            kind=model_pb2.MODEL_KIND_CLASSIFIER,
            state=model_pb2.MODEL_STATE_READY,
            architecture="ViTForImageClassification",
            parameters=1_500_000,
            digest="sha256:abc",
            config=model_pb2.EffectiveConfig(backend="pytorch", device="cpu", precision="float32"),
            classifier=model_pb2.ClassifierDetails(labels=["red star", "white moon"]),
        )
        services = [
            gateway_pb2.ServiceStatus(
                name="classifier",
                target="127.0.0.1:1",
                state=gateway_pb2.SERVICE_STATE_SERVING,
                latency_seconds=0.001,
                models=[model],
            )
        ]
        if self.down:
            services.append(
                gateway_pb2.ServiceStatus(
                    name="ranker",
                    state=gateway_pb2.SERVICE_STATE_UNREACHABLE,
                    error="UNAVAILABLE: [refused]",
                )
            )
        return gateway_pb2.StatusResponse(
            services=services, ready=not self.down, version="0.1.0", uptime_seconds=5
        )


class FakeModels(model_pb2_grpc.ModelServiceServicer):
    """Loads "demo"; its traffic is what it is told; a watch tells of two states, then waits,
    or at once reaches its deadline where it has one. ``step_engine``: of the generator's model;
    nothing is told of it at None.
    """

    def __init__(self, seen: Seen) -> None:
        self._seen = seen
        self.step_engine: bool | None = True

    def GetModel(
        self, request: model_pb2.GetModelRequest, context: Any
    ) -> model_pb2.GetModelResponse:
        self._seen.note(request, context)
        if self.step_engine is None:
            refuse(context, grpc.StatusCode.UNIMPLEMENTED, "No such call.")
        details = model_pb2.GeneratorDetails(default_steps=STEPS, step_engine=self.step_engine)
        model = model_pb2.ModelInfo(
            name="demo", kind=model_pb2.MODEL_KIND_GENERATOR, generator=details
        )
        return model_pb2.GetModelResponse(model=model)

    def LoadModel(
        self, request: model_pb2.LoadModelRequest, context: Any
    ) -> model_pb2.LoadModelResponse:
        self._seen.note(request, context)
        if request.reference != "demo":
            bad_field(context, "reference", "No such reference.", "a name", request.reference)
        return model_pb2.LoadModelResponse(
            model=_model(request.name or "demo", request.version or "1", traffic_share=1.0)
        )

    def UnloadModel(
        self, request: model_pb2.UnloadModelRequest, context: Any
    ) -> model_pb2.UnloadModelResponse:
        self._seen.note(request, context)
        state = model_pb2.MODEL_STATE_UNLOADED
        return model_pb2.UnloadModelResponse(
            model=model_pb2.ModelInfo(name=request.name, version=request.version, state=state)
        )

    def SetTraffic(
        self, request: model_pb2.SetTrafficRequest, context: Any
    ) -> model_pb2.SetTrafficResponse:
        self._seen.note(request, context)
        return model_pb2.SetTrafficResponse(
            models=[
                _model(request.name, version, traffic_share=share)
                for version, share in sorted(request.shares.items())
            ]
        )

    def WatchModels(
        self, request: model_pb2.WatchModelsRequest, context: Any
    ) -> Iterator[model_pb2.WatchModelsResponse]:
        self._seen.note(request, context)
        failed = model_pb2.ModelInfo(
            name="b", version="2", state=model_pb2.MODEL_STATE_FAILED, error="Only [.bin] files."
        )
        for model in (_model("demo", "1"), failed):
            yield model_pb2.WatchModelsResponse(model=model)
        if context.time_remaining() is not None:
            context.abort(grpc.StatusCode.DEADLINE_EXCEEDED, "as if the time were over")
        ended = Event()
        context.add_callback(ended.set)
        ended.wait()


def _model(name: str, version: str, traffic_share: float = 0.0) -> model_pb2.ModelInfo:
    return model_pb2.ModelInfo(
        name=name,
        version=version,
        kind=model_pb2.MODEL_KIND_CLASSIFIER,
        state=model_pb2.MODEL_STATE_READY,
        bytes_in_memory=3_000_000,
        traffic_share=traffic_share,
    )


@dataclass
class FakeGateway:
    """A running server at ``target``."""

    target: str
    seen: Seen
    status: FakeStatus
    models: FakeModels


@contextmanager
def fake_gateway() -> Iterator[FakeGateway]:
    """Serve on a free loopback port for the block."""
    seen = Seen()
    status = FakeStatus(seen)
    options = [("grpc.max_receive_message_length", 32 * 2**20)]
    server = grpc.server(ThreadPoolExecutor(8), options=options)
    classifier_pb2_grpc.add_ClassifierServiceServicer_to_server(FakeClassifier(seen), server)
    generator_pb2_grpc.add_GeneratorServiceServicer_to_server(FakeGenerator(seen), server)
    # The contract's other RPCs stay abstract: nobody here calls them.
    ranker = FakeRanker(seen)  # type: ignore[abstract]
    ranker_pb2_grpc.add_RankerServiceServicer_to_server(ranker, server)
    gateway_pb2_grpc.add_GatewayServiceServicer_to_server(status, server)
    models = FakeModels(seen)  # type: ignore[abstract]
    model_pb2_grpc.add_ModelServiceServicer_to_server(models, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield FakeGateway(f"127.0.0.1:{port}", seen, status, models)
    finally:
        server.stop(None).wait(5)
