"""What holds across the members of a message: which role has what."""

from __future__ import annotations

from collections.abc import Sequence

from manent.adapters.http.errors import RequestRefused
from manent.adapters.http.wire_requests import ChatMessage


def check_messages(messages: Sequence[ChatMessage]) -> None:
    """Raise RequestRefused where a message lacks what its role needs, or has what belongs to another."""
    for index, message in enumerate(messages):
        check_message(message, f"messages[{index}].")


def check_message(message: ChatMessage, path: str = "") -> None:
    """Raise RequestRefused as ``check_messages``; ``path`` leads to the message."""
    if message.content is None and not message.tool_calls:
        param = f"{path}content"
        if "content" in message.model_fields_set:
            text = f"Invalid type for '{param}': expected a string or an array, but got null."
            raise RequestRefused("invalid_type", text, param=param)
        raise _missing(param)
    if message.role == "tool" and message.tool_call_id is None:
        raise _missing(f"{path}tool_call_id")
    if message.tool_call_id is not None and message.role != "tool":
        raise _misplaced(f"{path}tool_call_id", "a tool message")
    if message.tool_calls and message.role != "assistant":
        raise _misplaced(f"{path}tool_calls", "an assistant message")


def _missing(param: str) -> RequestRefused:
    return RequestRefused("missing_required_parameter", f"Missing required parameter: '{param}'.", param=param)


def _misplaced(param: str, where: str) -> RequestRefused:
    return RequestRefused("invalid_value", f"Invalid value for '{param}': it belongs in {where}.", param=param)
