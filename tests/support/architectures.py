"""Architectures of mlx-lm, as the configurations of tiny models with random weights in folders of their own."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import mlx.core as mx
from mlx.utils import tree_flatten, tree_map
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from tests.support.model_kinds import KINDS, VOCABULARY

_COMMON: dict[str, Any] = {
    "attention_bias": False,
    "conv_bias": False,
    "decoder_sparse_step": 1,
    "first_k_dense_replace": 1,
    "head_dim": 8,
    "hidden_size": 32,
    "intermediate_size": 64,
    "kv_lora_rank": 16,
    "layer_norm_bias": False,
    "layer_norm_eps": 1e-5,
    "layer_norm_epsilon": 1e-5,
    "max_position_embeddings": 512,
    "mlp_bias": False,
    "mlp_only_layers": [],
    "moe_intermediate_size": 32,
    "n_group": 1,
    "n_routed_experts": 4,
    "n_shared_experts": 1,
    "norm_eps": 1e-5,
    "norm_topk_prob": True,
    "num_attention_heads": 4,
    "num_experts": 4,
    "num_experts_per_tok": 2,
    "num_hidden_layers": 4,
    "num_key_value_heads": 2,
    "num_local_experts": 4,
    "num_shared_experts": 1,
    "partial_rotary_factor": 0.5,
    "q_lora_rank": 16,
    "qk_nope_head_dim": 8,
    "qk_rope_head_dim": 8,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "routed_scaling_factor": 1.0,
    "shared_expert_intermediate_size": 32,
    "sliding_window": 16,
    "tie_word_embeddings": False,
    "topk_group": 1,
    "use_bias": False,
    "v_head_dim": 8,
    "vocab_size": VOCABULARY,
}
_ALTERNATING = ["sliding_attention", "full_attention"] * 2

ARCHITECTURES: dict[str, dict[str, Any]] = {
    **KINDS,
    **{name: {} for name in ("glm4", "mixtral", "olmo2", "phi3", "qwen2", "qwen3", "smollm3", "starcoder2")},
    "afm7": {"hidden_dim": 32, "num_heads": 4, "num_kv_heads": 2, "num_kv_reuse_layers": 2, "num_layers": 4},
    "baichuan_m1": {
        "conv_window": 2,
        "num_swa_attention_heads": 4,
        "num_swa_key_value_heads": 2,
        "sliding_window_layers": [1, 3],
    },
    "cohere2": {},
    "deepseek_v32": {},
    "gemma2": {},
    "gemma3n": {
        "text_config": {
            **_COMMON,
            "activation_sparsity_pattern": [0.0] * 4,
            "altup_active_idx": 0,
            "altup_coef_clip": 120.0,
            "altup_correct_scale": True,
            "altup_num_inputs": 2,
            "final_logit_softcapping": 30.0,
            "hidden_size_per_layer_input": 8,
            "laurel_rank": 8,
            "layer_types": _ALTERNATING,
            "model_type": "gemma3n_text",
            "num_kv_shared_layers": 2,
            "rope_local_base_freq": 10000.0,
            "vocab_size_per_layer_input": VOCABULARY,
        },
    },
    "gemma4_text": {
        "global_head_dim": 16,
        "hidden_size_per_layer_input": 8,
        "layer_types": _ALTERNATING,
        "num_kv_shared_layers": 2,
        "tie_word_embeddings": True,
        "vocab_size_per_layer_input": VOCABULARY,
    },
    "gpt_oss": {"layer_types": _ALTERNATING},
    "granitemoehybrid": {
        "attention_multiplier": 0.3,
        "embedding_multiplier": 1.0,
        "layer_types": ["mamba", "attention"] * 2,
        "logits_scaling": 1.0,
        "mamba_conv_bias": True,
        "mamba_d_conv": 4,
        "mamba_d_head": 16,
        "mamba_d_state": 8,
        "mamba_n_groups": 1,
        "mamba_n_heads": 4,
        "mamba_proj_bias": False,
        "num_local_experts": None,
        "residual_multiplier": 1.0,
        "shared_intermediate_size": 64,
    },
    "jamba": {
        "attn_layer_offset": 1,
        "attn_layer_period": 2,
        "expert_layer_offset": 1,
        "expert_layer_period": 2,
        "mamba_d_conv": 4,
        "mamba_d_state": 8,
        "mamba_expand": 2,
    },
    "kimi_linear": {
        "linear_attn_config": {
            "full_attn_layers": [4],
            "head_dim": 8,
            "kda_layers": [1, 2, 3],
            "num_heads": 4,
            "short_conv_kernel_size": 4,
        },
        "model_max_length": 512,
    },
    "lfm2": {
        "block_auto_adjust_ff_dim": False,
        "block_dim": 32,
        "block_ffn_dim_multiplier": 1.0,
        "block_multiple_of": 8,
        "conv_L_cache": 3,
        "layer_types": ["conv", "full_attention"] * 2,
    },
    "longcat_flash": {
        "attention_method": "MLA",
        "expert_ffn_hidden_size": 32,
        "ffn_hidden_size": 64,
        "mla_scale_kv_lora": True,
        "mla_scale_q_lora": True,
        "moe_topk": 2,
        "num_layers": 2,
        "zero_expert_num": 1,
        "zero_expert_type": "identity",
    },
    "mamba": {"conv_kernel": 4, "state_size": 8, "time_step_rank": 4, "use_conv_bias": True},
    "minimax": {"rotary_dim": 4, "shared_intermediate_size": 0},
    "nemotron_h": {
        "conv_kernel": 4,
        "hybrid_override_pattern": ["M", "*", "-", "M"],
        "mamba_head_dim": 8,
        "mamba_num_heads": 4,
        "mamba_proj_bias": False,
        "n_groups": 1,
        "ssm_state_size": 8,
        "use_conv_bias": True,
    },
    "plamo2": {
        "attention_window_size": 16,
        "full_attention_idx": [0],
        "hidden_size_per_head": 8,
        "mamba_d_state": 8,
        "mamba_num_heads": 4,
    },
    "qwen3_moe": {},
    "recurrent_gemma": {
        "attention_window_size": 16,
        "block_types": ["recurrent", "attention"],
        "conv1d_width": 4,
        "logits_soft_cap": 30.0,
        "num_key_value_heads": 1,
    },
    "rwkv7": {"a_low_rank_dim": 8, "decay_low_rank_dim": 8, "gate_low_rank_dim": 8, "v_low_rank_dim": 8},
}
"""By mlx-lm's names; ``KINDS`` are the first of them."""


def make_architecture(folder: Path, architecture: str) -> Path:
    """Write a model of an architecture, the same one each time, with a tokenizer of letters; its folder."""
    folder.mkdir(parents=True)
    config = {"model_type": architecture, "eos_token_id": VOCABULARY - 1, **_COMMON, **ARCHITECTURES[architecture]}
    module = importlib.import_module(f"mlx_lm.models.{architecture}")
    mx.random.seed(7)
    model = module.Model(module.ModelArgs.from_dict(config))
    grown: Any = tree_map(_grown, model.parameters())
    mx.save_safetensors(str(folder / "model.safetensors"), dict(tree_flatten(grown)), {"format": "mlx"})
    (folder / "config.json").write_text(json.dumps(config))
    letters = {chr(ord("0") + number): number for number in range(VOCABULARY)}
    tokenizer = Tokenizer(models.WordLevel(letters, unk_token="0"))  # noqa: S106 (no password)
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    tokenizer.decoder = decoders.Fuse()
    tokenizer.save(str(folder / "tokenizer.json"))
    last = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": chr(ord("0") + VOCABULARY - 1)}
    (folder / "tokenizer_config.json").write_text(json.dumps(last))
    return folder


def _grown(weight: mx.array) -> mx.array:
    """Larger than a trained weight, and never nothing, so that a wrong state shows in the very next token."""
    if not mx.any(weight):
        return mx.random.normal(weight.shape)
    return weight * 3 if weight.ndim >= 2 else weight
