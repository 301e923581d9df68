"""From items of the wire to messages of the domain, or the parts of which messages are made."""

from __future__ import annotations

import json
from collections.abc import Sequence

from manent.adapters.http.errors import RequestRefused
from manent.adapters.http.wire_response_items import (
    CustomToolCallItem,
    CustomToolCallOutputItem,
    FunctionCallItem,
    FunctionCallOutputItem,
    ImageItemPart,
    InputItem,
    ItemContent,
    ItemReferenceItem,
    MessageItem,
    ReasoningItem,
    TextItemPart,
)
from manent.domain.images import ImageReader, ImageSource
from manent.domain.items import ItemReference
from manent.domain.messages import ImageDetail, Message, Role, TextPart, ToolCall
from manent.domain.ports import Ids
from manent.domain.usecases.resolve_items import Part

CUSTOM_ARGUMENT = "input"


async def parts_of(items: str | Sequence[InputItem] | None, *, path: str, ids: Ids, images: ImageReader) -> list[Part]:
    """What ``items`` say, each with a new id; ``path`` is their place in the request.

    Raises:
        RequestRefused, InvalidValue: an image cannot be taken.
    """
    if items is None:
        return []
    if isinstance(items, str):
        return [Message(message_id=ids.new("msg_"), role=Role.USER, content=(TextPart(text=items),))]
    parts: list[Part] = []
    for index, item in enumerate(items):
        place = f"{path}[{index}]"
        if isinstance(item, ItemReferenceItem):
            parts.append(ItemReference(item_id=item.id, param=f"{place}.id"))
        elif isinstance(item, MessageItem):
            parts.append(await _message(item, place, ids=ids, images=images))
        elif (part := _part(item, place, ids.new("msg_"))) is not None:
            parts.append(part)
    return parts


async def _message(item: MessageItem, path: str, *, ids: Ids, images: ImageReader) -> Message:
    sources = list(_image_sources(item, path))
    return Message(
        message_id=ids.new("msg_"),
        role=Role.SYSTEM if item.role == "developer" else Role(item.role),
        content=_texts(item.content),
        images=tuple(await images.read(sources)) if sources else (),
    )


def _part(
    item: FunctionCallItem | FunctionCallOutputItem | CustomToolCallItem | CustomToolCallOutputItem | ReasoningItem,
    path: str,
    message_id: str,
) -> Message | None:
    """The message that an item is, or is a part of; None where it says nothing."""
    match item:
        case FunctionCallItem():
            call = ToolCall(id=item.call_id, name=item.name, arguments=item.arguments)
            return Message(message_id=message_id, role=Role.ASSISTANT, content=(), tool_calls=(call,))
        case CustomToolCallItem():
            arguments = json.dumps({CUSTOM_ARGUMENT: item.input}, ensure_ascii=False)
            call = ToolCall(id=item.call_id, name=item.name, arguments=arguments, custom=True)
            return Message(message_id=message_id, role=Role.ASSISTANT, content=(), tool_calls=(call,))
        case FunctionCallOutputItem() | CustomToolCallOutputItem():
            _refuse_images(item.output, f"{path}.output", "a tool's output")
            return Message(
                message_id=message_id, role=Role.TOOL, content=_texts(item.output), tool_call_id=item.call_id
            )
        case ReasoningItem():
            thought = "".join(part.text for part in item.content or item.summary)
            if not thought:
                return None
            return Message(message_id=message_id, role=Role.ASSISTANT, content=(), reasoning=thought)


def _texts(content: ItemContent) -> tuple[TextPart, ...]:
    if isinstance(content, str):
        return (TextPart(text=content),)
    return tuple(TextPart(text=part.text) for part in content if isinstance(part, TextItemPart))


def _image_sources(item: MessageItem, path: str) -> list[ImageSource]:
    if isinstance(item.content, str):
        return []
    if item.role != "user":
        _refuse_images(item.content, f"{path}.content", f"the {item.role}'s message")
    sources, before = [], 0
    for number, part in enumerate(item.content):
        if not isinstance(part, ImageItemPart):
            before += 1
            continue
        sources.append(
            ImageSource(
                url=part.image_url,
                detail=ImageDetail(part.detail or ImageDetail.AUTO),
                text_before=before,
                param=f"{path}.content[{number}].image_url",
            )
        )
    return sources


def _refuse_images(content: ItemContent, path: str, where: str) -> None:
    for number, part in enumerate(content if isinstance(content, list) else ()):
        if isinstance(part, ImageItemPart):
            raise RequestRefused(
                "invalid_value",
                f"images can only be in a user's message, and this is {where}",
                param=f"{path}[{number}]",
            )
