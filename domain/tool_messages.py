"""Which tool calls of a conversation wait for their results, and whether messages answer them."""

from __future__ import annotations

from collections.abc import Sequence

from manent.domain.errors import InvalidValue
from manent.domain.messages import Message, Role


def pending_calls(messages: Sequence[Message]) -> set[str]:
    """The ids of the calls at the end of a conversation that have no result yet."""
    answered: set[str | None] = set()
    for index in range(len(messages) - 1, -1, -1):
        message = messages[index]
        if message.role is not Role.TOOL:
            return {call.id for call in message.tool_calls} - answered
        answered.add(message.tool_call_id)
    return set()


def check_results(stored: Sequence[Message], sent: Sequence[Message], *, complete: bool = True) -> None:
    """Check that tool messages answer calls and, where it must be ``complete``, that every call is answered.

    Args:
        stored: what the conversation is already.
        sent: the messages that come behind it.
        complete: whether the model is to answer now.

    Raises:
        InvalidValue: a message answers no call that waits, or goes on while calls wait.
    """
    pending = pending_calls(stored)
    for index, message in enumerate(sent):
        where = f"messages[{index}]"
        if message.role is Role.TOOL:
            if message.tool_call_id not in pending:
                raise InvalidValue(
                    f"tool_call_id {message.tool_call_id!r} of a tool message answers no call that waits for its "
                    f"result; those that do: {_names(pending)}",
                    param="messages",
                )
            pending.discard(message.tool_call_id)
        elif pending:
            raise InvalidValue(
                f"{where} of the new messages comes before the results of the tool calls {_names(pending)}; send a "
                "tool message for each of them first",
                param="messages",
            )
        else:
            pending = {call.id for call in message.tool_calls}
    if pending and complete:
        raise InvalidValue(
            f"the conversation ends with tool calls that wait for their results: {_names(pending)}; send a tool "
            "message for each of them",
            param="messages",
        )


def _names(ids: set[str]) -> str:
    return ", ".join(repr(name) for name in sorted(ids)[:8]) or "none"
