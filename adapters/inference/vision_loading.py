"""Loading a model that reads images in a runner: mlx-vlm's model and processor, mlx-lm's tokenizer."""

from __future__ import annotations

import os
import time
import warnings
from pathlib import Path
from typing import Any

from mlx_lm.utils import load_tokenizer

from manent.adapters.inference.batch_limits import BatchLimits
from manent.adapters.inference.digests import DigestCache
from manent.adapters.inference.loading import (
    LoadedModel,
    facts_of,
    prefill_chunk_tokens,
    rules_of,
    vocabulary_size_of,
    warm_up,
)
from manent.adapters.inference.model_facts import dtype_of, in_background
from manent.adapters.inference.model_folder import ModelFolderError, processor_files, tokenizer_files, weight_files
from manent.adapters.inference.token_text import token_bytes_of

_PACKAGES = ("mlx-vlm", "pillow", "numpy")


def load_vision_model(folder: Path, config: dict[str, Any], *, digest_folder: Path) -> LoadedModel:
    """Load, digest and warm up a model; on the thread that will evaluate it.

    Args:
        folder: where it lies; found complete by ``check_model_folder``.
        config: its configuration, which that check gave back.
        digest_folder: where digests of files are remembered.

    Raises:
        ModelFolderError: what reads images is not installed, or this is no model that does.
        EvaluationFailed: the model cannot be evaluated.
        Exception: whatever the model's own code raises.
    """
    began_s = time.monotonic()
    try:
        # Of transformers' processors, those that need torch announce that it is missing whether they are used or not.
        os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
        from mlx_vlm.utils import load_model, load_processor  # noqa: PLC0415 (an extra that may be missing)

        from manent.adapters.inference.mlx_vision import ImageLooker, VisionBatch  # noqa: PLC0415 (the same)
        from manent.adapters.inference.vision_features import CachedTower  # noqa: PLC0415 (the same)
        from manent.adapters.inference.vision_prompts import PromptImages, VisionRenderer  # noqa: PLC0415 (the same)
    except ModuleNotFoundError as error:
        needs = f"{folder} is of type vlm, which needs the package {error.name}"
        raise ModelFolderError(f"{needs}; run `make vision`, or install manent[vision]") from None
    digests = DigestCache(digest_folder)
    weights_digest = in_background(lambda: digests.digest_of_files([folder / "config.json", *weight_files(folder)]))
    model = load_model(folder)
    dtype = dtype_of(model)
    tower = CachedTower.on(model)
    with warnings.catch_warnings(action="ignore"):
        processor = load_processor(folder, add_detokenizer=False)
    tokenizer = load_tokenizer(folder)  # type: ignore[no-untyped-call]  # mlx-lm's
    tokenizer.encode("a", add_special_tokens=False)
    images = PromptImages(processor, image_token_id=_image_token_id(folder, model))
    rules = rules_of(config, tokenizer)
    renderer = VisionRenderer(tokenizer, images, rules.grammars)
    batch = VisionBatch(
        model.language_model,
        ImageLooker(model, images, renderer, tower),
        eos_token_ids=tokenizer.eos_token_ids,
        vocabulary_size=vocabulary_size_of(config, tokenizer),
        new_detokenizer=lambda: tokenizer.detokenizer,
        token_bytes=token_bytes_of(tokenizer),
        rules=rules,
        limits=BatchLimits(prefill_chunk_tokens=prefill_chunk_tokens()),
    )
    warm_up(batch)
    facts = facts_of(
        config,
        tokenizer=tokenizer,
        dtype=dtype,
        weights_digest=weights_digest.result(),
        # How an image becomes tokens is a part of how a prompt does.
        tokenizer_digest=digests.digest_of_files([*tokenizer_files(folder), *processor_files(folder)]),
        began_s=began_s,
        packages=_PACKAGES,
    )
    return LoadedModel(batch=batch, renderer=renderer, facts=facts)


def _image_token_id(folder: Path, model: Any) -> int:
    for name in ("image_token_id", "image_token_index"):
        if isinstance(token_id := getattr(model.config, name, None), int):
            return token_id
    raise ModelFolderError(f"{folder} is of type vlm, but its config.json names no image token; is it an llm?")
