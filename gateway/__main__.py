"""``python -m gateway``: reads the settings, opens the door, serves until a signal."""

from __future__ import annotations

import sys

from gateway.config import Settings
from gateway.service import Gateway
from services.core.config import ConfigError, load_settings
from services.core.server.app import run


def main() -> int:
    try:
        settings = load_settings(Settings)
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 2
    return run(Gateway(settings))


if __name__ == "__main__":
    sys.exit(main())
