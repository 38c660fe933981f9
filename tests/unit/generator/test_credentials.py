from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import c2pa
import numpy as np
import pytest
from PIL import Image

from services.core import images
from services.core.config import ConfigError, load_settings
from services.generator.config import GeneratorSettings
from services.generator.credentials import ALGORITHMS, Credentials
from tests.unit.generator.certificates import Identity, identity

TYPES = {"PNG": "image/png", "JPEG": "image/jpeg", "WEBP": "image/webp"}
TEXT = {"parameters": "a stár ✦\nSteps: 3", "easel": '{"dtype":"float32"}'}


@pytest.fixture(scope="module")
def papers(tmp_path_factory: pytest.TempPathFactory) -> Identity:
    return identity(tmp_path_factory.mktemp("papers"))


def picture(format_name: str) -> bytes:
    pixels = np.arange(64 * 64 * 3, dtype=np.uint8).reshape(64, 64, 3)
    return images.encode(Image.fromarray(pixels), format_name, text=TEXT)


def read(data: bytes, format_name: str) -> tuple[str, dict[str, Any]]:
    library: Any = c2pa
    with library.Reader(TYPES[format_name], io.BytesIO(data)) as reader:
        return reader.get_validation_state(), reader.get_active_manifest()


@pytest.mark.parametrize("format_name", TYPES)
def test_a_signed_picture_says_what_it_is(papers: Identity, format_name: str) -> None:
    credentials = Credentials.load(papers.certificates, papers.key, "es256")
    plain = picture(format_name)
    signed = credentials.sign(plain, format_name, '{"dtype":"float32"}')
    state, manifest = read(signed, format_name)
    assert state == "Valid"
    assert manifest["claim_generator_info"][0]["name"] == "easel"
    told = {each["label"]: each["data"] for each in manifest["assertions"]}
    assert told["easel.provenance"] == {"dtype": "float32"}
    [created] = told["c2pa.actions.v2"]["actions"]
    assert created["action"] == "c2pa.created"
    assert created["digitalSourceType"].endswith("/trainedAlgorithmicMedia")
    before, after = (np.asarray(images.decode(data)) for data in (plain, signed))
    assert np.array_equal(before, after)
    assert images.read_text(signed) == TEXT


def test_a_changed_picture_is_not_valid(papers: Identity) -> None:
    credentials = Credentials.load(papers.certificates, papers.key, "es256")
    signed = bytearray(credentials.sign(picture("JPEG"), "JPEG", ""))
    signed[-20] ^= 1
    state, manifest = read(bytes(signed), "JPEG")
    assert state == "Invalid"
    assert [each["label"] for each in manifest["assertions"]] == ["c2pa.actions.v2"]


def settings(**files: object) -> GeneratorSettings:
    return load_settings(GeneratorSettings, environ={}, **files)


def test_settings_that_can_sign(papers: Identity) -> None:
    loaded = settings(c2pa_certificate_file=str(papers.certificates), c2pa_key_file=str(papers.key))
    assert loaded.credentials is not None
    assert settings().credentials is None


def test_settings_that_cannot_sign_stop_the_start(papers: Identity, tmp_path: Path) -> None:
    both = {"c2pa_certificate_file": str(papers.certificates), "c2pa_key_file": str(papers.key)}
    with pytest.raises(ConfigError, match="belong together"):
        settings(c2pa_key_file=str(papers.key))
    with pytest.raises(ConfigError, match="cannot be read"):
        settings(**{**both, "c2pa_key_file": str(tmp_path / "none")})
    with pytest.raises(ConfigError, match="cannot sign"):
        settings(**{**both, "c2pa_certificate_file": str(papers.authority)})
    with pytest.raises(ConfigError, match="cannot sign"):
        settings(**both, c2pa_algorithm="ps256")


def test_the_algorithms_of_the_settings() -> None:
    schema = GeneratorSettings.model_json_schema()["properties"]["c2pa_algorithm"]
    assert json.dumps(schema["enum"]) == json.dumps(ALGORITHMS)
