"""Writes ``settings.md`` from the settings themselves; ``--check`` only compares."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from gateway.config import Settings as GatewaySettings
from ranker.config import RankerSettings
from services.classifier.config import ClassifierSettings
from services.core.config import ServiceSettings, environment_names
from services.generator.config import GeneratorSettings

PAGE = Path(__file__).with_suffix(".md")
SERVICES: tuple[type[ServiceSettings], ...] = (
    ClassifierSettings,
    GeneratorSettings,
    RankerSettings,
    GatewaySettings,
)
INTRODUCTION = """# Settings

Every service reads its settings once, at its start: from `EASEL_<SERVICE>_<NAME>` in the
environment, or from the section of its name in the YAML file that `EASEL_CONFIG` names (names in
lower case there). The environment wins. Every bad or unknown setting is reported, all at once, and
stops the start with exit code 2. What is really in force is told by `easel models --json`.

`make check` holds this page to the code (`docs/settings.py`).
"""


def page() -> str:
    return "\n".join([INTRODUCTION, *(section(settings) for settings in SERVICES)])


def section(settings: type[ServiceSettings]) -> str:
    rows = [
        f"| `{name}` | {default(settings, name)} | {text} |"
        for name, text in environment_names(settings).items()
    ]
    head = [
        f"## {settings.service.capitalize()}",
        "",
        "| variable | default | what |",
        "|---|---|---|",
    ]
    return "\n".join([*head, *rows, ""])


def default(settings: type[ServiceSettings], name: str) -> str:
    field = settings.model_fields[name.split("_", 2)[2].lower()]
    if field.is_required():
        return "must be given"
    if isinstance(field.default, dict):
        return f"`{json.dumps(field.default)}`"
    return "" if field.default in (None, "") else f"`{field.default}`"


def main(arguments: list[str]) -> int:
    """0 when written or in step, 1 when ``--check`` found a difference."""
    if arguments != ["--check"]:
        PAGE.write_text(page())
        return 0
    if PAGE.read_text() == page():
        return 0
    print("docs/settings.md is out of step: run `make docs`", file=sys.stderr)
    return 1


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
