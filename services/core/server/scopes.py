"""What a call may do: the one place that knows, for every service.

Calls are not authenticated yet. Whoever reaches a service may do what needs the scope ``infer``;
what needs ``admin`` is served only where administration is on, which by default it is on loopback
alone. With authentication, ``require`` will look at the scopes of the call that is current here.
"""

from __future__ import annotations

from typing import Final

from services.core.errors import PermissionDenied

ADMIN: Final = "admin"


class Scopes:
    """``administration`` lets every caller administer; ``setting`` is the variable that says so."""

    def __init__(self, *, administration: bool, setting: str) -> None:
        self._administration = administration
        self._setting = setting

    def require(self, scope: str) -> None:
        """Raises ``PermissionDenied`` unless the call being served may do what needs ``scope``."""
        if scope == ADMIN and not self._administration:
            raise PermissionDenied(
                f"Administration is off on this server; {self._setting}=true turns it on.",
                reason="ADMINISTRATION_OFF",
            )
