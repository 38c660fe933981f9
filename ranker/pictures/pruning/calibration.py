"""Calibrations as files: trials, the schedule that was chosen by them, and what they hold for."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from ranker.pictures.pruning.replay import replay
from ranker.pictures.pruning.search import Search, held
from ranker.pictures.pruning.trials import Numbers, Trials
from ranker.pictures.schedule import Checkpoint, ShareRound
from services.core.errors import FailedPrecondition

FORMAT: Final = "easel pruning calibration 1"
BUILT_IN: Final = Path(__file__).parent / "measured"
_DIGITS: Final = 5
_MAX_BYTES: Final = 64 * 2**20


@dataclass(frozen=True, slots=True)
class Circumstances:
    """What a calibration holds for: requests that differ in any of it may prune otherwise.

    ``generator`` and ``classifier``: the digests of the models, "" where no judge asks the
    classifier. ``judges``: each with its weight, without what it looks for. Of ``guidance_scale``
    None, ``sampler`` "" and a side of 0, the model's own are meant.
    """

    generator: str
    classifier: str
    judges: tuple[str, ...]
    steps: int
    guidance_scale: float | None = None
    sampler: str = ""
    width: int = 0
    height: int = 0


@dataclass(frozen=True, slots=True)
class Expected:
    """Of the chosen schedule, for as many candidates as the trials had: the mean share of the steps
    it takes, its expected regret with the upper 95 % limit, and how often it keeps the best."""

    work: float
    regret: float
    regret_bound: float
    kept: float


@dataclass(frozen=True, slots=True)
class Calibration:
    circumstances: Circumstances
    trials: Trials
    schedule: tuple[ShareRound, ...]
    expected: Expected
    made_at: str = ""

    def regret_bound(self, rounds: Sequence[Checkpoint], candidates: int) -> float | None:
        """The upper 95 % limit of the expected loss of score by ``rounds``; None where the trials
        do not tell: for more candidates than they had, or rounds before their first score."""
        if not rounds:
            return 0.0
        own = held(self.schedule, candidates, self.trials.steps)
        if candidates == self.trials.candidates and tuple(rounds) == own:
            return self.expected.regret_bound
        try:
            return replay(self.trials, rounds, candidates).regret_bound()
        except ValueError:
            return None

    def as_json(self) -> str:
        """What ``read`` reads; numbers with five digits."""
        trials = self.trials
        document = {
            "format": FORMAT,
            "made_at": self.made_at,
            "holds_for": asdict(self.circumstances),
            "schedule": [asdict(each) for each in self.schedule],
            "expected": asdict(self.expected),
            "checkpoints": trials.checkpoints,
            "standing": _rounded(trials.standing),
            "final": _rounded(trials.final),
            "final_standing": _rounded(trials.final_standing),
        }
        return json.dumps(document, separators=(",", ":"), allow_nan=False)


def made(
    circumstances: Circumstances, trials: Trials, found: Search, made_at: str = ""
) -> Calibration:
    """Of a search: its numbers are cross-validated."""
    chosen = found.chosen
    expected = Expected(chosen.work, chosen.regret, chosen.replay.regret_bound(), chosen.kept)
    return Calibration(circumstances, trials, chosen.schedule, expected, made_at)


def parse(text: str) -> Calibration:
    """Raises ValueError, saying what is wrong."""
    document = json.loads(text)
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise ValueError(f"it does not begin as {FORMAT!r}")
    try:
        told = document["holds_for"]
        circumstances = Circumstances(**{**told, "judges": tuple(told["judges"])})
        trials = Trials(
            int(circumstances.steps),
            tuple(int(each) for each in document["checkpoints"]),
            _numbers(document["standing"]),
            _numbers(document["final"]),
            _numbers(document["final_standing"]),
        )
        schedule = tuple(ShareRound(**each) for each in document["schedule"])
        expected = Expected(**{name: float(x) for name, x in document["expected"].items()})
    except (AttributeError, KeyError, TypeError, IndexError) as error:
        raise ValueError(f"it lacks a field, or has one too many: {error!r}") from error
    _check_schedule(schedule)
    if not all(map(math.isfinite, asdict(expected).values())):
        raise ValueError("numbers that are not finite")
    return Calibration(circumstances, trials, schedule, expected, str(document.get("made_at", "")))


def read(path: Path) -> Calibration:
    """Raises FailedPrecondition naming the file."""
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise ValueError("it is too large")
        return parse(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise FailedPrecondition(f"The calibration {path.name} cannot be used: {why}.") from error


def read_all(paths: Iterable[Path]) -> tuple[Calibration, ...]:
    """Those of ``paths``, then those that come with the ranker. Raises FailedPrecondition."""
    return tuple(read(path) for path in (*paths, *sorted(BUILT_IN.glob("*.json"))))


def find(known: Iterable[Calibration], wanted: Circumstances | None) -> Calibration | None:
    """The first that holds for ``wanted``."""
    return next((each for each in known if each.circumstances == wanted), None)


def _check_schedule(schedule: Sequence[ShareRound]) -> None:
    previous = ShareRound(0.0, 1.0)
    for each in schedule:
        if not (previous.at < each.at < 1.0 and 0.0 < each.keep <= previous.keep):
            raise ValueError(f"a schedule that does not rise and fall at {each.at}")
        if each.margin is not None and not 0.0 <= each.margin < math.inf:
            raise ValueError(f"a margin of {each.margin}")
        previous = each


def _rounded(numbers: Numbers) -> Any:
    rounded: Any = np.vectorize(lambda value: float(f"{value:.{_DIGITS}g}"))(numbers)
    return rounded.tolist()


def _numbers(rows: Any) -> Numbers:
    return np.array(rows, dtype=np.float64)
