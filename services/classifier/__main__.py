"""Starts the classifier service: ``python -m services.classifier``."""

from __future__ import annotations

import sys
from functools import partial

from models import DEMO_CLASSIFIER
from services.classifier.backends import ChosenNetwork, Host, choose
from services.classifier.catalogue import ClassifierMaker
from services.classifier.config import ClassifierSettings
from services.classifier.model import ClassifierModel
from services.classifier.relevance import TorchExplainer
from services.classifier.service import ClassifierApp
from services.core.config import ConfigError, load_settings
from services.core.fleet import References
from services.core.reference import resolve
from services.core.server.app import run


def main() -> int:
    try:
        settings = load_settings(ClassifierSettings)
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 2
    return run(application(settings))


def application(settings: ClassifierSettings) -> ClassifierApp:
    demo = settings.model == "demo"
    reference = str(DEMO_CLASSIFIER) if demo else settings.model
    name = settings.model_name or ("demo" if demo else "")
    model = ClassifierModel(
        ChosenNetwork(settings.network_options, settings.store),
        partial(resolve, reference, name=name),
        explainer=TorchExplainer(settings.device),
    )
    references = References(
        {"demo": DEMO_CLASSIFIER}, settings.models_dir, hub=settings.load_from_hub
    )
    maker = ClassifierMaker(
        references,
        settings.network_options,
        lambda options: ChosenNetwork(options, settings.store),
        lambda options: TorchExplainer(options.device),
        check=lambda options: choose(options, Host.here()),
    )
    return ClassifierApp(settings, model, maker)


if __name__ == "__main__":
    sys.exit(main())
