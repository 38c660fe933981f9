"""Settings: precedence, and every fault of every source in one report."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import pytest
from pydantic import Field, SecretStr, ValidationError

from services.core.config import (
    ConfigError,
    ServiceSettings,
    environment_names,
    is_loopback,
    load_settings,
)


class ToySettings(ServiceSettings):
    service: ClassVar[str] = "toy"

    size_px: int = Field(64, ge=8, le=512, description="side of a picture")
    names: tuple[str, ...] = Field((), description="names to answer to")
    token: SecretStr | None = Field(None, min_length=8, description="a secret")


def written(tmp_path: Path, text: str) -> dict[str, str]:
    path = tmp_path / "easel.yaml"
    path.write_text(text, encoding="utf-8")
    return {"EASEL_CONFIG": str(path)}


def test_defaults_listen_on_loopback_only() -> None:
    settings = load_settings(ToySettings, environ={})
    assert (settings.host, settings.port, settings.size_px) == ("127.0.0.1", 0, 64)


def test_keyword_beats_environment_beats_file_beats_default(tmp_path: Path) -> None:
    environ = written(tmp_path, "toy: {size_px: 16, port: 1, metrics_port: 2}\nranker: {x: 1}\n")
    environ |= {"EASEL_TOY_PORT": "3", "EASEL_TOY_METRICS_PORT": "4"}
    settings = load_settings(ToySettings, environ=environ, metrics_port=5)
    assert (settings.size_px, settings.port, settings.metrics_port) == (16, 3, 5)


def test_all_faults_of_all_sources_are_reported_at_once(tmp_path: Path) -> None:
    environ = written(tmp_path, "toy: {size_px: 4, colour: red}\n")
    environ |= {"EASEL_TOY_PORT": "70000", "EASEL_TOY_SIZ_PX": "9", "EASEL_OTHER_PORT": "x"}
    with pytest.raises(ConfigError) as caught:
        load_settings(ToySettings, environ=environ, drain_timeout_seconds=-1, host="0.0.0.0")
    text = str(caught.value)
    faults = {fault.name: fault for fault in caught.value.faults}
    file = environ["EASEL_CONFIG"]
    assert set(faults) == {
        "EASEL_TOY_PORT",
        "EASEL_TOY_SIZ_PX",
        f"toy.size_px in {file}",
        f"toy.colour in {file}",
        "drain_timeout_seconds",
        "EASEL_TOY_ALLOW_INSECURE",
    }
    assert faults["EASEL_TOY_PORT"].given == "'70000'"
    assert "65535" in faults["EASEL_TOY_PORT"].allowed
    assert "size_px" in faults["EASEL_TOY_SIZ_PX"].allowed
    assert all(fault.given in text and fault.allowed in text for fault in faults.values())


def test_secrets_are_not_repeated() -> None:
    with pytest.raises(ConfigError) as caught:
        load_settings(ToySettings, environ={"EASEL_TOY_TOKEN": "hunter2"})
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("text", ['["a", "b"]', "a, b", "a,b,"])
def test_sequences_come_as_json_or_with_commas(text: str) -> None:
    assert load_settings(ToySettings, environ={"EASEL_TOY_NAMES": text}).names == ("a", "b")


@pytest.mark.parametrize(
    "text", ["toy: [1]", "- toy", "toy: {a: [", "toy: 3"], ids=["list", "top", "syntax", "scalar"]
)
def test_unusable_file(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError):
        load_settings(ToySettings, environ=written(tmp_path, text))


def test_a_section_that_no_service_reads_is_an_unknown_setting(tmp_path: Path) -> None:
    environ = written(tmp_path, "toy: {port: 1}\nclassifer: {port: 2}\ntrainer: {port: 3}\n5: {}\n")
    with pytest.raises(ConfigError) as caught:
        load_settings(ToySettings, environ=environ)
    assert [fault.given for fault in caught.value.faults] == ["'classifer'", "5"]
    assert all("classifier" in fault.allowed for fault in caught.value.faults)
    assert environ["EASEL_CONFIG"] in str(caught.value)


def test_missing_file_is_an_error_and_an_empty_one_is_not(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="EASEL_CONFIG"):
        load_settings(ToySettings, environ={"EASEL_CONFIG": str(tmp_path / "none.yaml")})
    assert load_settings(ToySettings, environ=written(tmp_path, "")).port == 0


@pytest.mark.parametrize(
    ("host", "inside"),
    [
        ("127.0.0.1", True),
        ("127.8.9.1", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("10.0.0.1", False),
        ("example.org", False),
    ],
)
def test_only_loopback_without_auth(host: str, inside: bool) -> None:
    assert is_loopback(host) is inside
    assert load_settings(ToySettings, environ={}, host=host, allow_insecure=True).host == host
    if not inside:
        with pytest.raises(ConfigError, match="loopback"):
            load_settings(ToySettings, environ={}, host=host)


def test_settings_are_frozen() -> None:
    settings = load_settings(ToySettings, environ={})
    with pytest.raises(ValidationError):
        settings.port = 1


def test_another_service_name_takes_other_variables() -> None:
    environ = {"EASEL_TOY_PORT": "1", "EASEL_TOY_2_PORT": "2"}
    with pytest.raises(ConfigError, match="EASEL_TOY_2_PORT"):
        load_settings(ToySettings, environ=environ)
    assert load_settings(ToySettings, "toy-2", environ=environ).port == 2


def test_every_setting_is_described() -> None:
    names = environment_names(ToySettings)
    assert names["EASEL_TOY_SIZE_PX"] == "side of a picture"
    assert all(names.values())
