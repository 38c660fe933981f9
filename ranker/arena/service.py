"""The arena: messages in, domain, messages out."""

from __future__ import annotations

import hmac
import math
from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from hashlib import sha256
from secrets import token_hex
from typing import Final, TypeVar

import numpy as np
from google.protobuf.timestamp_pb2 import Timestamp
from sqlalchemy import Connection

from easel.common.v1 import common_pb2
from easel.ranker.v1 import ranker_pb2
from ranker.arena import picture, request, store, wire
from ranker.arena.matchmaker import Matchmaker, Meeting
from ranker.arena.metrics import ArenaMetrics
from ranker.arena.selection import Entrant
from ranker.arena.standings import Board, Standings
from ranker.arena.store import Ballot, Contender, Imported, Limits, Pair
from ranker.arena.tally import LEFT, RIGHT, TIE
from ranker.arena.upstream import Painter
from ranker.clock import utc_now
from ranker.config import RankerSettings
from ranker.database import Database
from ranker.database.keys import shared_key
from ranker.paging import page_size
from ranker.tickets import Signer
from ranker.together import together
from services.core.errors import FailedPrecondition, InvalidInput, NotReady
from services.core.pool import WorkerPool

T = TypeVar("T")

PURPOSE: Final = "arena pair"
_DRAWING_THREADS: Final = 2
_MAX_DRAWING: Final = 256
_SEEDS: Final = 2**63
_MAX_PLACE_DIGITS: Final = 9
# What is listed of a board, in the tokens of its pages.
_ROWS: Final = "rows"
_JUDGES: Final = "judges"
_VOTES: Final = {
    ranker_pb2.VOTE_LEFT: LEFT,
    ranker_pb2.VOTE_RIGHT: RIGHT,
    ranker_pb2.VOTE_TIE: TIE,
}
_MESSAGES: Final = {vote: message for message, vote in _VOTES.items()}

RankImages = Callable[[ranker_pb2.RankImagesRequest], Awaitable[ranker_pb2.RankImagesResponse]]


@dataclass(frozen=True, slots=True)
class _Side:
    """A contender and the picture of it that is shown."""

    contender: Contender
    picture: bytes


@dataclass(frozen=True, slots=True)
class _Shown:
    """A pair with its pictures."""

    pair: Pair
    left: bytes
    right: bytes


class ArenaService:
    """Pairs, votes and leaderboards; ``rank_images`` scores pictures for the judges' votes."""

    def __init__(
        self,
        settings: RankerSettings,
        database: Database,
        painter: Painter,
        rank_images: RankImages,
        metrics: ArenaMetrics,
        *,
        now: Callable[[], datetime] = utc_now,
        rng: np.random.Generator | None = None,
    ) -> None:
        self._settings = settings
        self._database = database
        self._painter = painter
        self._rank_images = rank_images
        self._metrics = metrics
        self._now = now
        self._rng = np.random.default_rng() if rng is None else rng
        self._limits = Limits(
            contenders=settings.arena_max_contenders,
            prompts=settings.arena_max_prompts,
            picture_bytes=settings.arena_max_picture_bytes,
        )
        self.standings = Standings(database, settings.arena_min_votes, now)
        self._matchmaker = Matchmaker(
            database, self.standings, settings.arena_exploration, self._rng
        )
        self._drawing = WorkerPool("arena-pictures", _DRAWING_THREADS, _MAX_DRAWING)
        self._signer: Signer | None = None

    def close(self) -> None:
        self._drawing.close()

    # ---- pairs and votes ----

    async def next_pair(self, asked: ranker_pb2.NextPairRequest) -> ranker_pb2.NextPairResponse:
        signer = await self._signing()
        intent = await self._intent(asked.intent)
        prompt = request.check_prompt(asked.prompt, "prompt") if asked.prompt else ""
        shown = await self._shown(intent, prompt)
        await self._database.write(lambda c: self._keep(c, shown.pair))
        self._metrics.shown()
        id = shown.pair.id
        left_id, right_id = _picture_ids(id)
        return ranker_pb2.NextPairResponse(
            token=signer.sign(id.encode(), shown.pair.expires_at),
            left=common_pb2.Image(encoded=shown.left),
            right=common_pb2.Image(encoded=shown.right),
            prompt=shown.pair.prompt,
            expires_at=_timestamp(shown.pair.expires_at),
            left_id=left_id,
            right_id=right_id,
        )

    async def record_vote(
        self, asked: ranker_pb2.RecordVoteRequest
    ) -> ranker_pb2.RecordVoteResponse:
        signer = await self._signing()
        now = self._now()
        pair = signer.read(asked.token, now).decode()
        vote = _vote(asked, pair)
        judge = request.check_judge(asked.judge)
        cast = await self._database.write(lambda c: store.cast(c, pair, vote, judge, now))
        if not cast.repeated:
            self._metrics.voted("person")
        return ranker_pb2.RecordVoteResponse(
            repeated_call=cast.repeated,
            left=wire.contender(cast.left),
            right=wire.contender(cast.right),
        )

    async def judge_pairs(
        self, asked: ranker_pb2.JudgePairsRequest
    ) -> AsyncGenerator[ranker_pb2.JudgePairsResponse, None]:
        intent = await self._intent(asked.intent)
        request.check_number(asked.pairs, 1, request.MAX_PAIRS, "pairs")
        prompt = request.check_prompt(asked.prompt, "prompt") if asked.prompt else ""
        if not (math.isfinite(asked.tie_margin) and asked.tie_margin >= 0.0):
            raise InvalidInput(
                "tie_margin", "The margin is no number from 0 on.", given=asked.tie_margin
            )
        request.check_short(asked.name, "name")
        for _ in range(asked.pairs):
            shown = await self._shown(intent, prompt)
            yield await self._judged(asked, shown)

    async def import_votes(
        self, messages: AsyncIterable[ranker_pb2.ImportVotesRequest]
    ) -> ranker_pb2.ImportVotesResponse:
        told = ranker_pb2.ImportVotesResponse()
        name: str | None = None
        async for message in messages:
            if name is None:
                name = request.check_short(message.intent, "intent")
            elif message.intent not in ("", name):
                raise InvalidInput(
                    "intent", "All votes of one import are of one intent.", name, message.intent
                )
            done = await self._imported(name, list(_ballots(message)))
            told.imported += done.imported
            told.left_out += done.left_out
            told.contenders_added += done.contenders_added
        return told

    async def _imported(self, name: str, ballots: list[Ballot]) -> Imported:
        def write(connection: Connection) -> Imported:
            intent = store.intent_to_write(connection, name)
            return store.import_votes(connection, intent, ballots, self._limits, self._now())

        done = await self._database.write(write)
        self._metrics.voted("import", done.imported)
        return done

    # ---- leaderboards ----

    async def list_leaderboard(
        self, asked: ranker_pb2.ListLeaderboardRequest
    ) -> ranker_pb2.ListLeaderboardResponse:
        size = page_size(asked.page_size)
        board, begin = await self._page(asked.intent, _ROWS, asked.page_token)
        rows = board.result.standings
        answer = wire.leaderboard(board, rows[begin : begin + size])
        answer.next_page_token = _page_token(board, _ROWS, begin + size, len(rows))
        return answer

    async def list_judges(
        self, asked: ranker_pb2.ListJudgesRequest
    ) -> ranker_pb2.ListJudgesResponse:
        size = page_size(asked.page_size)
        board, begin = await self._page(asked.intent, _JUDGES, asked.page_token)
        found = board.result.judges
        total = 0 if found is None else len(found.judge)
        answer = wire.judges(board, range(begin, min(begin + size, total)))
        answer.next_page_token = _page_token(board, _JUDGES, begin + size, total)
        return answer

    # ---- who takes part ----

    async def list_contenders(
        self, asked: ranker_pb2.ListContendersRequest
    ) -> ranker_pb2.ListContendersResponse:
        intent = await self._intent(asked.intent)

        def read(connection: Connection) -> ranker_pb2.ListContendersResponse:
            pictures = store.picture_counts(connection, intent)
            found = sorted(store.contenders(connection, intent), key=lambda each: each.name)
            return ranker_pb2.ListContendersResponse(
                contenders=[wire.contender(each, pictures.get(each.id, 0)) for each in found],
                prompts=store.standing_count(connection, intent),
                votes=store.vote_count(connection, intent),
            )

        return await self._database.read(read)

    async def put_contender(
        self, asked: ranker_pb2.PutContenderRequest
    ) -> ranker_pb2.PutContenderResponse:
        name = request.check_name(asked.contender.name, "contender.name")
        intent_name = request.check_short(asked.intent, "intent")
        settings = None
        if asked.contender.HasField("generate"):
            settings = await self._painter.settings(asked.contender.generate)

        def write(connection: Connection) -> tuple[Contender, bool]:
            intent = store.intent_to_write(connection, intent_name)
            return store.put_contender(
                connection, intent, name, settings, self._limits, self._now()
            )

        contender, created = await self._database.write(write)
        return ranker_pb2.PutContenderResponse(contender=wire.contender(contender), created=created)

    async def delete_contender(
        self, asked: ranker_pb2.DeleteContenderRequest
    ) -> ranker_pb2.DeleteContenderResponse:
        name = request.check_name(asked.name, "name")
        intent = await self._intent(asked.intent)
        withdrawn, pictures = await self._database.write(
            lambda c: store.delete_contender(c, intent, name)
        )
        return ranker_pb2.DeleteContenderResponse(withdrawn=withdrawn, pictures_deleted=pictures)

    async def put_prompts(
        self, asked: ranker_pb2.PutArenaPromptsRequest
    ) -> ranker_pb2.PutArenaPromptsResponse:
        request.check_number(len(asked.prompts), 1, request.MAX_PROMPTS, "prompts")
        texts = [
            request.check_prompt(text, f"prompts[{place}]")
            for place, text in enumerate(asked.prompts)
        ]
        name = request.check_short(asked.intent, "intent")

        def write(connection: Connection) -> tuple[int, int]:
            intent = store.intent_to_write(connection, name)
            return store.put_prompts(connection, intent, texts, self._limits)

        added, total = await self._database.write(write)
        return ranker_pb2.PutArenaPromptsResponse(added=added, prompts=total)

    async def put_picture(
        self, asked: ranker_pb2.PutArenaPictureRequest
    ) -> ranker_pb2.PutArenaPictureResponse:
        name = request.check_name(asked.contender, "contender")
        prompt = request.check_prompt(asked.prompt, "prompt")
        intent_name = request.check_short(asked.intent, "intent")
        given = asked.image.encoded
        encoded = await self._drawing.run(picture.anonymous, given, field="image.encoded")

        def write(connection: Connection) -> bool:
            intent = store.intent_to_write(connection, intent_name)
            contender = store.contender_to_write(
                connection, intent, name, self._limits, self._now()
            )
            number = store.standing_prompt(connection, intent, prompt, self._limits)
            return store.put_picture(connection, contender, number, encoded, self._limits)

        return ranker_pb2.PutArenaPictureResponse(repeated_call=await self._database.write(write))

    # ---- inside ----

    async def _signing(self) -> Signer:
        """By the key that is set, or the one that all who share the database have."""
        if self._signer is None:
            own = self._settings.signing_key_bytes
            key = await self._database.write(shared_key) if own is None else own
            self._signer = Signer(key, PURPOSE)
        return self._signer

    async def _intent(self, name: str) -> int:
        request.check_short(name, "intent")
        return await self._database.read(lambda c: store.intent_id(c, name))

    async def _shown(self, intent: int, prompt: str) -> _Shown:
        """The next pair with its pictures, made where they are not there."""
        meeting = await self._matchmaker.meeting(intent, prompt)
        text = prompt or await self._text(meeting)
        # One seed for both: what it decides alike is no difference between them.
        seed = int(self._rng.integers(_SEEDS))
        left, right = await self._sides(intent, meeting, text, seed)
        expires_at = self._now() + timedelta(seconds=self._settings.arena_pair_seconds)
        pair = Pair(
            token_hex(16),
            intent,
            left.contender,
            right.contender,
            text,
            meeting.propensity,
            expires_at,
        )
        return _Shown(pair, left.picture, right.picture)

    async def _sides(
        self, intent: int, meeting: Meeting, text: str, seed: int
    ) -> tuple[_Side, _Side]:
        async with together() as both:  # one picture is no pair
            left = both.create_task(self._side(intent, meeting.left, text, seed))
            right = both.create_task(self._side(intent, meeting.right, text, seed))
        return left.result(), right.result()

    async def _text(self, meeting: Meeting) -> str:
        chosen = meeting.prompt
        assert chosen is not None  # drawn from the arena's own
        return await self._database.read(lambda c: store.prompt_text(c, chosen))

    async def _side(self, intent: int, entrant: Entrant, text: str, seed: int) -> _Side:
        """It with one of its pictures for the prompt; a new one while it makes them and has few."""
        enough, lot = self._settings.arena_pictures_per_prompt, self._rng.random()

        def read(connection: Connection) -> tuple[Contender, bytes | None]:
            """In one transaction and by the prompt's text: ids of what was deleted come again."""
            contender = store.drawn(connection, intent, entrant.contender, entrant.name)
            prompt = store.find_prompt(connection, intent, text)
            kept = [] if prompt is None else store.pictures_of(connection, contender.id, prompt)
            if not kept or (contender.settings is not None and len(kept) < enough):
                return contender, None
            return contender, store.picture(connection, kept[int(lot * len(kept))])

        contender, shown = await self._database.read(read)
        if shown is not None:
            return _Side(contender, shown)
        if contender.settings is None:
            raise NotReady("The picture was deleted meanwhile; ask for another pair.")
        made = await self._painter.paint(contender.settings, text, seed)
        encoded = await self._drawing.run(picture.anonymous, made, field="image.encoded")
        await self._database.write(
            lambda c: store.keep_made_picture(c, contender, text, encoded, self._limits)
        )
        return _Side(contender, encoded)

    def _keep(self, connection: Connection, pair: Pair) -> None:
        store.forget_pairs(connection, self._now())
        store.keep_pair(connection, pair)

    async def _judged(
        self, asked: ranker_pb2.JudgePairsRequest, shown: _Shown
    ) -> ranker_pb2.JudgePairsResponse:
        """The judges' vote on the pair, recorded."""
        images = [
            ranker_pb2.RankImage(id=side, image=common_pb2.Image(encoded=encoded))
            for side, encoded in (("left", shown.left), ("right", shown.right))
        ]
        ranked = await self._rank_images(
            ranker_pb2.RankImagesRequest(
                images=images, judges=asked.judges, prompt=shown.pair.prompt
            )
        )
        left, right = _scores(ranked)
        vote = TIE if abs(left - right) <= asked.tie_margin else LEFT if left > right else RIGHT
        judge = request.RESERVED + (asked.name or _described(asked, ranked))

        def write(connection: Connection) -> None:
            self._keep(connection, shown.pair)
            store.cast(connection, shown.pair.id, vote, judge, self._now())

        await self._database.write(write)
        self._metrics.voted("judge")
        return ranker_pb2.JudgePairsResponse(
            left=shown.pair.left.name,
            right=shown.pair.right.name,
            prompt=shown.pair.prompt,
            vote=_MESSAGES[vote],
            left_score=left,
            right_score=right,
            judge=judge,
        )

    async def _page(self, name: str, listed: str, token: str) -> tuple[Board, int]:
        """The board that the token goes on in, or a new one; ``listed`` is what of it."""
        intent = await self._intent(name)
        if not token:
            board = await self.standings.board(intent)
            self._metrics.computed(board.seconds)
            return board, 0
        id, _, rest = token.partition(".")
        told, _, begin = rest.partition(".")
        kept = self.standings.kept(id)
        if kept is None or not begin.isdecimal() or len(begin) > _MAX_PLACE_DIGITS:
            raise InvalidInput(
                "page_token",
                "There is no such page any more: newer leaderboards took its place. "
                "Begin again without a token.",
                given=token[:100],
            )
        if (kept.intent, told) != (intent, listed):
            raise InvalidInput(
                "page_token",
                "The page is of another request: of another arena, or another list of it. "
                "Begin without a token.",
                given=token[:100],
            )
        return kept, int(begin)


def _vote(asked: ranker_pb2.RecordVoteRequest, pair: str) -> int:
    """What is voted for, by side or by picture."""
    if not asked.picture:
        if asked.vote not in _VOTES:
            raise InvalidInput(
                "vote", "A vote is needed.", "VOTE_LEFT, VOTE_RIGHT or VOTE_TIE", asked.vote
            )
        return _VOTES[asked.vote]
    sides = dict(zip(_picture_ids(pair), (LEFT, RIGHT), strict=True))
    if asked.picture not in sides:
        raise InvalidInput(
            "picture",
            "The picture is not in the pair.",
            " or ".join(sides),
            asked.picture[:100],
            reason="NOT_IN_PAIR",
        )
    vote = sides[asked.picture]
    if asked.vote and _VOTES.get(asked.vote) != vote:
        raise InvalidInput("vote", "The vote is for another picture than the one named.")
    return vote


def _picture_ids(pair: str) -> tuple[str, str]:
    """Ids of the left and the right picture of a pair, from its own alone."""
    left, right = (
        hmac.digest(pair.encode(), side, sha256).hex()[:16] for side in (b"left", b"right")
    )
    return left, right


def _ballots(message: ranker_pb2.ImportVotesRequest) -> Iterable[Ballot]:
    if len(message.votes) > request.MAX_IMPORTED:
        raise InvalidInput(
            "votes", "There are too many in one message.", request.MAX_IMPORTED, len(message.votes)
        )
    for place, vote in enumerate(message.votes):
        at = f"votes[{place}]"
        left = request.check_name(vote.left, f"{at}.left")
        right = request.check_name(vote.right, f"{at}.right")
        if left == right:
            raise InvalidInput(f"{at}.right", "A contender does not meet itself.", given=right)
        if vote.vote not in _VOTES:
            raise InvalidInput(
                f"{at}.vote", "A vote is needed.", "VOTE_LEFT, VOTE_RIGHT or VOTE_TIE", vote.vote
            )
        judge = request.check_short(vote.judge, f"{at}.judge")
        id = request.check_short(vote.id, f"{at}.id")
        yield Ballot(id, left, right, _VOTES[vote.vote], judge)


def _scores(ranked: ranker_pb2.RankImagesResponse) -> tuple[float, float]:
    scores = {}
    for each in ranked.images:
        if each.HasField("error"):
            raise FailedPrecondition(
                f"The judge could not score a picture: {each.error.message}",
                reason=each.error.reason,
            )
        scores[each.id] = each.score
    return scores["left"], scores["right"]


def _described(asked: ranker_pb2.JudgePairsRequest, ranked: ranker_pb2.RankImagesResponse) -> str:
    kinds = "+".join(each.WhichOneof("kind") or "label" for each in asked.judges) or "label"
    model = ranked.classifier
    named = f"@{model.name}/{model.version}" if model.name else ""
    return f"{kinds}{named}"[: request.MAX_NAME_BYTES - len(request.RESERVED)]


def _page_token(board: Board, listed: str, begin: int, total: int) -> str:
    return f"{board.id}.{listed}.{begin}" if begin < total else ""


def _timestamp(at: datetime) -> Timestamp:
    made = Timestamp()
    made.FromDatetime(at)
    return made
