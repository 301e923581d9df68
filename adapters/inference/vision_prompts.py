"""From messages with images to tokens and pixels: the chat template, and the model's processor. No evaluation."""

from __future__ import annotations

import io
import warnings
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from threading import Lock
from typing import Any

import numpy as np
from mlx_vlm.utils import prepare_inputs
from PIL import Image, ImageOps

from manent.adapters.inference.grammars import Grammars
from manent.adapters.inference.rendering import PromptRenderer, TemplateRefusal
from manent.domain.images import PIXELS_MAX
from manent.domain.messages import ImagePart, Message, TextPart

PROCESSED_BYTES_MAX = 256 * 2**20
SIZES_MAX = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessedPrompt:
    """A prompt as the model's processor made it: tokens, with as many for each image as it takes, and arrays."""

    token_ids: tuple[int, ...]
    inputs: Mapping[str, Any]

    @property
    def nbytes(self) -> int:
        """The bytes of the arrays."""
        return sum(value.nbytes for value in self.inputs.values() if isinstance(value, np.ndarray))


class PromptImages:
    """A model's processor. What it makes when a prompt is rendered is kept until the prompt is generated from.

    Used by two threads, one at a time: processors and their tokenizers keep settings between calls.
    """

    def __init__(self, processor: Any, *, image_token_id: int, bytes_max: int = PROCESSED_BYTES_MAX) -> None:
        self._processor = processor
        self.image_token_id = image_token_id
        self._bytes_max = bytes_max
        self._kept: OrderedDict[tuple[str, tuple[str, ...]], ProcessedPrompt] = OrderedDict()
        self._tokens_by_size: OrderedDict[tuple[int, int], int] = OrderedDict()
        self._lock = Lock()

    def process(self, text: str, images: Sequence[ImagePart]) -> ProcessedPrompt:
        """The prompt of a text with these images.

        Raises:
            TemplateRefusal: the text has no places for them, or one cannot be read.
            Exception: whatever decoders and processors raise.
        """
        name = text, tuple(image.digest for image in images)
        with self._lock:
            processed = self._kept.get(name)
            if processed is None:
                processed = self._processed(text, [_decoded(image) for image in images])
                self._kept[name] = processed
                while len(self._kept) > 1 and sum(kept.nbytes for kept in self._kept.values()) > self._bytes_max:
                    self._kept.popitem(last=False)
            self._kept.move_to_end(name)
        return processed

    def tokens_of_size(self, text: str, width: int, height: int) -> int:
        """How many tokens an image of this size takes; ``text`` is a prompt with a place for one."""
        with self._lock:
            tokens = self._tokens_by_size.get((width, height))
            if tokens is None:
                blank = Image.new("RGB", (width, height))
                tokens = self._processed(text, [blank]).token_ids.count(self.image_token_id)
                self._tokens_by_size[width, height] = tokens
                while len(self._tokens_by_size) > SIZES_MAX:
                    self._tokens_by_size.popitem(last=False)
            return tokens

    def _processed(self, text: str, images: list[Image.Image]) -> ProcessedPrompt:
        try:
            with warnings.catch_warnings(action="ignore"):
                inputs = prepare_inputs(  # type: ignore[no-untyped-call]  # mlx-vlm's
                    self._processor,
                    images=images,
                    prompts=[text],
                    image_token_index=self.image_token_id,
                    add_special_tokens=False,
                )
        except ValueError as error:
            # What processors raise where a template made other places than there are images.
            raise TemplateRefusal(f"the model's processor refuses text and images: {error}"[:500]) from error
        arrays = {name: _as_numpy(value) for name, value in inputs.items() if value is not None}
        (token_ids,) = arrays.pop("input_ids").tolist()
        arrays.pop("attention_mask", None)
        if self.image_token_id not in token_ids:
            raise TemplateRefusal("the model's chat template has no place for images where there are some")
        return ProcessedPrompt(token_ids=tuple(token_ids), inputs=arrays)


class VisionRenderer(PromptRenderer):
    """Renders and counts for a model that reads images. Text alone goes the way that it goes for other models."""

    def __init__(self, tokenizer: Any, images: PromptImages, grammars: Grammars | None = None) -> None:
        super().__init__(tokenizer, grammars)
        self._images = images

    def turn(self, message: Message) -> dict[str, Any]:
        """Messages with images are lists of parts, which is what templates of such models expect."""
        turn = super().turn(message)
        if message.images:
            turn["content"] = [_part(part) for part in message.parts]
        return turn

    def token_ids(self, text: str, messages: Sequence[Message]) -> tuple[int, ...]:
        """The tokens of the text of a prompt, with those that stand for images.

        Raises:
            TemplateRefusal: the template has no places for them.
        """
        images = images_of(messages)
        return self._images.process(text, images).token_ids if images else super().token_ids(text, messages)

    def tokens_beside_text(self, message: Message) -> int:
        """An image is one token in the text, and many in the prompt."""
        if not message.images:
            return 0
        probe = self._apply([{"role": "user", "content": [{"type": "image"}]}], prompt=False)
        return sum(self._images.tokens_of_size(probe, image.width, image.height) - 1 for image in message.images)


def images_of(messages: Sequence[Message]) -> list[ImagePart]:
    """All images, in the order in which they are to be seen."""
    return [part for message in messages for part in message.parts if isinstance(part, ImagePart)]


def _part(part: TextPart | ImagePart) -> dict[str, str]:
    return {"type": "text", "text": part.text} if isinstance(part, TextPart) else {"type": "image"}


def _decoded(image: ImagePart) -> Image.Image:
    """The picture as it is to be seen. It was checked when it came in; an import may have brought it past that."""
    try:
        with Image.open(io.BytesIO(image.data), formats=("PNG", "JPEG", "WEBP", "GIF")) as file:
            _check_size(file)
            return ImageOps.exif_transpose(file).convert("RGB")
    except Exception as error:  # decoders raise whatever they come upon in a damaged file
        raise TemplateRefusal(f"image {image.digest} cannot be read: {error}"[:300]) from error


def _check_size(file: Image.Image) -> None:
    if file.width * file.height > PIXELS_MAX:
        raise ValueError(f"it has more than {PIXELS_MAX} pixels")


def _as_numpy(value: Any) -> Any:
    """Arrays as NumPy's: MLX's belong to the thread that made them."""
    return value if isinstance(value, str | list | np.ndarray) else np.array(value)
