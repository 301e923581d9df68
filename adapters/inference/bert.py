"""BERT and RoBERTa (https://arxiv.org/abs/1810.04805, https://arxiv.org/abs/1907.11692) in MLX: tokens to states.

Modules are named as in Hugging Face's checkpoints, so that those load as they are.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal

import mlx.core as mx
import msgspec
from mlx import nn

from manent.adapters.inference.model_folder import ModelFolderError

_PREFIX = re.compile(r"^(?:bert|roberta)\.")
_OF_OTHER_TASKS = re.compile(r"^(?:pooler|cls|lm_head|classifier)\.|\.position_ids$")
_ACTIVATIONS: dict[str, Callable[[mx.array], mx.array]] = {
    "gelu": nn.gelu,
    "gelu_new": nn.gelu_approx,
    "gelu_pytorch_tanh": nn.gelu_approx,
    "relu": nn.relu,
}
Size = Annotated[int, msgspec.Meta(ge=1)]


class BertConfig(msgspec.Struct, frozen=True):
    """What ``config.json`` says of the model's shape, in its words."""

    model_type: Literal["bert", "roberta", "xlm-roberta"]
    vocab_size: Size
    hidden_size: Size
    num_hidden_layers: Size
    num_attention_heads: Size
    intermediate_size: Size
    max_position_embeddings: Size
    type_vocab_size: Size = 2
    layer_norm_eps: float = 1e-12
    hidden_act: Literal["gelu", "gelu_new", "gelu_pytorch_tanh", "relu"] = "gelu"
    position_embedding_type: Literal["absolute"] = "absolute"
    pad_token_id: int = 0

    @property
    def first_position(self) -> int:
        """RoBERTa's positions begin behind the one that stands for padding."""
        return 0 if self.model_type == "bert" else self.pad_token_id + 1

    @property
    def tokens_max(self) -> int:
        """The longest input that there are positions for."""
        return self.max_position_embeddings - self.first_position


def read_bert_config(config: Mapping[str, Any]) -> BertConfig:
    """The shape in a model's configuration.

    Raises:
        ModelFolderError: it is of another architecture, or incomplete.
    """
    try:
        found = msgspec.convert(config, BertConfig)
    except msgspec.ValidationError as error:
        raise ModelFolderError(
            f"config.json is not one of an embedding model that is known here (bert, roberta, xlm-roberta): {error}"
        ) from error
    if found.hidden_size % found.num_attention_heads:
        raise ModelFolderError(
            f"config.json: hidden_size {found.hidden_size} does not divide by {found.num_attention_heads} heads"
        )
    return found


class Bert(nn.Module):
    """The encoder: token ids and a mask in, the last layer's states out, shape (batch, length, hidden)."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.embeddings = _Embeddings(config)
        self.encoder = _Encoder(config)

    def __call__(self, token_ids: mx.array, mask: mx.array) -> mx.array:
        """``token_ids`` and ``mask`` have the shape (batch, length); the mask is True at tokens, False at padding."""
        states: mx.array = self.embeddings(token_ids)
        hidden = mx.where(mask, 0.0, -mx.inf).astype(states.dtype)[:, None, None, :]
        for layer in self.encoder.layer:
            states = layer(states, hidden)
        return states


class _Embeddings(nn.Module):
    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.word_embeddings = nn.Embedding(config.vocab_size, config.hidden_size)
        self.position_embeddings = nn.Embedding(config.max_position_embeddings, config.hidden_size)
        self.token_type_embeddings = nn.Embedding(config.type_vocab_size, config.hidden_size)
        self.LayerNorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self._first_position = config.first_position

    def __call__(self, token_ids: mx.array) -> mx.array:
        """Padding stands at the end of a row, so that the positions of all rows are the same."""
        positions = mx.arange(self._first_position, self._first_position + token_ids.shape[1])
        types = self.token_type_embeddings(mx.zeros_like(positions))
        states = self.word_embeddings(token_ids) + self.position_embeddings(positions) + types
        normal: mx.array = self.LayerNorm(states)
        return normal


class _Encoder(nn.Module):
    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.layer = [_Layer(config) for _ in range(config.num_hidden_layers)]


class _Layer(nn.Module):
    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.attention = _Attention(config)
        self.intermediate = _Dense(config.hidden_size, config.intermediate_size)
        self.output = _Output(config.intermediate_size, config)
        self._activation = _ACTIVATIONS[config.hidden_act]

    def __call__(self, states: mx.array, mask: mx.array) -> mx.array:
        attended = self.attention(states, mask)
        return self.output(self._activation(self.intermediate.dense(attended)), attended)


class _Attention(nn.Module):
    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.self = _SelfAttention(config)
        self.output = _Output(config.hidden_size, config)

    def __call__(self, states: mx.array, mask: mx.array) -> mx.array:
        return self.output(self.self(states, mask), states)


class _SelfAttention(nn.Module):
    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.query = nn.Linear(config.hidden_size, config.hidden_size)
        self.key = nn.Linear(config.hidden_size, config.hidden_size)
        self.value = nn.Linear(config.hidden_size, config.hidden_size)
        self._heads = config.num_attention_heads
        self._scale = (config.hidden_size // config.num_attention_heads) ** -0.5

    def __call__(self, states: mx.array, mask: mx.array) -> mx.array:
        queries, keys, values = (self._split(part(states)) for part in (self.query, self.key, self.value))
        attended = mx.fast.scaled_dot_product_attention(queries, keys, values, scale=self._scale, mask=mask)
        return attended.transpose(0, 2, 1, 3).reshape(states.shape)

    def _split(self, states: mx.array) -> mx.array:
        batch, length, _ = states.shape
        return states.reshape(batch, length, self._heads, -1).transpose(0, 2, 1, 3)


class _Dense(nn.Module):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.dense = nn.Linear(inputs, outputs)


class _Output(nn.Module):
    def __init__(self, inputs: int, config: BertConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(inputs, config.hidden_size)
        self.LayerNorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def __call__(self, states: mx.array, residual: mx.array) -> mx.array:
        normal: mx.array = self.LayerNorm(self.dense(states) + residual)
        return normal


def encoder_weights(weights: Mapping[str, mx.array]) -> dict[str, mx.array]:
    """Of a checkpoint's weights those of the encoder, under its names."""
    named = ((_PREFIX.sub("", name), array) for name, array in weights.items())
    return {name: array for name, array in named if not _OF_OTHER_TASKS.search(name)}
