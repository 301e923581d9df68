"""Loading an embedding model in a runner: a BERT, its tokenizer, its pooling, and the facts about them."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx
from mlx import nn
from mlx.utils import tree_map
from tokenizers import Tokenizer

from manent.adapters.inference.bert import Bert, encoder_weights, read_bert_config
from manent.adapters.inference.digests import DigestCache, digest_of_text
from manent.adapters.inference.memory import process_bytes
from manent.adapters.inference.model_facts import (
    device,
    dtype_of,
    exempt_from_collection,
    in_background,
    on_cpu,
    quantization_of,
    versions,
)
from manent.adapters.inference.model_folder import ModelFolderError, tokenizer_files, weight_files
from manent.adapters.inference.pooling import Pooling, read_pooling
from manent.adapters.inference.protocol import RunnerFacts

TOKENIZER = "tokenizer.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddingModel:
    """A model that turns tokens into vectors, on the thread that loaded it, and its tokenizer, for any thread."""

    bert: Bert
    pooling: Pooling
    tokenizer: Tokenizer
    tokens_max: int
    vocabulary_size: int
    dimensions: int
    facts: RunnerFacts

    def vectors(self, inputs: Sequence[Sequence[int]]) -> mx.array:
        """A row for each input, padded to the longest of them and evaluated at once; as the pooling leaves them."""
        longest = max(map(len, inputs))
        token_ids = mx.array([[*tokens, *[0] * (longest - len(tokens))] for tokens in inputs])
        mask = mx.arange(longest)[None] < mx.array([len(tokens) for tokens in inputs])[:, None]
        return self.pooling(self.bert(token_ids, mask), mask)


def load_embedding_model(folder: Path, config: dict[str, Any], *, digest_folder: Path) -> EmbeddingModel:
    """Load, digest and warm up a model; on the thread that will evaluate it.

    Args:
        folder: where it lies; found complete by ``check_model_folder``.
        config: its configuration, which that check gave back.
        digest_folder: where digests of files are remembered.

    Raises:
        ModelFolderError: the folder holds no embedding model that is known here.
        Exception: whatever MLX raises.
    """
    began_s = time.monotonic()
    digests = DigestCache(digest_folder)
    shape, pooling = read_bert_config(config), read_pooling(folder)
    weights = [folder / "config.json", *weight_files(folder)]
    weights_digest = in_background(lambda: digests.digest_of_files(weights))
    bert = load_encoder(folder, config)
    if on_cpu():  # where half precision is many times slower
        bert.update(tree_map(_widened, bert.parameters()))
    mx.eval(bert.parameters())
    warm_up = pooling(bert(mx.array([[0]]), mx.array([[True]])), mx.array([[True]]))
    mx.eval(warm_up)
    tokenizer = _tokenizer(folder)
    exempt_from_collection()
    facts = RunnerFacts(
        context_length=shape.tokens_max,
        vocabulary_size=shape.vocab_size,
        weights_digest=weights_digest.result(),
        tokenizer_digest=digests.digest_of_files(tokenizer_files(folder)),
        template_digest=digest_of_text(repr(pooling)),
        versions=versions(),
        device=device(),
        dtype=dtype_of(bert),
        quantization=quantization_of(config),
        memory_bytes=max(process_bytes(os.getpid()), mx.get_active_memory()),
        load_s=time.monotonic() - began_s,
    )
    return EmbeddingModel(
        bert=bert,
        pooling=pooling,
        tokenizer=tokenizer,
        tokens_max=shape.tokens_max,
        vocabulary_size=shape.vocab_size,
        dimensions=warm_up.shape[1],
        facts=facts,
    )


def load_encoder(folder: Path, config: dict[str, Any]) -> Bert:
    """The encoder with its weights, which are read when they are used.

    Raises:
        ModelFolderError: it is of another architecture.
        ValueError: the weights are not those of the configuration.
    """
    bert = Bert(read_bert_config(config))
    arrays: dict[str, mx.array] = {}
    for file in weight_files(folder):
        arrays |= mx.load(str(file))  # type: ignore[arg-type]  # a dict, for safetensors
    weights = encoder_weights(arrays)
    if scheme := config.get("quantization"):
        nn.quantize(
            bert,
            group_size=scheme["group_size"],
            bits=scheme["bits"],
            class_predicate=lambda path, _: f"{path}.scales" in weights,
        )
    bert.load_weights(list(weights.items()))
    return bert


def _widened(array: mx.array) -> mx.array:
    return array.astype(mx.float32) if mx.issubdtype(array.dtype, mx.floating) else array


def _tokenizer(folder: Path) -> Tokenizer:
    """The tokenizer, without the padding and silent truncation that its file may ask for."""
    if not (folder / TOKENIZER).is_file():
        raise ModelFolderError(f"{folder} has no {TOKENIZER}, which an embedding model needs; download the model again")
    tokenizer = Tokenizer.from_file(str(folder / TOKENIZER))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer
