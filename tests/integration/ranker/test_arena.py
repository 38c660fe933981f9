"""The arena on the wire: pairs, votes, judges, leaderboards, and every way to get them wrong."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from PIL import Image, PngImagePlugin
from prometheus_client import CollectorRegistry

from easel.common.v1 import common_pb2
from easel.generator.v1 import generator_pb2
from easel.ranker.v1 import ranker_pb2
from ranker.arena.metrics import ArenaMetrics
from ranker.arena.service import ArenaService
from ranker.arena.upstream import Painter
from ranker.clock import utc_now
from ranker.config import RankerSettings
from ranker.database import Database
from ranker.pictures.upstream import GeneratorClient
from services.core.config import load_settings
from services.core.errors import (
    EaselError,
    FailedPrecondition,
    InvalidInput,
    NotFound,
    NotReady,
    PermissionDenied,
)
from services.core.server.status import from_rpc_error
from tests.integration.ranker.conftest import RunningRanker, running_ranker
from tests.integration.ranker.upstreams import PROMPT, Upstreams, upstreams

INTENT = "paint"


def png(red: int, text: str = "") -> bytes:
    info = PngImagePlugin.PngInfo()
    if text:
        info.add_text("parameters", text)
    file = io.BytesIO()
    Image.new("RGB", (8, 8), (red, 0, 0)).save(file, "PNG", pnginfo=info)
    return file.getvalue()


def redness(picture: bytes) -> float:
    pixel: Any = Image.open(io.BytesIO(picture)).convert("RGB").getpixel((0, 0))
    return float(pixel[0])


@pytest.fixture
async def arena() -> AsyncIterator[RunningRanker]:
    """A ranker whose generator paints the redder, the more steps it takes."""
    async with upstreams() as up, running_ranker(paints(up), arena_min_votes=5) as running:
        yield running


@pytest.fixture
async def each_arena(database_url: str) -> AsyncIterator[RunningRanker]:
    """The same on each kind of database."""
    settings: dict[str, Any] = {"database_url": database_url, "arena_min_votes": 5}
    async with upstreams() as up, running_ranker(paints(up), **settings) as running:
        yield running


def paints(up: Upstreams) -> Upstreams:
    up.generator.draw = lambda step, seed: png(step)
    up.classifier.redness = redness
    return up


async def put(ranker: RunningRanker, name: str, steps: int | None = None) -> Any:
    contender = ranker_pb2.Contender(name=name)
    if steps:
        contender.generate.steps = steps
    asked = ranker_pb2.PutContenderRequest(intent=INTENT, contender=contender)
    return await ranker.stub.PutContender(asked)


async def give(ranker: RunningRanker, name: str, red: int, prompt: str = PROMPT) -> Any:
    image = common_pb2.Image(encoded=png(red, f"made by {name}"))
    asked = ranker_pb2.PutArenaPictureRequest(
        intent=INTENT, contender=name, prompt=prompt, image=image
    )
    return await ranker.stub.PutArenaPicture(asked)


async def prompts(ranker: RunningRanker, *texts: str) -> Any:
    asked = ranker_pb2.PutArenaPromptsRequest(intent=INTENT, prompts=texts)
    return await ranker.stub.PutArenaPrompts(asked)


async def next_pair(ranker: RunningRanker, prompt: str = "") -> Any:
    return await ranker.stub.NextPair(ranker_pb2.NextPairRequest(intent=INTENT, prompt=prompt))


async def vote(ranker: RunningRanker, token: str, which: int = 1, **fields: str) -> Any:
    asked = ranker_pb2.RecordVoteRequest(token=token, vote=which, **fields)  # type: ignore[arg-type]
    return await ranker.stub.RecordVote(asked)


async def leaderboard(ranker: RunningRanker, **fields: Any) -> Any:
    asked = ranker_pb2.ListLeaderboardRequest(intent=INTENT, **fields)
    return await ranker.stub.ListLeaderboard(asked)


async def imported(ranker: RunningRanker, *messages: list[ranker_pb2.ImportedVote]) -> Any:
    asked = [ranker_pb2.ImportVotesRequest(intent=INTENT, votes=votes) for votes in messages]
    return await ranker.stub.ImportVotes(iter(asked))


def battle(left: str, right: str, which: int = 1, judge: str = "", id: str = "") -> Any:
    return ranker_pb2.ImportedVote(left=left, right=right, vote=which, judge=judge, id=id)  # type: ignore[arg-type]


async def error_of(call: Any) -> EaselError:
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await call
    return from_rpc_error(raised.value)


# ---- pairs and votes ----


async def test_a_pair_of_given_pictures_is_voted_on_and_revealed(each_arena: RunningRanker) -> None:
    assert not (await give(each_arena, "a", 10)).repeated_call
    assert (await give(each_arena, "a", 10)).repeated_call
    await give(each_arena, "b", 20)
    pair = await next_pair(each_arena)
    assert pair.prompt == PROMPT
    reds = [redness(pair.left.encoded), redness(pair.right.encoded)]
    assert sorted(reds) == [10, 20]
    told = await vote(each_arena, pair.token, ranker_pb2.VOTE_RIGHT, judge="ada")
    assert {10: "a", 20: "b"}[int(reds[0])] == told.left.name
    assert {10: "a", 20: "b"}[int(reds[1])] == told.right.name
    assert not told.repeated_call
    assert each_arena.metric("easel_arena_pairs_total") == 1
    assert each_arena.metric("easel_arena_votes_total", source="person") == 1


async def test_a_pair_says_nothing_of_who_made_it(arena: RunningRanker) -> None:
    await give(arena, "first-contender", 10)
    await give(arena, "second-contender", 10)
    pair = await next_pair(arena)
    assert pair.left.encoded == pair.right.encoded
    assert b"contender" not in pair.SerializeToString()
    assert Image.open(io.BytesIO(pair.left.encoded)).info == {}


async def test_both_come_on_both_sides(arena: RunningRanker) -> None:
    await give(arena, "a", 10)
    await give(arena, "b", 20)
    lefts = {redness((await next_pair(arena)).left.encoded) for _ in range(40)}
    assert lefts == {10, 20}


async def test_pictures_are_made_by_the_contenders_settings(each_arena: RunningRanker) -> None:
    created = await put(each_arena, "quick", steps=2)
    assert created.created
    assert (created.contender.generate.model, created.contender.generate.steps) == ("sd", 2)
    await put(each_arena, "slow", steps=9)
    assert (await prompts(each_arena, PROMPT)).prompts == 1
    pair = await next_pair(each_arena)
    assert sorted(map(redness, (pair.left.encoded, pair.right.encoded))) == [2, 9]
    one, other = each_arena.upstreams.generator.submitted
    assert one.seed == other.seed
    assert (one.prompt, one.count, one.omit_metadata) == (PROMPT, 1, True)
    told = await vote(each_arena, pair.token)
    assert {told.left.generate.steps, told.right.generate.steps} == {2, 9}


async def test_a_new_prompt_is_for_those_that_make_pictures(each_arena: RunningRanker) -> None:
    await put(each_arena, "quick", steps=2)
    await put(each_arena, "slow", steps=9)
    await give(each_arena, "given", 30)
    pair = await next_pair(each_arena, "a green ring")
    assert pair.prompt == "a green ring"
    assert sorted(map(redness, (pair.left.encoded, pair.right.encoded))) == [2, 9]
    listed = await each_arena.stub.ListContenders(ranker_pb2.ListContendersRequest(intent=INTENT))
    assert listed.prompts == 1, "a caller's prompt is not for everybody"
    assert [(each.name, each.pictures) for each in listed.contenders] == [
        ("given", 1),
        ("quick", 1),
        ("slow", 1),
    ]


async def test_pictures_made_are_shown_again_once_there_are_enough() -> None:
    settings: dict[str, Any] = {"arena_pictures_per_prompt": 1}
    async with upstreams() as up, running_ranker(paints(up), **settings) as arena:
        await put(arena, "quick", steps=2)
        await put(arena, "slow", steps=9)
        await prompts(arena, PROMPT)
        for _ in range(4):
            await next_pair(arena)
        assert len(up.generator.submitted) == 2


async def test_a_vote_may_name_the_picture(arena: RunningRanker) -> None:
    await give(arena, "a", 10)
    await give(arena, "b", 20)
    pair, other = await next_pair(arena), await next_pair(arena)
    await vote(arena, pair.token, 0, picture=pair.right_id)
    assert (await vote(arena, pair.token, ranker_pb2.VOTE_RIGHT)).repeated_call
    error = await error_of(vote(arena, other.token, 0, picture=pair.left_id))
    assert isinstance(error, InvalidInput)
    assert (error.field, error.reason, error.given) == ("picture", "NOT_IN_PAIR", pair.left_id)
    error = await error_of(vote(arena, other.token, ranker_pb2.VOTE_LEFT, picture=other.right_id))
    assert isinstance(error, InvalidInput)
    assert error.field == "vote"


async def test_a_vote_again_changes_nothing_and_another_is_refused(
    each_arena: RunningRanker,
) -> None:
    await give(each_arena, "a", 10)
    await give(each_arena, "b", 20)
    pair = await next_pair(each_arena)
    first = await vote(each_arena, pair.token, judge="ada")
    again = await vote(each_arena, pair.token, judge="ada")
    assert again.repeated_call
    assert (again.left.name, again.right.name) == (first.left.name, first.right.name)
    for which, judge in ((ranker_pb2.VOTE_TIE, "ada"), (ranker_pb2.VOTE_LEFT, "eve")):
        error = await error_of(vote(each_arena, pair.token, which, judge=judge))
        assert isinstance(error, FailedPrecondition)
        assert error.reason == "TOKEN_USED"
    assert (await leaderboard(each_arena)).votes == 1


async def test_forged_and_missing_tokens_are_refused(arena: RunningRanker) -> None:
    await give(arena, "a", 10)
    await give(arena, "b", 20)
    token = (await next_pair(arena)).token
    changed = token[:-1] + ("A" if token[-1] != "A" else "B")
    for forged in (changed, "nonsense", token + "AAAA"):
        error = await error_of(vote(arena, forged))
        assert (type(error), error.reason) == (InvalidInput, "TOKEN_FORGED")
    error = await error_of(vote(arena, ""))
    assert isinstance(error, InvalidInput)
    assert error.field == "token"
    assert (await leaderboard(arena)).votes == 0


async def test_an_expired_token_is_refused_and_its_pair_forgotten() -> None:
    async with upstreams() as up:
        clock = [datetime(2026, 1, 1, tzinfo=UTC)]
        async with arena_service(up, lambda: clock[0]) as service:
            for name, red in (("a", 10), ("b", 20)):
                image = common_pb2.Image(encoded=png(red))
                await service.put_picture(
                    ranker_pb2.PutArenaPictureRequest(contender=name, prompt=PROMPT, image=image)
                )
            pair = await service.next_pair(ranker_pb2.NextPairRequest())
            late = await service.next_pair(ranker_pb2.NextPairRequest())
            clock[0] += timedelta(seconds=3599)
            await service.record_vote(ranker_pb2.RecordVoteRequest(token=pair.token, vote=1))  # type: ignore[arg-type]
            clock[0] += timedelta(seconds=1)
            for token in (pair.token, late.token):
                with pytest.raises(FailedPrecondition, match="expired") as raised:
                    await service.record_vote(ranker_pb2.RecordVoteRequest(token=token, vote=1))  # type: ignore[arg-type]
                assert raised.value.reason == "TOKEN_EXPIRED"
            board = await service.list_leaderboard(ranker_pb2.ListLeaderboardRequest())
            assert board.votes == 1


class InterruptedPainter(Painter):
    """Before its first picture something else happens."""

    meanwhile: Callable[[], Awaitable[object]] | None = None

    async def paint(self, settings: bytes, prompt: str, seed: int) -> bytes:
        happening, self.meanwhile = self.meanwhile, None
        if happening is not None:
            await happening()
        return await super().paint(settings, prompt, seed)


@asynccontextmanager
async def arena_service(
    up: Upstreams,
    now: Callable[[], datetime] = utc_now,
    painter: Callable[[GeneratorClient], Painter] = Painter,
    database_url: str = "sqlite://",
) -> AsyncIterator[ArenaService]:
    """One without a server, whose time is told."""
    targets = {"classifier_target": up.classifier_target, "generator_target": up.generator_target}
    settings = load_settings(RankerSettings, environ={}, **targets)
    database = Database.open(database_url)

    async def nothing(_: ranker_pb2.RankImagesRequest) -> ranker_pb2.RankImagesResponse:
        return ranker_pb2.RankImagesResponse()

    async with grpc.aio.insecure_channel(up.generator_target) as channel:
        service = ArenaService(
            settings,
            database,
            painter(GeneratorClient(channel)),
            nothing,
            ArenaMetrics(CollectorRegistry()),
            now=now,
            rng=np.random.default_rng(1),
        )
        yield service
        service.close()
    await database.close()


async def test_votes_that_are_none(arena: RunningRanker) -> None:
    await give(arena, "a", 10)
    await give(arena, "b", 20)
    token = (await next_pair(arena)).token
    for which in (0, 7):
        error = await error_of(vote(arena, token, which))
        assert isinstance(error, InvalidInput)
        assert error.field == "vote"
    error = await error_of(vote(arena, token, judge="easel:vit"))
    assert isinstance(error, InvalidInput)
    assert error.field == "judge"


async def test_without_two_that_can_meet_there_is_no_pair(arena: RunningRanker) -> None:
    assert isinstance(await error_of(next_pair(arena)), NotFound)
    await give(arena, "a", 10)
    await give(arena, "b", 20, prompt="something else")
    error = await error_of(next_pair(arena))
    assert (type(error), error.reason) == (FailedPrecondition, "NO_PAIR")
    await put(arena, "quick", steps=2)
    pair = await next_pair(arena)
    assert sorted(map(redness, (pair.left.encoded, pair.right.encoded)))[0] == 2


async def test_a_generator_that_is_away_is_named() -> None:
    async with upstreams() as up, running_ranker(paints(up)) as arena:
        await put(arena, "quick", steps=2)
        await put(arena, "slow", steps=9)
        await prompts(arena, PROMPT)
        await up.stop()
        error = await error_of(next_pair(arena))
        assert isinstance(error, NotReady)
        assert "generator" in error.message


async def test_a_picture_that_fails_is_told(arena: RunningRanker) -> None:
    await put(arena, "quick", steps=2)
    await put(arena, "slow", steps=9)
    await prompts(arena, PROMPT)
    failure = common_pb2.ItemError(code=9, message="Not today.", reason="BLOCKED")
    arena.upstreams.generator.broken[1] = failure
    error = await error_of(next_pair(arena))
    assert (type(error), error.reason) == (FailedPrecondition, "BLOCKED")
    assert "Not today." in error.message
    assert arena.metric("easel_arena_pairs_total") == 0


async def test_a_picture_that_fails_ends_the_other_one(arena: RunningRanker) -> None:
    await put(arena, "quick", steps=2)
    await put(arena, "slow", steps=9)
    await prompts(arena, PROMPT)
    generator = arena.upstreams.generator
    generator.patience[1] = 0  # the first one asked for would wait for ever
    generator.taken_before_refusal = 1
    generator.refusal = common_pb2.ItemError(code=9, message="Not today.", reason="BLOCKED")
    error = await error_of(next_pair(arena))
    assert (type(error), error.reason) == (FailedPrecondition, "BLOCKED")
    await generator.wait_was_cancelled.wait()
    assert len(generator.submitted) == 2


async def test_a_picture_that_was_painted_for_another_is_not_of_its_successor(
    database_url: str,
) -> None:
    painters: list[InterruptedPainter] = []

    def painter(generator: GeneratorClient) -> Painter:
        painters.append(InterruptedPainter(generator))
        return painters[0]

    async with (
        upstreams() as up,
        arena_service(paints(up), painter=painter, database_url=database_url) as service,
    ):

        async def put(steps: int) -> None:
            contender = ranker_pb2.Contender(name="newest")
            contender.generate.steps = steps
            await service.put_contender(ranker_pb2.PutContenderRequest(contender=contender))

        async def replace() -> None:
            await service.delete_contender(ranker_pb2.DeleteContenderRequest(name="newest"))
            await put(steps=9)

        image = common_pb2.Image(encoded=png(30))
        await service.put_picture(
            ranker_pb2.PutArenaPictureRequest(contender="given", prompt=PROMPT, image=image)
        )
        await put(steps=2)
        painters[0].meanwhile = replace
        with pytest.raises(NotReady, match="deleted meanwhile"):
            await service.next_pair(ranker_pb2.NextPairRequest())
        listed = await service.list_contenders(ranker_pb2.ListContendersRequest())
        assert [(each.name, each.pictures) for each in listed.contenders] == [
            ("given", 1),
            ("newest", 0),
        ]
        pair = await service.next_pair(ranker_pb2.NextPairRequest())
        assert sorted(map(redness, (pair.left.encoded, pair.right.encoded))) == [9, 30]
        cast = await service.record_vote(ranker_pb2.RecordVoteRequest(token=pair.token, vote=1))  # type: ignore[arg-type]
        assert {cast.left.generate.steps, cast.right.generate.steps} == {0, 9}


async def test_who_gives_up_waiting_for_a_pair_stops_its_pictures(arena: RunningRanker) -> None:
    await put(arena, "quick", steps=2)
    await give(arena, "given", 30)
    generator = arena.upstreams.generator
    generator.patience[1] = 0
    call = arena.stub.NextPair(ranker_pb2.NextPairRequest(intent=INTENT))
    await generator.is_waiting.wait()
    call.cancel()
    await generator.ended.wait()
    assert generator.outcome == "cancelled"


# ---- who takes part ----


async def test_settings_that_are_none_of_a_contender_are_refused(arena: RunningRanker) -> None:
    wrong: Iterable[tuple[str, Callable[[Any], object]]] = (
        ("prompt", lambda g: setattr(g, "prompt", "x")),
        ("seed", lambda g: setattr(g, "seed", 0)),
        ("count", lambda g: setattr(g, "count", 2)),
        ("seeds", lambda g: g.seeds.append(1)),
        ("controls", lambda g: g.controls.add()),
        ("inpaint", lambda g: g.inpaint.SetInParent()),
        ("preview", lambda g: g.preview.SetInParent()),
    )
    for field, spoil in wrong:
        generate = generator_pb2.GenerateRequest(steps=2)
        spoil(generate)
        contender = ranker_pb2.Contender(name="x", generate=generate)
        asked = ranker_pb2.PutContenderRequest(intent=INTENT, contender=contender)
        error = await error_of(arena.stub.PutContender(asked))
        assert isinstance(error, InvalidInput)
        assert error.field == f"contender.generate.{field}"


async def test_an_unknown_model_and_other_settings_are_refused(arena: RunningRanker) -> None:
    generate = generator_pb2.GenerateRequest(model="nothing")
    contender = ranker_pb2.Contender(name="x", generate=generate)
    asked = ranker_pb2.PutContenderRequest(intent=INTENT, contender=contender)
    assert isinstance(await error_of(arena.stub.PutContender(asked)), NotFound)
    await put(arena, "x", steps=2)
    assert not (await put(arena, "x", steps=2)).created
    error = await error_of(put(arena, "x", steps=3))
    assert (type(error), error.reason) == (FailedPrecondition, "CONTENDER_DIFFERS")


async def test_a_deleted_contender_takes_part_no_more(each_arena: RunningRanker) -> None:
    for name, red in (("a", 10), ("b", 20), ("c", 30)):
        await give(each_arena, name, red)
    met: set[str] = set()
    while met != {"a", "b"}:
        told = await vote(each_arena, (await next_pair(each_arena)).token)
        met = {told.left.name, told.right.name}
    gone = await each_arena.stub.DeleteContender(
        ranker_pb2.DeleteContenderRequest(intent=INTENT, name="a")
    )
    assert (gone.withdrawn, gone.pictures_deleted) == (True, 1)
    for _ in range(10):
        pair = await next_pair(each_arena)
        assert redness(pair.left.encoded) != 10 != redness(pair.right.encoded)
    rows = {row.model: row for row in (await leaderboard(each_arena)).rows}
    assert rows["a"].withdrawn
    assert not rows["b"].withdrawn
    error = await error_of(
        each_arena.stub.DeleteContender(ranker_pb2.DeleteContenderRequest(intent=INTENT, name="bb"))
    )
    assert isinstance(error, NotFound)
    assert "'b'" in error.message


async def test_pictures_that_are_none(arena: RunningRanker) -> None:
    asked = ranker_pb2.PutArenaPictureRequest(
        intent=INTENT, contender="a", prompt=PROMPT, image=common_pb2.Image(encoded=b"no picture")
    )
    error = await error_of(arena.stub.PutArenaPicture(asked))
    assert isinstance(error, InvalidInput)
    assert error.field == "image.encoded"
    assert isinstance(await error_of(leaderboard(arena)), NotFound)


async def test_without_administration_only_votes_are_taken() -> None:
    async with upstreams() as up, running_ranker(paints(up), administration=False) as arena:
        for call in (
            put(arena, "a", 2),
            give(arena, "a", 10),
            prompts(arena, PROMPT),
            imported(arena, [battle("a", "b")]),
            arena.stub.DeleteContender(ranker_pb2.DeleteContenderRequest(intent=INTENT, name="a")),
        ):
            assert isinstance(await error_of(call), PermissionDenied)


# ---- judges ----


async def test_a_judge_votes_by_its_scores_and_is_named(each_arena: RunningRanker) -> None:
    await put(each_arena, "quick", steps=2)
    await put(each_arena, "slow", steps=9)
    await prompts(each_arena, PROMPT)
    asked = ranker_pb2.JudgePairsRequest(intent=INTENT, pairs=12)
    told = [each async for each in each_arena.stub.JudgePairs(asked)]
    assert len(told) == 12
    for each in told:
        better = ranker_pb2.VOTE_LEFT if each.left == "slow" else ranker_pb2.VOTE_RIGHT
        assert each.vote == better
        assert (each.left_score > each.right_score) == (each.left == "slow")
        assert each.judge == "easel:label@vit/1"
    board = await leaderboard(each_arena)
    assert [row.model for row in board.rows] == ["slow", "quick"]
    assert (board.rows[0].wins, board.rows[0].losses) == (12, 0)
    assert each_arena.metric("easel_arena_votes_total", source="judge") == 12
    judges = await each_arena.stub.ListJudges(ranker_pb2.ListJudgesRequest(intent=INTENT))
    assert [(each.judge, each.votes) for each in judges.judges] == [("easel:label@vit/1", 12)]
    assert judges.judges[0].discrimination.abstained, "there is nobody to compare it with"


async def test_scores_within_the_margin_are_a_tie(arena: RunningRanker) -> None:
    await give(arena, "a", 10)
    await give(arena, "b", 11)
    for margin, votes in ((100.0, {3}), (0.0, {1, 2})):
        asked = ranker_pb2.JudgePairsRequest(
            intent=INTENT, pairs=2, tie_margin=margin, name=f"margin {margin:g}"
        )
        told = [each async for each in arena.stub.JudgePairs(asked)]
        assert {each.vote for each in told} <= votes
        assert told[0].judge == f"easel:margin {margin:g}"


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"pairs": 0}, "pairs"),
        ({"pairs": 10_001}, "pairs"),
        ({"pairs": 1, "tie_margin": -1.0}, "tie_margin"),
        ({"pairs": 1, "tie_margin": float("nan")}, "tie_margin"),
        ({"pairs": 1, "name": "x" * 129}, "name"),
    ],
)
async def test_judgements_that_cannot_be_asked_for(
    arena: RunningRanker, fields: dict[str, Any], field: str
) -> None:
    await give(arena, "a", 10)
    call = arena.stub.JudgePairs(ranker_pb2.JudgePairsRequest(intent=INTENT, **fields))
    error = await error_of(call.read())
    assert isinstance(error, InvalidInput)
    assert error.field == field


async def test_a_judge_that_fails_records_nothing(arena: RunningRanker) -> None:
    await give(arena, "a", 10)
    await give(arena, "b", 20)
    arena.upstreams.classifier.error = InvalidInput("image", "Too dark.")
    error = await error_of(
        arena.stub.JudgePairs(ranker_pb2.JudgePairsRequest(intent=INTENT, pairs=1)).read()
    )
    assert isinstance(error, FailedPrecondition)
    assert "Too dark" in error.message
    assert (await leaderboard(arena)).votes == 0


# ---- imports and leaderboards ----


async def test_imported_votes_make_a_leaderboard(each_arena: RunningRanker) -> None:
    rng = np.random.default_rng(1)
    votes = []
    for number in range(400):
        a, b = rng.choice(4, size=2, replace=False)
        better = rng.random() < 1 / (1 + np.exp(float(a) - float(b)))
        which = 3 if rng.random() < 0.1 else 1 if better else 2
        votes.append(battle(f"m{a}", f"m{b}", which, f"judge {number % 60}", f"{number}"))
    told = await imported(each_arena, votes[:150], votes[150:])
    assert (told.imported, told.left_out, told.contenders_added) == (400, 0, 4)
    again = await imported(each_arena, votes)
    assert (again.imported, again.left_out) == (0, 400)
    board = await leaderboard(each_arena)
    assert [row.model for row in board.rows] == ["m0", "m1", "m2", "m3"]
    assert board.votes == 400
    assert board.clustered_by_judge
    assert board.effective_judges == pytest.approx(60, abs=1)
    assert board.groups == 1
    assert (board.rank_draws, board.rank_seed) == (1000, 20240101)
    assert board.HasField("votes_to_change_leader")
    assert board.rival == "m1"
    assert 0 < board.tie.low < board.tie.value < board.tie.high
    first = board.rows[0]
    assert first.strength.low < first.strength.value < first.strength.high
    assert first.strength.evidence == first.wins + first.losses + first.ties
    assert (first.rank_low, first.rank_high) == (1, 1)


async def test_a_leaderboard_is_paged_as_it_was(arena: RunningRanker) -> None:
    await imported(arena, [battle(f"m{i}", f"m{i + 1}") for i in range(6)])
    first = await leaderboard(arena, page_size=4)
    await imported(arena, [battle("m0", "m7")])
    rest = await leaderboard(arena, page_size=4, page_token=first.next_page_token)
    assert (len(first.rows), len(rest.rows)) == (4, 3)
    assert rest.computed_at == first.computed_at
    assert not rest.next_page_token
    assert (await leaderboard(arena)).votes == 7
    for token in ("nonsense", "x.y", first.next_page_token.split(".")[0] + ".x"):
        error = await error_of(leaderboard(arena, page_token=token))
        assert isinstance(error, InvalidInput)
        assert error.field == "page_token"


async def test_a_page_is_of_the_request_that_it_was_told_to(arena: RunningRanker) -> None:
    votes = [battle("a", "b", 1, "ada")] * 6 + [battle("b", "c", 2, "eve")] * 5
    await imported(arena, votes)
    other = ranker_pb2.ImportVotesRequest(intent="draw", votes=votes)
    await arena.stub.ImportVotes(iter([other]))
    rows, judges = arena.stub.ListLeaderboard, arena.stub.ListJudges
    row = (await leaderboard(arena, page_size=1)).next_page_token
    asked = ranker_pb2.ListJudgesRequest(intent=INTENT, page_size=1)
    judge = (await judges(asked)).next_page_token
    wrong: Iterable[tuple[Any, Any, str]] = (
        (rows, ranker_pb2.ListLeaderboardRequest(intent="draw"), row),
        (rows, ranker_pb2.ListLeaderboardRequest(intent=INTENT), judge),
        (judges, ranker_pb2.ListJudgesRequest(intent="draw"), judge),
        (judges, ranker_pb2.ListJudgesRequest(intent=INTENT), row),
    )
    for call, request, token in wrong:
        request.page_token = token
        error = await error_of(call(request))
        assert isinstance(error, InvalidInput)
        assert (error.field, error.given) == ("page_token", token)
        assert "another" in error.message
    unknown = ranker_pb2.ListLeaderboardRequest(intent="pint", page_token=row)
    assert isinstance(await error_of(rows(unknown)), NotFound)
    assert len((await leaderboard(arena, page_token=row)).rows) == 2
    asked.page_token = judge
    assert [each.judge for each in (await judges(asked)).judges] == ["eve"]


async def test_too_few_votes_are_said_and_no_number_invented(arena: RunningRanker) -> None:
    await imported(arena, [battle("a", "b")] * 3 + [battle("c", "d")] * 20)
    board = await leaderboard(arena)
    rows = {row.model: row for row in board.rows}
    assert board.groups == 2
    assert rows["c"].strength.value > rows["d"].strength.value
    for name, why in (("a", ranker_pb2.UNRANKED_NOT_CONNECTED), ("b", 2)):
        assert rows[name].strength.abstained
        assert (rows[name].strength.value, rows[name].rank_low, rows[name].unranked) == (0, 0, why)
        assert rows[name].strength.evidence == 3


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        (battle("", "b"), "votes[1].left"),
        (battle("a", ""), "votes[1].right"),
        (battle("a", "a"), "votes[1].right"),
        (battle("a", "b", 0), "votes[1].vote"),
        (battle("a", "b", 1, "x" * 129), "votes[1].judge"),
        (battle("a", "b", 1, "", "x" * 129), "votes[1].id"),
    ],
)
async def test_a_message_of_votes_with_a_wrong_one_is_left_whole(
    arena: RunningRanker, wrong: Any, field: str
) -> None:
    await imported(arena, [battle("a", "b")])
    error = await error_of(imported(arena, [battle("a", "c"), wrong]))
    assert isinstance(error, InvalidInput)
    assert error.field == field
    assert (await leaderboard(arena)).votes == 1


async def test_the_size_of_a_message_of_votes_has_a_limit(arena: RunningRanker) -> None:
    assert (await imported(arena, [battle("a", "b")] * 10_000)).imported == 10_000
    error = await error_of(imported(arena, [battle("a", "b")] * 10_001))
    assert isinstance(error, InvalidInput)
    assert (error.field, error.limit, error.given) == ("votes", "10000", "10001")


async def test_a_leaderboard_from_the_log_is_the_one_that_grew_with_it(tmp_path: Path) -> None:
    async with upstreams() as up:
        settings: dict[str, Any] = {"data_dir": str(tmp_path), "arena_min_votes": 5}
        rng = np.random.default_rng(2)
        async with running_ranker(paints(up), **settings) as arena:
            for _ in range(3):
                pairs = [rng.choice(4, size=2, replace=False) for _ in range(40)]
                await imported(
                    arena, [battle(f"m{a}", f"m{b}", int(rng.integers(1, 4))) for a, b in pairs]
                )
                grown = await leaderboard(arena)
        async with running_ranker(paints(up), **settings) as arena:
            again = await leaderboard(arena)
        assert again.votes == 120
        assert list(again.rows) == list(grown.rows)
        assert again.votes_to_change_leader == grown.votes_to_change_leader


async def test_a_token_outlives_the_process_where_there_is_a_file(tmp_path: Path) -> None:
    async with upstreams() as up:
        settings: dict[str, Any] = {"data_dir": str(tmp_path)}
        async with running_ranker(paints(up), **settings) as arena:
            await give(arena, "a", 10)
            await give(arena, "b", 20)
            pair = await next_pair(arena)
        async with running_ranker(paints(up), **settings) as arena:
            assert not (await vote(arena, pair.token)).repeated_call
            assert (await vote(arena, pair.token)).repeated_call


async def test_rankers_that_share_a_database_share_tokens_and_votes(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"data_dir": str(tmp_path), "arena_min_votes": 5}
    async with (
        upstreams() as up,
        running_ranker(paints(up), **settings) as one,
        running_ranker(paints(up), **settings) as other,
    ):
        await give(one, "a", 10)
        await give(other, "b", 20)
        pairs = [await next_pair(each) for each in (one, other) * 10]
        told = await asyncio.gather(
            *(vote(each, pair.token) for pair in pairs for each in (one, other))
        )
        assert sum(each.repeated_call for each in told) == 20
        boards = [await leaderboard(each) for each in (one, other)]
        assert boards[0].votes == 20
        assert list(boards[0].rows) == list(boards[1].rows)


async def test_a_leaderboard_that_nobody_waits_for_is_there_for_the_next() -> None:
    async with upstreams() as up:
        clock, began = [datetime(2026, 1, 1, tzinfo=UTC)], asyncio.Event()

        def now() -> datetime:
            began.set()
            return clock[0]

        async with arena_service(up, now) as service:
            votes = [battle("a", "b")] * 50
            await service.import_votes(_one(ranker_pb2.ImportVotesRequest(votes=votes)))
            began.clear()
            request = ranker_pb2.ListLeaderboardRequest()
            first = asyncio.ensure_future(service.list_leaderboard(request))
            await began.wait()
            first.cancel()
            clock[0] += timedelta(seconds=5)
            board = await service.list_leaderboard(request)
            assert board.votes == 50
            assert board.computed_at.ToDatetime(UTC) == datetime(2026, 1, 1, tzinfo=UTC)


async def _one(message: ranker_pb2.ImportVotesRequest) -> AsyncIterator[Any]:
    yield message


async def test_an_unknown_intent_offers_the_nearest(arena: RunningRanker) -> None:
    await imported(arena, [battle("a", "b")])
    asked = ranker_pb2.ListLeaderboardRequest(intent="pint")
    error = await error_of(arena.stub.ListLeaderboard(asked))
    assert isinstance(error, NotFound)
    assert "'paint'" in error.message
