"""Texts as vectors of what they mean, by a model for sentences.

It is a directory as sentence-transformers publishes its ONNX exports: ``onnx/model.onnx`` (or
``model.onnx``), ``tokenizer.json``, ``1_Pooling/config.json``; prompts of
``config_sentence_transformers.json`` named query, document or passage come before texts of that
kind.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ranker.onnx import Network, Runtime, open_network
from ranker.tokens import Tokenizer, Tokens, open_tokenizer, read_json
from services.core.errors import FailedPrecondition, ModelFault

BATCH: Final = 32
_NETWORKS: Final = ("onnx/model.onnx", "model.onnx")
_POOLING: Final = "1_Pooling/config.json"
_LENGTH: Final = "sentence_bert_config.json"
_PROMPTS: Final = "config_sentence_transformers.json"
_MODULES: Final = "modules.json"
_INPUTS: Final = ("input_ids", "attention_mask", "token_type_ids")
_STATES: Final = ("last_hidden_state", "token_embeddings")
_PARTS: Final = frozenset({"Transformer", "Pooling", "Normalize"})

States = NDArray[np.float32]
Pooling = Callable[[States, States], States]


class SentenceModel:
    """An opened model: ``index.Meaning``. Texts that are too long for it are cut."""

    def __init__(
        self,
        network: Network,
        tokenizer: Tokenizer,
        pooling: Pooling,
        prompts: Mapping[str, str],
    ) -> None:
        self._network = network
        self._tokenizer = tokenizer
        self._pooling = pooling
        self._states = next(name for name in _STATES if name in network.outputs)
        self._query = prompts.get("query", "")
        self._document = prompts.get("document", prompts.get("passage", ""))

    def embed_queries(self, texts: Sequence[str]) -> States:
        """float32 [texts, dimensions], each of length 1."""
        return self._embed([self._query + text for text in texts])

    def embed_documents(self, texts: Sequence[str]) -> States:
        """As of queries."""
        return self._embed([self._document + text for text in texts])

    def _embed(self, texts: Sequence[str]) -> States:
        # Those of like length share a batch, so that little of it is padding.
        order = sorted(range(len(texts)), key=lambda place: len(texts[place]))
        rows: list[States | None] = [None] * len(texts)
        for first in range(0, len(order), BATCH):
            places = order[first : first + BATCH]
            for place, row in zip(places, self._batch([texts[p] for p in places]), strict=True):
                rows[place] = row
        return np.stack([row for row in rows if row is not None])

    def _batch(self, texts: Sequence[str]) -> States:
        tokens: Tokens = self._tokenizer.encode(texts)
        states = self._network.run(tokens.inputs(), [self._states])[self._states]
        pooled = self._pooling(np.asarray(states, np.float32), tokens.mask.astype(np.float32))
        if not np.isfinite(pooled).all():
            raise ModelFault("The model of meaning tells numbers that are not finite.")
        return np.asarray(
            pooled / np.maximum(np.linalg.norm(pooled, axis=1, keepdims=True), 1e-12), np.float32
        )


def open_sentence_model(directory: Path, runtime: Runtime | None = None) -> SentenceModel:
    """Raises ``FailedPrecondition`` where a file or a library is missing, or is of another kind."""
    file = next((directory / name for name in _NETWORKS if (directory / name).is_file()), None)
    network = open_network(file or directory / _NETWORKS[0], runtime)
    if not any(name in network.outputs for name in _STATES):
        raise FailedPrecondition(
            f"The network {network.title} does not tell {' or '.join(_STATES)}: it is of another "
            "kind."
        )
    network.need(inputs=_INPUTS)
    _check_parts(directory)
    config = _optional(directory / _LENGTH)
    length = config.get("max_seq_length")
    tokenizer = open_tokenizer(directory, length if isinstance(length, int) else None)
    prompts = _optional(directory / _PROMPTS).get("prompts") or {}
    return SentenceModel(network, tokenizer, _pooling(directory / _POOLING), prompts)


def _check_parts(directory: Path) -> None:
    """Raises ``FailedPrecondition`` for a model that does more than read, pool and normalise."""
    file = directory / _MODULES
    if not file.is_file():
        return
    odd = [name for name in _kinds(file) if name not in _PARTS]
    if odd:
        raise FailedPrecondition(
            f"{directory.name}/{_MODULES} has parts that are not known here: {', '.join(odd)}."
        )


def _kinds(file: Path) -> list[str]:
    # A list, where the other files hold an object.
    try:
        modules = json.loads(file.read_text(encoding="utf-8"))
        return [str(each["type"]).rsplit(".", 1)[-1] for each in modules]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise FailedPrecondition(
            f"{file.parent.name}/{file.name} could not be read as a list of modules."
        ) from error


def _pooling(file: Path) -> Pooling:
    config = read_json(file)
    wanted = [name for name in config if name.startswith("pooling_mode_") and config[name] is True]
    known = [_POOLINGS[name] for name in wanted if name in _POOLINGS]
    if len(wanted) != 1 or not known:
        raise FailedPrecondition(
            f"{file.parent.name}/{file.name} asks for {', '.join(wanted) or 'no pooling'}; one of "
            f"{', '.join(_POOLINGS)} is known."
        )
    return known[0]


def _optional(file: Path) -> dict[str, Any]:
    return read_json(file) if file.is_file() else {}


def _mean(states: States, mask: States) -> States:
    counts = np.maximum(mask.sum(axis=1, keepdims=True), 1e-9)
    return np.asarray((states * mask[:, :, None]).sum(axis=1) / counts, np.float32)


def _mean_by_root(states: States, mask: States) -> States:
    counts = np.maximum(mask.sum(axis=1, keepdims=True), 1e-9)
    return np.asarray((states * mask[:, :, None]).sum(axis=1) / np.sqrt(counts), np.float32)


def _first(states: States, mask: States) -> States:
    del mask
    return states[:, 0]


def _largest(states: States, mask: States) -> States:
    hidden = np.where(mask[:, :, None] > 0, states, np.float32(-1e9))
    return np.asarray(hidden.max(axis=1), np.float32)


_POOLINGS: Final[Mapping[str, Pooling]] = {
    "pooling_mode_cls_token": _first,
    "pooling_mode_mean_tokens": _mean,
    "pooling_mode_mean_sqrt_len_tokens": _mean_by_root,
    "pooling_mode_max_tokens": _largest,
}
