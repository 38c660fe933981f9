"""The image index on the wire, over a real store and a classifier that reads pictures."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest

from easel.classifier.v1 import classifier_pb2
from easel.common.v1 import common_pb2
from easel.ranker.v1 import ranker_pb2
from services.core.errors import (
    EaselError,
    FailedPrecondition,
    InvalidInput,
    NotFound,
    NotReady,
    Overloaded,
    PermissionDenied,
)
from services.core.server.status import from_rpc_error
from tests.integration.ranker.conftest import RunningRanker, running_ranker
from tests.integration.ranker.seeing import SeeingClassifier, picture, seeing_upstreams
from tests.integration.ranker.upstreams import Upstreams

EAST, NORTH, UP = (1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)
NORTH_EAST = (3.0, 4.0, 0.0)

SURE = {"ring": 0.7, "star": 0.2, "dot": 0.05}

Answers = dict[str, ranker_pb2.IndexImagesResponse]


@dataclass(frozen=True, slots=True)
class Bench:
    stub: Any
    classifier: SeeingClassifier
    ranker: RunningRanker

    async def index(self, requests: Iterable[ranker_pb2.IndexImagesRequest]) -> Answers:
        answers = [answer async for answer in self.stub.IndexImages(iter(requests))]
        by_id = {answer.id: answer for answer in answers}
        assert len(by_id) == len(answers)
        return by_id

    async def put(self, **pictures: bytes) -> None:
        answers = await self.index(item(id, data) for id, data in pictures.items())
        assert not [answer for answer in answers.values() if answer.HasField("error")]

    async def search(self, **fields: Any) -> list[tuple[str, float]]:
        answer = await self.stub.SearchImages(searching(**fields))
        return [(match.id, round(match.similarity, 5)) for match in answer.matches]

    async def refused(self, call: Any) -> EaselError:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await _ended(call)
        return from_rpc_error(caught.value)


async def _ended(call: Any) -> None:
    if hasattr(call, "__aiter__"):
        async for _ in call:
            pass
    else:
        await call


def item(id: str, data: bytes, collection: str = "c", **more: Any) -> Any:
    image = common_pb2.Image(encoded=data)
    return ranker_pb2.IndexImagesRequest(collection=collection, id=id, image=image, **more)


def searching(collection: str = "c", **fields: Any) -> ranker_pb2.SearchImagesRequest:
    return ranker_pb2.SearchImagesRequest(collection=collection, **fields)


def image(vector: Any) -> common_pb2.Image:
    return common_pb2.Image(encoded=picture(vector))


def vector(values: Any, digest: str = "") -> ranker_pb2.Vector:
    return ranker_pb2.Vector(values=values, model_digest=digest)


@asynccontextmanager
async def running(**settings: Any) -> AsyncIterator[Bench]:
    async with seeing_upstreams() as (up, seeing), running_ranker(up, **settings) as ranker:
        yield Bench(ranker.stub, seeing, ranker)


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    async with running() as made:
        yield made


async def test_pictures_are_indexed_and_found(bench: Bench) -> None:
    answers = await bench.index(
        [
            item("east", picture(EAST, SURE), attributes={"a": "1"}),
            item("north", picture(NORTH, {"star": 0.06, "dot": 0.05})),
            item("between", picture(NORTH_EAST)),
        ]
    )  # fmt: skip
    assert [(label.name, label.index) for label in answers["east"].labels] == [
        ("ring", 0),
        ("star", 1),
    ]
    assert answers["east"].classifier.digest == "sha256:c"
    # The best label is kept, however unsure; no other below the threshold.
    assert [label.name for label in answers["north"].labels] == ["star"]

    answer = await bench.stub.SearchImages(searching(image=image((2.0, 0.0, 0.0))))
    assert [match.id for match in answer.matches] == ["east", "between", "north"]
    best = answer.matches[0]
    assert best.similarity == pytest.approx(1.0)
    assert [(label.name, label.score) for label in best.labels] == [
        ("ring", pytest.approx(0.7)),
        ("star", pytest.approx(0.2)),
    ]
    assert dict(best.attributes) == {"a": "1"}
    assert (answer.classifier.name, answer.classifier.digest) == ("vit", "sha256:c")


async def test_every_way_of_searching(bench: Bench) -> None:
    await bench.put(
        a=picture(EAST, {"ring": 0.6}), b=picture(NORTH_EAST, {"star": 0.9, "ring": 0.1}),
        c=picture(NORTH, {"star": 0.5}), d=picture(UP, {"star": 0.7}),
    )  # fmt: skip
    by_picture = [("b", 1.0), ("c", 0.8), ("a", 0.6), ("d", 0.0)]
    assert await bench.search(image=image(NORTH_EAST)) == by_picture
    assert await bench.search(embedding=vector([0.3, 0.4, 0.0])) == by_picture
    assert await bench.search(id="b") == by_picture[1:]
    assert await bench.search(id="b", top_k=1) == by_picture[1:2]
    assert await bench.search(id="b", labels=["ring"]) == [("a", 0.6)]
    upward = image((0.0, 0.75, 1.0))
    assert await bench.search(image=upward, labels=["star"], top_k=2) == [("d", 0.8), ("c", 0.6)]
    assert await bench.search(labels=["star"]) == [("b", 0.0), ("d", 0.0), ("c", 0.0)]
    assert await bench.search(labels=["star", "ring"], top_k=3) == [
        ("b", 0.0), ("d", 0.0), ("a", 0.0),
    ]  # fmt: skip


async def test_attributes_narrow_a_search(bench: Bench) -> None:
    shops = {"a": "north", "b": "south", "c": "north"}
    await bench.index(
        item(id, picture(vector), attributes={"shop": shops[id], "kind": "tile"})
        for id, vector in (("a", EAST), ("b", NORTH_EAST), ("c", NORTH))
    )
    assert await bench.search(image=image(EAST), attributes={"shop": "north"}) == [
        ("a", 1.0),
        ("c", 0.0),
    ]
    both = {"shop": "south", "kind": "tile"}
    assert await bench.search(image=image(EAST), attributes=both) == [("b", 0.6)]
    assert await bench.search(labels=["dot"], attributes={"shop": "west"}) == []


async def test_a_picture_that_cannot_be_read_fails_alone(bench: Bench) -> None:
    answers = await bench.index(
        [
            item("a", picture(EAST)),
            item("broken", b"this is no picture"),
            ranker_pb2.IndexImagesRequest(collection="c", id="none"),
            item("", picture(EAST)),
            item("b", picture(NORTH)),
        ]
    )
    told = {id: (answer.error.code, answer.error.reason, answer.error.field)
            for id, answer in answers.items() if answer.HasField("error")}  # fmt: skip
    assert told == {
        "broken": (3, "INVALID_INPUT", "image.encoded"),
        "none": (3, "INVALID_INPUT", "image"),
        "": (3, "INVALID_INPUT", "id"),
    }
    assert {id for id, _ in await bench.search(image=image(EAST))} == {"a", "b"}


async def test_answers_come_as_they_finish_and_few_at_a_time() -> None:
    async with running(index_in_flight=3) as bench:
        bench.classifier.holding.clear()
        asked: list[str] = []

        def requests() -> Iterable[Any]:
            for number in range(20):
                asked.append(f"p{number}")
                yield item(f"p{number}", picture((1.0, number, 0.0)))

        call = asyncio.ensure_future(bench.index(requests()))
        await bench.classifier.until(3)
        bench.classifier.holding.set()
        assert len(await call) == 20
        # A picture is at Embed and at Classify at the same time.
        assert bench.classifier.most_under_way <= 6


async def test_a_call_that_ends_early_leaves_what_was_answered(bench: Bench) -> None:
    await bench.put(first=picture(EAST))
    bench.classifier.holding.clear()
    call = bench.stub.IndexImages(iter([item("second", picture(NORTH))]))
    await bench.classifier.until(2)
    call.cancel()
    await bench.classifier.until(0)
    bench.classifier.holding.set()
    assert await bench.search(image=image(EAST)) == [("first", 1.0)]


async def test_what_is_there_is_skipped_without_asking_the_classifier(bench: Bench) -> None:
    await bench.put(a=picture(EAST, {"ring": 0.7}))
    bench.classifier.embeds.clear()
    answers = await bench.index(
        [item("a", picture(UP), skip_existing=True), item("b", picture(UP), skip_existing=True)]
    )
    assert (answers["a"].skipped, answers["b"].skipped) == (True, False)
    assert answers["a"].classifier.digest == "sha256:c"
    assert len(bench.classifier.embeds) == 1
    assert await bench.search(id="b") == [("a", 0.0)]


async def test_of_one_id_the_later_one_stays(bench: Bench) -> None:
    """However the classifier's answers overtake each other."""
    requests = [item("a", picture((1.0, number, 0.0))) for number in range(12)]
    answers = [each async for each in bench.stub.IndexImages(iter(requests))]
    assert len(answers) == 12
    assert await bench.search(embedding=vector((1.0, 11.0, 0.0))) == [("a", 1.0)]


async def test_a_busy_classifier_is_asked_once_more(bench: Bench) -> None:
    bench.classifier.errors = [Overloaded(0.001)]
    await bench.put(a=picture(EAST))
    bench.classifier.errors = [Overloaded(0.5)] * 8
    answers = await bench.index([item("b", picture(EAST))])
    error = answers["b"].error
    assert (error.code, error.retry_after_seconds) == (8, 0.5)
    bench.classifier.errors = [NotReady()] * 20
    answers = await bench.index([item("b", picture(EAST))])
    assert (answers["b"].error.code, "classifier" in answers["b"].error.message) == (14, True)


async def test_vectors_of_another_model_are_refused(bench: Bench) -> None:
    await bench.put(a=picture(EAST))
    bench.classifier.ref.digest = "sha256:other"
    answers = await bench.index([item("b", picture(EAST))])
    error = answers["b"].error
    assert (error.code, error.reason) == (9, "MODEL_DIFFERS")
    assert error.message.startswith(
        "The vectors of collection 'c' are of vit with digest sha256:c; the classifier's are of "
        "vit with digest sha256:other."
    )
    found = await bench.refused(bench.stub.SearchImages(searching(image=image(EAST))))
    assert (type(found), found.reason) == (FailedPrecondition, "MODEL_DIFFERS")
    # What needs no classifier goes on.
    assert await bench.search(id="a") == []
    assert await bench.search(embedding=vector(EAST, "sha256:c")) == [("a", 1.0)]
    found = await bench.refused(
        bench.stub.SearchImages(searching(embedding=vector(EAST, "sha256:other")))
    )
    assert (type(found), found.reason) == (FailedPrecondition, "MODEL_DIFFERS")
    assert "digest sha256:c, the embedding's is sha256:other" in found.message


async def test_a_model_that_is_served_no_longer(bench: Bench) -> None:
    await bench.put(a=picture(EAST))
    bench.classifier.ref.version = "2"
    answers = await bench.index([item("b", picture(EAST))])
    assert answers["b"].error.reason == "MODEL_GONE"
    assert "are of vit 1 (sha256:c)" in answers["b"].error.message
    found = await bench.refused(bench.stub.SearchImages(searching(image=image(EAST))))
    assert found.reason == "MODEL_GONE"


async def test_vectors_of_other_sizes_do_not_mix(bench: Bench) -> None:
    await bench.put(a=picture(EAST))
    answers = await bench.index([item("b", picture((1.0, 2.0)))])
    assert answers["b"].error.reason == "MODEL_DIFFERS"
    assert (
        "dimensions 3; the classifier's are of vit with dimensions 2" in answers["b"].error.message
    )
    found = await bench.refused(bench.stub.SearchImages(searching(embedding=vector([1.0, 2.0]))))
    assert isinstance(found, InvalidInput)
    assert (found.field, found.limit, found.given) == ("embedding.values", "3", "2")


async def test_a_collection_made_as_one_wants_it(bench: Bench) -> None:
    made = await bench.stub.CreateCollection(
        ranker_pb2.CreateCollectionRequest(
            name="c",
            model="vit",
            layer=-3,
            pooling=classifier_pb2.POOLING_MEAN,
            fit=classifier_pb2.FIT_PAD,
        )
    )
    collection = made.collection
    assert (collection.layer, collection.dimensions, collection.images) == (10, 3, 0)
    assert collection.pooling == classifier_pb2.POOLING_MEAN
    assert collection.fit == classifier_pb2.FIT_PAD
    assert collection.created_at.seconds > 0
    await bench.put(a=picture(EAST))
    asked = bench.classifier.embeds[-1]
    assert (list(asked.layers), asked.pooling, asked.fit) == (
        [10],
        classifier_pb2.POOLING_MEAN,
        classifier_pb2.FIT_PAD,
    )
    assert (asked.model, asked.model_version, asked.normalize) == ("vit", "1", True)
    assert bench.classifier.classifies[-1].fit == classifier_pb2.FIT_PAD

    again = ranker_pb2.CreateCollectionRequest(
        name="c", layer=10, pooling=classifier_pb2.POOLING_MEAN, fit=classifier_pb2.FIT_PAD
    )
    assert (await bench.stub.CreateCollection(again)).collection.images == 1
    other = ranker_pb2.CreateCollectionRequest(name="c")
    found = await bench.refused(bench.stub.CreateCollection(other))
    assert (type(found), found.reason) == (FailedPrecondition, "COLLECTION_EXISTS")


NO_COLLECTIONS: list[tuple[dict[str, Any], str, str]] = [
    ({"name": ""}, "name", "1 to 64 characters"),
    ({"name": "-a"}, "name", "1 to 64 characters"),
    ({"name": "a/b"}, "name", "1 to 64 characters"),
    ({"name": "a" * 65}, "name", "1 to 64 characters"),
    ({"name": "c", "layer": 13}, "layer", "-13 to 12"),
    ({"name": "c", "pooling": 3}, "pooling", "cls or mean"),
    ({"name": "c", "fit": 9}, "fit", "0 to 3"),
]


async def test_collections_that_cannot_be(bench: Bench) -> None:
    for fields, field, limit in NO_COLLECTIONS:
        request = ranker_pb2.CreateCollectionRequest(**fields)
        found = await bench.refused(bench.stub.CreateCollection(request))
        assert isinstance(found, InvalidInput)
        assert (found.field, found.limit) == (field, limit)


async def test_names_as_long_as_they_may_be(bench: Bench) -> None:
    name = "a" * 64
    request = ranker_pb2.CreateCollectionRequest(name=name)
    assert (await bench.stub.CreateCollection(request)).collection.name == name
    found = await bench.refused(
        bench.stub.CreateCollection(ranker_pb2.CreateCollectionRequest(name="x", model="sd"))
    )
    assert isinstance(found, NotFound)


async def test_collections_are_listed_and_deleted(bench: Bench) -> None:
    await bench.put(a=picture(EAST), b=picture(UP))
    await bench.index([item("a", picture((1.0, 2.0)), collection="other")])
    listed = await bench.stub.ListCollections(ranker_pb2.ListCollectionsRequest())
    assert [(each.name, each.images, each.dimensions) for each in listed.collections] == [
        ("c", 2, 3),
        ("other", 1, 2),
    ]
    gone = await bench.stub.DeleteCollection(ranker_pb2.DeleteCollectionRequest(name="c"))
    assert gone.images == 2
    for call in (
        bench.stub.DeleteCollection(ranker_pb2.DeleteCollectionRequest(name="c")),
        bench.stub.SearchImages(searching(image=image(EAST))),
        bench.stub.ListImages(ranker_pb2.ListImagesRequest(collection="c")),
        bench.stub.DeleteImages(ranker_pb2.DeleteImagesRequest(collection="c", ids=["a"])),
    ):
        found = await bench.refused(call)
        assert (type(found), found.reason) == (NotFound, "NO_COLLECTION")
    # Another of the same name may be of other vectors.
    await bench.index([item("a", picture((1.0, 2.0)))])
    assert await bench.search(embedding=vector((1.0, 2.0))) == [("a", 1.0)]


async def test_deleting_a_collection_needs_the_scope_admin() -> None:
    async with running(administration=False) as bench:
        await bench.put(a=picture(EAST))
        found = await bench.refused(
            bench.stub.DeleteCollection(ranker_pb2.DeleteCollectionRequest(name="c"))
        )
        assert isinstance(found, PermissionDenied)
        assert await bench.search(id="a") == []


async def test_images_are_listed_page_by_page(bench: Bench) -> None:
    await bench.index(
        item(f"p{number}", picture(EAST, {("ring", "star")[number % 2]: 0.5}),
             attributes={"n": str(number % 3)})
        for number in range(7)
    )  # fmt: skip
    token, pages = "", []
    while True:
        request = ranker_pb2.ListImagesRequest(collection="c", page_size=3, page_token=token)
        page = await bench.stub.ListImages(request)
        pages.append([image.id for image in page.images])
        token = page.next_page_token
        if not token:
            break
    assert pages == [["p0", "p1", "p2"], ["p3", "p4", "p5"], ["p6"]]
    request = ranker_pb2.ListImagesRequest(collection="c", labels=["ring"], attributes={"n": "0"})
    (first, second) = (await bench.stub.ListImages(request)).images
    assert (first.id, second.id) == ("p0", "p6")
    assert first.labels[0].name == "ring"
    assert dict(first.attributes) == {"n": "0"}
    assert first.indexed_at.seconds > 0


async def test_images_are_deleted(bench: Bench) -> None:
    await bench.put(a=picture(EAST), b=picture(NORTH_EAST), c=picture(NORTH))
    request = ranker_pb2.DeleteImagesRequest(collection="c", ids=["b", "b", "nothing"])
    assert (await bench.stub.DeleteImages(request)).deleted == 1
    assert await bench.search(image=image(NORTH_EAST)) == [("c", 0.8), ("a", 0.6)]
    found = await bench.refused(bench.stub.SearchImages(searching(id="b")))
    assert (type(found), found.reason) == (NotFound, "NO_IMAGE")


LIMITS = {"index_max_id_bytes": 4, "index_max_attributes": 2, "index_max_attribute_bytes": 5,
          "index_max_top_k": 5}  # fmt: skip
SOME = "at least 1 byte"


OUT_OF_BOUNDS: list[tuple[Any, str, str | None]] = [
    (item("12345", b""), "id", "4 bytes"),
    (item("äää", b""), "id", "4 bytes"),
    (item("a\n", b""), "id", None),
    (item("a", b"", collection="a b"), "collection", "1 to 64 characters"),
    (item("a", b"", attributes={"a": "", "b": "", "c": ""}), "attributes", "2"),
    (item("a", b"", attributes={"123456": ""}), "attributes", "5 bytes"),
    (item("a", b"", attributes={"a": "123456"}), "attributes['a']", "5 bytes"),
    (item("a", b"", attributes={"": "a"}), "attributes", None),
    (searching("", id="a"), "collection", "1 to 64 characters"),
    (searching(id="12345"), "id", "4 bytes"),
    (searching(id="a", top_k=6), "top_k", "5"),
    (searching(), "query", None),
    (searching(attributes={"a": "b"}), "query", None),
    (searching(labels=[""]), "labels[0]", None),
    (searching(labels=["a"] * 65), "labels", "64"),
    (searching(labels=["a" * 513]), "labels[0]", "512 bytes"),
    (searching(id="a", attributes={"a": "123456"}), "attributes['a']", "5 bytes"),
    (searching(embedding=vector(())), "embedding.values", "3"),
    (searching(embedding=vector((0.0, 0.0, 0.0))), "embedding.values", None),
    (searching(embedding=vector((1.0, float("nan"), 0.0))), "embedding.values", None),
    (searching(embedding=vector((1.0, float("inf"), 0.0))), "embedding.values", None),
    (searching(image=common_pb2.Image(encoded=b"no")), "image.encoded", None),
    (ranker_pb2.ListImagesRequest(collection="c", page_size=1001), "page_size", "1000"),
    (ranker_pb2.ListImagesRequest(collection="c", page_token="ä"), "page_token", None),
    (ranker_pb2.ListImagesRequest(collection="c", page_token="_w=="), "page_token", None),
    (ranker_pb2.DeleteImagesRequest(collection="c"), "ids", "at least 1"),
    (ranker_pb2.DeleteImagesRequest(collection="c", ids=["a"] * 1001), "ids", "1000"),
    (ranker_pb2.DeleteImagesRequest(collection="c", ids=["a", ""]), "ids[1]", SOME),
]


async def test_what_is_out_of_bounds_is_told() -> None:
    async with running(**LIMITS) as bench:
        await bench.put(b=picture(EAST))
        for request, field, limit in OUT_OF_BOUNDS:
            if isinstance(request, ranker_pb2.IndexImagesRequest):
                (answer,) = [each async for each in bench.stub.IndexImages(iter([request]))]
                assert (answer.error.code, answer.error.field) == (3, field), request
                assert len(answer.id.encode()) <= 4
            else:
                method = type(request).__name__.removesuffix("Request")
                found = await bench.refused(getattr(bench.stub, method)(request))
                assert isinstance(found, InvalidInput)
                assert (found.field, found.limit) == (field, limit), request


async def test_what_is_just_within_bounds_is_taken() -> None:
    async with running(**LIMITS) as bench:
        attributes = {"12345": "12345", "b": ""}
        answers = await bench.index([item("1234", picture(EAST), attributes=attributes)])
        assert not answers["1234"].HasField("error")
        labels = ["dot", *(f"l{number}" for number in range(63))]
        fields = {"top_k": 5, "attributes": attributes, "labels": labels}
        assert await bench.search(image=image(EAST), **fields) == [("1234", 1.0)]
        request = ranker_pb2.ListImagesRequest(collection="c", page_size=1000)
        assert len((await bench.stub.ListImages(request)).images) == 1
        # Ten are the default, where as many may be asked for.
        await bench.put(**{f"p{number}": picture(UP) for number in range(8)})
        assert len(await bench.search(image=image(EAST))) == 5


async def test_full_collections_and_too_many_of_them() -> None:
    async with running(index_max_images=2, index_max_collections=2) as bench:
        await bench.put(a=picture(EAST), b=picture(UP))
        answers = await bench.index([item("a", picture(NORTH)), item("c", picture(NORTH))])
        assert not answers["a"].HasField("error")
        error = answers["c"].error
        assert (error.code, error.reason) == (9, "COLLECTION_FULL")
        assert "it has 2 pictures, and may have no more" in error.message
        assert await bench.search(embedding=vector(NORTH)) == [("a", 1.0), ("b", 0.0)]

        await bench.index([item("a", picture(EAST), collection="second")])
        answers = await bench.index([item("a", picture(EAST), collection="third")])
        assert answers["a"].error.reason == "TOO_MANY_COLLECTIONS"
        found = await bench.refused(
            bench.stub.CreateCollection(ranker_pb2.CreateCollectionRequest(name="third"))
        )
        assert found.reason == "TOO_MANY_COLLECTIONS"


async def test_many_writers_and_searches_beside_each_other(bench: Bench) -> None:
    async def write(writer: int) -> Answers:
        return await bench.index(
            item(f"{writer}-{number}", picture((1.0, writer, number))) for number in range(40)
        )

    async def search() -> None:
        for number in range(20):
            found = await bench.search(embedding=vector((1.0, 1.0, number)), top_k=50)
            assert len({id for id, _ in found}) == len(found)

    await bench.put(first=picture(EAST))

    outcomes = await asyncio.gather(*(write(writer) for writer in range(4)), search())
    assert sum(len(each) for each in outcomes[:4] if each is not None) == 160
    found = await bench.search(embedding=vector((1.0, 2.0, 3.0)), top_k=1)
    assert found == [("2-3", 1.0)]
    listed = await bench.stub.ListCollections(ranker_pb2.ListCollectionsRequest())
    assert [each.images for each in listed.collections] == [161]


async def test_an_empty_stream(bench: Bench) -> None:
    assert await bench.index([]) == {}
    listed = await bench.stub.ListCollections(ranker_pb2.ListCollectionsRequest())
    assert list(listed.collections) == []


async def restarted(up: Upstreams, folder: Path, **settings: Any) -> list[tuple[str, float]]:
    async with running_ranker(up, data_dir=folder, **settings) as ranker:
        bench = Bench(ranker.stub, up.classifier, ranker)  # type: ignore[arg-type]
        return await bench.search(embedding=vector(NORTH_EAST))


@pytest.mark.parametrize("exact_size", [50_000, 1])
async def test_all_is_there_after_a_restart(tmp_path: Path, exact_size: int) -> None:
    async with seeing_upstreams() as (up, seeing):
        async with running_ranker(up, data_dir=tmp_path, index_exact_size=exact_size) as ranker:
            bench = Bench(ranker.stub, seeing, ranker)
            await bench.put(a=picture(EAST), b=picture(NORTH_EAST), c=picture(NORTH))
        found = await restarted(up, tmp_path, index_exact_size=exact_size)
        assert found == [("b", 1.0), ("c", 0.8), ("a", 0.6)]


async def test_milvus_where_it_is_set(tmp_path: Path) -> None:
    uri = str(tmp_path / "deep" / "vectors.db")
    async with running(index_milvus_uri=uri) as bench:
        await bench.put(a=picture(EAST), b=picture(NORTH_EAST))
        assert await bench.search(image=image(EAST)) == [("a", 1.0), ("b", 0.6)]
        assert (tmp_path / "deep" / "vectors.db").exists()


async def test_a_store_that_is_away_is_told_to_those_who_need_it() -> None:
    """The ranker itself serves on."""
    async with running(index_milvus_uri="http://127.0.0.1:1") as bench:
        found = await bench.refused(bench.stub.SearchImages(searching(image=image(EAST))))
        assert isinstance(found, NotReady)
        assert found.reason == "MILVUS_UNAVAILABLE"
        found = await bench.refused(bench.stub.IndexImages(iter([item("a", picture(EAST))])))
        assert isinstance(found, NotReady)
        await bench.stub.ListCatalogueModels(ranker_pb2.ListCatalogueModelsRequest())
