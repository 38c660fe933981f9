"""The numbered changes of the schema."""

from __future__ import annotations

from alembic.script import ScriptDirectory

from ranker.database.migration import MIGRATIONS, newest_version


def test_they_form_one_numbered_line() -> None:
    scripts = list(reversed(list(ScriptDirectory(str(MIGRATIONS)).walk_revisions())))
    numbers = [script.revision for script in scripts]

    assert numbers == [f"{number:04d}" for number in range(1, len(scripts) + 1)]
    assert [script.down_revision for script in scripts] == [None, *numbers[:-1]]
    for script in scripts:
        assert script.path.rsplit("/", 1)[1].startswith(f"v{script.revision}_")
    assert newest_version() == numbers[-1]
