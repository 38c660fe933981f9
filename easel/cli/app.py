"""The command line as a whole."""

from __future__ import annotations

import typer

from easel.cli import (
    arena,
    best_of,
    calibration,
    catalogue,
    classifying,
    comparing,
    demo,
    embedding,
    evaluate,
    explain,
    generate,
    indexing,
    leaderboard,
    models,
    publishing,
    scoring,
    searching,
    state,
    up,
    verify,
)
from easel.cli.exits import EPILOG

app = typer.Typer(
    name="easel",
    help="Make, classify and rank pictures with the services behind an Easel gateway.",
    epilog=EPILOG,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

for _command, _name in (
    (up.up, "up"),
    (state.status, "status"),
    (generate.generate, "generate"),
    (verify.verify, "verify"),
    (classifying.classify, "classify"),
    (embedding.embed, "embed"),
    (indexing.index, "index"),
    (indexing.similar, "similar"),
    (evaluate.evaluate, "evaluate"),
    (explain.explain, "explain"),
    (best_of.rank, "rank"),
    (best_of.best_of, "best-of"),
    (calibration.calibrate_pruning, "calibrate-pruning"),
    (comparing.compare, "compare"),
    (scoring.scores, "scores"),
    (leaderboard.leaderboard, "leaderboard"),
    (searching.search, "search"),
    (searching.outcome, "outcome"),
    (publishing.quantize, "quantize"),
    (publishing.export, "export"),
    (demo.demo, "demo"),
    (state.version, "version"),
):
    app.command(_name, epilog=EPILOG, no_args_is_help=False)(_command)
app.add_typer(models.app, name="models")
app.add_typer(arena.app, name="arena")
app.add_typer(indexing.app, name="collections")
app.add_typer(catalogue.app, name="catalogue")
