"""Items: how OpenAI's Responses and Conversations see messages. A message is one or several of them.

An assistant's message is its reasoning, its text and each of its calls; every other message is one item. Ids of items
are made of the message's, so that they are the same wherever they are seen, and lead back to it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from manent.domain.history import History
from manent.domain.messages import Message, Role, ToolCall
from manent.domain.responses import MESSAGE_IDS


class ItemKind(StrEnum):
    """What an item is."""

    MESSAGE = "message"
    REASONING = "reasoning"
    CALL = "call"
    RESULT = "result"


PREFIXES = ("msg_", "rs_", "fc_", "ctc_", "fco_", "ctco_")


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemReference:
    """An item that was said before, meant by its id; ``param`` is its place in the request."""

    item_id: str
    param: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """A part of ``message``, or all of it; ``call`` is the one that it is or, of a result, the one that it answers."""

    item_id: str
    kind: ItemKind
    message: Message
    call: ToolCall | None = None

    @property
    def is_custom(self) -> bool:
        """Whether it is of a custom tool, which takes text instead of arguments."""
        return self.call is not None and self.call.custom


def item_id(kind: ItemKind, message_id: str, *, number: int = 0, custom: bool = False) -> str:
    """The id of the part number ``number`` of its kind of a message."""
    prefix = {
        ItemKind.MESSAGE: "msg_",
        ItemKind.REASONING: "rs_",
        ItemKind.CALL: "ctc_" if custom else "fc_",
        ItemKind.RESULT: "ctco_" if custom else "fco_",
    }[kind]
    name = prefix + message_id.removeprefix(MESSAGE_IDS)
    return f"{name}_{number}" if number else name


def message_ids_of(wanted: str) -> tuple[str, ...]:
    """The ids of messages of which ``wanted`` may be an item."""
    prefix = next((prefix for prefix in PREFIXES if wanted.startswith(prefix)), None)
    if prefix is None:
        return (wanted,)
    rest = wanted.removeprefix(prefix)
    stem, _, number = rest.rpartition("_")
    return (MESSAGE_IDS + rest, MESSAGE_IDS + stem) if stem and number.isdigit() else (MESSAGE_IDS + rest,)


def items_of(messages: Sequence[Message], index: int) -> list[Item]:
    """The items that message ``index`` of a conversation is, at least one."""
    message = messages[index]
    if message.role is Role.TOOL:
        call = _answered(messages, index)
        named = item_id(ItemKind.RESULT, message.message_id, custom=call is not None and call.custom)
        return [Item(item_id=named, kind=ItemKind.RESULT, message=message, call=call)]
    found = []
    if message.reasoning:
        named = item_id(ItemKind.REASONING, message.message_id)
        found.append(Item(item_id=named, kind=ItemKind.REASONING, message=message))
    calls = [
        Item(
            item_id=item_id(ItemKind.CALL, message.message_id, number=number, custom=call.custom),
            kind=ItemKind.CALL,
            message=message,
            call=call,
        )
        for number, call in enumerate(message.tool_calls)
    ]
    if message.text or message.images or not (found or calls):
        named = item_id(ItemKind.MESSAGE, message.message_id)
        found.append(Item(item_id=named, kind=ItemKind.MESSAGE, message=message))
    return [*found, *calls]


def find_item(messages: Sequence[Message], wanted: str) -> tuple[int, Item] | None:
    """The item with this id and the index of its message; a look-up where ``messages`` is a ``History``."""
    for message_id in message_ids_of(wanted):
        index = _index_of(messages, message_id)
        if index is not None:
            for item in items_of(messages, index):
                if item.item_id == wanted:
                    return index, item
    return None


def part_of(item: Item) -> Message:
    """What the item alone says, as a message."""
    match item.kind:
        case ItemKind.REASONING:
            return replace(item.message, content=(), tool_calls=())
        case ItemKind.CALL:
            calls = () if item.call is None else (item.call,)
            return replace(item.message, content=(), reasoning=None, tool_calls=calls)
        case _:
            return replace(item.message, reasoning=None, tool_calls=())


def without(item: Item) -> Message | None:
    """What is left of an item's message without it; None where that is nothing."""
    message = item.message
    match item.kind:
        case ItemKind.REASONING:
            left = replace(message, reasoning=None)
        case ItemKind.CALL:
            left = replace(message, tool_calls=tuple(call for call in message.tool_calls if call != item.call))
        case _:
            left = replace(message, content=(), images=())
    return left if left.text or left.images or left.reasoning or left.tool_calls else None


def merged(parts: Sequence[Message]) -> tuple[Message, ...]:
    """The messages that the parts of items add up to: reasoning, text and calls that follow one another are one."""
    messages: list[Message] = []
    for part in parts:
        if messages and _continues(messages[-1], part):
            messages[-1] = replace(
                messages[-1],
                content=(*messages[-1].content, *part.content),
                tool_calls=(*messages[-1].tool_calls, *part.tool_calls),
            )
        else:
            messages.append(part)
    return tuple(messages)


def _index_of(messages: Sequence[Message], message_id: str) -> int | None:
    if isinstance(messages, History):
        return messages.index_of(message_id)
    return next((index for index, message in enumerate(messages) if message.message_id == message_id), None)


def _continues(message: Message, part: Message) -> bool:
    if message.role is not Role.ASSISTANT or part.role is not Role.ASSISTANT or part.reasoning:
        return False
    return not part.content or not (message.content or message.tool_calls)


def _answered(messages: Sequence[Message], index: int) -> ToolCall | None:
    """The call that a tool's message answers: one of the last assistant's message before it."""
    wanted = messages[index].tool_call_id
    for before in range(index - 1, -1, -1):
        if messages[before].role is not Role.TOOL:
            return next((call for call in messages[before].tool_calls if call.id == wanted), None)
    return None
