"""The rules of best-of-N: what is known of each candidate, and who has to leave.

Pure: news of the generator and the judge go in, events to tell the caller come out. Nothing here
waits, and nothing depends on the order in which scores and pictures of different candidates arrive.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto

from ranker.pictures import ranking
from ranker.pictures.events import (
    Admitted,
    Broken,
    Event,
    Failed,
    Finished,
    Made,
    News,
    Previewed,
    Pruned,
    Ranked,
    Result,
    Scored,
    Started,
    Step,
    Stepped,
    Stopped,
)
from ranker.pictures.judging import Score
from ranker.pictures.schedule import Checkpoint, Round, checkpoints
from services.core.errors import EaselError, ModelFault


class Phase(Enum):
    """A candidate's way: FORMING → MADE → FINISHED, or → DROPPED → PRUNED; FAILED from anywhere.

    DROPPED is told to stop, and not yet stopped: it may still come out MADE, and then counts.
    """

    FORMING = auto()
    DROPPED = auto()
    MADE = auto()
    FINISHED = auto()
    PRUNED = auto()
    FAILED = auto()


_ENDED = (Phase.FINISHED, Phase.PRUNED, Phase.FAILED)
_IN_THE_RUNNING = (Phase.FORMING, Phase.MADE, Phase.FINISHED)


@dataclass(slots=True)
class _Candidate:
    index: int
    phase: Phase = Phase.FORMING
    seed: int = 0
    steps: int | None = None
    eta_seconds: float = 0.0
    step: int = 0
    preview: bytes | None = None
    picture: bytes | None = None
    origin: object = None
    previewed: set[int] = field(default_factory=set)
    scores: dict[int, Score] = field(default_factory=dict)
    final: Score | None = None
    tier: int = 0
    dropped_with: Score | None = None
    error: EaselError | None = None

    def standing(self, step: int) -> Score | None:
        """Its score at a checkpoint: of the first preview from there on, or, where none came, of
        the finished picture. None while that is at the judge, or still to come."""
        at = min((at for at in self.previewed if at >= step), default=None)
        return self.final if at is None else self.scores.get(at)

    @property
    def score(self) -> Score | None:
        return self.dropped_with if self.phase is Phase.PRUNED else self.final

    def entry(self) -> ranking.Entry:
        score = None if self.phase is Phase.FAILED or self.score is None else self.score.value
        tier = self.tier if self.phase is Phase.PRUNED else ranking.FINISHED
        return ranking.Entry(self.index, score, tier)


class Contest:
    """One best-of-N. Feed it with ``take`` and ``judged``; tell the caller what they yield.

    ``keep`` then has the candidates that are to go on, whenever some are to be stopped.
    """

    def __init__(self, candidates: int, steps: int, rounds: Sequence[Round]) -> None:
        self._candidates = [_Candidate(index) for index in range(candidates)]
        self._planned_steps = steps
        self._checkpoints = checkpoints(rounds, steps)
        self._round = 0
        self._started = False
        self._untold: list[Event] = []
        self._told_to_stop: set[int] = set()

    @property
    def preview_steps(self) -> tuple[int, ...]:
        """The steps after which every candidate's preview is needed."""
        return tuple(checkpoint.step for checkpoint in self._checkpoints)

    @property
    def is_over(self) -> bool:
        return all(candidate.phase in _ENDED for candidate in self._candidates)

    @property
    def is_made(self) -> bool:
        """The generator owes no more news."""
        forming = (Phase.FORMING, Phase.DROPPED)
        return not any(candidate.phase in forming for candidate in self._candidates)

    @property
    def row_steps_spent(self) -> int:
        """Denoising steps taken so far, of all candidates."""
        return sum(candidate.step for candidate in self._candidates)

    def keep(self) -> tuple[int, ...] | None:
        """The candidates to go on if others are to be stopped that were not told yet, else None."""
        leaving = {
            candidate.index
            for candidate in self._candidates
            if candidate.phase is Phase.DROPPED
            or (candidate.phase is Phase.FAILED and candidate.picture is None)
        }
        if leaving <= self._told_to_stop:
            return None
        self._told_to_stop |= leaving
        return tuple(
            candidate.index for candidate in self._candidates if candidate.phase in _IN_THE_RUNNING
        )

    def take(self, news: News) -> Iterator[Event]:
        """Takes in what the generator says. News of a candidate that has ended are passed over."""
        candidate = self._candidate(news.index)
        if candidate.phase in _ENDED:
            self._count_last_steps(candidate, news)
            return iter(())
        return self._tell(self._taken(candidate, news))

    def judged(
        self, index: int, step: int, image: bytes, outcome: Score | EaselError, *, final: bool
    ) -> Iterator[Event]:
        """Takes in the judge's word on a preview (as seen after ``step``) or a finished picture.

        A candidate that cannot be judged has failed. What comes too late to matter changes nothing.
        """
        candidate = self._candidate(index)
        if candidate.phase in _ENDED:
            return iter(())
        if isinstance(outcome, EaselError):
            return self._tell(self._unjudged(candidate, step, outcome, final))
        return self._tell(self._scored(candidate, Scored(index, step, outcome, image, final)))

    def is_to_be_judged(self, news: Previewed | Made) -> bool:
        """Whether the picture just taken in has a say in the ranking."""
        wanted = Phase.MADE if isinstance(news, Made) else Phase.FORMING
        return self._candidate(news.index).phase is wanted

    def is_owed(self, step: int | None) -> bool:
        """Whether more previews of ``step`` are to come, or, at None, more finished pictures."""
        if step is None:
            return not self.is_made
        return any(
            candidate.phase is Phase.FORMING
            and candidate.step <= step
            and step not in candidate.previewed
            for candidate in self._candidates
        )

    def result(self) -> Result:
        """Raises the error of the first candidate if all have failed."""
        places = ranking.rank(candidate.entry() for candidate in self._candidates)
        if all(place.rank == 0 for place in places):
            raise self._candidates[0].error or ModelFault()
        ranked = tuple(self._ranked(place) for place in places)
        planned = sum(self._steps_of(candidate) for candidate in self._candidates)
        return Result(ranked, self.row_steps_spent, max(0, planned - self.row_steps_spent))

    def outcomes(self) -> tuple[Phase, ...]:
        """How far each candidate is."""
        return tuple(candidate.phase for candidate in self._candidates)

    def _candidate(self, index: int) -> _Candidate:
        if not 0 <= index < len(self._candidates):
            raise ModelFault(f"The generator speaks of candidate {index}, which is none of them.")
        return self._candidates[index]

    def _steps_of(self, candidate: _Candidate) -> int:
        return self._planned_steps if candidate.steps is None else candidate.steps

    def _taken(self, candidate: _Candidate, news: News) -> Iterator[Event]:
        match news:
            case Admitted():
                candidate.seed, candidate.steps = news.seed, news.steps
                candidate.eta_seconds = news.eta_seconds
            case Stepped():
                candidate.step = max(candidate.step, news.step)
                yield Step(candidate.index, news.step, self._steps_of(candidate))
            case Previewed():
                candidate.step = max(candidate.step, news.step)
                candidate.preview = news.image
                if candidate.phase is Phase.FORMING:
                    candidate.previewed.add(news.step)
            case Made():
                self._made(candidate, news)
            case Stopped():
                yield from self._stopped(candidate, news)
            case Broken():
                self._told_to_stop.add(news.index)
                yield from self._fail(candidate, news.error)

    def _count_last_steps(self, candidate: _Candidate, news: News) -> None:
        if isinstance(news, Stopped | Made):
            last = news.step if isinstance(news, Stopped) else news.steps
            candidate.step = max(candidate.step, last)

    def _made(self, candidate: _Candidate, news: Made) -> None:
        candidate.phase, candidate.step = Phase.MADE, news.steps
        candidate.picture, candidate.origin = news.image, news.origin
        candidate.dropped_with = None
        self._drop_losers()

    def _stopped(self, candidate: _Candidate, news: Stopped) -> Iterator[Event]:
        candidate.step = news.step
        if candidate.dropped_with is None:
            yield from self._fail(candidate, ModelFault("The generator stopped it unasked."))
            return
        candidate.phase = Phase.PRUNED
        saved = max(0, self._steps_of(candidate) - news.step)
        yield Pruned(candidate.index, news.step, saved, candidate.dropped_with)

    def _scored(self, candidate: _Candidate, event: Scored) -> Iterator[Event]:
        yield event
        if event.final:
            candidate.final, candidate.phase = event.score, Phase.FINISHED
            yield Finished(candidate.index, candidate.origin)
        else:
            candidate.scores[event.step] = event.score
        self._drop_losers()

    def _unjudged(
        self, candidate: _Candidate, step: int, error: EaselError, final: bool
    ) -> Iterator[Event]:
        if final or candidate.phase is Phase.FORMING:
            yield from self._fail(candidate, error)
        else:
            candidate.previewed.discard(step)
            self._drop_losers()

    def _fail(self, candidate: _Candidate, error: EaselError) -> Iterator[Event]:
        candidate.phase, candidate.error = Phase.FAILED, error
        yield Failed(candidate.index, error)
        self._drop_losers()

    def _drop_losers(self) -> None:
        """Drops whom the present round is certain to drop, and goes on to the next when it ends.

        Who is behind ``keep`` better scores of one round, or too far behind the best, can only
        fall further, so a candidate leaves the moment that is known, and its row is free while
        the others are still judged.
        """
        while self._round < len(self._checkpoints):
            checkpoint = self._checkpoints[self._round]
            running = [each for each in self._candidates if each.phase in _IN_THE_RUNNING]
            scored = [
                (each, score) for each in running if (score := each.standing(checkpoint.step))
            ]
            scored.sort(key=lambda pair: (-pair[1].standing, pair[0].index))
            for place, (loser, score) in enumerate(scored):
                if place >= checkpoint.keep or _is_beaten(score, scored[0][1], checkpoint):
                    self._drop(loser, score)
            if len(scored) < len(running):
                return
            self._round += 1

    def _drop(self, candidate: _Candidate, score: Score) -> None:
        # One that is made has no steps left to save: it stays, and is ranked as what it is.
        if candidate.phase is Phase.FORMING:
            candidate.phase, candidate.dropped_with = Phase.DROPPED, score
            candidate.tier = self._round

    def _tell(self, events: Iterator[Event]) -> Iterator[Event]:
        """Holds everything back until the start can be told, which comes first."""
        self._untold += events
        if not self._started and self._all_known():
            self._started = True
            self._untold.insert(0, self._start())
        if not self._started:
            return iter(())
        told, self._untold = self._untold, []
        return iter(told)

    def _all_known(self) -> bool:
        """Nothing has started where the generator took none of them on."""
        admitted = [candidate.steps is not None for candidate in self._candidates]
        failed = [candidate.phase is Phase.FAILED for candidate in self._candidates]
        return any(admitted) and all(a or f for a, f in zip(admitted, failed, strict=True))

    def _start(self) -> Started:
        return Started(
            tuple(candidate.seed for candidate in self._candidates),
            max(self._steps_of(candidate) for candidate in self._candidates),
            tuple(Round(each.at, each.keep, each.margin) for each in self._checkpoints),
            max(candidate.eta_seconds for candidate in self._candidates),
        )

    def _ranked(self, place: ranking.Place) -> Ranked:
        candidate = self._candidates[place.index]
        pruned = candidate.phase is Phase.PRUNED
        return Ranked(
            place.rank,
            candidate.index,
            candidate.seed,
            candidate.score,
            candidate.step if pruned else None,
            candidate.picture or candidate.preview,
            candidate.origin,
            candidate.error,
        )


def _is_beaten(score: Score, best: Score, checkpoint: Checkpoint) -> bool:
    margin = checkpoint.margin
    return margin is not None and best.standing - score.standing > margin
