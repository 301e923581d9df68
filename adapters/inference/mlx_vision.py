"""Continuous batching for models that read images: ``TextBatch`` over mlx-vlm's generator, with images seen first.

A request's images are looked at between two steps, one request at a time, so that nobody waits for more than one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

import mlx.core as mx
import numpy as np

from manent.adapters.inference.batch_entry import BatchEntry, evaluation_failed
from manent.adapters.inference.mlx_text import TextBatch
from manent.adapters.inference.prefix_cache import PrefixLimits
from manent.adapters.inference.prefix_reuse import PrefixReuse
from manent.adapters.inference.protocol import Generate, RunnerFrame
from manent.adapters.inference.vision_features import CachedTower
from manent.adapters.inference.vision_generator import EmbeddedPrompt, VisionGenerator
from manent.adapters.inference.vision_prompts import PromptImages, VisionRenderer, images_of
from manent.domain.images import ImagesUsed


class ImageLooker:
    """Makes of a request what the language model takes: tokens and, of images, features in their places."""

    def __init__(self, model: Any, images: PromptImages, renderer: VisionRenderer, tower: CachedTower | None) -> None:
        self._model = model
        self._images = images
        self._renderer = renderer
        self._tower = tower

    def look(self, request: Generate, output: list[int]) -> tuple[EmbeddedPrompt, ImagesUsed | None]:
        """A request's prompt with the tokens of an answer that were handed out before, and what its images came to.

        Raises:
            Exception: whatever decoders, processors and models raise.
        """
        token_ids = [*request.token_ids, *output]
        shown = images_of(request.messages)
        inputs: dict[str, Any] = {}
        if shown:
            text = self._renderer.text(request.messages, request.parameters.shape)
            processed = self._images.process(text, shown)
            if processed.token_ids != request.token_ids:
                raise ValueError("the prompt is rendered otherwise now")
            inputs = {name: _as_array(value) for name, value in processed.inputs.items()}
        if self._tower is not None:
            self._tower.begin(None if request.prefix is None else request.prefix.tenant, len(shown))
        pixels = inputs.pop("pixel_values", None)
        ids = mx.array([token_ids])
        features = self._model.get_input_embeddings(ids, pixels, mask=mx.ones_like(ids), **inputs).to_dict()
        keywords = {**inputs, **{name: value for name, value in features.items() if value is not None}}
        mx.eval([value for value in keywords.values() if isinstance(value, mx.array)])
        prompt = EmbeddedPrompt(token_ids=token_ids, keywords=keywords, has_images=bool(shown))
        return prompt, self._used(request, len(shown)) if shown else None

    def forget(self, tenant: str) -> None:
        """Drop what is kept of a tenant's images."""
        if self._tower is not None:
            self._tower.forget(tenant)

    def _used(self, request: Generate, count: int) -> ImagesUsed:
        return ImagesUsed(
            count=count,
            tokens=request.token_ids.count(self._images.image_token_id),
            reused=0 if self._tower is None else self._tower.reused,
        )


class VisionBatch(TextBatch):
    """The sequences that a model which reads images is generating. Each choice evaluates its own prompt."""

    def __init__(self, language_model: Any, looker: ImageLooker, **text_batch: Any) -> None:
        self._looker = looker
        self._unseen: deque[BatchEntry] = deque()
        self._refused: list[RunnerFrame] = []
        super().__init__(language_model, prefixes=NoPrefixes(looker.forget), **text_batch)

    def step(self) -> list[RunnerFrame]:
        """See ``TextBatch.step``; the images of one more request are looked at before."""
        frames = super().step()
        refused, self._refused = self._refused, []
        return refused + frames

    def _let_in(self) -> list[RunnerFrame]:
        if self._unseen and (entry := self._unseen.popleft()).request.id in self._entries:
            super()._admit(entry)
        return super()._let_in()

    def _admit(self, entry: BatchEntry) -> None:
        if entry.request.messages:
            self._unseen.append(entry)
        else:
            super()._admit(entry)

    def _enter(self, entry: BatchEntry) -> None:
        request, prompt = entry.request, None
        entry.generated.began_with(self.prefixes.find(request, request.token_ids).use, cached_tokens=0)
        try:
            for sequence in entry.open:
                if prompt is None or sequence.tokens:
                    prompt, entry.generated.images = self._looker.look(request, sequence.tokens)
                uid = self._generator.insert(
                    prompt,
                    chooser=sequence.chooser,
                    max_tokens=request.parameters.max_tokens - len(sequence.tokens),
                    stop_token_ids=entry.stop_token_ids,
                )
                self._sequences[uid] = sequence
        except Exception as error:  # noqa: BLE001 (whatever an image leads to fails its request and not the runner)
            self._refused.append(evaluation_failed(request, error))
            self._drop(request.id)

    def _new_generator(self) -> Any:
        generator = VisionGenerator(self._model, self._limits)
        self.prefixes.keeper.attach(generator)
        return generator


class NoPrefixes(PrefixReuse):
    """In place of a prefix cache, since tokens do not tell which images a prompt has; what is forgotten is features."""

    def __init__(self, forget: Callable[[str], None]) -> None:
        super().__init__(list, limits=PrefixLimits(memory_bytes=0))
        self._forget_features = forget

    def forget(self, tenant: str, conversation: str | None) -> None:
        """Drop the features of a tenant's images, whichever conversation they are of."""
        self._forget_features(tenant)


def _as_array(value: Any) -> Any:
    return mx.array(value) if isinstance(value, np.ndarray) else value
