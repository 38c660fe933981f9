"""Starts the classifier service: ``python -m services.classifier``."""

from __future__ import annotations

import sys
from functools import partial

from models import DEMO_CLASSIFIER
from services.classifier.backends import ChosenNetwork
from services.classifier.config import ClassifierSettings
from services.classifier.model import ClassifierModel
from services.classifier.relevance import TorchExplainer
from services.classifier.service import ClassifierApp
from services.core.config import ConfigError, load_settings
from services.core.reference import resolve
from services.core.server.app import run


def main() -> int:
    try:
        settings = load_settings(ClassifierSettings)
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 2
    demo = settings.model == "demo"
    reference = str(DEMO_CLASSIFIER) if demo else settings.model
    name = settings.model_name or ("demo" if demo else "")
    network = ChosenNetwork(settings.network_options, settings.store)
    model = ClassifierModel(
        network,
        partial(resolve, reference, name=name),
        explainer=TorchExplainer(settings.device),
    )
    return run(ClassifierApp(settings, model))


if __name__ == "__main__":
    sys.exit(main())
