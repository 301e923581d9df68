"""From a GGUF file of the SmolLM2 family to a folder that mlx-lm and transformers load.

llama.cpp keeps the same weights under other names, with the rows of q and k in another order, and its tokenizer as
lists. Only what the starter model needs is here: architecture ``llama``, the tokenizer ``smollm``, and the
quantized types that mlx maps (https://github.com/ggml-org/ggml/blob/master/docs/gguf.md).

mlx and tokenizers are imported where they are used, so that importing this module costs nothing.
"""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

if TYPE_CHECKING:
    import mlx.core as mx

Dtype: TypeAlias = Literal["float32", "4bit"]
"""``float32`` is the fastest on a CPU with OpenBLAS; ``4bit`` keeps the file's own integers, for Metal."""

_GROUP_SIZE = 32  # weights per scale in GGUF's Q4_1 and Q8_0
_CONTROL_TOKEN = 3  # in tokenizer.ggml.token_type
_NAMES = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


def convert_gguf(gguf: Path, folder: Path, *, dtype: Dtype, advance: Callable[[int, int], None]) -> None:
    """Write the model in ``gguf`` to the existing ``folder``, in the layout of Hugging Face.

    ``advance`` is told how many bytes of weights are ready, and of how many.

    Raises:
        ValueError: the file holds another kind of model.
        OSError: the folder cannot be written, or the disk is full.
    """
    import mlx.core as mx  # noqa: PLC0415 -- loading MLX is for whoever converts

    # On the CPU, so that the bytes do not depend on how a GPU rounds.
    with mx.stream(mx.cpu):
        loaded: Any = mx.load(str(gguf), return_metadata=True)
        arrays, metadata = loaded
        if (metadata["general.architecture"], metadata["tokenizer.ggml.pre"]) != ("llama", "smollm"):
            raise ValueError(f"{gguf.name} is not of the SmolLM2 family, the only one that is converted here")
        config = _config(metadata, arrays, dtype)
        weights: dict[str, mx.array] = {}
        total_bytes = sum(_target_bytes(module, dtype) for _, module in _modules(arrays))
        done_bytes = 0
        for name, module in _modules(arrays):
            converted = _convert_module(name, module, config, dtype)
            mx.eval(converted)
            weights |= converted
            done_bytes += sum(array.nbytes for array in converted.values())
            advance(done_bytes, total_bytes)
        try:
            mx.save_safetensors(str(folder / "model.safetensors"), weights, metadata={"format": "mlx"})
        except RuntimeError as error:  # what MLX makes of a failed write, without its errno
            raise OSError(f"the weights could not be written: {error}") from error
    _write_json(folder / "config.json", config)
    _write_json(folder / "generation_config.json", {key: config[key] for key in config if key.endswith("_token_id")})
    _write_tokenizer(metadata, folder)


def _modules(arrays: dict[str, "mx.array"]) -> Iterator[tuple[str, dict[str, "mx.array"]]]:
    """Each module of the file: its name, and its ``weight``, with ``scales`` and ``biases`` where quantized."""
    for key in sorted(arrays):
        name, _, parameter = key.rpartition(".")
        if parameter == "weight":
            parameters = ("weight", "scales", "biases")
            yield name, {p: arrays[f"{name}.{p}"] for p in parameters if f"{name}.{p}" in arrays}


def _convert_module(name: str, module: dict[str, "mx.array"], config: dict[str, Any], dtype: Dtype) -> dict[str, Any]:
    """The parameters of one module under their Hugging Face names, rows in order, in ``dtype``."""
    import mlx.core as mx  # noqa: PLC0415 (only where MLX is used)

    block, _, kind = name.rpartition(".")
    target = _NAMES[kind]
    if block:  # blk.7.attn_q
        target = f"model.layers.{block.removeprefix('blk.')}.{target}"
    heads = {"attn_q": config["num_attention_heads"], "attn_k": config["num_key_value_heads"]}.get(kind)
    if heads is not None:
        module = {parameter: _unpermute(array, heads) for parameter, array in module.items()}
    # float16 scales would be exact as well, and are eight times slower on a CPU.
    module = {p: array if array.dtype == mx.uint32 else array.astype(mx.float32) for p, array in module.items()}
    if dtype == "float32" and "scales" in module:
        packed, scales, biases, bits = module["weight"], module["scales"], module["biases"], _bits(module)
        module = {"weight": mx.dequantize(packed, scales, biases, group_size=_GROUP_SIZE, bits=bits)}
    return {f"{target}.{parameter}": array for parameter, array in module.items()}


def _unpermute(array: "mx.array", heads: int) -> "mx.array":
    """Rows in the order of Hugging Face: llama.cpp interleaves the halves of each head that rotate together."""
    rows, *rest = array.shape
    return array.reshape(heads, rows // heads // 2, 2, *rest).swapaxes(1, 2).reshape(rows, *rest)


def _bits(module: dict[str, "mx.array"]) -> int:
    """Bits per weight: packed words of 32 bits, against one scale for each group."""
    return module["weight"].shape[-1] * 32 // (module["scales"].shape[-1] * _GROUP_SIZE)


def _target_bytes(module: dict[str, "mx.array"], dtype: Dtype) -> int:
    """The size of a module once it is converted."""
    if "scales" not in module:
        return 4 * module["weight"].size
    if dtype == "float32":
        return 4 * module["scales"].size * _GROUP_SIZE
    return module["weight"].nbytes + 4 * (module["scales"].size + module["biases"].size)


def _config(metadata: dict[str, Any], arrays: dict[str, "mx.array"], dtype: Dtype) -> dict[str, Any]:
    """``config.json`` as transformers writes it for a llama, and mlx's ``quantization`` where weights stay packed."""
    config: dict[str, Any] = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_act": "silu",
        "hidden_size": metadata["llama.embedding_length"].item(),
        "intermediate_size": metadata["llama.feed_forward_length"].item(),
        "num_hidden_layers": metadata["llama.block_count"].item(),
        "num_attention_heads": metadata["llama.attention.head_count"].item(),
        "num_key_value_heads": metadata["llama.attention.head_count_kv"].item(),
        "max_position_embeddings": metadata["llama.context_length"].item(),
        "rms_norm_eps": float(f"{metadata['llama.attention.layer_norm_rms_epsilon'].item():.6g}"),
        "rope_theta": metadata["llama.rope.freq_base"].item(),
        "vocab_size": len(metadata["tokenizer.ggml.tokens"]),
        "tie_word_embeddings": "output.weight" not in arrays,
        "attention_bias": False,
        "mlp_bias": False,
        "torch_dtype": "float32",
        "bos_token_id": metadata["tokenizer.ggml.bos_token_id"].item(),
        "eos_token_id": metadata["tokenizer.ggml.eos_token_id"].item(),
        "pad_token_id": metadata["tokenizer.ggml.padding_token_id"].item(),
    }
    if dtype == "4bit":
        embedding_bits = _bits(dict(_modules(arrays))["token_embd"])
        quantization: dict[str, Any] = {"group_size": _GROUP_SIZE, "bits": 4}
        quantization["model.embed_tokens"] = {"group_size": _GROUP_SIZE, "bits": embedding_bits}
        config["quantization"] = quantization
    return config


def _write_tokenizer(metadata: dict[str, Any], folder: Path) -> None:
    """``tokenizer.json`` and ``tokenizer_config.json``, the latter with the chat template.

    The pre-tokenizer is llama.cpp's ``smollm``: digits one by one, then GPT-2's expression. As in the original,
    21 bytes have no token (a few control characters and unassigned planes of Unicode) and are dropped.
    """
    from tokenizers import (  # noqa: PLC0415 (only where MLX is used)
        AddedToken,
        Tokenizer,
        decoders,
        models,
        pre_tokenizers,
    )

    tokens: list[str] = metadata["tokenizer.ggml.tokens"]
    merges = [(left, right) for left, right in (merge.split(" ") for merge in metadata["tokenizer.ggml.merges"])]
    tokenizer = Tokenizer(models.BPE(vocab={token: i for i, token in enumerate(tokens)}, merges=merges))
    digits = pre_tokenizers.Digits(individual_digits=True)
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([digits, byte_level])
    tokenizer.decoder = decoders.ByteLevel()
    kinds = metadata["tokenizer.ggml.token_type"].tolist()
    special = [token for token, kind in zip(tokens, kinds, strict=True) if kind == _CONTROL_TOKEN]
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special])
    tokenizer.save(str(folder / "tokenizer.json"))
    _write_json(
        folder / "tokenizer_config.json",
        {
            # The class that takes tokenizer.json as it is: GPT2Tokenizer would put its own pre-tokenizer in.
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": tokens[metadata["tokenizer.ggml.bos_token_id"].item()],
            "eos_token": tokens[metadata["tokenizer.ggml.eos_token_id"].item()],
            "pad_token": tokens[metadata["tokenizer.ggml.padding_token_id"].item()],
            "unk_token": tokens[metadata["tokenizer.ggml.unknown_token_id"].item()],
            "add_prefix_space": False,
            "clean_up_tokenization_spaces": False,
            "model_max_length": metadata["llama.context_length"].item(),
            "chat_template": metadata["tokenizer.chat_template"],
        },
    )


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
