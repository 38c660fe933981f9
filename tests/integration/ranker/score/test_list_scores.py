"""ListScores: every score that was told, each computed again on the way."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from sqlalchemy import create_engine, func, update
from typer.testing import CliRunner

from easel import Client
from easel.cli.app import app
from easel.client.errors import EaselClientError
from easel.ranker.v1 import ranker_pb2
from ranker.score.tables import SCORE_LOG
from tests.integration.ranker.conftest import RunningRanker, running_ranker
from tests.integration.ranker.upstreams import upstreams

VIT = "vit-large-patch16-384"


@pytest.fixture
async def ranker(tmp_path: Path) -> AsyncIterator[RunningRanker]:
    async with upstreams() as up, running_ranker(up, data_dir=tmp_path) as running:
        yield running


async def put(ranker: RunningRanker, likes: int) -> None:
    usage = [ranker_pb2.Usage(name="likes", count=likes, source="the hub")]
    model = ranker_pb2.CatalogueModel(id="abacus", type="counter", usage=usage)
    if likes % 2:
        model.released = "2026-01-01"
    await ranker.stub.PutCatalogueModel(ranker_pb2.PutCatalogueModelRequest(model=model))


async def list_scores(ranker: RunningRanker, **fields: Any) -> ranker_pb2.ListScoresResponse:
    answer: ranker_pb2.ListScoresResponse
    answer = await ranker.stub.ListScores(ranker_pb2.ListScoresRequest(**fields))
    return answer


async def test_the_latest_comes_first_in_pages(each_ranker: RunningRanker) -> None:
    for likes in range(5):
        await put(each_ranker, likes)

    first = await list_scores(each_ranker, model="Abacus", page_size=3)
    rest = await list_scores(each_ranker, model="abacus", page_token=first.next_page_token)

    assert (len(first.scores), len(rest.scores), rest.next_page_token) == (3, 2, "")
    every = [*first.scores, *rest.scores]
    assert all(each.recomputed for each in every)
    times = [each.score.computed_at.ToNanoseconds() for each in every]
    assert times == sorted(times, reverse=True)
    for each in every:
        digest = hashlib.sha256(each.evidence.encode()).hexdigest()
        assert digest == each.score.evidence_digest
        assert digest[:12] in each.score.version
        assert json.loads(each.evidence)["usage"][0]["name"] == "likes"


async def test_a_record_that_was_changed_shows(ranker: RunningRanker, tmp_path: Path) -> None:
    await ranker.stub.GetCatalogueModel(ranker_pb2.GetCatalogueModelRequest(model=VIT))
    before = (await list_scores(ranker, model=VIT)).scores[0]
    engine = create_engine(f"sqlite:///{tmp_path / 'easel.db'}")
    with engine.begin() as connection:
        changed = func.replace(SCORE_LOG.c.result, '"points":', '"points":9')
        connection.execute(update(SCORE_LOG).values(result=changed))
    engine.dispose()

    (found,) = (await list_scores(ranker, model=VIT)).scores

    assert before.recomputed
    assert not found.recomputed
    assert found.score.total_hundredths == int(f"9{before.score.total_hundredths}")
    assert found.score.version == before.score.version


async def test_by_client_and_command(ranker: RunningRanker) -> None:
    for likes in range(3):
        await put(ranker, likes)

    def called() -> list[ranker_pb2.LoggedScore]:
        with Client(ranker.target) as client:
            return list(client.scores("abacus"))

    runner = CliRunner(env={"EASEL_TARGET": ranker.target, "COLUMNS": "160"})
    shown = await asyncio.to_thread(runner.invoke, app, ["scores", "abacus"])
    told = await asyncio.to_thread(runner.invoke, app, ["scores", "abacus", "--json"])

    assert len(await asyncio.to_thread(called)) == 3
    assert shown.stdout.count("the same") == 3
    assert [each["recomputed"] for each in json.loads(told.stdout)["scores"]] == [True] * 3


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"model": ""}, "model"),
        ({"model": VIT, "page_size": 1001}, "page_size"),
        ({"model": VIT, "page_token": "-1"}, "page_token"),
        ({"model": VIT, "page_token": "1" * 20}, "page_token"),
    ],
)
async def test_what_cannot_be_listed(
    ranker: RunningRanker, fields: dict[str, Any], field: str
) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await list_scores(ranker, **fields)
    error = EaselClientError.from_call(caught.value)
    assert [each.field for each in error.violations] == [field]


async def test_the_most_that_can_be_asked_for(ranker: RunningRanker) -> None:
    assert not (await list_scores(ranker, model=VIT, page_size=1000)).scores
    assert not (await list_scores(ranker, model=VIT, page_token="9" * 19)).scores
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await list_scores(ranker, model="vit-large")
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND
