"""BERT from its papers, in plain NumPy and one text at a time: what our implementation is compared with.

Nothing here looks at ours, nor at the libraries that it uses: WordPiece, layers and pooling are written anew.
"""

from __future__ import annotations

import json
import math
import struct
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[np.float64]]
_WORD_CHARS_MAX = 100


class NumpyBert:
    """A model of a folder, evaluated in float64."""

    def __init__(self, folder: Path) -> None:
        self._config = json.loads((folder / "config.json").read_text())
        self._weights = read_safetensors(folder / "model.safetensors")

    def states(self, tokens: Sequence[int]) -> Array:
        """The last layer's state of each token."""
        first = 0 if self._config["model_type"] == "bert" else self._config["pad_token_id"] + 1
        x = self._weights["embeddings.word_embeddings.weight"][list(tokens)]
        x = x + self._weights["embeddings.position_embeddings.weight"][first : first + len(tokens)]
        x = x + self._weights["embeddings.token_type_embeddings.weight"][0]
        x = self._norm(x, "embeddings.LayerNorm")
        for number in range(self._config["num_hidden_layers"]):
            name = f"encoder.layer.{number}"
            x = self._norm(x + self._attention(x, f"{name}.attention"), f"{name}.attention.output.LayerNorm")
            inner = _gelu(self._linear(x, f"{name}.intermediate.dense"))
            x = self._norm(x + self._linear(inner, f"{name}.output.dense"), f"{name}.output.LayerNorm")
        return x

    def _attention(self, x: Array, name: str) -> Array:
        q, k, v = (self._linear(x, f"{name}.self.{part}") for part in ("query", "key", "value"))
        size = x.shape[1] // self._config["num_attention_heads"]
        heads = []
        for start in range(0, x.shape[1], size):
            part = slice(start, start + size)
            scores = q[:, part] @ k[:, part].T / math.sqrt(size)
            weights = np.exp(scores - scores.max(axis=1, keepdims=True))
            heads.append(weights / weights.sum(axis=1, keepdims=True) @ v[:, part])
        return self._linear(np.concatenate(heads, axis=1), f"{name}.output.dense")

    def _linear(self, x: Array, name: str) -> Array:
        return x @ self._weights[f"{name}.weight"].T + self._weights[f"{name}.bias"]

    def _norm(self, x: Array, name: str) -> Array:
        x = x - x.mean(axis=1, keepdims=True)
        x = x / np.sqrt((x * x).mean(axis=1, keepdims=True) + self._config["layer_norm_eps"])
        return x * self._weights[f"{name}.weight"] + self._weights[f"{name}.bias"]


class WordPiece:
    """The uncased tokenizer of BERT, over a vocabulary file."""

    def __init__(self, vocabulary: Path) -> None:
        lines = vocabulary.read_text(encoding="utf-8").splitlines()
        self._ids = {piece: number for number, piece in enumerate(lines)}

    def tokens(self, text: str) -> list[int]:
        """The ids of a text between [CLS] and [SEP]."""
        pieces = [piece for word in _words(text) for piece in self._pieces(word)]
        return [self._ids[piece] for piece in ("[CLS]", *pieces, "[SEP]")]

    def _pieces(self, word: str) -> list[str]:
        pieces: list[str] = []
        start = 0
        while start < len(word):
            candidates = (("##" if start else "") + word[start:end] for end in range(len(word), start, -1))
            piece = next((candidate for candidate in candidates if candidate in self._ids), None)
            if piece is None or len(word) > _WORD_CHARS_MAX:
                return ["[UNK]"]
            pieces.append(piece)
            start += len(piece) - (2 if start else 0)
        return pieces


def _words(text: str) -> list[str]:
    plain = "".join(c for c in unicodedata.normalize("NFD", text.lower()) if unicodedata.category(c) != "Mn")
    spaced = "".join(f" {c} " if _stands_alone(c) else c for c in plain)
    return spaced.split()


def _stands_alone(character: str) -> bool:
    is_sign = character.isascii() and character.isprintable() and not character.isalnum() and character != " "
    return is_sign or unicodedata.category(character).startswith("P") or 0x4E00 <= ord(character) <= 0x9FFF


def _gelu(x: Array) -> Array:
    """With the error function by Abramowitz and Stegun, 7.1.26: right to 1.5e-7."""
    z = np.abs(x) / math.sqrt(2)
    t = 1 / (1 + 0.3275911 * z)
    polynomial = t * (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429))))
    return 0.5 * x * (1 + np.sign(x) * (1 - polynomial * np.exp(-z * z)))


def read_safetensors(file: Path) -> dict[str, Array]:
    """All float32 arrays of a file (https://huggingface.co/docs/safetensors)."""
    data = file.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    arrays: dict[str, Array] = {}
    for name, entry in header.items():
        if name != "__metadata__" and entry["dtype"] == "F32":
            begin, end = (8 + length + offset for offset in entry["data_offsets"])
            arrays[name] = np.frombuffer(data[begin:end], dtype="<f4").reshape(entry["shape"]).astype(np.float64)
    return arrays
