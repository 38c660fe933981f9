"""The classifier's application over a fake network."""

from __future__ import annotations

from services.classifier.config import ClassifierSettings
from services.classifier.model import ClassifierModel
from services.classifier.service import ClassifierApp
from services.core.config import load_settings
from services.core.fleet import Maker
from tests.unit.classifier.fakes import FILES, FakeExplainer, FakeNetwork


def fake_app(
    network: FakeNetwork,
    explainer: FakeExplainer | None = None,
    *,
    maker: Maker[ClassifierModel] | None = None,
    **settings: object,
) -> ClassifierApp:
    loaded = load_settings(ClassifierSettings, environ={}, **settings)
    model = ClassifierModel(network, lambda: FILES, explainer=explainer)
    return ClassifierApp(loaded, model, maker)
