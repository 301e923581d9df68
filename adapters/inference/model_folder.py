"""What a model's folder must hold, and what exactly is wrong with it where it does not.

The checks read headers only: they take milliseconds, need no MLX, and say more than a failing loader would.
"""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

from manent.domain.embedding import ModelType

EMBEDDING_ARCHITECTURES = ("bert", "roberta", "xlm-roberta")
_HEADER_MAX_BYTES = 256 * 2**20
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "tiktoken.model", "vocab.json")
_TOKENIZER_PARTS = (
    *_TOKENIZER_FILES,
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "generation_config.json",
    "merges.txt",
)
_PROCESSOR_PARTS = ("preprocessor_config.json", "processor_config.json", "chat_template.jinja", "chat_template.json")


class ModelFolderError(Exception):
    """The folder holds no model that can be loaded; the message says what is wrong and what would be right."""


def check_model_folder(folder: Path) -> dict[str, Any]:
    """The model's configuration, after its files were found complete.

    Raises:
        ModelFolderError: something is missing, unreadable or cut off.
    """
    if not folder.is_dir():
        raise ModelFolderError(f"the model folder {folder} does not exist; download the model or correct its path")
    config = read_config(folder)
    if not isinstance(config.get("model_type"), str):
        raise ModelFolderError(f"{folder / 'config.json'} has no model_type; it is not the config of an MLX model")
    weights = weight_files(folder)
    if not any(file.name.startswith("model") for file in weights):
        raise ModelFolderError(f"{folder} holds no weights: model*.safetensors is missing; download the model again")
    _check_index(folder)
    for file in weights:
        _check_safetensors(file)
    if not any((folder / name).is_file() for name in _TOKENIZER_FILES):
        raise ModelFolderError(f"{folder} holds no tokenizer: tokenizer.json is missing; download the model again")
    return config


def check_adapter_folder(folder: Path) -> None:
    """See that a LoRA adapter's files are there and whole.

    Raises:
        ModelFolderError: something is missing, unreadable or cut off.
    """
    config, weights = adapter_files(folder)
    for file in (config, weights):
        if not file.is_file():
            raise ModelFolderError(f"{file} is missing; {folder} is not the folder of a LoRA adapter of mlx-lm")
    _check_safetensors(weights)


def read_config(folder: Path) -> dict[str, Any]:
    """The content of config.json; ModelFolderError where it is missing or no JSON object."""
    file = folder / "config.json"
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ModelFolderError(f"{file} is missing; {folder} is not the folder of an MLX model") from None
    except OSError as error:
        raise ModelFolderError(f"{file} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise ModelFolderError(f"{file} is not valid JSON: {error}; download the model again") from error
    if not isinstance(config, dict):
        raise ModelFolderError(f"{file} holds no JSON object; download the model again")
    return config


def model_type_of(config: dict[str, Any]) -> ModelType:
    """What a model is for, by its architecture."""
    return ModelType.EMBEDDING if config.get("model_type") in EMBEDDING_ARCHITECTURES else ModelType.LLM


def context_length_of(config: dict[str, Any]) -> int | None:
    """How many tokens the model's positions reach, if its configuration says so."""
    nested = config.get("text_config")
    for candidate in (config, nested if isinstance(nested, dict) else {}):
        length = candidate.get("max_position_embeddings")
        if isinstance(length, int) and length > 0:
            return length
    return None


def input_length_of(folder: Path, config: dict[str, Any]) -> int | None:
    """How many tokens of an input an embedding model takes: what sentence-transformers cuts off at, else positions."""
    try:
        length = json.loads((folder / "sentence_bert_config.json").read_text(encoding="utf-8"))["max_seq_length"]
    except (OSError, ValueError, KeyError, TypeError):
        length = None
    return length if isinstance(length, int) and length > 0 else context_length_of(config)


def weight_files(folder: Path) -> list[Path]:
    """All weights of the folder, in the order of their names."""
    return sorted(folder.glob("*.safetensors"))


def adapter_files(folder: Path) -> tuple[Path, Path]:
    """Where a LoRA adapter's configuration and weights are, as mlx-lm names them."""
    return folder / "adapter_config.json", folder / "adapters.safetensors"


def tokenizer_files(folder: Path) -> list[Path]:
    """All files that make up the tokenizer, in the order of their names."""
    return sorted(file for name in _TOKENIZER_PARTS if (file := folder / name).is_file())


def processor_files(folder: Path) -> list[Path]:
    """All files that say how images become tokens, in the order of their names."""
    return sorted(file for name in _PROCESSOR_PARTS if (file := folder / name).is_file())


def _check_index(folder: Path) -> None:
    file = folder / "model.safetensors.index.json"
    if not file.is_file():
        return
    try:
        names = set(json.loads(file.read_text(encoding="utf-8"))["weight_map"].values())
    except (ValueError, KeyError, AttributeError, OSError) as error:
        raise ModelFolderError(f"{file} is not an index of weights; download the model again") from error
    missing = sorted(name for name in names if not (folder / str(name)).is_file())
    if missing:
        raise ModelFolderError(
            f"{folder} lacks {len(missing)} of {len(names)} weight files, first {missing[0]}; "
            "the download was not finished, repeat it"
        )


def _check_safetensors(file: Path) -> None:
    """Compare a file's length with what its header announces (https://huggingface.co/docs/safetensors)."""
    try:
        size_bytes = file.stat().st_size
        with file.open("rb") as stream:
            (header_bytes,) = struct.unpack("<Q", stream.read(8))
            if header_bytes > _HEADER_MAX_BYTES:
                raise ModelFolderError(f"{file} is not a safetensors file; download the model again")
            header = json.loads(stream.read(header_bytes))
        ends = [tensor["data_offsets"][1] for name, tensor in header.items() if name != "__metadata__"]
    except OSError as error:
        raise ModelFolderError(f"{file} cannot be read: {error.strerror}") from error
    except (struct.error, ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        raise ModelFolderError(f"{file} is cut off or not a safetensors file; download the model again") from error
    expected_bytes = 8 + header_bytes + max(ends, default=0)
    if size_bytes < expected_bytes:
        raise ModelFolderError(
            f"{file} is cut off: it has {size_bytes} bytes and should have {expected_bytes}; download the model again"
        )
