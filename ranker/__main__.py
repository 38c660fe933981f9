"""``python -m ranker``: the ranker over a classifier and a generator."""

from __future__ import annotations

import sys

from prometheus_client import CollectorRegistry

from ranker.config import RankerSettings
from ranker.service import RankerApp
from services.core.config import ConfigError, load_settings
from services.core.server.app import run


def main() -> int:
    try:
        settings = load_settings(RankerSettings)
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 2
    return run(RankerApp(settings, CollectorRegistry()))


if __name__ == "__main__":
    sys.exit(main())
