"""Parameters that other servers have and OpenAI has not, as clients of those servers send them to every server.

Each is refused, with the word that Manent has for it, unless its value asks for what Manent does in any case. A hint
that no answer depends on is accepted instead: see ``parameters.py``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

FOREIGN_PARAMETERS: Sequence[tuple[str, str, tuple[Any, ...]]] = (
    ("best_of", "vLLM's; n choices are generated and all are told", (1,)),
    ("min_tokens", "vLLM's; an answer ends where the model ends it", (0,)),
    ("ignore_eos", "vLLM's; an answer ends where the model ends it", (False,)),
    ("echo", "vLLM's; the prompt is not told again", (False,)),
    ("use_beam_search", "vLLM's; there is no beam search", (False,)),
    ("length_penalty", "vLLM's; there is no beam search", (1,)),
    ("skip_special_tokens", "vLLM's; special tokens are never shown", (True,)),
    ("spaces_between_special_tokens", "vLLM's; special tokens are never shown", (True,)),
    ("include_stop_str_in_output", "vLLM's; stop strings are never shown", (False,)),
    ("add_special_tokens", "vLLM's; the chat template has them", (False,)),
    ("add_generation_prompt", "vLLM's; an answer is always a new message", (True,)),
    ("continue_final_message", "vLLM's; an answer is always a new message", (False,)),
    ("include_reasoning", "vLLM's; reasoning is always told, as reasoning_content", (True,)),
    ("separate_reasoning", "SGLang's; reasoning is always told apart, as reasoning_content", (True,)),
    ("chat_template_kwargs", "vLLM's; chat templates get no arguments from requests", ({},)),
    ("enable_thinking", "an argument of some chat templates; OpenAI's word is reasoning_effort", ()),
    ("thinking", "Anthropic's; OpenAI's word is reasoning_effort", ()),
    ("think", "Ollama's; OpenAI's word is reasoning_effort", ()),
    ("guided_json", "vLLM's; send response_format", ()),
    ("guided_regex", "vLLM's; send structured_outputs", ()),
    ("guided_choice", "vLLM's; send structured_outputs", ()),
    ("guided_grammar", "vLLM's; send structured_outputs", ()),
    ("format", "Ollama's; send response_format", ()),
    ("options", "Ollama's; send what is in it by OpenAI's names", ({},)),
    ("num_ctx", "Ollama's; the window is the model's, and requests do not change it", ()),
    ("num_predict", "Ollama's; send max_completion_tokens", ()),
    ("repeat_penalty", "llama.cpp's; send repetition_penalty", (1,)),
    ("repeat_last_n", "llama.cpp's; penalties see the whole answer", (-1,)),
    ("typical_p", "llama.cpp's; there is no typical sampling", (1,)),
    ("tfs_z", "llama.cpp's; there is no tail-free sampling", (1,)),
    ("top_a", "KoboldCpp's; send min_p", (0,)),
    ("mirostat", "llama.cpp's; there is no mirostat", (0,)),
    ("timings_per_token", "llama.cpp's; timings stand in the event log", (False,)),
    ("provider", "OpenRouter's; the model says where it runs", ({},)),
    ("transforms", "OpenRouter's; send truncation", ([],)),
)
