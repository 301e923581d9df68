"""A prompt that takes seconds to be read: its client hears at once that it was taken."""

from __future__ import annotations

import time

import pytest
from openai import OpenAI

from tests.benchmarks.prefill import TOKENS, long_prompt


@pytest.mark.long
def test_a_long_prompt_is_acknowledged_before_it_is_read(client: OpenAI) -> None:
    """Head and role come in a small part of the time that 1,500 tokens take; openai-python reads on to the end."""
    began, moments = time.monotonic(), []
    stream = client.chat.completions.create(
        model="default",
        messages=[{"role": "user", "content": long_prompt(0)}],
        max_tokens=4,
        temperature=0,
        stream=True,
        stream_options={"include_usage": True},
    )
    moments.append(time.monotonic() - began)
    chunks = []
    for chunk in stream:
        moments.append(time.monotonic() - began)
        chunks.append(chunk)
    head_s, role_s, token_s, *_ = moments
    assert chunks[0].choices[0].delta.role == "assistant"
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.prompt_tokens > TOKENS
    assert head_s <= role_s < token_s / 3
