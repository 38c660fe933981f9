"""One engine: rows go through stages; each tick advances one batch of rows by one step.

``stage`` is what a model implements; ``engine`` runs it; ``ticket`` is what a caller holds.
``policy``, ``admission`` and ``cost`` decide, without clock, device or loop.
"""

from services.core.engine.device import Device, InlineDevice, ThreadDevice
from services.core.engine.engine import Engine, EngineReport, KeyReport
from services.core.engine.limits import EngineLimits
from services.core.engine.metrics import EngineMetrics
from services.core.engine.stage import DeviceLost, Model, RowFailed, Stage
from services.core.engine.ticket import Output, Progress, Ticket, Timing

__all__ = [
    "Device",
    "DeviceLost",
    "Engine",
    "EngineLimits",
    "EngineMetrics",
    "EngineReport",
    "InlineDevice",
    "KeyReport",
    "Model",
    "Output",
    "Progress",
    "RowFailed",
    "Stage",
    "ThreadDevice",
    "Ticket",
    "Timing",
]
