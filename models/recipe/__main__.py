"""Command line of the recipe: `python -m models.recipe [--work DIR] [--quick] [STAGE...]`."""

import argparse
from pathlib import Path

import torch

from models.recipe import stages
from models.recipe.plan import FULL, QUICK

WORK = "build/demo-models"


def main() -> None:
    """Runs the named stages, or all of them, in their order."""
    parser = argparse.ArgumentParser(prog="python -m models.recipe", description=stages.__doc__)
    parser.add_argument("stage", nargs="*", metavar="STAGE", help=", ".join(stages.STAGES))
    parser.add_argument("--work", type=Path, help=f"default: {WORK}, or {WORK}-quick")
    parser.add_argument("--quick", action="store_true", help="a few steps of each: a smoke test")
    arguments = parser.parse_args()
    unknown = set(arguments.stage) - set(stages.STAGES)
    if unknown:
        parser.error(f"no such stage: {', '.join(sorted(unknown))}")
    work = arguments.work or Path(f"{WORK}-quick" if arguments.quick else WORK)
    # What a quick run makes is not fit to ship, so it is published only when asked for by name.
    every = [name for name in stages.STAGES if not (arguments.quick and name == "publish")]
    # One thread, so that the weights do not depend on the number of cores.
    torch.set_num_threads(1)
    for name in stages.STAGES:
        if name in (arguments.stage or every):
            stages.run(name, work, QUICK if arguments.quick else FULL)


if __name__ == "__main__":
    main()
