"""The bounds an engine works within."""

from __future__ import annotations

from dataclasses import dataclass, fields


@dataclass(frozen=True, slots=True)
class EngineLimits:
    """Bounds of one engine; every one of them is a positive number unless said otherwise.

    - ``max_rows``: rows admitted and not yet finished.
    - ``max_backlog_seconds``: predicted device seconds of admitted work. An idle engine takes one
      submission however long it is.
    - ``max_batch_rows``: a safety bound; the cost model usually asks for fewer.
    - ``max_step_seconds``: no batch is predicted to take longer, unless one row alone does. Bounds
      how long a cancel or an urgent row waits.
    - ``overhead_share`` (0..1, exclusive): batches grow until the fixed part of a step is at most
      this share of it. More rows than that only add latency.
    - ``patience_seconds``: a ready row not stepped for so long goes before higher priorities.
    - ``batch_wait_seconds`` (>= 0): how long an idle device waits for company, counted from the
      admission of the oldest row.
    - ``max_undelivered``: outputs a reader may be behind before its row stops being stepped.
    """

    max_rows: int = 1024
    max_backlog_seconds: float = 120.0
    max_batch_rows: int = 64
    max_step_seconds: float = 0.5
    overhead_share: float = 0.1
    patience_seconds: float = 2.0
    batch_wait_seconds: float = 0.0
    max_undelivered: int = 8

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if not (value > 0 or (field.name == "batch_wait_seconds" and value == 0)):
                raise ValueError(f"{field.name} must be positive, got {value}")
        if self.overhead_share >= 1.0:
            raise ValueError(f"overhead_share must be below 1, got {self.overhead_share}")
