"""`Client` against a server of the contracts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from easel import Client, EaselClientError
from easel.classifier.v1 import classifier_pb2
from easel.client import (
    Admitted,
    CandidatePruned,
    GeneratedImage,
    Picture,
    Ranking,
    Started,
    Step,
)
from easel.common.v1 import common_pb2
from easel.gateway.v1 import gateway_pb2
from easel.generator.v1 import generator_pb2
from tests.integration.easel.fake_classifier import LABELS, fake_classifier
from tests.integration.easel.fake_gateway import FakeGateway
from tests.unit.easel.pictures import png


@pytest.fixture
def client(gateway: FakeGateway) -> Iterator[Client]:
    with Client(gateway.target, timeout=30) as client:
        yield client


def test_classify_takes_files_and_bytes(client: Client, picture: Path) -> None:
    for image in (picture, str(picture), picture.read_bytes()):
        assert [label.name for label in client.classify(image)] == ["red star", "white moon"]
    assert [label.name for label in client.classify(picture, top_k=1)] == ["red star"]


def test_a_bad_picture_is_an_error_that_names_the_field(client: Client) -> None:
    with pytest.raises(EaselClientError) as raised:
        client.classify(b"junk")

    error = raised.value
    assert error.code is grpc.StatusCode.INVALID_ARGUMENT
    assert [violation.field for violation in error.violations] == ["image"]
    assert error.request_id == "req-1"


def test_many_pictures_go_on_one_stream_and_one_bad_one_is_an_item(client: Client) -> None:
    images: list[tuple[str, Picture]] = [("a", png()), ("b", b"junk"), ("c", png())]
    answers = {answer.id: answer for answer in client.classify_many(images)}

    assert answers["a"].error is None
    assert answers["c"].labels[0].name == "red star"
    assert answers["b"].error is not None
    assert answers["b"].error.code is grpc.StatusCode.INVALID_ARGUMENT


def test_no_pictures_no_answers(client: Client) -> None:
    assert list(client.classify_many([])) == []


def test_what_the_callers_iterator_raises_reaches_the_caller(client: Client) -> None:
    with pytest.raises(FileNotFoundError, match="missing"):
        list(client.classify_many(["missing.png"]))


def test_embed_reads_both_number_formats(client: Client, picture: Path) -> None:
    single = client.embed(picture, layers=[3, 4])
    half = client.embed(picture, dtype="float16")

    assert [each.layer for each in single] == [3, 4]
    assert single[0].values() == half[0].values() == (0, 1, 2, 3, 4, 5)
    assert len(half[0].data) == 12


def test_explain_tells_what_each_patch_is_worth(
    client: Client, gateway: FakeGateway, picture: Path
) -> None:
    found = client.explain(picture, method="gradient", label="white moon", fit="pad")

    assert (found.label.index, found.label.name) == (2, "white moon")
    assert found.label.score == pytest.approx(0.1)
    assert sum(found.relevance) == 1.0
    assert found.grid() == [[0.0, 0.125, 0.125], [0.0, 0.25, 0.5]]
    assert (found.rows, found.columns, found.heat_map, found.model) == (2, 3, None, "demo")
    assert found.timing.batch_rows == 4
    drawn = client.explain(picture, overlay=True, format="png")
    assert drawn.heat_map is not None
    assert drawn.heat_map.startswith(b"\x89PNG")
    with pytest.raises(ValueError, match="explain_method"):
        client.explain(picture, method="magic")
    with pytest.raises(EaselClientError, match="no label 'mauve'"):
        client.explain(picture, label="mauve")


def test_generate_tells_a_pictures_whole_life(client: Client) -> None:
    events = list(client.generate("a star", seed=7, steps=3))

    assert isinstance(events[0], Admitted)
    assert [event.step for event in events if isinstance(event, Step)] == [1, 2, 3]
    assert isinstance(events[-1], GeneratedImage)
    assert events[-1].data.startswith(b"\x89PNG")
    assert [image.seed for image in client.generate_images("a star", seed=7, count=3)] == [7, 8, 9]


def test_all_or_an_error(client: Client) -> None:
    with pytest.raises(EaselClientError, match="The model failed"):
        client.generate_images("half fails", count=2)


def test_leaving_the_loop_cancels_the_call(client: Client, gateway: FakeGateway) -> None:
    for _ in client.generate("hang"):
        assert gateway.seen.hanging.wait(30)
        break

    assert gateway.seen.given_up.wait(30)


def test_an_iterator_that_is_never_read_makes_no_call(client: Client, gateway: FakeGateway) -> None:
    client.generate("hang")
    client.best_of("x")
    client.classify_many([png()])
    list(client.generate("a star"))  # whatever was sent before it has arrived

    assert [type(request).__name__ for request in gateway.seen.requests] == ["GenerateRequest"]


def test_best_of_ends_with_the_ranking(client: Client) -> None:
    events = list(client.best_of("a red star", candidates=4))

    assert isinstance(events[0], Started)
    assert sum(isinstance(event, CandidatePruned) for event in events) == 2
    ranking = events[-1]
    assert isinstance(ranking, Ranking)
    assert [each.pruned_at_step for each in ranking.candidates] == [None, None, 4, 4]
    assert ranking.candidates[0].seed == 2**64 - 1
    assert (ranking.row_steps_spent, ranking.row_steps_saved) == (24, 8)


def test_rank_images_keeps_the_callers_names(client: Client) -> None:
    ranked = client.rank_images({"s": png(), "b": png(size=(99, 99))}, prompt="a star")

    assert [(image.rank, image.id) for image in ranked] == [(1, "b"), (2, "s")]
    assert [image.id for image in client.rank_images([png()], label="red star")] == ["0"]


def test_who_calls_goes_with_every_call_and_so_does_the_deadline(
    gateway: FakeGateway, picture: Path
) -> None:
    with Client(gateway.target, api_key="k", tenant="t", priority=3, timeout=30) as client:
        client.classify(picture)
        list(client.classify_many([picture]))
        list(client.generate("x"))
        client.gateway.Status(gateway_pb2.StatusRequest(), timeout=5)

    for metadata in gateway.seen.metadata:
        assert metadata["authorization"] == "Bearer k"
        assert metadata["easel-tenant"] == "t"
        assert metadata["easel-priority"] == "3"
    assert all(seconds is not None and seconds < 31 for seconds in gateway.seen.deadlines)
    assert (gateway.seen.deadlines[-1] or 99) < 6


def test_the_raw_stubs_are_there(client: Client) -> None:
    request = classifier_pb2.ClassifyRequest(id="x", image=common_pb2.Image(encoded=png()))
    assert client.classifier.Classify(request).id == "x"
    events = client.generator.Generate(generator_pb2.GenerateRequest(prompt="x"))
    assert next(iter(events)).HasField("admitted")
    events.cancel()


def test_messages_over_grpcs_own_limit_pass(client: Client) -> None:
    assert client.classify(png() + bytes(6 * 2**20))


def test_nobody_there_is_unavailable() -> None:
    with Client("127.0.0.1:1", timeout=5) as client, pytest.raises(EaselClientError) as raised:
        client.status()

    assert raised.value.code is grpc.StatusCode.UNAVAILABLE
    assert raised.value.reason == ""


def test_models_come_from_all_services(client: Client) -> None:
    assert [model.name for model in client.list_models()] == ["demo"]


def test_verify_sends_the_picture_and_reads_the_verdict(
    client: Client, gateway: FakeGateway, picture: Path, big_picture: Path
) -> None:
    equal = client.verify(picture)
    assert (equal.verdict, equal.psnr_db, equal.max_difference) == ("equal", None, None)
    assert equal.data == picture.read_bytes()
    close = client.verify(picture, given=[big_picture], allow_other_versions=True)
    assert (close.verdict, close.psnr_db, close.max_difference) == ("close", 48.0, 2)
    record = generator_pb2.Provenance(device="cpu")
    assert client.verify(provenance=record).verdict == "different"
    requests: list[Any] = list(gateway.seen.requests)
    first, second, third = requests
    assert not first.HasField("provenance")
    assert second.allow_other_versions
    assert second.given[0].encoded == big_picture.read_bytes()
    assert (third.provenance, third.HasField("image")) == (record, False)


def test_many_embeddings_on_one_stream_each_with_its_pictures_id() -> None:
    with fake_classifier() as (target, script), Client(target, timeout=30) as client:
        images: list[tuple[str, Picture]] = [("a", png("red")), ("b", b"junk"), ("c", png("blue"))]
        options: dict[str, Any] = {"pooling": "mean", "dtype": "float16", "normalize": True}
        found = client.embed_many(images, layers=[0, -1], **options, model_version="7")
        answers = {answer.id: answer for answer in found}

    assert [each.layer for each in answers["a"].embeddings] == [0, 12]
    assert answers["c"].embeddings[1].values() == (0, 0, 255, 12)
    assert [each.final_norm for each in answers["c"].embeddings] == [False, False]
    assert answers["c"].embeddings[0].normalized
    assert (answers["c"].model, answers["c"].digest) == ("demo", "sha256:abc")
    assert answers["b"].error is not None
    assert answers["b"].error.field == "image.encoded"
    request = script.requests[0]
    assert request.pooling == classifier_pb2.POOLING_MEAN
    assert request.model_version == "7"
    assert not request.HasField("final_norm")


def test_a_model_by_its_name() -> None:
    with fake_classifier() as (target, _), Client(target, timeout=30) as client:
        assert list(client.get_model().classifier.labels) == list(LABELS)
        assert client.get_model("demo").version == "7"
        with pytest.raises(EaselClientError, match="no model 'other'") as raised:
            client.get_model("other")

    assert raised.value.code is grpc.StatusCode.NOT_FOUND
