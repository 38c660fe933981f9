"""The gateway's settings."""

from __future__ import annotations

import pytest

from gateway.config import Settings
from services.core.config import ConfigError, load_settings

TARGETS = {
    f"EASEL_GATEWAY_{name}_TARGET": f"{name.lower()}:1"
    for name in ("CLASSIFIER", "GENERATOR", "RANKER")
}


def test_trainer_is_optional() -> None:
    settings = load_settings(Settings, environ=TARGETS)
    assert settings.targets() == {
        "classifier": "classifier:1",
        "generator": "generator:1",
        "ranker": "ranker:1",
    }
    more = {**TARGETS, "EASEL_GATEWAY_TRAINER_TARGET": "trainer:1"}
    assert load_settings(Settings, environ=more).targets()["trainer"] == "trainer:1"


def test_every_missing_target_is_named() -> None:
    with pytest.raises(ConfigError) as caught:
        load_settings(Settings, environ={})
    assert {fault.name for fault in caught.value.faults} == set(TARGETS)
