"""RankImages on the wire."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import pytest

from easel.common.v1 import common_pb2
from easel.ranker.v1 import ranker_pb2
from services.core.errors import InvalidInput, NotReady
from services.core.server.status import from_rpc_error
from tests.integration.ranker.conftest import RunningRanker, running_ranker
from tests.integration.ranker.upstreams import PROMPT, upstreams


def images(**scores: object) -> list[ranker_pb2.RankImage]:
    return [
        ranker_pb2.RankImage(id=id, image=common_pb2.Image(encoded=f"picture {score}".encode()))
        for id, score in scores.items()
    ]


def asking(**fields: Any) -> ranker_pb2.RankImagesRequest:
    return ranker_pb2.RankImagesRequest(**{"prompt": PROMPT, **fields})


async def test_ranked_best_first_with_ties_and_failures(ranker: RunningRanker) -> None:
    request = asking(images=images(a=5, b=2000, broken="x", c=5, d=1))
    answer = await ranker.stub.RankImages(request)
    assert [(each.id, each.rank, each.tied) for each in answer.images] == [
        ("b", 1, False),
        ("a", 2, True),
        ("c", 2, True),
        ("d", 4, False),
        ("broken", 0, False),
    ]
    assert answer.images[0].top.name == "red star"
    assert answer.images[0].score > answer.images[1].score == answer.images[2].score
    error = answer.images[4].error
    assert (error.code, error.field, error.reason) == (3, "image.encoded", "INVALID_INPUT")
    assert answer.classifier.name == "vit"
    assert answer.seconds > 0


async def test_equal_pictures_are_looked_at_once(ranker: RunningRanker) -> None:
    """A network's last digits depend on what shares its batch."""
    request = asking(images=images(a=5, b=7, c=5, d="x", e="x", f=5))
    answer = await ranker.stub.RankImages(request)
    assert [(each.id, each.rank) for each in answer.images[:4]] == [
        ("b", 1), ("a", 2), ("c", 2), ("f", 2)
    ]  # fmt: skip
    assert {each.id: each.error.code for each in answer.images[4:]} == {"d": 3, "e": 3}
    assert ranker.upstreams.classifier.images.count(b"picture 5") == 1


async def test_pictures_that_saturate_are_not_tied(ranker: RunningRanker) -> None:
    answer = await ranker.stub.RankImages(asking(images=images(a=40_000, b=41_000)))
    assert [(each.id, each.rank) for each in answer.images] == [("b", 1), ("a", 2)]
    assert 0.0 > answer.images[0].score > answer.images[1].score


async def test_a_named_label_needs_no_prompt(ranker: RunningRanker) -> None:
    judge = ranker_pb2.Judge(label=ranker_pb2.LabelJudge(label="blue circle"))
    request = asking(images=images(a=5, b=1), judges=[judge], prompt="")
    answer = await ranker.stub.RankImages(request)
    assert [each.id for each in answer.images] == ["b", "a"]


async def test_a_classifier_that_fails_for_all_fails_each(ranker: RunningRanker) -> None:
    ranker.upstreams.classifier.error = NotReady()
    answer = await ranker.stub.RankImages(asking(images=images(a=5, b=1)))
    assert [each.error.code for each in answer.images] == [14, 14]
    assert "classifier" in answer.images[0].error.message


async def test_a_drain_waits_for_the_calls_under_way(ranker: RunningRanker) -> None:
    classifier = ranker.upstreams.classifier
    classifier.may_answer.clear()
    call = asyncio.ensure_future(ranker.stub.RankImages(asking(images=images(a=1))))
    await classifier.asked.wait()
    draining = asyncio.ensure_future(ranker.app.drain(60.0))
    await asyncio.sleep(0)
    assert not draining.done()
    classifier.may_answer.set()
    assert len((await call).images) == 1
    await draining


async def test_a_drain_is_bounded(ranker: RunningRanker) -> None:
    classifier = ranker.upstreams.classifier
    classifier.may_answer.clear()
    call = ranker.stub.RankImages(asking(images=images(a=1)))
    await classifier.asked.wait()
    await ranker.app.drain(0.0)
    call.cancel()


async def test_no_more_than_the_bound_are_asked_for() -> None:
    async with upstreams() as up, running_ranker(up, max_images=2, max_judging=1) as ranker:
        await ranker.stub.RankImages(asking(images=images(a=5, b=1)))
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await ranker.stub.RankImages(asking(images=images(a=5, b=1, c=2)))
    found = from_rpc_error(caught.value)
    assert isinstance(found, InvalidInput)
    assert (found.field, found.limit, found.given) == ("images", "2", "3")


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({}, "images"),
        ({"images": images(a=1) + images(a=2)}, "images[1].id"),
        ({"images": images(a=1), "prompt": "a dog"}, "judges"),
        ({"images": images(a=1), "prompt": "x" * 10_001}, "prompt"),
        ({"images": images(a=1), "judges": [{"label": {"label": "dog"}}]}, "judges[0].label.label"),
        ({"images": images(a=1), "judges": [{"weight": 2.0}]}, "judges[0]"),
    ],
)
async def test_bad_requests_name_their_field(
    ranker: RunningRanker, fields: dict[str, Any], field: str
) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await ranker.stub.RankImages(asking(**fields))
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    found = from_rpc_error(caught.value)
    assert isinstance(found, InvalidInput)
    assert found.field == field
