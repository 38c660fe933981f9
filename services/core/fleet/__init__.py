"""Several models in one process, by name and version, each with an engine of its own.

``fleet`` loads, routes and unloads them; ``traffic``, ``memory`` and ``references`` decide, without
a loop or a device; ``changes`` tells of it.
"""

from services.core.fleet.fleet import Fleet, Maker
from services.core.fleet.member import Member
from services.core.fleet.order import LoadOrder
from services.core.fleet.references import References

__all__ = ["Fleet", "LoadOrder", "Maker", "Member", "References"]
