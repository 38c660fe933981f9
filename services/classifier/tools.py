"""Work on a model's files: ``python -m services.classifier.tools export|quantize``.

Answers with one JSON document on stdout, ``{"result": …}`` or ``{"error": …}``, and tells on stderr
how far it is.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final, TextIO

from models import DEMO_CLASSIFIER
from services.core.errors import EaselError, InvalidInput, NotFound
from services.core.reference import ModelFiles, resolve

OK: Final = 0
FAILED: Final = 1
BAD_INPUT: Final = 2


def main(arguments: Sequence[str] | None = None) -> int:
    given = _parser().parse_args(arguments)
    with _own_stdout() as answers:
        try:
            found = given.command(given)
        except EaselError as error:
            return _refused(error, answers)
        json.dump({"result": found}, answers, ensure_ascii=False)
        answers.write("\n")
    return OK


def _own_stdout() -> TextIO:
    """What was stdout, for the answer alone: libraries print there, in C too."""
    sys.stdout.flush()
    own = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return own


def _refused(error: EaselError, answers: TextIO) -> int:
    bad_input = isinstance(error, InvalidInput | NotFound)
    document = {"reason": error.reason, "message": _line(error), "bad_input": bad_input}
    json.dump({"error": document}, answers, ensure_ascii=False)
    answers.write("\n")
    return BAD_INPUT if bad_input else FAILED


def _line(error: EaselError) -> str:
    if not isinstance(error, InvalidInput):
        return error.message
    facts = [
        f"limit {error.limit}" if error.limit is not None else "",
        f"given {error.given}" if error.given is not None else "",
    ]
    known = "; ".join(fact for fact in facts if fact)
    text = f"{error.field}: {error.message}"
    return f"{text} ({known})" if known else text


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="services.classifier.tools", description=__doc__)
    commands = parser.add_subparsers(required=True)
    export = commands.add_parser("export")
    export.add_argument("model")
    export.add_argument("--to", action="append", default=[])
    export.add_argument("--out", type=Path, required=True)
    export.add_argument("--compare", type=Path)
    export.set_defaults(command=_export)
    quantize = commands.add_parser("quantize")
    quantize.add_argument("model")
    quantize.add_argument("--precision", required=True)
    quantize.add_argument("--calibrate", type=Path, required=True)
    quantize.add_argument("--min-agreement", type=float, default=0.99)
    quantize.add_argument("--out", type=Path, required=True)
    quantize.set_defaults(command=_quantize)
    return parser


def _export(given: argparse.Namespace) -> Mapping[str, Any]:
    from services.classifier import targets

    # Before the libraries of models are loaded, which takes seconds.
    chosen = targets.chosen(given.to)
    from services.classifier import export, samples

    of_folder = None
    if given.compare is not None:
        of_folder = partial(samples.of_folder, given.compare, field="compare")
    report = export.export(_files(given.model), chosen, given.out, samples=of_folder, tell=_tell)
    return report.document()


def _quantize(given: argparse.Namespace) -> Mapping[str, Any]:
    from services.classifier import quantisation

    scheme = quantisation.scheme(given.precision)
    return quantisation.quantise(
        _files(given.model),
        scheme,
        given.out,
        calibrate=given.calibrate,
        min_agreement=given.min_agreement,
        tell=_tell,
    )


def _files(reference: str) -> ModelFiles:
    if reference == "demo":
        return resolve(str(DEMO_CLASSIFIER), name="demo")
    return resolve(reference)


def _tell(line: str) -> None:
    sys.stderr.write(line + "\n")
    sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main())
