"""An answer as openai-python sees it, in one piece or as a stream: what has to be the same both ways."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

from openai import LengthFinishReasonError

AT_ONCE = 8


class Said(NamedTuple):
    """One choice of an answer, without what differs from one to the next; ``tokens`` come with log probabilities."""

    content: str | None
    reasoning: str | None
    calls: tuple[tuple[str, str], ...]
    finish_reason: str
    reasoning_tokens: int
    tokens: tuple[str, ...] = ()


def every_way(client: Any, asked: dict[str, Any]) -> tuple[Said, ...]:
    """The choices of an answer, found to be the same whole and streamed, alone and among eight at once."""
    first = whole(client, asked)
    assert streamed(client, asked) == first
    with ThreadPoolExecutor(AT_ONCE) as pool:
        answers = pool.map(lambda way: way(client, asked), [whole, streamed] * (AT_ONCE // 2))
        assert set(answers) == {first}
    return first


def whole(client: Any, asked: dict[str, Any]) -> tuple[Said, ...]:
    """The answer in one piece."""
    completion = client.chat.completions.create(**asked)
    return tuple(
        _said(completion, choice, choice.message.content, getattr(choice.message, "reasoning_content", None))
        for choice in completion.choices
    )


def streamed(client: Any, asked: dict[str, Any]) -> tuple[Said, ...]:
    """The answer put together by the client's own helper; the order of the chunks is checked on the way."""
    with client.chat.completions.stream(**asked, stream_options={"include_usage": True}) as stream:
        chunks = [event.chunk for event in stream if event.type == "chunk"]
        try:
            completion = stream.get_final_completion()
        except LengthFinishReasonError as cut_off:
            completion = cut_off.completion
    choices = []
    for choice in sorted(completion.choices, key=lambda one: one.index):
        deltas = [one.delta for chunk in chunks for one in chunk.choices if one.index == choice.index]
        assert (deltas[0].role, deltas[0].content) == ("assistant", "")
        fragments = [fragment for delta in deltas for fragment in delta.tool_calls or ()]
        starts = [fragment for fragment in fragments if fragment.id is not None]
        assert [fragment.index for fragment in starts] == list(range(len(starts)))
        assert all(fragment.function.name is None for fragment in fragments if fragment.id is None)
        reasoning = "".join(getattr(delta, "reasoning_content", None) or "" for delta in deltas) or None
        choices.append(_said(completion, choice, choice.message.content or None, reasoning))
    return tuple(choices)


def _said(completion: Any, choice: Any, content: str | None, reasoning: str | None) -> Said:
    calls = tuple((call.function.name, call.function.arguments) for call in choice.message.tool_calls or ())
    told = choice.logprobs.content or () if choice.logprobs is not None else ()
    reasoning_tokens = completion.usage.completion_tokens_details.reasoning_tokens
    tokens = tuple(entry.token for entry in told)
    return Said(content, reasoning, calls, choice.finish_reason, reasoning_tokens, tokens)
