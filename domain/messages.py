"""Messages: roles, content parts, tool calls, and when two messages count as the same."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Literal

from manent.domain.made_often import made_often


class Role(StrEnum):
    """Who speaks. OpenAI's ``developer`` is ``system`` here, as the chat templates of MLX models have it."""

    SYSTEM = "system"
    USER = "user"
    ASSISTANT = "assistant"
    TOOL = "tool"


class ImageDetail(StrEnum):
    """How closely a client wants an image to be looked at (OpenAI's ``detail``); recorded with it."""

    AUTO = "auto"
    LOW = "low"
    HIGH = "high"
    ORIGINAL = "original"


@made_often
@dataclass(frozen=True, slots=True, kw_only=True)
class TextPart:
    """A piece of text of a message."""

    text: str
    type: Literal["text"] = "text"


@dataclass(frozen=True, slots=True, kw_only=True)
class ImagePart:
    """An image of a message: the file as it came in, and what was found in it.

    ``digest`` is ``sha256:<hex>`` of ``data``; width and height are in pixels, as the image is to be seen (its EXIF
    orientation applied). ``text_before`` tells how many of the message's pieces of text stand before it.
    """

    digest: str
    media_type: str
    width: int
    height: int
    data: bytes
    detail: ImageDetail = ImageDetail.AUTO
    text_before: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolCall:
    """A function call that the assistant asks for. ``arguments`` is JSON text, as the model wrote it.

    A ``custom`` tool takes text, which is the one argument ``input``.
    """

    id: str
    name: str
    arguments: str
    custom: bool = False

    def read_arguments(self) -> Any:
        """What ``arguments`` say, of characters that UTF-8 has; the text itself where it is no JSON."""
        try:
            value = json.loads(self.arguments)
            return json.loads(whole_characters(json.dumps(value, ensure_ascii=False, allow_nan=False)))
        except (ValueError, RecursionError):
            return self.arguments


@made_often
@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One message of a conversation; ``message_id`` is unique within its tenant.

    ``reasoning`` is what the assistant thought before it answered; the model's template decides whether it sees that
    again.
    """

    message_id: str
    role: Role
    content: tuple[TextPart, ...]
    name: str | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str | None = None
    images: tuple[ImagePart, ...] = ()
    reasoning: str | None = None

    @property
    def text(self) -> str:
        """All text of the message, its parts joined."""
        return self.content[0].text if len(self.content) == 1 else "".join(part.text for part in self.content)

    @property
    def parts(self) -> list[TextPart | ImagePart]:
        """Text and images in the order in which they are to be seen."""
        parts: list[TextPart | ImagePart] = []
        for number in range(len(self.content) + 1):
            parts += [image for image in self.images if image.text_before == number]
            parts += self.content[number : number + 1]
        return parts

    @property
    def committed_bytes(self) -> bytes:
        """What a commitment to the message is made of: its text, each image's SHA-256, and JSON of its tool calls."""
        said = self.text.encode()
        if self.images:
            said += digests_of(self.images)
        if self.tool_calls:
            said += json.dumps([[call.id, call.name, call.arguments] for call in self.tool_calls]).encode()
        return said


def digests_of(images: Iterable[ImagePart]) -> bytes:
    """The SHA-256 of each image, one behind the other."""
    return b"".join(bytes.fromhex(image.digest.removeprefix("sha256:")) for image in images)


def same_message(one: Message, other: Message) -> bool:
    """Whether a client that sent ``one`` meant ``other``.

    Ids, reasoning and white space at the ends do not count; nor does how the arguments of calls are written as JSON,
    since many clients keep the value and send it back in their own spelling.
    """
    return _said(one) == _said(other) and all(map(_same_arguments, one.tool_calls, other.tool_calls))


def same_messages(some: Sequence[Message], others: Sequence[Message]) -> bool:
    """Whether both say the same, message by message."""
    return len(some) == len(others) and all(map(same_message, some, others))


def common_prefix_length(some: Sequence[Message], others: Sequence[Message]) -> int:
    """How many messages both begin with."""
    length = 0
    for one, other in zip(some, others, strict=False):
        if not same_message(one, other):
            break
        length += 1
    return length


def _said(message: Message) -> tuple[object, ...]:
    calls = tuple((call.id, call.name) for call in message.tool_calls)
    images = tuple((image.digest, image.text_before) for image in message.images)
    return message.role, message.text.strip(), message.name, calls, message.tool_call_id, images


def _same_arguments(one: ToolCall, other: ToolCall) -> bool:
    if one.arguments.strip() == other.arguments.strip():
        return True
    try:
        return _canonical(one.arguments) == _canonical(other.arguments)
    except (ValueError, RecursionError):
        return False


def whole_characters(text: str) -> str:
    """``text`` as UTF-8 can have it: for half of a surrogate pair, which JSON may spell, U+FFFD."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _canonical(arguments: str) -> str:
    return json.dumps(json.loads(arguments), sort_keys=True)
