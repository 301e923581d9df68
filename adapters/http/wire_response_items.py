"""Items as clients send them to responses and conversations, as pydantic models.

Clients send back what they got, and newer ones with members of newer APIs: those of items, and only those, are passed
over. What decides the meaning is checked as strictly as everything else.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Discriminator, Field, Tag

from manent.adapters.http.wire import Wire
from manent.adapters.http.wire_tools import ARGUMENTS_CHARS_MAX, CallId

ITEM_TYPES = (
    "message",
    "function_call",
    "function_call_output",
    "custom_tool_call",
    "custom_tool_call_output",
    "reasoning",
    "item_reference",
)
PART_TYPES = ("input_text", "input_image", "output_text", "text", "summary_text", "reasoning_text")

ToolName = Annotated[str, Field(min_length=1, max_length=256)]
ItemId = Annotated[str, Field(min_length=1, max_length=256)]
Arguments = Annotated[str, Field(max_length=ARGUMENTS_CHARS_MAX)]


class Lenient(Wire):
    """A part of an item: members that it does not know are passed over."""

    model_config = ConfigDict(extra="ignore")


class TextItemPart(Lenient):
    """A piece of text."""

    type: Literal["input_text", "output_text", "text", "summary_text", "reasoning_text"]
    text: str


class ImageItemPart(Lenient):
    """An image: a data URL, or an address where the server's operator allows that."""

    type: Literal["input_image"]
    image_url: Annotated[str, Field(min_length=1)]
    detail: Literal["auto", "low", "high", "original"] | None = None


def part_kind(value: Any) -> str:
    """The tag of a part of an item's content."""
    kind = value.get("type") if isinstance(value, dict) else getattr(value, "type", None)
    return "<image>" if kind == "input_image" else "<text>"


def content_kind(value: Any) -> str | None:
    """The tag of an item's content."""
    if isinstance(value, str):
        return "<string>"
    return "<parts>" if isinstance(value, list) else None


ItemPart = Annotated[
    Annotated[TextItemPart, Tag("<text>")] | Annotated[ImageItemPart, Tag("<image>")], Discriminator(part_kind)
]
ItemContent = Annotated[
    Annotated[str, Tag("<string>")] | Annotated[list[ItemPart], Tag("<parts>")], Discriminator(content_kind)
]


class MessageItem(Lenient):
    """A message; ``developer`` is ``system`` to the model."""

    type: Literal["message"] = "message"
    role: Literal["user", "assistant", "system", "developer"]
    content: ItemContent


class FunctionCallItem(Lenient):
    """A function call that the assistant asked for; ``arguments`` is JSON text."""

    type: Literal["function_call"]
    call_id: CallId
    name: ToolName
    arguments: Arguments


class FunctionCallOutputItem(Lenient):
    """What a function returned."""

    type: Literal["function_call_output"]
    call_id: CallId
    output: ItemContent


class CustomToolCallItem(Lenient):
    """A call of a custom tool, which takes text."""

    type: Literal["custom_tool_call"]
    call_id: CallId
    name: ToolName
    input: Arguments


class CustomToolCallOutputItem(Lenient):
    """What a custom tool returned."""

    type: Literal["custom_tool_call_output"]
    call_id: CallId
    output: ItemContent


class ReasoningItem(Lenient):
    """What the assistant thought: ``content`` or, where that is missing, ``summary``."""

    type: Literal["reasoning"]
    summary: list[TextItemPart] = Field(default_factory=list)
    content: list[TextItemPart] | None = None


class ItemReferenceItem(Lenient):
    """An item that was said before: of this conversation, or put out by any stored response."""

    type: Literal["item_reference"] | None = None
    id: ItemId


def item_kind(value: Any) -> str | None:
    """The tag of an item; a message and a reference may leave their type out."""
    if not isinstance(value, dict):
        kind = getattr(value, "type", None)
        return f"<{kind or 'item_reference'}>" if isinstance(value, Lenient) else None
    kind = value.get("type")
    if kind is None:
        kind = "message" if "role" in value or "id" not in value else "item_reference"
    return f"<{kind}>" if kind in ITEM_TYPES else None


InputItem = Annotated[
    Annotated[MessageItem, Tag("<message>")]
    | Annotated[FunctionCallItem, Tag("<function_call>")]
    | Annotated[FunctionCallOutputItem, Tag("<function_call_output>")]
    | Annotated[CustomToolCallItem, Tag("<custom_tool_call>")]
    | Annotated[CustomToolCallOutputItem, Tag("<custom_tool_call_output>")]
    | Annotated[ReasoningItem, Tag("<reasoning>")]
    | Annotated[ItemReferenceItem, Tag("<item_reference>")],
    Discriminator(item_kind),
]
