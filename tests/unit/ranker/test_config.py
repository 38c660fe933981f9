"""The ranker's settings, and what starting it imports."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from sqlalchemy import URL, make_url

from ranker.config import RankerSettings
from ranker.pictures.schedule import DEFAULT_SCHEDULE
from services.core.config import ConfigError, load_settings

TARGETS = {
    "EASEL_RANKER_CLASSIFIER_TARGET": "127.0.0.1:1",
    "EASEL_RANKER_GENERATOR_TARGET": "127.0.0.1:2",
}


def test_defaults() -> None:
    settings = load_settings(RankerSettings, environ=TARGETS)
    assert settings.schedule == DEFAULT_SCHEDULE
    assert settings.max_candidates == 64


def test_targets_are_needed() -> None:
    with pytest.raises(ConfigError) as caught:
        load_settings(RankerSettings, environ={})
    names = {fault.name for fault in caught.value.faults}
    assert names == set(TARGETS)


def test_schedule_is_checked() -> None:
    bad = {**TARGETS, "EASEL_RANKER_DEFAULT_SCHEDULE": "0.8:0.5 0.6:0.2"}
    with pytest.raises(ConfigError, match="must rise"):
        load_settings(RankerSettings, environ=bad)
    none = load_settings(RankerSettings, environ={**TARGETS, "EASEL_RANKER_DEFAULT_SCHEDULE": ""})
    assert none.schedule == ()


def test_weights_are_checked_by_type() -> None:
    parts = '"quality": 0.3, "ecosystem": 0.2, "match_graph": 0.3, "freshness": 0.1'
    name = "EASEL_RANKER_SCORE_WEIGHTS"
    good = f'{{"default": {{"adoption": 0.1, {parts}}}}}'
    bad = f'{{"default": {{"adoption": 0.2, {parts}}}}}'

    found = load_settings(RankerSettings, environ={**TARGETS, name: good}).score_weights
    assert found["default"]["adoption"] == 0.1
    with pytest.raises(ConfigError, match=rf"{name}: given .* default: the weights must add up"):
        load_settings(RankerSettings, environ={**TARGETS, name: bad})


def test_what_is_kept_is_kept_where_it_is_told() -> None:
    def database(**values: str) -> URL:
        return load_settings(RankerSettings, environ=TARGETS, **values).database

    assert database() == database(data_dir="", database_url="") == make_url("sqlite://")
    assert database(data_dir="/data/a?b").database == "/data/a?b/easel.db"
    server = "postgresql+psycopg://someone:secret@host/easel"
    assert database(data_dir="/data", database_url=server) == make_url(server)


def test_a_database_of_another_kind_is_refused_without_its_password() -> None:
    url = "mysql://someone:secret@host/easel"
    with pytest.raises(ConfigError, match="EASEL_RANKER_DATABASE_URL") as caught:
        load_settings(RankerSettings, environ={**TARGETS, "EASEL_RANKER_DATABASE_URL": url})
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("uri", "is_one"),
    [("", True), ("http://milvus:19530", True), ("/data/vectors.db", True), ("vectors", False)],
)
def test_milvus_is_a_server_or_a_file(uri: str, is_one: bool) -> None:
    environ = {**TARGETS, "EASEL_RANKER_INDEX_MILVUS_URI": uri}
    if is_one:
        assert load_settings(RankerSettings, environ=environ).index_milvus_uri == uri
    else:
        with pytest.raises(ConfigError, match=r"a server's URL, or a file that ends with \.db"):
            load_settings(RankerSettings, environ=environ)


def test_starting_imports_no_model_library() -> None:
    script = "import json, sys, ranker.__main__; print(json.dumps(sorted(sys.modules)))"
    found = subprocess.run(
        [sys.executable, "-c", script], check=True, capture_output=True, text=True, timeout=60
    )
    modules = set(json.loads(found.stdout))
    assert not modules & {
        "torch",
        "transformers",
        "diffusers",
        "onnxruntime",
        "tokenizers",
        "faiss",
        "pymilvus",
        "models",
    }
    assert not {name for name in modules if name.startswith("services.") and "core" not in name} - {
        "services.wire"
    }


def test_a_signing_key_is_checked_and_never_told() -> None:
    name = "EASEL_RANKER_SIGNING_KEY"
    good = load_settings(RankerSettings, environ={**TARGETS, name: "0f" * 32})
    assert good.signing_key_bytes == bytes([15] * 32)
    assert "0f0f" not in repr(good)
    assert load_settings(RankerSettings, environ={**TARGETS, name: ""}).signing_key_bytes is None
    with pytest.raises(ConfigError, match="at least 64 hexadecimal digits") as caught:
        load_settings(RankerSettings, environ={**TARGETS, name: "cafe"})
    assert "cafe" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "at", "beyond"),
    [
        ("exploration", "0.5", "0.51"),
        ("exploration", "0", "-0.01"),
        ("max_query_bytes", "1", "0"),
        ("max_matches", "1000", "1001"),
        ("outcome_days", "3650", "3651"),
        ("evidence_half_life_days", "0.1", "0"),
        ("min_outcomes", "1", "0"),
    ],
)
def test_settings_of_the_match_graph_at_their_limits(name: str, at: str, beyond: str) -> None:
    variable = f"EASEL_RANKER_{name.upper()}"
    settings = load_settings(RankerSettings, environ={**TARGETS, variable: at})
    assert getattr(settings, name) == float(at)
    with pytest.raises(ConfigError, match=variable):
        load_settings(RankerSettings, environ={**TARGETS, variable: beyond})
