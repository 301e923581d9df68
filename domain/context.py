"""Which messages the model sees: everything, or what fits its window when truncation is allowed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from manent.domain.messages import Message, Role


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """The messages that the model sees, in the order of the conversation, and where those stand that were left out."""

    kept: tuple[Message, ...]
    dropped: range = range(0)


def leading_system_length(messages: Sequence[Message]) -> int:
    """How many system messages the conversation begins with."""
    length = 0
    while length < len(messages) and messages[length].role is Role.SYSTEM:
        length += 1
    return length


def begins_unit(messages: Sequence[Message], index: int) -> bool:
    """Whether the conversation may be cut before a message: a tool's result stays with its call."""
    return messages[index].role is not Role.TOOL


def select_messages(messages: Sequence[Message], token_counts: Sequence[int], *, budget_tokens: int) -> Selection:
    """The longest end of the conversation that fits ``budget_tokens``, behind its system prompt.

    The leading system messages and the last unit are always kept, even if they alone are too long: the caller
    counts the rendered prompt and refuses it. A tool call and its results are one unit and never cut apart; what is
    kept begins with a user's message where there is one, since most chat templates insist on it.

    Args:
        messages: the whole conversation.
        token_counts: what messages add to the prompt, in tokens: the leading system messages, and behind them as many
            of the last messages as could fit, or all.
        budget_tokens: how many tokens the prompt may have.
    """
    body = leading_system_length(messages)
    counted = len(messages) - (len(token_counts) - body)
    if not body <= counted <= len(messages):
        raise ValueError(f"{len(messages)} messages, {body} of them leading, have {len(token_counts)} token counts")
    starts = [i for i in range(counted, len(messages)) if begins_unit(messages, i) or i == body]
    if not starts:
        return Selection(kept=tuple(messages))
    left = budget_tokens - sum(token_counts[:body])
    cut = len(messages)
    for start in reversed(starts):
        left -= sum(token_counts[start - counted + body : cut - counted + body])
        if left < 0 and cut < len(messages):
            break
        cut = start
    cut = _at_user_message(messages, starts, cut, body)
    return Selection(kept=(*messages[:body], *messages[cut:]), dropped=range(body, cut))


def _at_user_message(messages: Sequence[Message], starts: Sequence[int], cut: int, body: int) -> int:
    """Move a cut forward to the next user's message, if there is one and anything was cut at all."""
    if cut == body:
        return cut
    return next((start for start in starts if start >= cut and messages[start].role is Role.USER), cut)
