"""`easel catalogue` and the client, against a real ranker."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from easel import Client
from easel.cli.app import app
from easel.cli.exits import ExitCode
from tests.integration.ranker.catalogue.test_catalogue import SHIPPED, VIT, served
from tests.integration.ranker.conftest import running_ranker
from tests.integration.ranker.upstreams import upstreams

Run = Callable[..., Awaitable[Result]]


@pytest.fixture
async def run() -> AsyncIterator[Run]:
    async with upstreams() as up:
        up.classifier_models.info = served()
        async with running_ranker(up) as ranker:
            command = CliRunner(env={"EASEL_TARGET": ranker.target, "COLUMNS": "200"})

            async def run(*arguments: str, stdin: str | None = None) -> Result:
                return await asyncio.to_thread(
                    command.invoke, app, ["catalogue", *arguments], input=stdin
                )

            yield run


async def test_list(run: Run) -> None:
    shown = await run("list")
    assert shown.exit_code == 0
    for id in SHIPPED:
        assert id in shown.stdout
    listed = json.loads((await run("list", "--type", "image-classifier", "--json")).stdout)
    assert [model["id"] for model in listed["models"]] == ["demo-classifier", VIT]


async def test_show(run: Run) -> None:
    shown = (await run("show", "google/vit-large-patch16-384")).stdout
    for part in ("90.88 %", "85.1 to 85.2 %", "wrong", "unproven", "holds", "openvino"):
        assert part in shown
    model = json.loads((await run("show", VIT, "--json")).stdout)
    assert model["facts"]["backend"] == "openvino"
    assert len(model["capabilities"]) == 6


async def test_an_unknown_model(run: Run) -> None:
    result = await run("show", "stable-difusion")
    assert result.exit_code == ExitCode.BAD_INPUT
    assert "NOT_FOUND" in result.stderr
    assert "'stable-diffusion'" in result.stderr


async def test_put_what_show_has_and_delete_it(run: Run, tmp_path: Path) -> None:
    model = json.loads((await run("show", VIT, "--json")).stdout)
    file = tmp_path / "model.json"
    file.write_text(json.dumps({**model, "price": "free of charge"}))
    assert (
        await run("put", str(file))
    ).stdout == f"{VIT} is in the catalogue, with 6 capabilities\n"
    again = json.loads((await run("show", VIT, "--json")).stdout)
    assert again["price"] == "free of charge"
    assert again["capabilities"] == model["capabilities"]

    put = await run("put", "-", "--json", stdin='{"id": "new", "type": "t"}')
    assert json.loads(put.stdout)["name"] == "new"
    assert (await run("delete", "NEW")).stdout == "NEW is no longer in the catalogue\n"
    assert json.loads((await run("delete", "demo-generator", "--json")).stdout) == {
        "deleted": "demo-generator"
    }
    assert (await run("delete", "NEW")).exit_code == ExitCode.BAD_INPUT


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ('{"id": "a",\n "type" "t"}', "line 2"),
        ('{"id": "a", "colour": "red"}', "colour"),
        ('{"id": "a"}', "model.type"),
        ("[1]", ""),
    ],
)
async def test_a_file_that_is_no_model(run: Run, content: str, told: str) -> None:
    result = await run("put", "-", stdin=content)
    assert result.exit_code == ExitCode.BAD_INPUT
    assert told in result.stderr


async def test_export_and_import(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "new" / "catalogue.yaml"
    assert (await run("export", "--out", str(file))).stdout == f"{file}\n"
    assert (await run("export")).stdout == file.read_text()
    assert (await run("import", str(file))).stdout == "nothing to change\n"

    one = "easel_catalogue: 1\nmodels: [{id: new, type: t}]"
    told = await run("import", "-", "--dry-run", "--keep-others", stdin=one)
    assert told.stdout == "would be added: new\n"
    changes = json.loads((await run("import", "-", "--json", stdin=one)).stdout)
    assert changes == {"added": ["new"], "changed": [], "removed": SHIPPED, "dry_run": False}

    bad = await run("import", "-", stdin=one.replace("type", "kind"))
    assert bad.exit_code == ExitCode.BAD_INPUT
    assert "yaml.models[0].kind: Line 2: there is no such field" in bad.stderr
    missing = await run("import", str(tmp_path / "nothing.yaml"))
    assert missing.exit_code == ExitCode.BAD_INPUT
    assert "nothing.yaml" in missing.stderr


async def test_the_client_asks_for_every_page() -> None:
    async with upstreams() as up, running_ranker(up) as ranker:

        def listed() -> list[str]:
            with Client(ranker.target) as client:
                return [model.id for model in client.catalogue_models(page_size=1)]

        assert await asyncio.to_thread(listed) == SHIPPED
