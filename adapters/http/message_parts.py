"""The content of messages between the wire and the domain: text, and images that are read before anything is kept."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from manent.adapters.http.errors import RequestRefused
from manent.adapters.http.wire_requests import ChatMessage, Content, ImageContentPart, TextContentPart
from manent.domain.images import ImageReader, ImageSource
from manent.domain.messages import ImageDetail, ImagePart, Message, TextPart


def text_parts(content: Content | None) -> tuple[TextPart, ...]:
    """The pieces of text of a message's content."""
    if content is None:
        return ()
    if isinstance(content, str):
        return (TextPart(text=content),)
    return tuple([TextPart(text=part.text) for part in content if isinstance(part, TextContentPart)])


def image_sources(content: Content | None, *, role: str, param: str) -> Iterator[ImageSource]:
    """The images of a message's content; ``param`` is the message's place in the request, or empty.

    Raises:
        RequestRefused: they are not a user's.
    """
    before = 0
    for number, part in enumerate(content if isinstance(content, list) else ()):
        if not isinstance(part, ImageContentPart):
            before += 1
            continue
        place = f"{param}.content[{number}]".removeprefix(".")
        if role != "user":
            raise RequestRefused(
                "invalid_value", f"images can only be in a user's message, and this is the {role}'s", param=place
            )
        yield ImageSource(
            url=part.image_url.url,
            detail=ImageDetail(part.image_url.detail or ImageDetail.AUTO),
            text_before=before,
            param=f"{place}.image_url.url",
        )


async def with_images(
    messages: Sequence[Message], asked: Sequence[ChatMessage], reader: ImageReader, *, param: str = "messages"
) -> tuple[Message, ...]:
    """The messages, each with the images that ``asked`` names for it; ``param`` is the list's place, or empty.

    Raises:
        RequestRefused, InvalidValue: an image cannot be taken; ``param`` is its place.
    """
    sources = [
        (index, source)
        for index, message in enumerate(asked)
        if isinstance(message.content, list)
        for source in image_sources(message.content, role=message.role, param=f"{param}[{index}]" if param else "")
    ]
    if not sources:
        return tuple(messages)
    found: dict[int, list[ImagePart]] = {}
    images = await reader.read([source for _, source in sources])
    for (index, _), image in zip(sources, images, strict=True):
        found.setdefault(index, []).append(image)
    return tuple(replace(message, images=tuple(found.get(index, ()))) for index, message in enumerate(messages))


def openai_content(message: Message) -> Any:
    """A message's content as OpenAI's chat completions take it; images as data URLs."""
    if not message.images and len(message.content) == 1:
        return message.content[0].text
    return [_openai_part(part) for part in message.parts] or None


def _openai_part(part: TextPart | ImagePart) -> dict[str, Any]:
    if isinstance(part, TextPart):
        return {"type": "text", "text": part.text}
    url = f"data:{part.media_type};base64,{base64.b64encode(part.data).decode('ascii')}"
    return {"type": "image_url", "image_url": {"url": url, "detail": part.detail.value}}
