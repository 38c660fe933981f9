from importlib import metadata

from services.core.packages import installed_version


def test_a_version_or_none() -> None:
    assert installed_version("grpcio") == metadata.version("grpcio")
    assert installed_version("no-such-package-of-easel") is None
