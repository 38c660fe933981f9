"""Limits of the ranker's own requests; what is for the model services is left to them."""

from __future__ import annotations

from collections.abc import Sequence

from services.core.errors import InvalidInput

DEFAULT_CANDIDATES = 4
MAX_ID_BYTES = 128
MAX_PROMPT_CHARS = 10_000


def check_id(value: str, *, field: str = "id") -> None:
    size = len(value.encode("utf-8"))
    if size > MAX_ID_BYTES:
        raise InvalidInput(field, "The id is too long.", f"{MAX_ID_BYTES} bytes", f"{size} bytes")


def check_count(given: int, limit: int, *, field: str) -> None:
    """For a list before any of it is read: its length costs nothing, its items may."""
    if given > limit:
        raise InvalidInput(field, "There are too many.", limit, given)


def check_generate_id(value: str, own: str) -> None:
    """The events carry the BestOf request's own id, so that of the inner request may only agree."""
    if value not in ("", own):
        raise InvalidInput("generate.id", "Leave it out, or let it equal `id`.", own, value[:100])


def check_prompt(value: str, *, field: str) -> None:
    if len(value) > MAX_PROMPT_CHARS:
        raise InvalidInput(
            field,
            "The prompt is too long.",
            f"{MAX_PROMPT_CHARS} characters",
            f"{len(value)} characters",
        )


def count_candidates(
    candidates: int, *, count: int, seeds: Sequence[int], has_seed: bool, max_candidates: int
) -> int:
    """How many candidates to make; 0 stands for as many as there are seeds, or for 4.

    ``count``, ``seeds`` and ``has_seed`` are the generate request's own and must agree with it.
    Raises InvalidInput naming the field that does not.
    """
    if has_seed and seeds:
        raise InvalidInput("generate.seeds", "Give either `seed` or `seeds`, not both.")
    wanted = candidates or len(seeds) or DEFAULT_CANDIDATES
    if wanted > max_candidates:
        field = "candidates" if candidates else "generate.seeds"
        raise InvalidInput(field, "Too many candidates.", max_candidates, wanted)
    if count not in (0, wanted):
        raise InvalidInput(
            "generate.count",
            "The number of pictures is set by `candidates`; leave it out, or let both be equal.",
            wanted,
            count,
        )
    if len(seeds) > wanted:
        raise InvalidInput(
            "generate.seeds", "There are more seeds than candidates.", wanted, len(seeds)
        )
    return wanted


def check_images(ids: Sequence[str]) -> None:
    """Raises InvalidInput unless there is a picture, and each has an id of its own."""
    if not ids:
        raise InvalidInput("images", "At least one picture is needed.", "at least 1", 0)
    seen: set[str] = set()
    for position, value in enumerate(ids):
        check_id(value, field=f"images[{position}].id")
        if value in seen:
            raise InvalidInput(
                f"images[{position}].id", "Two pictures have the same id.", given=value
            )
        seen.add(value)
