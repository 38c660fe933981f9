"""Texts by their meaning, against PyTorch and the definitions of pooling, on a small model in the
layout of published ones."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from easel.ranker.v1 import ranker_pb2
from ranker.catalogue import store
from ranker.catalogue.document import Document
from ranker.catalogue.model import Capability, Model
from ranker.clock import utc_now
from ranker.config import RankerSettings
from ranker.database import Database
from ranker.graph.meaning import BATCH, SentenceModel, open_sentence_model
from ranker.graph.metrics import GraphMetrics
from ranker.graph.service import GraphService
from services.core.config import load_settings
from services.core.errors import FailedPrecondition
from tests.sentences import MAX_TOKENS, Sentences, write_sentence_model

TEXTS = ["classify an image", "a photo of an unheard word", "remove the object from it", "draw"]
Pool = Callable[[np.ndarray], np.ndarray]
POOLS: dict[str, Pool] = {
    "mean_tokens": lambda states: states.mean(axis=0),
    "mean_sqrt_len_tokens": lambda states: states.sum(axis=0) / np.sqrt(len(states)),
    "cls_token": lambda states: states[0],
    "max_tokens": lambda states: states.max(axis=0),
}


def expected(theirs: Sentences, pool: Pool, text: str) -> np.ndarray:
    """Each text by itself, without any padding."""
    pooled = pool(theirs.states(text))
    unit: np.ndarray = pooled / np.linalg.norm(pooled)
    return unit


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models") / "small-bert"


@pytest.fixture(scope="module")
def theirs(directory: Path) -> Sentences:
    return write_sentence_model(directory)


@pytest.fixture(scope="module")
def ours(directory: Path, theirs: Sentences) -> SentenceModel:
    return open_sentence_model(directory)


@pytest.fixture
def copy(directory: Path, theirs: Sentences, tmp_path: Path) -> Path:
    """A model of one's own to change."""
    return Path(shutil.copytree(directory, tmp_path / "model"))


def test_a_text_in_a_batch_is_as_it_is_alone(ours: SentenceModel, theirs: Sentences) -> None:
    many = TEXTS * (BATCH // len(TEXTS) + 1)
    found = ours.embed_documents(many)
    assert found.dtype == np.float32
    for text, row in zip(many, found, strict=True):
        np.testing.assert_allclose(row, expected(theirs, POOLS["mean_tokens"], text), atol=2e-6)
    np.testing.assert_array_equal(ours.embed_queries(TEXTS), ours.embed_documents(TEXTS))


def test_long_texts_are_cut_where_the_model_says(ours: SentenceModel) -> None:
    long, longer = ("image " * count for count in (MAX_TOKENS, 3 * MAX_TOKENS))
    np.testing.assert_array_equal(ours.embed_queries([long]), ours.embed_queries([longer]))


@pytest.mark.parametrize("mode", POOLS)
def test_each_pooling(copy: Path, theirs: Sentences, mode: str) -> None:
    config = json.loads((copy / "1_Pooling" / "config.json").read_text())
    modes = {name: name == f"pooling_mode_{mode}" for name in config if "mode" in name}
    (copy / "1_Pooling" / "config.json").write_text(json.dumps({**config, **modes}))
    found = open_sentence_model(copy).embed_queries(TEXTS)
    for text, row in zip(TEXTS, found, strict=True):
        np.testing.assert_allclose(row, expected(theirs, POOLS[mode], text), atol=2e-6)


def test_prompts_come_before_texts_of_their_kind(copy: Path, theirs: Sentences) -> None:
    prompts = {"prompts": {"query": "find ", "passage": "text "}}
    (copy / "config_sentence_transformers.json").write_text(json.dumps(prompts))
    model = open_sentence_model(copy)
    pool = POOLS["mean_tokens"]
    for found, text in (
        (model.embed_queries(["image"]), "find image"),
        (model.embed_documents(["image"]), "text image"),
    ):
        np.testing.assert_allclose(found[0], expected(theirs, pool, text), atol=2e-6)


def test_a_model_that_does_more_is_refused(copy: Path) -> None:
    modules = json.loads((copy / "modules.json").read_text())
    modules[2]["type"] = "sentence_transformers.models.Dense"
    (copy / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(FailedPrecondition, match="not known here: Dense"):
        open_sentence_model(copy)


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("1_Pooling/config.json", {"pooling_mode_lasttoken": True}, "asks for .*lasttoken"),
        ("1_Pooling/config.json", {}, "asks for no pooling"),
        ("1_Pooling/config.json", [], "no JSON object"),
        ("modules.json", [1], "could not be read as a list of modules"),
        ("modules.json", None, "could not be read as a list of modules"),
    ],
)
def test_files_that_cannot_be_used_are_named(
    copy: Path, file: str, content: object, message: str
) -> None:
    (copy / file).write_text("{" if content is None else json.dumps(content))
    with pytest.raises(FailedPrecondition, match=message):
        open_sentence_model(copy)


@pytest.mark.parametrize("file", ["onnx/model.onnx", "tokenizer.json", "1_Pooling/config.json"])
def test_files_that_are_missing_are_named(copy: Path, file: str) -> None:
    (copy / file).unlink()
    with pytest.raises(FailedPrecondition, match=Path(file).name):
        open_sentence_model(copy)


def test_a_directory_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FailedPrecondition, match=r"no file onnx/model\.onnx"):
        open_sentence_model(tmp_path / "nowhere")


async def test_resolve_by_meaning(directory: Path, theirs: Sentences) -> None:
    """The service opens the model that its setting names."""
    targets = {"classifier_target": "127.0.0.1:1", "generator_target": "127.0.0.1:1"}
    settings = load_settings(
        RankerSettings, environ={}, text_model=directory, exploration=0.0, **targets
    )
    database = Database.open()
    capability = Capability("m/c", "Erase a person", intents=("erase a person",))
    document = Document((Model("m", "M", "t", capabilities=(capability,)),), {})
    await database.write(
        lambda c: store.apply(c, document, utc_now(), keep_others=False, max_models=9)
    )
    service = GraphService(settings, database, GraphMetrics(CollectorRegistry()))
    service.load()
    await service.start()
    answer = await service.resolve(ranker_pb2.ResolveRequest(query="remove the stranger"))
    (match,) = answer.matches
    pool = POOLS["mean_tokens"]
    sentence = "Erase a person. erase a person"
    likeness = expected(theirs, pool, "remove the stranger") @ expected(theirs, pool, sentence)
    assert match.similarity == pytest.approx(float(likeness), abs=1e-5)
    await database.close()
