"""BestOf and RankImages: messages in, domain, messages out."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Any, Final

from easel.common.v1 import common_pb2
from easel.generator.v1 import generator_pb2
from easel.ranker.v1 import ranker_pb2
from ranker import wire as words
from ranker.config import RankerSettings
from ranker.pictures import events, ranking, request, schedule, wire
from ranker.pictures.best_of import BestOf
from ranker.pictures.contest import Contest
from ranker.pictures.judges.service import JudgesService, Jury
from ranker.pictures.judges.spec import JudgeSpec
from ranker.pictures.judging import Score
from ranker.pictures.metrics import BestOfMetrics
from ranker.pictures.pruning.service import PruningService
from ranker.pictures.schedule import Round
from ranker.pictures.upstream import GeneratorClient, GeneratorModel
from services.core.errors import EaselError, InvalidInput
from services.wire import item_error_to_pb

log = logging.getLogger("easel.ranker")

MAX_ROUNDS: Final = 100
# Tags and lengths around a picture, generously.
_FRAME_BYTES: Final = 64


class PicturesService:
    """BestOf and RankImages over the two model services."""

    def __init__(
        self,
        settings: RankerSettings,
        judges: JudgesService,
        generator: GeneratorClient,
        metrics: BestOfMetrics,
        pruning: PruningService,
    ) -> None:
        self._settings = settings
        self._judges = judges
        self._generator = generator
        self._pruning = pruning
        self._metrics = metrics

    async def best_of(
        self, request: ranker_pb2.BestOfRequest
    ) -> AsyncGenerator[ranker_pb2.BestOfEvent, None]:
        started = time.monotonic()
        specs, candidates, asked = self._checked(request)
        jury, model = await asyncio.gather(
            self._judges.call(specs, request.generate.prompt, candidates),
            self._generator.model(request.generate.model, request.generate.model_version),
        )
        plan = self._pruning.plan(request.generate, model, jury, candidates, asked)
        held = Contest(candidates, plan.steps, plan.rounds)
        order = wire.order_from_pb(request.generate, candidates, held.preview_steps)
        stream = self._generator.open(order, model)
        best_of = BestOf(held, stream, jury, max_judging=self._settings.max_judging)
        answer = _BestOfAnswer(
            request,
            jury,
            model,
            plan.regret_bound,
            started,
            max_bytes=self._settings.max_message_bytes,
        )
        try:
            async with aclosing(best_of.run()) as running:
                async for event in running:
                    if isinstance(event, events.Result):
                        self._metrics.ranked(event)
                    for message in answer.messages(event):
                        yield message
        finally:
            seconds = time.monotonic() - started
            self._metrics.ended(held.outcomes(), held.row_steps_spent, seconds)

    async def rank_images(
        self, request: ranker_pb2.RankImagesRequest
    ) -> ranker_pb2.RankImagesResponse:
        started = time.monotonic()
        specs = self._checked_images(request)
        jury = await self._judges.call(specs, request.prompt, len(request.images))
        room = asyncio.Semaphore(self._settings.max_judging)
        outcomes = await _outcomes(jury, [each.image for each in request.images], room)
        return ranker_pb2.RankImagesResponse(
            images=_ranked_images([image.id for image in request.images], outcomes),
            classifier=jury.ref,
            seconds=time.monotonic() - started,
            judges=jury.messages(),
        )

    def _checked(
        self, asked: ranker_pb2.BestOfRequest
    ) -> tuple[tuple[JudgeSpec, ...], int, tuple[Round, ...] | None]:
        """The judges, the number of candidates and the rounds that are asked for, all limits of
        ours held."""
        generate = asked.generate
        request.check_id(asked.id)
        if not asked.HasField("generate"):
            raise InvalidInput("generate", "What to generate is needed.")
        request.check_generate_id(generate.id, asked.id)
        wire.check_order(generate)
        request.check_prompt(generate.prompt, field="generate.prompt")
        candidates = request.count_candidates(
            asked.candidates,
            count=generate.count,
            seeds=generate.seeds,
            has_seed=generate.HasField("seed"),
            max_candidates=self._settings.max_candidates,
        )
        rounds = self._rounds(asked.pruning, candidates)
        return self._judges.specs(asked.judges), candidates, rounds

    def _checked_images(self, asked: ranker_pb2.RankImagesRequest) -> tuple[JudgeSpec, ...]:
        request.check_count(len(asked.images), self._settings.max_images, field="images")
        request.check_images([image.id for image in asked.images])
        request.check_prompt(asked.prompt, field="prompt")
        return self._judges.specs(asked.judges)

    def _rounds(self, pruning: ranker_pb2.Pruning, candidates: int) -> tuple[Round, ...] | None:
        if pruning.disabled:
            if pruning.rounds:
                raise InvalidInput("pruning.rounds", "Pruning is disabled, and has rounds.")
            return ()
        if not pruning.rounds:
            return None
        # Each drops at least one candidate, and the last one keeps one; by a margin none has to go.
        by_margin = any(each.HasField("margin") for each in pruning.rounds)
        most = MAX_ROUNDS if by_margin else candidates - 1
        request.check_count(len(pruning.rounds), most, field="pruning.rounds")
        # The shortest decimal of the float32: 0.6 of 20 steps is 12, 0.60000002 of them is 13.
        rounds = tuple(
            Round(
                float(f"{each.at:.7g}"),
                each.keep,
                each.margin if each.HasField("margin") else None,
            )
            for each in pruning.rounds
        )
        schedule.check_rounds(rounds, candidates)
        return rounds


class _BestOfAnswer:
    """Writes the events of one contest as messages."""

    def __init__(
        self,
        asked: ranker_pb2.BestOfRequest,
        jury: Jury,
        model: GeneratorModel,
        regret_bound: float | None,
        started: float,
        *,
        max_bytes: int,
    ) -> None:
        self._asked = asked
        self._jury = jury
        self._model = model
        self._regret_bound = regret_bound
        self._started = started
        self._max_bytes = max_bytes

    def messages(self, event: events.Event) -> list[ranker_pb2.BestOfEvent]:
        """One message, or none where the caller wants no such news."""
        body = self._body(event)
        return [] if body is None else [ranker_pb2.BestOfEvent(id=self._asked.id, **body)]

    def _body(self, event: events.Event) -> dict[str, Any] | None:
        match event:
            case events.Started():
                return {"started": self._start(event)}
            case events.Step():
                if self._asked.generate.omit_steps:
                    return None
                step = ranker_pb2.CandidateStep(
                    index=event.index, step=event.step, steps=event.steps
                )
                return {"step": step}
            case events.Scored():
                return {"score": self._score(event)}
            case events.Pruned():
                pruned = ranker_pb2.CandidatePruned(
                    index=event.index,
                    step=event.step,
                    steps_saved=event.steps_saved,
                    score=event.score.value,
                )
                return {"pruned": pruned}
            case events.Finished():
                timing = _made(event.origin).timing
                return {"finished": ranker_pb2.CandidateFinished(index=event.index, timing=timing)}
            case events.Failed():
                error = item_error_to_pb(event.error)
                return {"failed": ranker_pb2.CandidateFailed(index=event.index, error=error)}
            case events.Result():
                return {"result": self._result(event)}

    def _start(self, event: events.Started) -> ranker_pb2.BestOfStarted:
        return ranker_pb2.BestOfStarted(
            seeds=event.seeds,
            steps=event.steps,
            pruning=wire.pruning_to_pb(event.rounds),
            judges=self._jury.messages(),
            eta_seconds=event.eta_seconds,
        )

    def _score(self, event: events.Scored) -> ranker_pb2.CandidateScore:
        shown = self._asked.previews and not event.final
        return ranker_pb2.CandidateScore(
            index=event.index,
            step=event.step,
            score=event.score.value,
            top=_label(event.score),
            parts=event.score.parts,
            preview=common_pb2.Image(encoded=event.image) if shown else None,
            final=event.final,
        )

    def _result(self, event: events.Result) -> ranker_pb2.BestOfResult:
        result = ranker_pb2.BestOfResult(
            candidates=[_candidate(candidate) for candidate in event.candidates],
            row_steps_spent=event.row_steps_spent,
            row_steps_saved=event.row_steps_saved,
            seconds=time.monotonic() - self._started,
            regret_bound=self._regret_bound,
            generator=self._model.ref,
            classifier=self._jury.ref,
        )
        self._add_pictures(result, [candidate.image for candidate in event.candidates])
        return result

    def _add_pictures(
        self, result: ranker_pb2.BestOfResult, images: Sequence[bytes | None]
    ) -> None:
        """As many as were asked for, best first, and no more than fit in one message: the ranking
        must not be lost with its last picture."""
        wanted = self._asked.return_images or len(images)
        room = self._max_bytes - result.ByteSize() - len(self._asked.id) - _FRAME_BYTES
        for candidate, image in zip(result.candidates[:wanted], images, strict=False):
            room -= len(image or b"") + _FRAME_BYTES
            if room < 0:
                log.warning("pictures left out of a result that would not fit in a message")
                return
            if image is not None:
                candidate.image.encoded = image


async def _outcomes(
    jury: Jury, images: Sequence[common_pb2.Image], room: asyncio.Semaphore
) -> list[Score | EaselError]:
    fields = [f"images[{position}].image" for position in range(len(images))]
    if jury.pairwise:
        sights = [jury.see(image, field) for image, field in zip(images, fields, strict=True)]
        return await jury.panel.compare(sights, room)
    # Equal pictures are looked at once: a network's last digits depend on what shares its batch,
    # and would tell them apart.
    first: dict[bytes, int] = {}
    same = [
        first.setdefault(image.SerializeToString(deterministic=True), position)
        for position, image in enumerate(images)
    ]
    found = await asyncio.gather(
        *(_outcome(jury, images[position], fields[position], room) for position in first.values())
    )
    told = dict(zip(first.values(), found, strict=True))
    return [
        told[position]
        if position == index or isinstance(told[position], Score)
        else await _outcome(jury, images[index], fields[index], room)
        for index, position in enumerate(same)
    ]


async def _outcome(
    jury: Jury, image: common_pb2.Image, field: str, room: asyncio.Semaphore
) -> Score | EaselError:
    try:
        async with room:
            return await jury.score_image(image, field)
    except EaselError as error:
        return error


def _ranked_images(
    ids: Sequence[str], outcomes: Sequence[Score | EaselError]
) -> list[ranker_pb2.RankedImage]:
    places = ranking.rank(
        ranking.Entry(index, outcome.value if isinstance(outcome, Score) else None)
        for index, outcome in enumerate(outcomes)
    )
    return [_ranked_image(place, ids[place.index], outcomes[place.index]) for place in places]


def _ranked_image(
    place: ranking.Place, id: str, outcome: Score | EaselError
) -> ranker_pb2.RankedImage:
    if isinstance(outcome, EaselError):
        return ranker_pb2.RankedImage(id=id, error=item_error_to_pb(outcome))
    return ranker_pb2.RankedImage(
        rank=place.rank,
        id=id,
        score=outcome.value,
        top=_label(outcome),
        tied=place.tied,
        parts=outcome.parts,
    )


def _candidate(ended: events.Ranked) -> ranker_pb2.RankedCandidate:
    message = ranker_pb2.RankedCandidate(
        rank=ended.rank,
        index=ended.index,
        seed=ended.seed,
        pruned_at_step=ended.pruned_at_step,
        error=None if ended.error is None else item_error_to_pb(ended.error),
    )
    if ended.score is not None:
        message.score = ended.score.value
        message.parts.extend(ended.score.parts)
        if ended.score.top is not None:
            message.top.CopyFrom(words.label(ended.score.top))
    if ended.origin is not None:
        made = _made(ended.origin)
        message.timing.CopyFrom(made.timing)
        if made.HasField("provenance"):
            message.provenance.CopyFrom(made.provenance)
    return message


def _label(score: Score) -> common_pb2.Label | None:
    return None if score.top is None else words.label(score.top)


def _made(origin: object) -> generator_pb2.GeneratedImage:
    assert isinstance(origin, generator_pb2.GeneratedImage)
    return origin
