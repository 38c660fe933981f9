import pytest

from benchmarks.report import chosen, parts_asked

PARTS = {"first": 1, "second": 2, "third": 3}


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ("", ["first", "second", "third"]),
        (" , ", ["first", "second", "third"]),
        ("second", ["second"]),
        (" third,first ", ["third", "first"]),
    ],
)
def test_those_that_are_named_or_all(names: str, expected: list[str]) -> None:
    assert chosen(names, PARTS) == expected


def test_what_is_taken_where_none_is_named() -> None:
    assert chosen("", PARTS, otherwise=["second"]) == ["second"]
    assert chosen("first", PARTS, otherwise=["second"]) == ["first"]


def test_one_that_there_is_not() -> None:
    with pytest.raises(ValueError, match=r"^no such part: last; there are: first, second, third$"):
        chosen("first,last", PARTS)


def test_a_command_ends_with_2_for_a_part_that_there_is_not(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert parts_asked(PARTS, {}) == list(PARTS)
    assert parts_asked(PARTS, {"ONLY": "third"}) == ["third"]
    with pytest.raises(SystemExit) as ended:
        parts_asked(PARTS, {"ONLY": "last"})
    assert ended.value.code == 2
    assert capsys.readouterr().err == "no such part: last; there are: first, second, third\n"
