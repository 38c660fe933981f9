"""`easel demo`, which is `make demo`: real services, the demo pair, the whole main job."""

from __future__ import annotations

import json
import uuid
from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image

from tests.e2e.stack import easel, survivors

PROMPT = "a red star on a blue background"


def logged_errors(folder: Path) -> str:
    lines = [line for log in folder.glob("*.log") for line in log.read_text().splitlines()]
    return "\n".join(line for line in lines if '"level":"error"' in line)


@pytest.mark.timeout(600)
def test_the_main_job(tmp_path: Path) -> None:
    out, mark = tmp_path / "demo", uuid.uuid4().hex

    done = easel(
        "demo", "--n", "4", "--steps", "10", "--seed", "5", "--out", out,
        environment={"EASEL_TEST_MARK": mark},
    )  # fmt: skip

    assert done.returncode == 0, done.stdout + done.stderr + logged_errors(out / "logs")
    assert survivors(mark) == []
    result = json.loads((out / "result.json").read_text())
    assert list(result) == ["prompt", "n", "candidates", "compute", "seconds", "metrics"]
    assert (result["prompt"], result["n"]) == (PROMPT, 4)
    keys = ["rank", "seed", "score", "label", "file", "pruned_at_step"]
    assert [list(candidate) for candidate in result["candidates"]] == [keys] * 4
    assert result["candidates"][0]["rank"] == 1
    assert {candidate["seed"] for candidate in result["candidates"]} == {5, 6, 7, 8}
    assert result["compute"]["row_steps_spent"] + result["compute"]["row_steps_saved"] == 40
    assert result["metrics"]
    assert all(value > 0 for value in result["metrics"].values())

    for candidate in result["candidates"]:
        assert Image.open(BytesIO((out / candidate["file"]).read_bytes())).format == "PNG"
        assert candidate["file"] in done.stdout
    assert Image.open(out / "contact-sheet.png").width > 900
    page = (out / "report.html").read_text()
    assert page.count("data:image/png;base64,") == 4
    for name in result["metrics"]:
        assert name in done.stdout
