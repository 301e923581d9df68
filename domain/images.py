"""Images in messages: where they come from, how many a prompt may have, and what became of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from manent.domain.errors import InvalidValue
from manent.domain.messages import ImageDetail, ImagePart, Message

IMAGE_BYTES_MAX = 10_000_000
"""A message is one event, and the log takes 16 MiB for one: in base64 that is an image of 12 MB, and some text."""

PIXELS_MAX = 50_000_000
"""A decoded image takes up to four bytes a pixel; most cameras stay below."""

IMAGES_MAX = 32
PROMPT_BYTES_MAX = 48_000_000
"""Of all images that a model is shown at once; they travel to its process in one frame of at most 64 MiB."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageSource:
    """An image that a client speaks of: a data URL, or an address; ``param`` is the place in the request."""

    url: str
    detail: ImageDetail = ImageDetail.AUTO
    text_before: int = 0
    param: str = "messages"


class ImageReader(Protocol):
    """Gets and checks images, before anything is recorded."""

    async def read(self, sources: Sequence[ImageSource]) -> list[ImagePart]:
        """The images, in their order; those at addresses are fetched, where that is allowed.

        Raises:
            InvalidValue: one is no image that can be read, is too large, or may not be fetched.
        """
        ...

    def read_embedded(self, sources: Sequence[ImageSource]) -> list[ImagePart]:
        """The same of data URLs alone; for threads, since it takes time.

        Raises as ``read`` does.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ImagesUsed:
    """What the images of a prompt came to: how many, and how many of its tokens they are.

    The features of ``reused`` of them were not computed again, since the model's runner still had them.
    """

    count: int
    tokens: int
    reused: int


def check_images(model_id: str, messages: Sequence[Message], *, reads_images: bool) -> None:
    """Raise InvalidValue unless the model may be shown the images of ``messages``; engines ask before they render."""
    images = [image for message in messages for image in message.images]
    if not images:
        return
    if not reads_images:
        raise InvalidValue(
            f"model {model_id} reads text alone, and there are images in the conversation; ask a model that has "
            "'image' among its input_modalities in /v1/models",
            param="messages",
        )
    if len(images) > IMAGES_MAX:
        raise InvalidValue(
            f"the conversation has {len(images)} images; a model is shown at most {IMAGES_MAX} at once",
            param="messages",
        )
    size_bytes = sum(len(image.data) for image in images)
    if size_bytes > PROMPT_BYTES_MAX:
        raise InvalidValue(
            f"the images of the conversation have {size_bytes} bytes; a model is shown at most {PROMPT_BYTES_MAX} "
            "at once",
            param="messages",
        )
