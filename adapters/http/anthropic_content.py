"""From the turns of Anthropic's messages to messages of the domain.

Turns of one role in a row are one turn. A user's turn is the results of tools, each a message of its own, and what the
user says besides; an assistant's is one message: what it thought, said and called.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import NoReturn

from manent.adapters.http.errors import RequestRefused
from manent.adapters.http.output_shape import json_text
from manent.adapters.http.wire_anthropic_requests import (
    Block,
    InputMessage,
    MessageImageBlock,
    MessageTextBlock,
    ThinkingBlock,
    TokenCountRequest,
    ToolResultBlock,
    ToolUseBlock,
    UrlSource,
)
from manent.adapters.http.wire_tools import ARGUMENTS_CHARS_MAX
from manent.domain.images import ImageReader, ImageSource
from manent.domain.messages import ImagePart, Message, Role, TextPart, ToolCall
from manent.domain.ports import Ids

BLANK_LINE = "\n\n"
"""What stands between blocks of the system prompt, and between texts of turns that are one."""
ERROR_MARK = "Error: "
"""What the result of a tool that failed begins with: models know no other sign of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Placed:
    """A block, and its path in the request."""

    block: Block
    path: str


@dataclass(slots=True)
class _Said:
    """A message of the domain, and the texts and images that it is to have besides."""

    message: Message
    texts: list[TextPart] = field(default_factory=list)
    images: list[ImageSource] = field(default_factory=list)

    def whole(self, images: Iterator[ImagePart]) -> Message:
        """The whole message; its images are the next ones."""
        content = (*self.message.content, *self.texts)
        return replace(self.message, content=content, images=tuple(next(images) for _ in self.images))


async def domain_conversation(
    asked: TokenCountRequest, *, ids: Ids, images: ImageReader, in_session: bool = False
) -> tuple[Message, ...]:
    """What a request says, the system prompt first; each message with a new id.

    ``in_session`` leaves each turn of a user's by itself: so the session has them, and they are compared with it.

    Raises:
        RequestRefused: a block is where it does not belong.
        InvalidValue: an image cannot be taken.
    """
    said = [_Said(message) for message in _system(asked, ids)]
    for role, turn in groupby(_placed(asked.messages), key=lambda pair: pair[0]):
        turns = [placed for _, placed in turn]
        if role is Role.USER and in_session:
            said += [one for blocks in turns for one in _user(blocks, ids)]
        elif role is Role.USER:
            said += _user(_joined(turns), ids)
        else:
            said.append(_Said(_one(role, _joined(turns), ids.new("msg_"))))
    sources = [source for one in said for source in one.images]
    read = iter(await images.read(sources) if sources else ())
    return tuple(one.whole(read) for one in said)


def _system(asked: TokenCountRequest, ids: Ids) -> list[Message]:
    texts = [asked.system] if isinstance(asked.system, str) else [block.text for block in asked.system or ()]
    text = BLANK_LINE.join(texts)
    return [Message(message_id=ids.new("msg_"), role=Role.SYSTEM, content=(TextPart(text=text),))] if text else []


def _placed(messages: Sequence[InputMessage]) -> list[tuple[Role, list[_Placed]]]:
    placed = []
    for index, message in enumerate(messages):
        path, content = f"messages[{index}].content", message.content
        if not content and message.role != "assistant":
            raise RequestRefused("invalid_value", f"Invalid value for '{path}': it is empty.", param=path)
        blocks = [MessageTextBlock(type="text", text=content)] if isinstance(content, str) else content
        found = [_Placed(block=block, path=f"{path}[{number}]") for number, block in enumerate(blocks)]
        placed.append((Role(message.role), found))
    return placed


def _joined(turns: Sequence[Sequence[_Placed]]) -> list[_Placed]:
    """The blocks of turns of one role; where text meets text, a blank line stands between them."""
    joined: list[_Placed] = []
    for blocks in turns:
        if joined and blocks:
            first, last = blocks[0], joined[-1]
            if isinstance(first.block, MessageTextBlock) and isinstance(last.block, MessageTextBlock):
                apart = MessageTextBlock(type="text", text=BLANK_LINE + first.block.text)
                blocks = [_Placed(block=apart, path=first.path), *blocks[1:]]  # noqa: PLW2901 (the same, set apart)
        joined.extend(blocks)
    return joined


def _user(blocks: Sequence[_Placed], ids: Ids) -> list[_Said]:
    said: list[_Said] = []
    for placed in blocks:
        block = placed.block
        if isinstance(block, ToolResultBlock):
            said.append(_Said(_result(block, placed.path, ids.new("msg_"))))
            continue
        if not said or said[-1].message.role is not Role.USER:
            said.append(_Said(Message(message_id=ids.new("msg_"), role=Role.USER, content=())))
        one = said[-1]
        if isinstance(block, MessageTextBlock):
            one.texts.append(TextPart(text=block.text))
        elif isinstance(block, MessageImageBlock):
            one.images.append(_image(block, placed.path, text_before=len(one.texts)))
        else:
            _misplaced(placed, "the assistant's")
    return said


def _one(role: Role, blocks: Sequence[_Placed], message_id: str) -> Message:
    """The message of an assistant's turn, or of a system prompt amid the conversation."""
    texts, thoughts, calls = [], [], []
    for placed in blocks:
        match placed.block:
            case MessageTextBlock(text=text):
                texts.append(TextPart(text=text))
            case MessageImageBlock() | ToolResultBlock():
                _misplaced(placed, "a user's")
            case _ if role is not Role.ASSISTANT:
                _misplaced(placed, "the assistant's")
            case ThinkingBlock(thinking=thinking):
                thoughts.append(thinking)
            case ToolUseBlock() as block:
                calls.append(_call(block, placed.path))
    return Message(
        message_id=message_id,
        role=role,
        content=tuple(texts),
        tool_calls=tuple(calls),
        reasoning="".join(thoughts) or None,
    )


def _call(block: ToolUseBlock, path: str) -> ToolCall:
    arguments = json_text(block.input, f"{path}.input")
    if len(arguments) > ARGUMENTS_CHARS_MAX:
        raise RequestRefused(
            "invalid_value",
            f"Invalid value for '{path}.input': it has {len(arguments)} characters as JSON; at most "
            f"{ARGUMENTS_CHARS_MAX} are allowed.",
            param=f"{path}.input",
        )
    return ToolCall(id=block.id, name=block.name, arguments=arguments)


def _result(block: ToolResultBlock, path: str, message_id: str) -> Message:
    texts = [block.content] if isinstance(block.content, str) else []
    for number, part in enumerate(block.content if isinstance(block.content, list) else ()):
        if isinstance(part, MessageImageBlock):
            raise RequestRefused(
                "unsupported_parameter",
                "Unsupported parameter: images in the result of a tool; send them in the user's message behind it.",
                param=f"{path}.content[{number}]",
            )
        texts.append(part.text)
    if block.is_error:
        texts.insert(0, ERROR_MARK)
    return Message(
        message_id=message_id,
        role=Role.TOOL,
        content=tuple(TextPart(text=text) for text in texts),
        tool_call_id=block.tool_use_id,
    )


def _image(block: MessageImageBlock, path: str, *, text_before: int) -> ImageSource:
    source = block.source
    is_url = isinstance(source, UrlSource)
    return ImageSource(
        url=source.url if isinstance(source, UrlSource) else f"data:{source.media_type};base64,{source.data}",
        text_before=text_before,
        param=f"{path}.source.{'url' if is_url else 'data'}",
    )


def _misplaced(placed: _Placed, whose: str) -> NoReturn:
    raise RequestRefused(
        "invalid_value",
        f"Invalid value for '{placed.path}': blocks of type {placed.block.type!r} belong in {whose} turn.",
        param=placed.path,
    )
