"""A tiny model that says one text and nothing else, unless it is made to: each token is followed by the text's next."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import mlx.core as mx
from mlx.utils import tree_flatten
from mlx_lm.models.llama import Model, ModelArgs
from mlx_lm.tokenizer_utils import load as load_tokenizer

MARKS = {5: "<think>", 8: "</think>", 9: "<tool_call>", 10: "</tool_call>"}
"""Special tokens of the starter's tokenizer that a talking model has other names for."""
TEXT = '<think>plan first</think>Paris is nice<tool_call>{"name":"f","arguments":{}}</tool_call>'
TEMPLATE = """{% if tools %}<|im_start|>system
{% for tool in tools %}{{ tool | tojson }}
{% endfor %}<|im_end|>
{% endif %}{% for message in messages %}<|im_start|>{{ message.role }}
{% if message.reasoning_content and loop.last %}<think>{{ message.reasoning_content }}</think>{% endif %}
{{- message.content or '' }}{% for tool_call in message.tool_calls or [] %}<tool_call>
{"name": "{{ tool_call.name or tool_call.function.name }}"}
</tool_call>{% endfor %}<|im_end|>
{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% if enable_thinking is defined and enable_thinking is false %}<think>

</think>

{% endif %}{% endif %}"""

_CONFIG = {
    "model_type": "llama",
    "hidden_size": 128,
    "num_hidden_layers": 1,
    "intermediate_size": 16,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-5,
    "vocab_size": 49152,
    "max_position_embeddings": 2048,
    "rope_theta": 10000.0,
    "tie_word_embeddings": False,
}


def make_talking_model(folder: Path, *, starter: Path, text: str = TEXT) -> Path:
    """Write a model whose template knows tools and reasoning, and that answers everything with ``text``; its folder.

    No token may occur twice in ``text``, or be a line feed, which every prompt ends with.
    """
    folder.mkdir(parents=True)
    _write_tokenizer(folder, starter)
    tokenizer: Any = load_tokenizer(folder)
    said = tokenizer.encode(f"\n{text}<|im_end|>", add_special_tokens=False)
    assert len(set(said)) == len(said), "a token follows itself or two others"
    model = Model(ModelArgs.from_dict(_CONFIG))  # type: ignore[no-untyped-call]  # mlx-lm's
    shapes: Any = tree_flatten(model.parameters())
    weights = {name: mx.ones(old.shape) if "norm" in name else mx.zeros(old.shape) for name, old in shapes}
    # The only layer adds nothing, so what comes out is the last token's embedding; the head looks for its successor.
    embeddings = mx.random.normal((49152, 128), key=mx.random.key(1))
    weights["model.embed_tokens.weight"] = embeddings
    head = mx.random.normal((49152, 128), key=mx.random.key(2)) * 0.01
    head[mx.array(said[1:])] = embeddings[mx.array(said[:-1])]
    weights["lm_head.weight"] = head
    mx.save_safetensors(str(folder / "model.safetensors"), weights, {"format": "mlx"})
    (folder / "config.json").write_text(json.dumps(_CONFIG))
    return folder


def _write_tokenizer(folder: Path, starter: Path) -> None:
    tokenizer = json.loads((starter / "tokenizer.json").read_text(encoding="utf-8"))
    vocabulary = tokenizer["model"]["vocab"]
    for token in tokenizer["added_tokens"]:
        if token["id"] in MARKS:
            vocabulary.pop(token["content"], None)
            token["content"] = MARKS[token["id"]]
            vocabulary[token["content"]] = token["id"]
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer), encoding="utf-8")
    config = json.loads((starter / "tokenizer_config.json").read_text(encoding="utf-8"))
    (folder / "tokenizer_config.json").write_text(json.dumps({**config, "chat_template": TEMPLATE}), encoding="utf-8")
