from pathlib import Path

import pytest

from services.core.config import ConfigError, load_settings
from services.generator.config import GeneratorSettings
from services.generator.image_adapter import ImageAdapterFolder


def test_one_request_must_fit_into_the_engine() -> None:
    assert load_settings(GeneratorSettings, environ={}, max_rows=16).max_rows == 16
    with pytest.raises(ConfigError, match="max_count 16"):
        load_settings(GeneratorSettings, environ={}, max_rows=15)


def test_the_blocks_of_an_image_adapter_are_listed(tmp_path: Path) -> None:
    def adapter(**settings: str) -> ImageAdapterFolder | None:
        return load_settings(GeneratorSettings, environ={}, **settings).image_adapter

    assert adapter() is None
    folder = {"ip_adapter_directory": str(tmp_path)}
    assert adapter(**folder) == ImageAdapterFolder(tmp_path)
    blocks = "up_blocks.0.attentions.1, mid_block,"
    assert adapter(**folder, ip_adapter_blocks=blocks) == ImageAdapterFolder(
        tmp_path, ("up_blocks.0.attentions.1", "mid_block")
    )
    with pytest.raises(ConfigError, match="does not point to a directory"):
        adapter(ip_adapter_directory=str(tmp_path / "missing"))
    with pytest.raises(ConfigError, match="needs ip_adapter_directory"):
        adapter(ip_adapter_blocks="all")
