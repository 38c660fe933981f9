"""`easel arena` and `easel leaderboard` against a real ranker."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from easel.cli.app import app
from tests.integration.ranker.conftest import RunningRanker, running_ranker
from tests.integration.ranker.test_arena import paints, png, redness
from tests.integration.ranker.upstreams import PROMPT, upstreams


@dataclass(frozen=True, slots=True)
class Easel:
    """The command line with a ranker behind it."""

    ranker: RunningRanker
    folder: Path

    async def run(self, *words: str, input: str = "") -> Result:
        arguments = [*words, "--target", self.ranker.target]
        runner = CliRunner()
        return await asyncio.to_thread(lambda: runner.invoke(app, arguments, input=input))

    async def told(self, *words: str) -> Any:
        done = await self.run(*words, "--json")
        assert done.exit_code == 0, done.output
        return json.loads(done.stdout)


@pytest.fixture
async def easel(tmp_path: Path) -> AsyncIterator[Easel]:
    async with upstreams() as up, running_ranker(paints(up), arena_min_votes=5) as running:
        yield Easel(running, tmp_path)


async def given(easel: Easel) -> None:
    for name, red in (("a", 10), ("b", 20)):
        file = easel.folder / f"{name}.png"
        file.write_bytes(png(red))
        assert await easel.told("arena", "picture", name, str(file), "--prompt", PROMPT) == {
            "new": True
        }


async def test_contenders_come_and_go(easel: Easel) -> None:
    added = await easel.told("arena", "add", "quick", "--steps", "2", "--sampler", "euler")
    assert added["new"]
    assert added["contender"]["generate"]["sampler"] == "SAMPLER_EULER"
    assert (await easel.run("arena", "add", "hand", "--given")).output == "hand takes part\n"
    assert (await easel.told("arena", "prompts", "x", "y"))["prompts"] == 2
    listed = await easel.run("arena", "list")
    assert "model sd" in listed.output
    assert "steps 2" in listed.output
    assert "given pictures" in listed.output
    assert "2 prompts, 0 votes" in listed.output
    assert (await easel.run("arena", "remove", "hand")).output == "hand is gone; it had no votes\n"
    missing = await easel.run("arena", "remove", "hand")
    assert missing.exit_code == 2
    assert "NOT_FOUND" in missing.stderr


async def test_a_pair_is_asked_for_and_voted_on(easel: Easel) -> None:
    await given(easel)
    pair = await easel.told("arena", "next", "--out", str(easel.folder / "pair"))
    assert pair["prompt"] == PROMPT
    left = redness(await asyncio.to_thread(Path(pair["left"]).read_bytes))
    told = await easel.told("arena", "vote", pair["token"], "left", "--judge", "ada")
    assert told["left"]["name"] == {10: "a", 20: "b"}[int(left)]
    again = await easel.run("arena", "vote", pair["token"], "left", "--judge", "ada")
    assert "recorded before" in again.output
    other = await easel.run("arena", "vote", pair["token"], "right", "--judge", "ada")
    assert other.exit_code == 1
    assert "another vote" in other.stderr
    wrong = await easel.run("arena", "vote", pair["token"], "best")
    assert wrong.exit_code == 2
    assert "not one of left, right, tie" in wrong.stderr


async def test_play_votes_until_it_is_told_to_end(easel: Easel) -> None:
    await given(easel)
    folder = easel.folder / "kept"
    done = await easel.run(
        "arena", "play", "--judge", "ada", "--out", str(folder), input="l\nwhat\nt\nq\n"
    )
    assert done.exit_code == 0, done.output
    assert done.output.count("left was ") == 2
    assert done.stdout.endswith("2 votes\n")
    assert len(list(folder.iterdir())) == 6
    ended = await easel.run("arena", "play", "-n", "1", input="")
    assert ended.stdout.endswith("0 votes\n")


async def test_judges_vote_and_are_listed(easel: Easel) -> None:
    await given(easel)
    told = await easel.told("arena", "judge", "-n", "3", "--name", "mine")
    assert [each["judge"] for each in told["votes"]] == ["easel:mine"] * 3
    shown = await easel.run("arena", "judge", "-n", "1")
    assert "1 votes of easel:label@vit/1" in shown.output
    (told_so,) = re.findall(r" ([<>=]) .* (-\S+) (-\S+) ", shown.output)
    sign, left, right = told_so[0], float(told_so[1]), float(told_so[2])
    assert (left > right, left < right) == (sign == ">", sign == "<")
    judges = await easel.run("arena", "judges")
    assert "easel:mine" in judges.output
    assert "too few votes that others share" in judges.output


async def test_an_imported_log_makes_a_leaderboard(easel: Easel) -> None:
    file = easel.folder / "votes.csv"
    rows = ["model_a,model_b,winner"]
    rows += ["x,y,model_a"] * 40 + ["x,y,model_b"] * 10 + ["y,z,tie"] * 10 + ["y,z,a"] * 20
    rows += ["y,z,b"] * 5 + ["v,w,a"] * 20
    file.write_text("\n".join(rows) + "\n")
    assert (await easel.told("arena", "import", str(file)))["imported"] == 105
    again = await easel.run("arena", "import", str(file))
    assert again.output == "0 votes added, 105 were there already, 0 new contenders\n"
    board = await easel.told("leaderboard")
    assert [row["contender"] for row in board["rows"]] == ["x", "y", "z", "v", "w"]
    assert board["rows"][0]["rank"] == [1, 1]
    assert board["rows"][3]["unranked"] == "not compared with the others"
    assert board["votes_to_change_leader"] > 5
    shown = (await easel.run("leaderboard")).output
    assert "●" in shown
    assert "2 groups that no vote links" in shown
    assert f"Without {board['votes_to_change_leader']} votes {board['rival']} would lead." in shown


async def test_a_file_with_a_wrong_line_adds_nothing(easel: Easel) -> None:
    file = easel.folder / "votes.csv"
    file.write_text("model_a,model_b,winner\nx,y,a\nx,y,nobody\n")
    done = await easel.run("arena", "import", str(file))
    assert done.exit_code == 2
    assert "votes.csv:3: winner 'nobody'" in done.stderr
    unknown = await easel.run("leaderboard")
    assert unknown.exit_code == 2
    assert "There is no arena" in unknown.stderr


async def test_too_few_votes_rank_nobody(easel: Easel) -> None:
    file = easel.folder / "votes.jsonl"
    file.write_text('{"model_a": "x", "model_b": "y", "winner": "a"}\n')
    await easel.told("arena", "import", str(file))
    shown = (await easel.run("leaderboard")).output
    assert "too few votes" in shown
    assert "Too few votes to rank anybody." in shown
    assert "●" not in shown
