"""What became of a result that was shown: chosen, and then, once, succeeded or failed."""

from __future__ import annotations

from collections.abc import Collection
from enum import StrEnum

from services.core.errors import FailedPrecondition


class Outcome(StrEnum):
    """``SUCCEEDED`` and ``FAILED`` are ends: a result has one of them, and was chosen by that."""

    CHOSEN = "chosen"
    SUCCEEDED = "succeeded"
    FAILED = "failed"


ENDS = frozenset({Outcome.SUCCEEDED, Outcome.FAILED})


def news(outcome: Outcome, known: Collection[Outcome], position: int) -> tuple[Outcome, ...]:
    """What ``outcome`` adds to what is known of a result: nothing where it was told before.

    Raises ``FailedPrecondition`` (``TOKEN_USED``) where the other end is known already.
    """
    if outcome in known:
        return ()
    if outcome in ENDS:
        ended = ENDS.intersection(known)
        if ended:
            raise FailedPrecondition(
                f"The token was used for position {position} already: it {min(ended)}, and cannot "
                f"have {outcome} too.",
                reason="TOKEN_USED",
            )
        return (outcome,) if Outcome.CHOSEN in known else (Outcome.CHOSEN, outcome)
    return () if ENDS.intersection(known) else (outcome,)
