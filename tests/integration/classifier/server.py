"""The classifier's application over a fake network."""

from __future__ import annotations

from services.classifier.config import ClassifierSettings
from services.classifier.model import ClassifierModel
from services.classifier.service import ClassifierApp
from services.core.config import load_settings
from tests.unit.classifier.fakes import FILES, FakeExplainer, FakeNetwork


def fake_app(
    network: FakeNetwork, explainer: FakeExplainer | None = None, **settings: object
) -> ClassifierApp:
    loaded = load_settings(ClassifierSettings, environ={}, **settings)
    return ClassifierApp(loaded, ClassifierModel(network, lambda: FILES, explainer=explainer))
