"""Terms, against the tokenizer and stemmer of SQLite's FTS5."""

from __future__ import annotations

import re
import sqlite3
from pathlib import Path

import pytest

from ranker.graph import text

ROOT = Path(__file__).parents[4]


def fts5_stems(words: list[str]) -> list[str]:
    connection = sqlite3.connect(":memory:")
    connection.execute("CREATE VIRTUAL TABLE t USING fts5(x, tokenize='porter unicode61')")
    connection.execute("CREATE VIRTUAL TABLE v USING fts5vocab(t, 'instance')")
    connection.executemany("INSERT INTO t(rowid, x) VALUES (?, ?)", list(enumerate(words)))
    found = {doc: term for term, doc in connection.execute("SELECT term, doc FROM v")}
    connection.close()
    return [found[number] for number in range(len(words))]


def test_stems_are_porters_as_sqlite_has_them() -> None:
    pages = [*ROOT.glob("docs/*.md"), ROOT / "README.md", *ROOT.glob("services/core/**/*.py")]
    prose = " ".join(page.read_text(encoding="utf-8").lower() for page in pages)
    hard = re.findall(
        r"\w+",
        """caresses ponies ties caress cats feed agreed plastered bled motoring sing conflated
    troubled sized hopping tanned falling hissing fizzed failing filing happy sky relational
    conditional rational valenci hesitanci digitizer conformabli radicalli differentli vileli
    analogousli vietnamization predication operator feudalism decisiveness hopefulness callousness
    formaliti sensitiviti sensibiliti triplicate formative formalize electriciti electrical hopeful
    goodness revival allowance inference airliner gyroscopic adjustable defensible irritant
    replacement adjustment dependent adoption homologou communism activate angulariti homologous
    effective bowdlerize probate rate cease controll roll yellow syzygy""",
    )
    words = sorted({*re.findall(r"[a-z]{2,}", prose), *hard})
    assert len(words) > 1500
    assert [text.stem(word) for word in words] == fts5_stems(words)


def test_words_are_folded_and_split() -> None:
    assert text.words("Text-to-image: Café_Über 384×384 ﬁne") == [
        "text", "to", "image", "cafe", "uber", "384", "384", "fine",
    ]  # fmt: skip


def test_forms_of_one_word_are_one_term() -> None:
    assert len({text.stem(form) for form in ("generate", "generates", "generating")}) == 1


def test_stop_words_are_left_out_and_words_without_end_are_cut() -> None:
    assert text.terms("what is the class of this picture") == ["class", "pictur"]
    assert text.terms("the of") == []
    assert len(text.words("x" * 1000)[0]) == 64


@pytest.mark.parametrize("content", ["", "  ", "!?…", "_"])
def test_what_has_no_word_has_no_terms(content: str) -> None:
    assert text.terms(content) == []
