"""Scores as they were computed, in the database. A score that is told is in the log first."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Self

from sqlalchemy import Connection, Select, func, insert, select

from ranker.score.formula import Score
from ranker.score.record import Record, score_of
from ranker.score.tables import SCORE_LOG

# Of ids in one statement; SQLite takes 32,766 parameters.
_BATCH: Final = 1000


@dataclass(frozen=True, slots=True)
class Logged:
    """A record and when it was made."""

    record: Record
    computed_at: datetime


@dataclass(frozen=True, slots=True)
class Entry:
    """A row of the log; later ones have larger numbers."""

    number: int
    logged: Logged


@dataclass(frozen=True, slots=True)
class Scored:
    """A score as it is told: as the log has it."""

    score: Score
    record: Record
    computed_at: datetime

    @classmethod
    def of(cls, logged: Logged) -> Self:
        """Computed again from the record's evidence, which is what it was computed from."""
        return cls(score_of(logged.record), logged.record, logged.computed_at)

    @property
    def version(self) -> str:
        return self.record.version


def latest(connection: Connection, models: Iterable[str]) -> Mapping[str, Logged]:
    """The last score of each model that has one."""
    wanted = sorted(set(models))
    found: dict[str, Logged] = {}
    for start in range(0, len(wanted), _BATCH):
        newest = (
            select(func.max(SCORE_LOG.c.id))
            .where(SCORE_LOG.c.model_id.in_(wanted[start : start + _BATCH]))
            .group_by(SCORE_LOG.c.model_id)
        )
        rows = select(SCORE_LOG).where(SCORE_LOG.c.id.in_(newest))
        found |= {logged.record.model: logged for logged in _read(connection, rows)}
    return found


def history(connection: Connection, model: str) -> Sequence[Logged]:
    """Every score of a model, the first one first."""
    rows = select(SCORE_LOG).where(SCORE_LOG.c.model_id == model).order_by(SCORE_LOG.c.id)
    return list(_read(connection, rows))


def page(connection: Connection, model: str, before: int | None, size: int) -> list[Entry]:
    """At most ``size`` scores of a model with a number below ``before``, the latest first."""
    rows = select(SCORE_LOG).where(SCORE_LOG.c.model_id == model)
    if before is not None:
        rows = rows.where(SCORE_LOG.c.id < before)
    found = connection.execute(rows.order_by(SCORE_LOG.c.id.desc()).limit(size)).mappings()
    return [Entry(int(row["id"]), _logged(row)) for row in found]


def kept(connection: Connection, records: Iterable[Record], now: datetime) -> Mapping[str, Logged]:
    """The records by model as the log has them: one that says the same as the model's last one is
    that, any other is added at ``now``. For ``Database.write``, where nobody else writes."""
    wanted = {record.model: record for record in records}
    before = latest(connection, wanted)
    found = {
        model: before[model]
        if model in before and same(before[model].record, record)
        else Logged(record, now)
        for model, record in wanted.items()
    }
    new = [logged for model, logged in found.items() if before.get(model) is not logged]
    if new:
        connection.execute(insert(SCORE_LOG), [_row(logged) for logged in new])
    return found


def same(one: Record, other: Record) -> bool:
    """Whether both say the same by the same rules, though perhaps of evidence of another day."""
    return (one.formula, one.rules, one.result) == (other.formula, other.rules, other.result)


def _row(logged: Logged) -> dict[str, object]:
    record = logged.record
    return {
        "model_id": record.model,
        "computed_at": logged.computed_at,
        "formula": record.formula,
        "rules": record.rules,
        "evidence": record.evidence,
        "result": record.result,
    }


def _read(connection: Connection, rows: Select[Any]) -> Iterator[Logged]:
    return map(_logged, connection.execute(rows).mappings())


def _logged(row: Mapping[Any, Any]) -> Logged:
    record = Record(row["model_id"], row["formula"], row["rules"], row["evidence"], row["result"])
    return Logged(record, row["computed_at"])
