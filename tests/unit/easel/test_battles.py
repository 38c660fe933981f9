from __future__ import annotations

from pathlib import Path

import pytest

from easel.battles import Battle, parts, read_battles


def test_csv_and_json_lines_say_the_same(tmp_path: Path) -> None:
    as_csv, as_lines = tmp_path / "votes.csv", tmp_path / "votes.jsonl"
    as_csv.write_text(
        "judge,model_a,model_b,winner,turn\nada,x,y,model_a,1\n,y,z,tie (bothbad),1\n"
    )
    as_lines.write_text(
        '{"model_a": "x", "model_b": "y", "winner": "model_a", "judge": "ada"}\n\n'
        '{"model_a": "y", "model_b": "z", "winner": "tie"}\n'
    )
    told = [(each.left, each.right, each.winner, each.judge) for each in read_battles(as_csv)]
    assert told == [("x", "y", "left", "ada"), ("y", "z", "tie", "")]
    again = [(each.left, each.right, each.winner, each.judge) for each in read_battles(as_lines)]
    assert again == told


def test_ids_are_the_files_own_or_from_its_content(tmp_path: Path) -> None:
    file, copy, other = (tmp_path / name for name in ("a.csv", "b.csv", "c.csv"))
    text = "model_a,model_b,winner,id\nx,y,a,7\nx,y,b,\n"
    file.write_text(text)
    copy.write_text(text)
    other.write_text(text + "x,y,tie,\n")
    own, same, changed = (read_battles(each) for each in (file, copy, other))
    assert own[0].id == "7"
    assert own == same
    assert own[1].id != changed[1].id
    assert len({each.id for each in changed}) == 3


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("v.csv", b"model_a,winner\n", "1: the header has no column model_b"),
        ("v.csv", b"model_a,model_b,winner\nx,y,z\n", "2: winner 'z' is none"),
        ("v.csv", b"model_a,model_b,winner\nx,x,tie\n", "2: 'x' meets itself"),
        ("v.csv", b"model_a,model_b,winner\nx,,tie\n", "2: there is no model_b"),
        ("v.csv", b'model_a,model_b,winner\n"x,y,tie\n', "unexpected end of data"),
        ("v.jsonl", b'{"model_a": "x"}\n', "1: there is no model_b"),
        ("v.jsonl", b"\n[1]\n", "2: no JSON object"),
        ("v.jsonl", b"{\n", "1: no JSON"),
        ("v.jsonl", b'{"model_a": 1, "model_b": "y", "winner": "a"}', "1: there is no model_a"),
        ("v.csv", b"model_a\xff", "no UTF-8 from byte 7 on"),
    ],
)
def test_what_is_wrong_is_told_with_its_line(
    tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    file = tmp_path / name
    file.write_bytes(content)
    with pytest.raises(ValueError, match="v\\.") as raised:
        read_battles(file)
    assert message in str(raised.value)


def test_parts_hold_as_many_as_they_may() -> None:
    battles = [Battle("a", "b", "tie", "", str(number)) for number in range(5)]
    assert [len(part) for part in parts(battles, 2)] == [2, 2, 1]
    assert [len(part) for part in parts(battles, 5)] == [5]
    assert list(parts([], 2)) == []
