"""Who a piece of work is for: what a transport tells the domain of a call."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Caller:
    """``priority`` -10 to 10, larger first; ``deadline`` on the monotonic clock, None for none."""

    tenant: str = ""
    priority: int = 0
    deadline: float | None = None
