"""`easel catalogue`: the models that the ranker knows, and what is true of them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from google.protobuf.json_format import MessageToDict, ParseDict, ParseError

from easel.cli import scoring, screen
from easel.cli.connection import TARGET, ApiKey, AsJson, Target, Timeout, connected
from easel.cli.exits import EPILOG
from easel.ranker.v1 import ranker_pb2

_STDIN: Final = "-"

app = typer.Typer(
    help="The models that are known, what they can do, and what is true of what is said of them.",
    epilog=EPILOG,
    no_args_is_help=True,
)

Name = Annotated[str, typer.Argument(help="Its id, its name or an alias, in any case.")]


@app.command("list", epilog=EPILOG)
def list_models(
    type: Annotated[str, typer.Option("--type", help="Of this type alone.")] = "",
    target: Target = TARGET,
    api_key: ApiKey = None,
    timeout: Timeout = 10.0,
    as_json: AsJson = False,
) -> None:
    """List all models of the catalogue."""
    with connected(target, api_key, timeout, as_json) as client:
        models = list(client.catalogue_models(type=type))
    if as_json:
        screen.print_json({"models": [model_json(model) for model in models]})
        return
    table = screen.table(
        "model", "type", "licence, price", "can do", "claims", "served",
        right=["can do", "claims"], whole=["model", "type"],
    )  # fmt: skip
    for model in models:
        claims = sum(len(capability.claims) for capability in model.capabilities)
        table.add_row(
            *map(screen.plain, (model.id, model.type, f"{model.licence}, {model.price}")),
            str(len(model.capabilities)),
            str(claims),
            screen.plain(_serving(model)),
        )
    screen.out().print(table)


@app.command("show", epilog=EPILOG)
def show(
    name: Name,
    target: Target = TARGET,
    api_key: ApiKey = None,
    timeout: Timeout = 10.0,
    as_json: AsJson = False,
) -> None:
    """Show a model: its capabilities, every claim with what is true of it, and its live facts."""
    with connected(target, api_key, timeout, as_json) as client:
        model = client.catalogue_model(name)
    if as_json:
        screen.print_json(model_json(model))
        return
    _show(model)


@app.command("put", epilog=EPILOG)
def put(
    file: Annotated[
        Path, typer.Argument(help="JSON of a model, as `show --json` has it; - reads stdin.")
    ],
    target: Target = TARGET,
    api_key: ApiKey = None,
    timeout: Timeout = 10.0,
    as_json: AsJson = False,
) -> None:
    """Add a model, or put it in the place of the one with its id."""
    with connected(target, api_key, timeout, as_json) as client:
        kept = client.put_catalogue_model(_read_model(file))
    if as_json:
        screen.print_json(model_json(kept))
        return
    count = len(kept.capabilities)
    line = f"{kept.id} is in the catalogue, with {count} capabilit{'y' if count == 1 else 'ies'}"
    screen.out().print(screen.plain(line), soft_wrap=True)


@app.command("delete", epilog=EPILOG)
def delete(
    name: Name,
    target: Target = TARGET,
    api_key: ApiKey = None,
    timeout: Timeout = 10.0,
    as_json: AsJson = False,
) -> None:
    """Take a model out of the catalogue."""
    with connected(target, api_key, timeout, as_json) as client:
        client.delete_catalogue_model(name)
    if as_json:
        screen.print_json({"deleted": name})
        return
    screen.out().print(screen.plain(f"{name} is no longer in the catalogue"), soft_wrap=True)


@app.command("import", epilog=EPILOG)
def import_(
    file: Annotated[
        Path, typer.Argument(help="YAML document, as `export` writes it; - reads stdin.")
    ],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would change.")] = False,
    keep_others: Annotated[
        bool, typer.Option("--keep-others", help="Leave models that the document does not have.")
    ] = False,
    target: Target = TARGET,
    api_key: ApiKey = None,
    timeout: Timeout = 60.0,
    as_json: AsJson = False,
) -> None:
    """Make the catalogue what a document says: all of it, or with any fault nothing."""
    with connected(target, api_key, timeout, as_json) as client:
        changes = client.import_catalogue(_read(file), dry_run=dry_run, keep_others=keep_others)
    told = {
        "added": list(changes.added),
        "changed": list(changes.changed),
        "removed": list(changes.removed),
    }
    if as_json:
        screen.print_json({**told, "dry_run": dry_run})
        return
    for word, models in told.items():
        for model in models:
            line = f"{'would be ' if dry_run else ''}{word}: {model}"
            screen.out().print(screen.plain(line), soft_wrap=True)
    if not any(told.values()):
        screen.out().print("nothing to change")


@app.command("export", epilog=EPILOG)
def export(
    out: Annotated[Path | None, typer.Option(help="Where to write it; stdout if unset.")] = None,
    target: Target = TARGET,
    api_key: ApiKey = None,
    timeout: Timeout = 60.0,
    as_json: AsJson = False,
) -> None:
    """Write the whole catalogue as a YAML document."""
    with connected(target, api_key, timeout, as_json) as client:
        exported = client.export_catalogue()
        if out is not None:
            out.parent.mkdir(parents=True, exist_ok=True)
            out.write_text(exported.yaml, encoding="utf-8")
    if as_json:
        text = {} if out is not None else {"yaml": exported.yaml}
        file = {} if out is None else {"file": str(out)}
        screen.print_json({"revision": exported.revision, **file, **text})
    elif out is None:
        sys.stdout.write(exported.yaml)
    else:
        screen.out().print(screen.plain(str(out)), soft_wrap=True)


def model_json(model: ranker_pb2.CatalogueModel) -> dict[str, Any]:
    return MessageToDict(model, preserving_proto_field_name=True)


def verdict(claim: ranker_pb2.Claim) -> str:
    """What is known of a claim, in a word."""
    if not claim.claimed:
        return "measured"
    if claim.verified:
        return "holds"
    return "wrong" if claim.measured else "unproven"


def _read(file: Path) -> str:
    """Raises ``OSError``, and ``ValueError`` for what is no text."""
    content = sys.stdin.buffer.read() if str(file) == _STDIN else file.read_bytes()
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise ValueError(f"{file}: byte {error.start} is no UTF-8") from None


def _read_model(file: Path) -> ranker_pb2.CatalogueModel:
    import json

    try:
        content = json.loads(_read(file))
        return ParseDict(content, ranker_pb2.CatalogueModel())
    except json.JSONDecodeError as error:
        raise ValueError(f"{file}: line {error.lineno}: {error.msg}") from None
    except ParseError as error:
        raise ValueError(f"{file}: {error}") from None


def _serving(model: ranker_pb2.CatalogueModel) -> str:
    facts = model.facts
    if not facts:
        return "–"
    return ", ".join(facts[name] for name in ("backend", "precision", "state") if name in facts)


def _show(model: ranker_pb2.CatalogueModel) -> None:
    console = screen.out()
    console.print(screen.plain(f"{model.name} ({model.id})", "bold"), soft_wrap=True)
    about = screen.table("", "")
    about.show_header = False
    for name, text in (
        ("type", model.type),
        ("licence", model.licence),
        ("price", model.price),
        ("versions", ", ".join(model.versions)),
        ("released", model.released),
        ("used", ", ".join(f"{each.count:,} {each.name}" for each in model.usage)),
        ("also called", ", ".join(model.aliases)),
        ("provenance", model.provenance.strip()),
    ):
        if text:
            about.add_row(screen.plain(name, "dim"), screen.plain(text))
    console.print(about)
    if model.score.components:
        console.print()
        console.print(scoring.parts(model.score))
    for capability in model.capabilities:
        _show_capability(capability)
    if model.facts:
        console.print(screen.plain("\nserved now", "bold"))
        facts = screen.table("fact", "value")
        for name, value in sorted(model.facts.items()):
            facts.add_row(screen.plain(name), screen.plain(value))
        console.print(facts)


STYLES: Final = {"holds": "green", "wrong": "red", "unproven": "yellow", "measured": "cyan"}


def _show_capability(capability: ranker_pb2.Capability) -> None:
    console = screen.out()
    console.print(screen.plain(f"\n{capability.name} ({capability.id})", "bold"), soft_wrap=True)
    console.print(screen.plain(capability.description.strip()))
    for name in ("intents", "best_for", "limitations", "requires", "input_types", "output_types"):
        if texts := getattr(capability, name):
            line = f"{name.replace('_', ' ')}: {'; '.join(texts)}"
            console.print(screen.plain(line, "dim"))
    if not capability.claims:
        return
    claims = screen.table("claim", "", "claimed", "measured", "source")
    for claim in capability.claims:
        word = verdict(claim)
        claims.add_row(
            screen.plain(claim.name),
            screen.plain(word, STYLES[word]),
            screen.plain(claim.claimed or "–"),
            screen.plain(claim.measured or "–"),
            screen.plain(claim.source or "–"),
        )
    console.print(claims)
