"""A small BERT of random weights, written as sentence-transformers publishes its ONNX exports."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import BertConfig, BertModel

WORDS = (
    "classify", "label", "image", "photo", "picture", "a", "an", "the", "of", "from", "text",
    "generate", "draw", "remove", "object", "find", "embed", "it", "erase", "person", "stranger",
)  # fmt: skip
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")
MAX_TOKENS = 16
MODULES = ("Transformer", "Pooling", "Normalize")


class Sentences:
    """The model as PyTorch has it: tokens by ``tokenizer``, states by ``network``."""

    def __init__(self, tokenizer: Tokenizer, network: BertModel) -> None:
        self.tokenizer, self.network = tokenizer, network

    def states(self, text: str) -> np.ndarray:
        """float32 [tokens, dimensions] of one text by itself."""
        ids = torch.tensor([self.tokenizer.encode(text).ids[:MAX_TOKENS]])
        with torch.no_grad():
            found: np.ndarray = self.network(ids).last_hidden_state[0].numpy()
        return found


def write_sentence_model(directory: Path) -> Sentences:
    """With mean pooling."""
    torch.manual_seed(0)
    tokenizer = _tokenizer()
    config = BertConfig(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=32,
    )
    network = BertModel(config, add_pooling_layer=False).eval()
    for name in ("onnx", "1_Pooling"):
        (directory / name).mkdir(parents=True)
    _export(network, directory / "onnx" / "model.onnx")
    tokenizer.save(str(directory / "tokenizer.json"))
    modes = ("cls_token", "mean_tokens", "max_tokens", "mean_sqrt_len_tokens")
    _write(
        directory / "1_Pooling" / "config.json",
        {
            "word_embedding_dimension": 32,
            **{f"pooling_mode_{mode}": mode == "mean_tokens" for mode in modes},
        },
    )
    _write(directory / "sentence_bert_config.json", {"max_seq_length": MAX_TOKENS})
    _write(
        directory / "modules.json",
        [
            {"idx": place, "name": str(place), "type": f"sentence_transformers.models.{kind}"}
            for place, kind in enumerate(MODULES)
        ],
    )
    return Sentences(tokenizer, network)


def _tokenizer() -> Tokenizer:
    vocabulary = {word: place for place, word in enumerate((*SPECIAL, *WORDS))}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return tokenizer


class _States(torch.nn.Module):
    def __init__(self, network: BertModel) -> None:
        super().__init__()
        self.network = network

    def forward(self, ids: torch.Tensor, mask: torch.Tensor, types: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.network(ids, mask, types).last_hidden_state
        return found


def _export(network: BertModel, path: Path) -> None:
    free = {0: "batch", 1: "length"}
    names = ["input_ids", "attention_mask", "token_type_ids"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            _States(network).eval(),
            tuple(torch.ones(2, 5, dtype=torch.int64) for _ in names),
            str(path),
            input_names=names,
            output_names=["last_hidden_state"],
            dynamic_axes=dict.fromkeys((*names, "last_hidden_state"), free),
            dynamo=False,
        )


def _write(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content), encoding="utf-8")
