import pytest

from services.classifier.config import ClassifierSettings
from services.classifier.network import Options
from services.core.config import ConfigError, load_settings


def test_defaults() -> None:
    settings = load_settings(ClassifierSettings, environ={})
    assert settings.model == "demo"
    assert settings.network_options == Options("auto", "auto", None)


def test_settings_reach_their_parts() -> None:
    environ = {
        "EASEL_CLASSIFIER_MODEL": "org/vit@main",
        "EASEL_CLASSIFIER_PRECISION": "float32",
        "EASEL_CLASSIFIER_DEVICE": "cuda:1",
        "EASEL_CLASSIFIER_THREADS": "3",
        "EASEL_CLASSIFIER_IMAGE_SIZE": "224",
        "EASEL_CLASSIFIER_MAX_IMAGE_PIXELS": "1000",
        "EASEL_CLASSIFIER_MAX_BATCH_ROWS": "7",
    }
    settings = load_settings(ClassifierSettings, environ=environ)
    assert settings.network_options == Options("cuda:1", "float32", 3, image_size=224)
    assert settings.image_limits.max_pixels == 1000
    assert settings.engine_limits.max_batch_rows == 7


def test_every_bad_setting_is_told_at_once() -> None:
    environ = {
        "EASEL_CLASSIFIER_PRECISION": "int3",
        "EASEL_CLASSIFIER_DEVICE": "abacus",
        "EASEL_CLASSIFIER_THREADS": "0",
        "EASEL_CLASSIFIER_IMAGE_SIZE": "7",
        "EASEL_CLASSIFIER_MODLE": "x",
    }
    with pytest.raises(ConfigError) as caught:
        load_settings(ClassifierSettings, environ=environ)
    assert {fault.name for fault in caught.value.faults} == set(environ)


@pytest.mark.parametrize(
    ("given", "administered"),
    [
        ({}, True),
        ({"HOST": "::1"}, True),
        ({"HOST": "0.0.0.0", "ALLOW_INSECURE": "true"}, False),
        ({"HOST": "0.0.0.0", "ALLOW_INSECURE": "true", "ADMINISTRATION": "true"}, True),
        ({"ADMINISTRATION": "false"}, False),
    ],
)
def test_administration_is_on_by_itself_on_loopback_alone(
    given: dict[str, str], administered: bool
) -> None:
    environ = {f"EASEL_CLASSIFIER_{name}": value for name, value in given.items()}
    settings = load_settings(ClassifierSettings, environ=environ)
    assert settings.administered is administered
    assert settings.administration_variable() == "EASEL_CLASSIFIER_ADMINISTRATION"
