"""What servers in tests need so that a port is theirs."""

from __future__ import annotations

from typing import Final

OWN_PORT: Final = ("grpc.so_reuseport", 0)
"""Otherwise port 0 may become one that a server of another worker has, who then gets the calls, or
refuses them as it ends.
"""
