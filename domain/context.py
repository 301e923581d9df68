"""Which messages the model sees: everything, or what fits its window when truncation is allowed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from manent.domain.messages import Message, Role


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """The messages that the model sees and those left out, both in the order of the conversation."""

    kept: tuple[Message, ...]
    dropped: tuple[Message, ...] = ()


def select_messages(messages: Sequence[Message], token_counts: Sequence[int], *, budget_tokens: int) -> Selection:
    """The longest end of the conversation that fits ``budget_tokens``, behind its system prompt.

    The leading system messages and the last unit are always kept, even if they alone are too long: the caller
    counts the rendered prompt and refuses it. A tool call and its results are one unit and never cut apart; what is
    kept begins with a user's message where there is one, since most chat templates insist on it.

    Args:
        messages: the whole conversation.
        token_counts: what each message adds to the prompt, in tokens; as long as ``messages``.
        budget_tokens: how many tokens the prompt may have.
    """
    if len(messages) != len(token_counts):
        raise ValueError(f"{len(messages)} messages have {len(token_counts)} token counts")
    body = 0
    while body < len(messages) and messages[body].role is Role.SYSTEM:
        body += 1
    starts = _unit_starts(messages, body)
    if not starts:
        return Selection(kept=tuple(messages))
    left = budget_tokens - sum(token_counts[:body])
    cut = len(messages)
    for start in reversed(starts):
        left -= sum(token_counts[start:cut])
        if left < 0 and cut < len(messages):
            break
        cut = start
    cut = _at_user_message(messages, starts, cut, body)
    return Selection(kept=(*messages[:body], *messages[cut:]), dropped=tuple(messages[body:cut]))


def _unit_starts(messages: Sequence[Message], body: int) -> list[int]:
    """Where the conversation may be cut: before any message that is not a tool's result."""
    return [i for i in range(body, len(messages)) if messages[i].role is not Role.TOOL or i == body]


def _at_user_message(messages: Sequence[Message], starts: Sequence[int], cut: int, body: int) -> int:
    """Move a cut forward to the next user's message, if there is one and anything was cut at all."""
    if cut == body:
        return cut
    return next((start for start in starts if start >= cut and messages[start].role is Role.USER), cut)
