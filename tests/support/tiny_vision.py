"""A vision model of a few megabytes with random weights: Qwen3-VL's architecture."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import mlx.core as mx
from mlx.utils import tree_flatten
from tokenizers import AddedToken, Tokenizer

VISION_TOKENS = ("<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")
FIRST_TOKEN = 49152
VOCABULARY = FIRST_TOKEN + 64
PATCH = 16
MERGE = 2

TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)

_TEXT: dict[str, Any] = {
    "model_type": "qwen3_vl_text",
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "intermediate_size": 128,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "rms_norm_eps": 1e-6,
    "vocab_size": VOCABULARY,
    "rope_theta": 10000.0,
    "max_position_embeddings": 2048,
    "tie_word_embeddings": True,
    "rope_scaling": {"type": "mrope", "mrope_section": [4, 2, 2]},
}
_VISION: dict[str, Any] = {
    "model_type": "qwen3_vl",
    "depth": 2,
    "hidden_size": 32,
    "intermediate_size": 64,
    "out_hidden_size": 64,
    "num_heads": 2,
    "patch_size": PATCH,
    "spatial_merge_size": MERGE,
    "temporal_patch_size": 2,
    "in_channels": 3,
    "num_position_embeddings": 64,
    "deepstack_visual_indexes": [0],
}
_CONFIG: dict[str, Any] = {
    "model_type": "qwen3_vl",
    "text_config": _TEXT,
    "vision_config": _VISION,
    "image_token_id": FIRST_TOKEN + 2,
    "video_token_id": FIRST_TOKEN + 3,
    "vision_start_token_id": FIRST_TOKEN,
    "vision_end_token_id": FIRST_TOKEN + 1,
    "vocab_size": VOCABULARY,
    "tie_word_embeddings": True,
}


def make_tiny_vision_model(folder: Path, *, starter: Path, seed: int = 3) -> Path:
    """Write a model with the starter's tokenizer, four vision tokens and random weights; its folder."""
    from mlx_vlm.models.qwen3_vl.config import ModelConfig  # noqa: PLC0415 (the same)
    from mlx_vlm.models.qwen3_vl.qwen3_vl import Model  # noqa: PLC0415 (a second that most tests need not pay)

    folder.mkdir(parents=True)
    model = Model(ModelConfig.from_dict(_CONFIG))  # type: ignore[no-untyped-call]  # mlx-vlm's
    shapes: Any = tree_flatten(model.parameters())
    keys = mx.random.split(mx.random.key(seed), len(shapes))
    weights = {name: mx.random.normal(old.shape, key=key) * 0.3 for (name, old), key in zip(shapes, keys, strict=True)}
    mx.save_safetensors(str(folder / "model.safetensors"), weights, {"format": "mlx"})
    (folder / "config.json").write_text(json.dumps(_CONFIG))
    (folder / "preprocessor_config.json").write_text(
        json.dumps(
            {
                "image_processor_type": "Qwen2VLImageProcessor",
                "patch_size": PATCH,
                "merge_size": MERGE,
                "temporal_patch_size": 2,
                "min_pixels": 32 * 32,
                "max_pixels": 256 * 256,
            }
        )
    )
    _write_tokenizer(folder, starter)
    return folder


def _write_tokenizer(folder: Path, starter: Path) -> None:
    tokenizer = Tokenizer.from_file(str(starter / "tokenizer.json"))
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in VISION_TOKENS])
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = json.loads((starter / "tokenizer_config.json").read_text())
    settings.pop("chat_template", None)
    settings.pop("added_tokens_decoder", None)
    settings["tokenizer_class"] = "PreTrainedTokenizerFast"
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    (folder / "chat_template.jinja").write_text(TEMPLATE)
