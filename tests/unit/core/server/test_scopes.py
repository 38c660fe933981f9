import pytest

from services.core.errors import PermissionDenied
from services.core.server.scopes import ADMIN, Scopes


def test_administration() -> None:
    Scopes(administration=True, setting="X").require(ADMIN)
    closed = Scopes(administration=False, setting="EASEL_X_ADMINISTRATION")
    closed.require("infer")
    with pytest.raises(PermissionDenied, match="EASEL_X_ADMINISTRATION") as caught:
        closed.require(ADMIN)
    assert caught.value.reason == "ADMINISTRATION_OFF"
