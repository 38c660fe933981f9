import pytest

from services.core.config import ConfigError, load_settings
from services.generator.config import GeneratorSettings


def test_one_request_must_fit_into_the_engine() -> None:
    assert load_settings(GeneratorSettings, environ={}, max_rows=16).max_rows == 16
    with pytest.raises(ConfigError, match="max_count 16"):
        load_settings(GeneratorSettings, environ={}, max_rows=15)
