"""Compare, and the scores that it tells, on a real ranker with real outcomes and votes."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Awaitable
from pathlib import Path
from typing import Any

import grpc
import pytest
from sqlalchemy import select
from typer.testing import CliRunner, Result

from easel.cli.app import app
from easel.client.errors import EaselClientError
from easel.ranker.v1 import ranker_pb2
from ranker.database import Database
from ranker.score.log import history
from ranker.score.record import recomputed
from ranker.score.tables import SCORE_LOG
from tests.integration.ranker.conftest import RunningRanker, running_ranker
from tests.integration.ranker.upstreams import upstreams
from tests.unit.ranker.comparison.test_wire import resolved

VIT, SD = "vit-large-patch16-384", "stable-diffusion"
INTENT = "count the stars"


async def compare(ranker: RunningRanker, a: str, b: str, intent: str = "") -> Any:
    return await ranker.stub.Compare(ranker_pb2.CompareRequest(a=a, b=b, intent=intent))


async def failure(call: Awaitable[Any]) -> EaselClientError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return EaselClientError.from_call(caught.value)


async def put(ranker: RunningRanker, id: str, **fields: Any) -> None:
    capability = {"name": "Counting", "intents": [INTENT], **fields.pop("capability", {})}
    model = ranker_pb2.CatalogueModel(
        **{"id": id, "type": "counter", "capabilities": [capability], **fields}
    )
    await ranker.stub.PutCatalogueModel(ranker_pb2.PutCatalogueModelRequest(model=model))


async def use(
    ranker: RunningRanker, model: str, outcome: ranker_pb2.Outcome.ValueType, times: int
) -> None:
    """Finds the model as anybody does, chooses it and says how it went."""
    for _ in range(times):
        found = await ranker.stub.Resolve(ranker_pb2.ResolveRequest(query=INTENT, type="counter"))
        (match,) = (each for each in found.matches if each.model.id == model)
        for happened in (ranker_pb2.OUTCOME_CHOSEN, outcome):
            await ranker.stub.RecordOutcome(
                ranker_pb2.RecordOutcomeRequest(
                    token=found.token, position=match.position, outcome=happened
                )
            )


async def test_the_two_of_the_page_are_not_comparable(each_ranker: RunningRanker) -> None:
    found = await compare(each_ranker, "vit-large-patch16-384", "stable-diffusion")

    assert found.verdict == ranker_pb2.COMPARISON_NOT_COMPARABLE
    assert found.a_better.abstained
    assert not found.shared_intents
    assert (len(found.a.capabilities), len(found.b.capabilities)) == (6, 4)
    assert "none is of both: they are not comparable" in found.sentences[0]
    for word in ("leads", "higher", "stronger", "is better than"):
        assert not any(word in sentence for sentence in found.sentences)
    assert "| 90.88 % | 85.1 to 85.2 %" in found.markdown
    assert found.html.startswith("<!doctype html>")
    for sentence in found.verdict_sentences:
        for path in sentence.fields:
            resolved(found, path)


async def test_outcomes_of_use_decide(each_ranker: RunningRanker) -> None:
    await put(each_ranker, "abacus")
    await put(each_ranker, "lens")
    before = await compare(each_ranker, "abacus", "lens")
    assert before.verdict == ranker_pb2.COMPARISON_NOT_SEPARABLE
    assert before.a_better.abstained
    assert "with less than 5 of each" in before.sentences[1]

    await use(each_ranker, "abacus", ranker_pb2.OUTCOME_SUCCEEDED, 9)
    await use(each_ranker, "lens", ranker_pb2.OUTCOME_FAILED, 9)
    found = await compare(each_ranker, "abacus", "lens")
    turned = await compare(each_ranker, "lens", "abacus", INTENT.upper())

    assert found.verdict == ranker_pb2.COMPARISON_A_BETTER
    assert (found.basis, found.outcomes.a_evidence, found.outcomes.b_evidence) == ("outcomes", 9, 9)
    # 1/2 + (10/11 - 1/11) / 2
    assert found.a_better.value == 0.9091
    assert found.a_better.low > 0.5
    assert turned.verdict == ranker_pb2.COMPARISON_B_BETTER
    assert round(turned.a_better.value + found.a_better.value, 4) == 1.0
    assert round(turned.a_better.high + found.a_better.low, 4) == 1.0
    parts = {each.name: each for each in found.a.score.components}
    assert (parts["match_graph"].value.value, parts["match_graph"].value.evidence) == (0.9091, 9)


async def test_votes_decide_where_nobody_told_of_outcomes(each_ranker: RunningRanker) -> None:
    await put(each_ranker, "abacus", aliases=["The Abacus"])
    await put(each_ranker, "lens")
    votes = [
        ranker_pb2.ImportedVote(
            left="the abacus",
            right="lens",
            vote=ranker_pb2.VOTE_LEFT if number % 4 else ranker_pb2.VOTE_RIGHT,
            judge=f"judge {number}",
        )
        for number in range(80)
    ]
    request = ranker_pb2.ImportVotesRequest(intent=INTENT, votes=votes)
    await each_ranker.stub.ImportVotes(iter([request]))

    found = await compare(each_ranker, "lens", "abacus")

    assert (found.verdict, found.basis) == (ranker_pb2.COMPARISON_B_BETTER, "votes")
    assert found.votes.a_better.value == pytest.approx(0.25, abs=0.01)
    assert (found.votes.a_evidence, found.votes.b_evidence) == (80, 80)
    assert any(
        "By the arena's votes, 80 on lens and 80 on abacus" in each for each in found.sentences
    )


async def test_use_among_others_of_the_type(ranker: RunningRanker) -> None:
    for number, count in enumerate((10, 20, 30, 30, 40, 50)):
        usage = [{"name": "downloads", "count": count, "source": "the hub"}]
        await put(ranker, f"m{number}", usage=usage, released="2026-01-01")

    answer = await ranker.stub.GetCatalogueModel(ranker_pb2.GetCatalogueModelRequest(model="m2"))

    parts = {each.name: each for each in answer.model.score.components}
    # Of five others two have less and one as much.
    assert (parts["adoption"].value.value, parts["adoption"].value.evidence) == (0.5, 5)
    assert not parts["freshness"].value.abstained
    assert answer.model.score.total.abstained
    assert parts["quality"].why == "0 of its claims were measured; at least 5 are needed"


async def test_every_score_that_is_told_computes_again_from_the_log(tmp_path: Path) -> None:
    async with upstreams() as up, running_ranker(up, data_dir=tmp_path) as ranker:
        listed = await ranker.stub.ListCatalogueModels(ranker_pb2.ListCatalogueModelsRequest())
        await put(ranker, "abacus")
        await compare(ranker, "abacus", VIT)
        again = await ranker.stub.ListCatalogueModels(ranker_pb2.ListCatalogueModelsRequest())
    told = {model.id: model.score for model in again.models}
    assert {model.id: model.score for model in listed.models}.items() <= told.items()
    for score in told.values():
        assert sum(each.points_hundredths for each in score.components) == score.total_hundredths

    database = Database.open(f"sqlite:///{tmp_path / 'easel.db'}")
    try:
        ids = await database.read(lambda c: set(c.scalars(select(SCORE_LOG.c.model_id))))
        assert ids == set(told)
        every = await database.read(lambda c: {id: history(c, id) for id in told})
        for id, score in told.items():
            (logged,) = every[id]
            assert recomputed(logged.record) == logged.record
            assert logged.record.version == score.version
            result = json.loads(logged.record.result)
            assert result["total"]["points"] == score.total_hundredths
    finally:
        await database.close()


async def test_what_is_there_around_a_model(ranker: RunningRanker) -> None:
    answer = await ranker.stub.GetCatalogueModel(ranker_pb2.GetCatalogueModelRequest(model=VIT))
    (part,) = (each for each in answer.model.score.components if each.name == "ecosystem")
    assert part.inputs["missing"].startswith("state=ready, digest")
    assert (part.value.value, part.value.abstained) == (0.0, False)


async def test_what_cannot_be_compared(ranker: RunningRanker) -> None:
    unknown = await failure(compare(ranker, "vit-large-patch16", SD))
    other = await failure(compare(ranker, VIT, "stable-difusion"))
    itself = await failure(compare(ranker, VIT, "Google/ViT-large-patch16-384"))
    empty = await failure(compare(ranker, VIT, " "))

    assert (unknown.code, other.code) == (grpc.StatusCode.NOT_FOUND,) * 2
    assert f"'{VIT}'" in unknown.message
    assert f"'{SD}'" in other.message
    assert (itself.code, itself.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "SAME_MODEL")
    assert itself.message == (
        f"'{VIT}' and 'Google/ViT-large-patch16-384' are one model, '{VIT}': there is nothing to "
        "compare."
    )
    assert [each.field for each in empty.violations] == ["b"]


@pytest.mark.parametrize(("field", "limit"), [("a", 200), ("b", 200), ("intent", 500)])
async def test_texts_have_limits(ranker: RunningRanker, field: str, limit: int) -> None:
    def asked(size: int) -> Any:
        return ranker.stub.Compare(
            ranker_pb2.CompareRequest(**{"a": VIT, "b": SD, field: "x" * size})
        )

    for size in (limit - 1, limit):
        if field == "intent":
            assert (await asked(size)).verdict == ranker_pb2.COMPARISON_NOT_COMPARABLE
        else:
            assert (await failure(asked(size))).code is grpc.StatusCode.NOT_FOUND
    error = await failure(asked(limit + 1))
    assert [each.field for each in error.violations] == [field]
    assert (error.limit, error.given) == (f"{limit} characters", str(limit + 1))


async def run(ranker: RunningRanker, *arguments: object) -> Result:
    """The command against this ranker, in a thread: the ranker is served by this loop."""
    runner = CliRunner(env={"EASEL_TARGET": ranker.target, "COLUMNS": "160"})
    return await asyncio.to_thread(runner.invoke, app, ["compare", *map(str, arguments)])


async def test_the_command_prints_the_comparison(ranker: RunningRanker, tmp_path: Path) -> None:
    page, text = tmp_path / "new" / "c.html", tmp_path / "c.md"
    done = await run(ranker, VIT, SD, "--html", page, "--markdown", text)

    assert done.exit_code == 0, done.output
    assert "ViT-L/16-384 and Stable Diffusion: not comparable" in done.stdout
    assert "Their scores are not compared" in done.stdout
    assert "90.88 %" in done.stdout
    assert page.read_text().startswith("<!doctype html>")
    assert re.match(r"# ViT-L/16-384 and Stable Diffusion\n", text.read_text())
    assert str(page) in done.stdout


async def test_the_command_as_json(ranker: RunningRanker) -> None:
    done = await run(ranker, VIT, "demo-classifier", "--json")

    assert done.stdout.count("\n") == 1
    document = json.loads(done.stdout)
    assert document["verdict"] == "not_separable"
    assert document["a_better"]["abstained"] is True
    assert document["verdict_sentences"][0]["fields"]
    assert "html" not in document


async def test_names_with_markup_are_shown_as_they_are(ranker: RunningRanker) -> None:
    await put(ranker, "abacus", name="<b>[bold]Abacus[/bold]</b>")
    await put(ranker, "lens", name="a | lens")
    done = await run(ranker, "abacus", "lens")
    found = await compare(ranker, "abacus", "lens")

    assert "points of <b>[bold]Abacus[/bold]</b>" in done.stdout
    assert "&lt;b&gt;[bold]Abacus" in found.html
    assert "<b>" not in found.html
    assert "points of a \\| lens" in found.markdown


async def test_a_models_score_is_shown_with_the_model(ranker: RunningRanker) -> None:
    runner = CliRunner(env={"EASEL_TARGET": ranker.target, "COLUMNS": "160"})
    done = await asyncio.to_thread(runner.invoke, app, ["catalogue", "show", VIT])
    told = await asyncio.to_thread(runner.invoke, app, ["catalogue", "show", VIT, "--json"])
    parts = json.loads(told.stdout)["score"]["components"]
    (quality,) = (part for part in parts if part["name"] == "quality")

    assert done.exit_code == 0, done.output
    assert "released" in done.stdout
    assert f"{quality['points']:.2f} of 30.00" in done.stdout
    assert "0 outcomes were recorded" in done.stdout


async def test_the_command_names_what_is_wrong(ranker: RunningRanker, tmp_path: Path) -> None:
    unknown = await run(ranker, "vit-large-patch16", SD)
    folder = await run(ranker, VIT, SD, "--html", tmp_path)

    assert (unknown.exit_code, folder.exit_code) == (2, 2)
    assert "NOT_FOUND: There is no model 'vit-large-patch16' in the catalogue" in unknown.stderr
    assert f"the nearest names: 'google/{VIT}', '{VIT}'" in unknown.stderr
    assert "Is a directory" in folder.stderr
