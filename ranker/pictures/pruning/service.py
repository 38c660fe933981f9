"""How a request is pruned, and the runs that find out how it should be."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Final, TypeAlias

import numpy as np

from easel.generator.v1 import generator_pb2
from easel.ranker.v1 import ranker_pb2
from ranker.clock import utc_now
from ranker.config import RankerSettings
from ranker.pictures import request as limits
from ranker.pictures import schedule, wire
from ranker.pictures.events import Broken, Made, Previewed
from ranker.pictures.judges.service import JudgesService, Jury
from ranker.pictures.judges.spec import JudgeSpec
from ranker.pictures.judging import Score
from ranker.pictures.pruning import calibration as files
from ranker.pictures.pruning.calibration import Calibration
from ranker.pictures.pruning.correlation import Signal, signals
from ranker.pictures.pruning.search import Choice, Search, grid, search
from ranker.pictures.pruning.trials import Trials
from ranker.pictures.schedule import Round
from ranker.pictures.upstream import GeneratorClient, GeneratorModel, GeneratorStream
from services.core.errors import EaselError, FailedPrecondition, InvalidInput

log = logging.getLogger("easel.ranker")

DEFAULT_AT: Final = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9)
DEFAULT_CANDIDATES: Final = 8
DEFAULT_MAX_WORK: Final = 0.65
MIN_PROMPTS: Final = 4
MAX_PROMPTS: Final = 1000
# Schedules are tried by the thousand, and their number grows with its cube.
MAX_AT: Final = 12


# A candidate's index, and the step of its preview, or None for its finished picture.
_Place: TypeAlias = tuple[int, int | None]


@dataclass(frozen=True, slots=True)
class Plan:
    """How one request is pruned; ``regret_bound`` is None where nothing is known of it."""

    steps: int
    rounds: tuple[Round, ...]
    regret_bound: float | None


class PruningService:
    """Plans with the calibrations that were loaded, and makes new ones."""

    def __init__(
        self,
        settings: RankerSettings,
        judges: JudgesService,
        generator: GeneratorClient,
        now: Callable[[], datetime] = utc_now,
    ) -> None:
        self._settings = settings
        self._judges = judges
        self._generator = generator
        self._now = now
        self._known: tuple[Calibration, ...] = ()

    def load(self) -> None:
        """Blocking. Raises FailedPrecondition."""
        self._known = files.read_all(self._settings.calibrations)

    def plan(
        self,
        generate: generator_pb2.GenerateRequest,
        model: GeneratorModel,
        jury: Jury,
        candidates: int,
        asked: tuple[Round, ...] | None,
    ) -> Plan:
        """``asked``: the rounds of the request; None leaves them to the ranker."""
        steps = wire.steps_of(generate, model)
        known = files.find(self._known, wire.circumstances_of(generate, model, jury))
        rounds = asked
        if rounds is None:
            shares = self._settings.schedule if known is None else known.schedule
            rounds = schedule.default_rounds(shares, candidates)
        held = schedule.checkpoints(rounds, steps)
        bound = None if known is None else known.regret_bound(held, candidates)
        return Plan(steps, rounds, bound)

    async def calibrate(
        self, request: ranker_pb2.CalibratePruningRequest
    ) -> AsyncGenerator[ranker_pb2.CalibratePruningEvent, None]:
        specs, shares, max_work = self._checked(request)
        candidates = request.candidates or DEFAULT_CANDIDATES
        model = await self._generator.model(request.generate.model, request.generate.model_version)
        steps = wire.steps_of(request.generate, model)
        watched = grid(steps, shares)
        if not watched:
            raise InvalidInput("at", f"All of it is the end of {steps} steps.")
        # Whatever can be wrong with any of the prompts is told before the first is painted.
        juries = [await self._judges.call(specs, each, candidates) for each in request.prompts]
        told = wire.circumstances_of(request.generate, model, juries[0])
        if told is None:
            raise InvalidInput(
                "generate",
                "Calibrations are made of text to image, of prompts alone, by the model as it is.",
            )
        seen: list[_Seen] = []
        for number, (prompt, jury) in enumerate(zip(request.prompts, juries, strict=True)):
            order = _numbered(request.generate, prompt, number * candidates)
            outcome = await self._run(order, model, jury, candidates, watched)
            if outcome is not None:
                seen.append(outcome)
            done = number + 1
            progress = ranker_pb2.CalibrationProgress(
                done=done, prompts=len(request.prompts), left_out=done - len(seen)
            )
            yield ranker_pb2.CalibratePruningEvent(progress=progress)
        if len(seen) < MIN_PROMPTS:
            raise FailedPrecondition(
                f"Of {len(request.prompts)} prompts {len(seen)} could be made and judged; "
                f"{MIN_PROMPTS} are needed."
            )
        trials = _trials(steps, watched, seen)
        found = await asyncio.to_thread(_searched, trials, max_work)
        made_at = self._now().isoformat(timespec="seconds")
        kept = files.made(told, trials, found, made_at)
        yield ranker_pb2.CalibratePruningEvent(calibration=_message(kept, found))

    def _checked(
        self, asked: ranker_pb2.CalibratePruningRequest
    ) -> tuple[tuple[JudgeSpec, ...], tuple[float, ...], float]:
        """The judges, the shares and the work, all limits held. Raises InvalidInput."""
        count = len(asked.prompts)
        if not MIN_PROMPTS <= count <= MAX_PROMPTS:
            raise InvalidInput(
                "prompts",
                "A calibration needs several prompts.",
                f"{MIN_PROMPTS} to {MAX_PROMPTS}",
                count,
            )
        for position, prompt in enumerate(asked.prompts):
            limits.check_prompt(prompt, field=f"prompts[{position}]")
        candidates = asked.candidates or DEFAULT_CANDIDATES
        if not 2 <= candidates <= self._settings.max_candidates:
            limit = f"2 to {self._settings.max_candidates}"
            raise InvalidInput("candidates", "There is no choice.", limit, candidates)
        generate = asked.generate
        for field in ("prompt", "id", "seeds", "count"):
            if getattr(generate, field):
                raise InvalidInput(f"generate.{field}", "It is set from the rest of the request.")
        wire.check_order(generate)
        max_work = asked.max_work or DEFAULT_MAX_WORK
        if not 0.0 < max_work <= 1.0:
            raise InvalidInput(
                "max_work", "It is a share of the steps.", "above 0, up to 1", f"{max_work:g}"
            )
        return self._judges.specs(asked.judges), _shares(asked.at), float(f"{max_work:.7g}")

    async def _run(
        self,
        order: generator_pb2.GenerateRequest,
        model: GeneratorModel,
        jury: Jury,
        candidates: int,
        watched: Sequence[int],
    ) -> _Seen | None:
        """One prompt's candidates, all of them to their end; None where one failed."""
        wanted = wire.order_from_pb(order, candidates, watched)
        stream = self._generator.open(wanted, model)
        try:
            pictures = await _painted(stream)
            scores = await self._scored(jury, pictures)
        except EaselError as error:
            log.warning("a prompt is left out of the calibration: %s", error.message)
            return None
        finally:
            await stream.cancel()
        needed = [(index, step) for index in range(candidates) for step in (*watched, None)]
        return _Seen(candidates, scores) if all(each in scores for each in needed) else None

    async def _scored(self, jury: Jury, pictures: dict[_Place, bytes]) -> dict[_Place, Score]:
        """Those of one step are compared where a judge compares. Raises the first error."""
        room = asyncio.Semaphore(self._settings.max_judging)
        found: dict[_Place, Score | EaselError] = {}
        if jury.pairwise:
            for step in {step for _, step in pictures}:
                places = [place for place in pictures if place[1] == step]
                told = await jury.compare([pictures[place] for place in places], room)
                found.update(zip(places, told, strict=True))
        else:
            outcomes = await asyncio.gather(*(_one(jury, each, room) for each in pictures.values()))
            found.update(zip(pictures, outcomes, strict=True))
        scores = {}
        for place, outcome in found.items():
            if isinstance(outcome, EaselError):
                raise outcome
            scores[place] = outcome
        return scores


async def _painted(stream: GeneratorStream) -> dict[_Place, bytes]:
    """Raises the error of the first candidate that fails."""
    pictures: dict[_Place, bytes] = {}
    async with aclosing(stream.news()) as told:
        async for news in told:
            match news:
                case Previewed():
                    pictures[news.index, news.step] = news.image
                case Made():
                    pictures[news.index, None] = news.image
                case Broken():
                    raise news.error
                case _:
                    pass
    return pictures


async def _one(jury: Jury, image: bytes, room: asyncio.Semaphore) -> Score | EaselError:
    try:
        async with room:
            return await jury.score(image)
    except EaselError as error:
        return error


@dataclass(frozen=True, slots=True)
class _Seen:
    """All scores of one prompt, by candidate and step; of the finished pictures at None."""

    candidates: int
    scores: dict[_Place, Score]

    def standings(self, step: int | None) -> list[float]:
        return [self.scores[index, step].standing for index in range(self.candidates)]

    def finals(self) -> list[float]:
        return [self.scores[index, None].value for index in range(self.candidates)]


def _trials(steps: int, watched: Sequence[int], seen: Sequence[_Seen]) -> Trials:
    standing = np.array([[each.standings(step) for step in watched] for each in seen])
    return Trials(
        steps,
        tuple(watched),
        standing.transpose(0, 2, 1),
        np.array([each.finals() for each in seen]),
        np.array([each.standings(None) for each in seen]),
    )


def _searched(trials: Trials, max_work: float) -> Search:
    try:
        return search(trials, max_work)
    except ValueError as error:
        raise FailedPrecondition(
            f"No schedule was found: {error}. Scores may tell too little before the end."
        ) from error


def _numbered(
    generate: generator_pb2.GenerateRequest, prompt: str, ahead: int
) -> generator_pb2.GenerateRequest:
    order = generator_pb2.GenerateRequest()
    order.CopyFrom(generate)
    order.prompt = prompt
    order.seed = (generate.seed + ahead) % 2**64
    return order


def _shares(at: Sequence[float]) -> tuple[float, ...]:
    limits.check_count(len(at), MAX_AT, field="at")
    # The shortest decimal of the float32.
    shares = tuple(float(f"{share:.7g}") for share in at) or DEFAULT_AT
    previous = 0.0
    for position, share in enumerate(shares):
        if not previous < share < 1.0:
            raise InvalidInput(
                f"at[{position}]",
                "Shares of the steps must rise, above 0 and below 1.",
                f"above {previous:g}, below 1",
                f"{share:g}",
            )
        previous = share
    return shares


def _message(kept: Calibration, found: Search) -> ranker_pb2.PruningCalibration:
    trials = kept.trials
    write = partial(_schedule, candidates=trials.candidates)
    return ranker_pb2.PruningCalibration(
        json=kept.as_json(),
        steps=[_step(each, trials.steps) for each in signals(trials)],
        chosen=write(found.chosen),
        schedules=[write(each) for each in found.front],
        prompts=trials.prompts,
        candidates=trials.candidates,
    )


def _step(signal: Signal, steps: int) -> ranker_pb2.CalibratedStep:
    return ranker_pb2.CalibratedStep(
        step=signal.step,
        at=signal.step / steps,
        correlation=signal.correlation,
        low=signal.low,
        high=signal.high,
        best_in_half=signal.best_in_half,
    )


def _schedule(choice: Choice, *, candidates: int) -> ranker_pb2.CalibratedSchedule:
    rounds = schedule.default_rounds(choice.schedule, candidates)
    return ranker_pb2.CalibratedSchedule(
        pruning=wire.pruning_to_pb(rounds),
        work=choice.work,
        regret=choice.regret,
        regret_bound=choice.replay.regret_bound(),
        best_kept=choice.kept,
    )
