"""Tiny models with random weights, one for each way in which mlx-lm's models keep their state. Greedy text varies."""

from __future__ import annotations

import importlib
from typing import Any

import mlx.core as mx
from mlx.utils import tree_map

VOCABULARY = 64

_COMMON = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "num_hidden_layers": 4,
    "rms_norm_eps": 1e-5,
    "vocab_size": VOCABULARY,
    "head_dim": 8,
}
_NO_OP: dict[str, Any] = {"no_op": True, "replace_with_linear": False}
_LINEAR: dict[str, Any] = {"no_op": False, "replace_with_linear": True}
_FFN: dict[str, Any] = {"no_op": False, "replace_with_linear": False, "ffn_mult": 2.0}
_ATTENTION: dict[str, Any] = {"no_op": False, "replace_with_linear": False, "n_heads_in_group": 2}

KINDS: dict[str, dict[str, Any]] = {
    "llama": {},
    "gemma3_text": {"sliding_window": 16, "sliding_window_pattern": 2, "query_pre_attn_scalar": 8},
    "falcon_h1": {
        "mamba_d_ssm": 32,
        "mamba_d_head": 8,
        "mamba_n_heads": 4,
        "mamba_d_state": 8,
        "mamba_chunk_size": 8,
        "projectors_bias": False,
    },
    "mamba2": {
        "num_heads": 4,
        "head_dim": 16,
        "state_size": 8,
        "layer_norm_epsilon": 1e-5,
        "conv_kernel": 4,
        "n_groups": 1,
        "use_bias": False,
        "use_conv_bias": True,
        "tie_word_embeddings": True,
        "time_step_limit": (0.0, 100.0),
        "time_step_rank": "auto",
    },
    "qwen3_next": {
        "linear_num_value_heads": 4,
        "linear_num_key_heads": 2,
        "linear_key_head_dim": 8,
        "linear_value_head_dim": 8,
        "linear_conv_kernel_dim": 4,
        "num_experts": 0,
        "num_experts_per_tok": 1,
        "decoder_sparse_step": 1,
        "shared_expert_intermediate_size": 0,
        "mlp_only_layers": [],
        "moe_intermediate_size": 0,
        "rope_theta": 10000.0,
        "partial_rotary_factor": 0.5,
        "max_position_embeddings": 512,
        "full_attention_interval": 2,
    },
    "nemotron-nas": {
        "block_configs": [
            {"attention": _ATTENTION, "ffn": _FFN},
            {"attention": _NO_OP, "ffn": _FFN},
            {"attention": _LINEAR, "ffn": _LINEAR},
            {"attention": _ATTENTION, "ffn": _FFN},
        ],
    },
}
"""By mlx-lm's names: plain attention; sliding windows; attention beside Mamba in every layer; Mamba alone; attention
after linear attention; and DeciLM, whose layers without attention keep nothing."""


def model_of_kind(kind: str) -> Any:
    """A model of a kind, the same one each time."""
    module = importlib.import_module(f"mlx_lm.models.{kind}")
    mx.random.seed(7)
    model = module.Model(module.ModelArgs.from_dict({"model_type": kind, **_COMMON, **KINDS[kind]}))
    # Larger than trained weights are, so that a wrong state shows in the very next token.
    model.update(tree_map(lambda weight: weight * 3 if weight.ndim == 2 else weight, model.parameters()))
    mx.eval(model.parameters())
    return model
