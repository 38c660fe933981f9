"""The report: result.json's exact shape, the sheet, the page."""

from __future__ import annotations

import json
from io import BytesIO
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from easel.report import (
    Candidate,
    Compute,
    Result,
    contact_sheet,
    page,
    remove_earlier,
    write_report,
)
from tests.unit.easel.pictures import png


def result_of(count: int, prompt: str = "a red star") -> Result:
    candidates = [
        Candidate(
            rank=place,
            seed=100 + place,
            score=-0.1 * place,
            label="red star",
            file=f"{place:02d}.png",
            pruned_at_step=None if place < 3 else 6,
        )
        for place in range(1, count + 1)
    ]
    return Result(prompt, count, candidates, Compute(100, 60), 3.5, {"calls_total": 2.0})


def pictures_of(result: Result) -> dict[str, bytes]:
    return {candidate.file: png(size=(64, 64)) for candidate in result.candidates}


def test_result_json_has_exactly_these_keys(tmp_path: Path) -> None:
    result = result_of(4)
    write_report(result, pictures_of(result), tmp_path)

    document = json.loads((tmp_path / "result.json").read_text())

    assert list(document) == ["prompt", "n", "candidates", "compute", "seconds", "metrics"]
    assert list(document["compute"]) == ["row_steps_spent", "row_steps_saved"]
    keys = ["rank", "seed", "score", "label", "file", "pruned_at_step"]
    assert all(list(candidate) == keys for candidate in document["candidates"])
    assert [candidate["rank"] for candidate in document["candidates"]] == [1, 2, 3, 4]
    assert [c["pruned_at_step"] for c in document["candidates"]] == [None, None, 6, 6]
    assert all((tmp_path / c["file"]).is_file() for c in document["candidates"])
    assert document["metrics"] == {"calls_total": 2.0}


def test_a_big_seed_survives_json(tmp_path: Path) -> None:
    candidate = Candidate(1, 2**64 - 1, 0.0, "x", "", None)
    result = Result("p", 1, [candidate], Compute(1, 0), 1.0, {})
    write_report(result, {}, tmp_path)

    document = json.loads((tmp_path / "result.json").read_text())

    assert document["candidates"][0]["seed"] == 2**64 - 1


@pytest.mark.parametrize("count", [0, 1, 4, 8, 9])
def test_the_sheet_shows_small_pictures_large(count: int) -> None:
    result = result_of(count)

    sheet = Image.open(BytesIO(contact_sheet(result, pictures_of(result))))

    assert sheet.width >= 2 * 224
    reds = sum(n for n, colour in sheet.convert("RGB").getcolors(10**7) or [] if colour == RED)
    assert reds == count * 256 * 256


RED = (255, 0, 0)


def test_pictures_of_any_size_and_none_fit_the_sheet() -> None:
    result = result_of(4)
    pictures = {"01.png": png(size=(640, 360)), "02.png": png(size=(7, 300))}

    assert contact_sheet(result, pictures).startswith(b"\x89PNG")


def test_the_page_stands_alone(tmp_path: Path) -> None:
    result = result_of(3)
    html = page(result, pictures_of(result))

    assert html.count("data:image/png;base64,") == 3
    assert "http" not in html.replace("http-equiv", "")
    assert "<script" not in html
    assert "38%" in html  # 60 of 160 steps
    assert "stopped at step 6" in html


@given(st.text(max_size=300))
def test_a_prompt_is_only_text(prompt: str) -> None:
    html = page(result_of(1, prompt), {})

    assert "<script" not in html.lower()


def test_a_failed_candidate_has_no_score_and_is_no_winner(tmp_path: Path) -> None:
    failed = Candidate(1, 7, None, "", "", None)
    write_report(Result("p", 1, [failed], Compute(1, 0), 1.0, {}), {}, tmp_path)

    document = json.loads((tmp_path / "result.json").read_text())
    html = (tmp_path / "report.html").read_text()

    assert document["candidates"][0]["score"] is None
    assert "<td>failed</td>" in html
    assert "finished" not in html
    assert ' best"' not in html


def test_a_long_prompt_is_cut_on_the_sheet() -> None:
    result = result_of(2, "a very long prompt " * 40)

    assert contact_sheet(result, pictures_of(result)).startswith(b"\x89PNG")


def test_an_earlier_report_goes_and_nothing_else_does(tmp_path: Path) -> None:
    folder = tmp_path / "report"
    result = result_of(2)
    write_report(result, pictures_of(result), folder)
    (folder / "mine.png").write_bytes(b"")
    (tmp_path / "outside.png").write_bytes(b"")
    listed = json.loads((folder / "result.json").read_text())
    listed["candidates"].append({"file": "../outside.png"})
    (folder / "result.json").write_text(json.dumps(listed))

    remove_earlier(folder)

    assert sorted(file.name for file in folder.glob("*.png")) == ["contact-sheet.png", "mine.png"]
    assert (tmp_path / "outside.png").exists()


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"candidates": [1]}'])
def test_a_damaged_earlier_report_is_left_alone(text: str, tmp_path: Path) -> None:
    (tmp_path / "result.json").write_text(text)

    remove_earlier(tmp_path)

    assert (tmp_path / "result.json").read_text() == text
