"""Items as clients get them: those of a conversation, and those that a response puts out."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from manent.adapters.http.answers import logprobs_answer
from manent.adapters.http.response_input import CUSTOM_ARGUMENT
from manent.adapters.http.wire_response_answers import ItemList
from manent.domain.generation import TokenLogprobs
from manent.domain.items import Item, ItemKind, item_id
from manent.domain.messages import ImagePart, Message, Role, TextPart, ToolCall
from manent.domain.output_pieces import Piece
from manent.domain.responses import answer_id
from manent.domain.usecases.conversation_items import ItemPage

WITH_IMAGES = "message.input_image.image_url"


@dataclass(slots=True)
class OutputItem:
    """An item that a response puts out, as far as it is."""

    kind: ItemKind
    item_id: str
    index: int
    texts: list[str] = field(default_factory=list)
    logprobs: list[TokenLogprobs] = field(default_factory=list)
    call: ToolCall | None = None

    @property
    def text(self) -> str:
        """Its text, or reasoning, so far."""
        return "".join(self.texts)

    def answer(self, status: str) -> dict[str, Any]:
        """The item on the wire; one in progress is told without its content."""
        begun = status == "in_progress"
        if self.kind is ItemKind.CALL and self.call is not None:
            return call_answer(self.call, self.item_id, status=status, begun=begun)
        frame = {"id": self.item_id, "type": self.kind.value, "status": status}
        content = [] if begun else [self.part()]
        if self.kind is ItemKind.REASONING:
            return {**frame, "summary": [], "content": content, "encrypted_content": None}
        return {**frame, "role": "assistant", "content": content}

    def part(self, *, begun: bool = False) -> dict[str, Any]:
        """Its one part; where it is ``begun``, without its text."""
        text = "" if begun else self.text
        if self.kind is ItemKind.REASONING:
            return {"type": "reasoning_text", "text": text}
        logprobs = [] if begun else logprobs_answer(self.logprobs)["content"]
        return {"type": "output_text", "text": text, "annotations": [], "logprobs": logprobs}


class Output:
    """The items that a response puts out: pieces of one kind in a row are one, and each call is one of its own."""

    def __init__(self, response_id: str) -> None:
        self.items: list[OutputItem] = []
        self._message_id = answer_id(response_id)

    @classmethod
    def of(cls, response_id: str, pieces: Iterable[Piece]) -> Output:
        """The output that all of ``pieces`` add up to."""
        output = cls(response_id)
        for piece in pieces:
            output.add(piece)
        return output

    def add(self, piece: Piece) -> bool:
        """Take the next piece in; whether it began an item."""
        kind = _kind_of(piece)
        begins = not self.items or self.items[-1].kind is not kind or kind is ItemKind.CALL
        if begins:
            number = sum(item.kind is kind for item in self.items)
            custom = piece.call is not None and piece.call.custom
            named = item_id(kind, self._message_id, number=number, custom=custom)
            self.items.append(OutputItem(kind=kind, item_id=named, index=len(self.items), call=piece.call))
        self.items[-1].texts.append(piece.text or piece.reasoning)
        self.items[-1].logprobs.extend(piece.logprobs)
        return begins

    def answers(self, *, whole: bool) -> list[dict[str, Any]]:
        """The items on the wire; where it is not ``whole``, the last one is incomplete unless it is a call."""
        cut = -1 if whole or not self.items or self.items[-1].kind is ItemKind.CALL else self.items[-1].index
        return [item.answer("incomplete" if item.index == cut else "completed") for item in self.items]


def call_answer(call: ToolCall, named: str, *, status: str = "completed", begun: bool = False) -> dict[str, Any]:
    """A call on the wire; where it is ``begun``, without its arguments."""
    frame = {"id": named, "status": status, "call_id": call.id, "name": call.name}
    if call.custom:
        return {**frame, "type": "custom_tool_call", "input": "" if begun else custom_input(call)}
    return {**frame, "type": "function_call", "arguments": "" if begun else call.arguments}


def custom_input(call: ToolCall) -> str:
    """The text that a custom tool is called with; all of the arguments where the model wrote something else."""
    arguments = call.read_arguments()
    text = arguments.get(CUSTOM_ARGUMENT) if isinstance(arguments, dict) else None
    return text if isinstance(text, str) else call.arguments


def item_list(page: ItemPage, include: Sequence[str]) -> ItemList:
    """A page of items on the wire."""
    data = [item_answer(item, include) for item in page.items]
    return ItemList.model_validate(
        {
            "data": data,
            "first_id": data[0]["id"] if data else None,
            "last_id": data[-1]["id"] if data else None,
            "has_more": page.has_more,
        }
    )


def item_answer(item: Item, include: Sequence[str] = ()) -> dict[str, Any]:
    """An item of a conversation on the wire."""
    message = item.message
    frame = {"id": item.item_id, "status": "completed"}
    match item.kind:
        case ItemKind.CALL if item.call is not None:
            return call_answer(item.call, item.item_id)
        case ItemKind.REASONING:
            content = [{"type": "reasoning_text", "text": message.reasoning}]
            return {**frame, "type": "reasoning", "summary": [], "content": content, "encrypted_content": None}
        case ItemKind.RESULT:
            kind = "custom_tool_call_output" if item.is_custom else "function_call_output"
            return {**frame, "type": kind, "call_id": message.tool_call_id, "output": _result(message)}
        case _:
            parts = [_part(part, message.role, include) for part in message.parts]
            return {**frame, "type": "message", "role": message.role.value, "content": parts}


def _kind_of(piece: Piece) -> ItemKind:
    if piece.call is not None:
        return ItemKind.CALL
    return ItemKind.REASONING if piece.reasoning else ItemKind.MESSAGE


def _result(message: Message) -> str | list[dict[str, Any]]:
    if len(message.content) == 1:
        return message.content[0].text
    return [{"type": "input_text", "text": part.text} for part in message.content]


def _part(part: TextPart | ImagePart, role: Role, include: Sequence[str]) -> dict[str, Any]:
    if isinstance(part, ImagePart):
        data = base64.b64encode(part.data).decode("ascii") if WITH_IMAGES in include else None
        url = None if data is None else f"data:{part.media_type};base64,{data}"
        return {"type": "input_image", "detail": part.detail.value, "file_id": None, "image_url": url}
    if role is Role.ASSISTANT:
        return {"type": "output_text", "text": part.text, "annotations": [], "logprobs": []}
    return {"type": "input_text", "text": part.text}
