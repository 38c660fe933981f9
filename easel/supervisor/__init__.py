"""All services on one machine: what `easel up` and `easel demo` stand on.

``plan`` says which services with which settings, ``restarts`` decides (pure) what a crash leads
to, ``supervisor`` carries it out, ``process`` and ``child`` are real processes that never outlive
the one that started them.
"""

from easel.supervisor.plan import Plan, Service, free_port, plan_stack
from easel.supervisor.process import ChildProcess
from easel.supervisor.restarts import RestartLimits
from easel.supervisor.stack import running
from easel.supervisor.supervisor import Change, ServiceFailedError, State, Supervisor

__all__ = [
    "Change",
    "ChildProcess",
    "Plan",
    "RestartLimits",
    "Service",
    "ServiceFailedError",
    "State",
    "Supervisor",
    "free_port",
    "plan_stack",
    "running",
]
