"""The Dockerfile, read instead of built: there is no container engine in our checks."""

from __future__ import annotations

import importlib.util
import json
import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
SERVICES = ("classifier", "generator", "ranker", "gateway")


def instructions() -> list[tuple[str, str]]:
    """Return ``(instruction, rest)`` of each one, continuation lines joined."""
    lines = (ROOT / "Dockerfile").read_text(encoding="utf-8").splitlines()
    text = "\n".join(line for line in lines if not line.startswith("#")).replace("\\\n", " ")
    return [
        (found[1], " ".join(found[2].split())) for found in re.finditer(r"^(\w+) (.*)$", text, re.M)
    ]


def stage(name: str) -> dict[str, str]:
    """Return the instructions of the stage called ``name``; the last of each kind."""
    found: dict[str, str] = {}
    current = ""
    for kind, rest in instructions():
        if kind == "FROM":
            current = rest.rpartition(" AS ")[2]
        elif current == name:
            found[kind] = rest
    return found


def copied() -> list[str]:
    sources = [rest.split()[:-1] for kind, rest in instructions() if kind == "COPY"]
    return [path for paths in sources if not paths[0].startswith("--from") for path in paths]


def test_every_copied_path_exists_and_reaches_the_builder() -> None:
    kept = {
        line[1:]
        for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
        if line.startswith("!")
    }
    assert set(copied()) == kept
    assert [path for path in copied() if not (ROOT / path).exists()] == []


def test_every_package_is_copied() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    found = project["tool"]["setuptools"]["packages"]["find"]["include"]
    assert {pattern.rstrip("*") for pattern in found} <= set(copied())


def test_extra_of_every_service_exists() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert set(SERVICES) <= set(project["project"]["optional-dependencies"])
    assert '".[${SERVICE}${EXTRAS}]"' in stage("build")["RUN"]
    assert "-c constraints.txt" in stage("build")["RUN"]


def test_argument_chooses_the_last_stage() -> None:
    assert ("ARG", "SERVICE") in instructions()
    assert instructions()[-1] == ("FROM", "${SERVICE}")


@pytest.mark.parametrize("service", SERVICES)
def test_entry_point_is_a_module_of_ours(service: str) -> None:
    command = json.loads(stage(service)["ENTRYPOINT"])
    assert command[:2] == ["python", "-m"]
    package = command[2].replace(".", "/")
    assert (ROOT / package / "__main__.py").exists()
    assert importlib.util.find_spec(command[2]) is not None
    assert "USER" not in stage(service)


def test_threads_do_not_spin_for_long() -> None:
    assert {"OMP_WAIT_POLICY=PASSIVE", "GOMP_SPINCOUNT=10000"} <= set(stage("base")["ENV"].split())


def test_runs_as_a_numeric_user_that_is_not_root() -> None:
    user, _, group = stage("base")["USER"].partition(":")
    assert int(user) > 0
    assert int(group) > 0
