"""`easel verify`."""

from __future__ import annotations

from typing import Annotated

import typer

from easel.cli import screen
from easel.cli.connection import TARGET, ApiKey, AsJson, Target, Timeout, connected
from easel.cli.exits import ExitCode
from easel.cli.files import check_readable, read_pictures
from easel.client import Verification

_COLOURS = {"equal": "green", "close": "yellow", "different": "red"}


def verify(
    file: Annotated[str, typer.Argument(help="A picture that was made here; - is stdin.")],
    given: Annotated[
        list[str] | None,
        typer.Option("--given", help="A picture that it was made from; repeat it."),
    ] = None,
    allow_other_versions: Annotated[
        bool,
        typer.Option("--allow-other-versions", help="Though other library versions made it."),
    ] = False,
    target: Target = TARGET,
    api_key: ApiKey = None,
    timeout: Timeout = None,
    as_json: AsJson = False,
) -> None:
    """Make a picture again from the record it carries, and compare."""
    with connected(target, api_key, timeout, as_json) as client:
        names = [file, *(given or ())]
        check_readable(names)
        picture, *others = [data for _, data in read_pictures(names)]
        answer = client.verify(picture, given=others, allow_other_versions=allow_other_versions)
    if as_json:
        screen.print_json({"file": file, **_document(answer)})
    else:
        screen.out().print(screen.plain(answer.verdict, _COLOURS[answer.verdict]))
        screen.out().print(screen.plain(answer.explanation))
    if answer.verdict == "different":
        raise typer.Exit(ExitCode.FAILED)


def _document(answer: Verification) -> dict[str, object]:
    return {
        "verdict": answer.verdict,
        "explanation": answer.explanation,
        "psnr_db": answer.psnr_db,
        "max_difference": answer.max_difference,
        "pixel_sha256": answer.pixel_sha256,
    }
