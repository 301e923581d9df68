"""Loading a model in a runner, and the facts about it that go into every completion's provenance."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx
from mlx_lm.models.cache import make_prompt_cache
from mlx_lm.utils import load

from manent.adapters.inference.architectures import batch_limits, mend
from manent.adapters.inference.batch_limits import BatchLimits
from manent.adapters.inference.digests import DigestCache, digest_of_text
from manent.adapters.inference.draft_loading import DraftFolder, load_draft
from manent.adapters.inference.drafted_batch import DraftedBatch
from manent.adapters.inference.drafting import DraftModel
from manent.adapters.inference.memory import process_bytes
from manent.adapters.inference.mlx_text import TextBatch
from manent.adapters.inference.model_facts import (
    device,
    device_bytes,
    dtype_of,
    exempt_from_collection,
    in_background,
    on_cpu,
    quantization_of,
    versions,
)
from manent.adapters.inference.model_folder import adapter_files, context_length_of, tokenizer_files, weight_files
from manent.adapters.inference.output_rules import OutputRules
from manent.adapters.inference.prefix_cache import PrefixLimits
from manent.adapters.inference.prefix_disk import PrefixDisk
from manent.adapters.inference.prefix_reuse import PrefixReuse
from manent.adapters.inference.prefix_settings import PrefixOptions
from manent.adapters.inference.protocol import Failed, Generate, RunnerFacts
from manent.adapters.inference.rendering import PromptRenderer
from manent.adapters.inference.token_text import token_bytes_of
from manent.domain.generation import SamplingParameters

_WARM_UP = SamplingParameters(temperature=0.0, top_p=1.0, max_tokens=1, seed=0)

# Prefill of 800 tokens on a CPU takes the same time in chunks of 64 as in one piece, and the longest step falls from
# 4.9 s to 0.4 s. A GPU wants larger pieces to be busy.
_CHUNK_CPU_TOKENS = 64
_CHUNK_GPU_TOKENS = 256


class EvaluationFailed(Exception):
    """The model was loaded, but cannot be evaluated."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedModel:
    """A model that has evaluated a token, what makes prompts for it, and what is known of both."""

    batch: TextBatch
    renderer: PromptRenderer
    facts: RunnerFacts

    def device_bytes(self) -> int:
        """What MLX's allocator holds."""
        return device_bytes()


def load_model(
    folder: Path,
    config: dict[str, Any],
    *,
    digest_folder: Path,
    adapter: Path | None = None,
    prefix: PrefixOptions | None = None,
    draft: DraftFolder | None = None,
) -> LoadedModel:
    """Load, digest and warm up a model; on the thread that will evaluate it.

    Args:
        folder: where it lies; found complete by ``check_model_folder``.
        config: its configuration, which that check gave back.
        digest_folder: where digests of files are remembered.
        adapter: the folder of a LoRA adapter, found complete as well; it counts as a part of the weights.
        prefix: the prefix cache; None is for none.
        draft: a draft model, found complete as well.

    Raises:
        ModelFolderError: the draft model does not fit.
        EvaluationFailed: the model cannot be evaluated.
        Exception: whatever the model's own code raises.
    """
    began_s = time.monotonic()
    digests = DigestCache(digest_folder)
    # Hashing releases the GIL, and so does loading: for a model that is seen for the first time they overlap.
    weights = [folder / "config.json", *weight_files(folder), *([] if adapter is None else adapter_files(adapter))]
    weights_digest = in_background(lambda: digests.digest_of_files(weights))
    model, tokenizer = load(str(folder), adapter_path=None if adapter is None else str(adapter))[:2]
    mend(model)
    # The first call may set the tokenizer's truncation and padding; later ones only read, from two threads.
    tokenizer.encode("a", add_special_tokens=False)
    rules = rules_of(config, tokenizer)
    batch = _new_batch(
        model,
        tokenizer,
        config,
        rules,
        prefix,
        draft=None
        if draft is None
        else load_draft(
            draft, model, tokenizer, vocabulary_size=vocabulary_size_of(config, tokenizer), digests=digests
        ),
    )
    warm_up(batch)
    facts = facts_of(
        config,
        tokenizer=tokenizer,
        dtype=dtype_of(model),
        weights_digest=weights_digest.result(),
        tokenizer_digest=digests.digest_of_files(tokenizer_files(folder)),
        adapter_digest=None if adapter is None else digests.digest_of_files(adapter_files(adapter)),
        began_s=began_s,
    )
    if prefix is not None and prefix.disk_bytes:
        batch.prefixes.open_disk(_prefix_disk(prefix, facts))
    return LoadedModel(batch=batch, renderer=PromptRenderer(tokenizer, rules.grammars), facts=facts)


def facts_of(
    config: dict[str, Any],
    *,
    tokenizer: Any,
    dtype: str,
    weights_digest: str,
    tokenizer_digest: str,
    began_s: float,
    adapter_digest: str | None = None,
    packages: Sequence[str] = (),
) -> RunnerFacts:
    """What goes into provenance, of a model that was loaded since ``began_s``; ``packages`` had a part in that too."""
    return RunnerFacts(
        context_length=context_length_of(config),
        vocabulary_size=vocabulary_size_of(config, tokenizer),
        weights_digest=weights_digest,
        tokenizer_digest=tokenizer_digest,
        template_digest=digest_of_text(str(tokenizer.chat_template or "")),
        versions=versions(*packages),
        device=device(),
        dtype=dtype,
        quantization=quantization_of(config),
        memory_bytes=max(process_bytes(os.getpid()), mx.get_active_memory()),
        load_s=time.monotonic() - began_s,
        adapter_digest=adapter_digest,
    )


def rules_of(config: dict[str, Any], tokenizer: Any) -> OutputRules:
    """What the model's output can be held to."""
    size = vocabulary_size_of(config, tokenizer)
    return OutputRules(tokenizer, vocabulary_size=size, eos_token_ids=tokenizer.eos_token_ids)


def _new_batch(
    model: Any,
    tokenizer: Any,
    config: dict[str, Any],
    rules: OutputRules,
    prefix: PrefixOptions | None,
    *,
    draft: DraftModel | None,
) -> TextBatch:
    prefixes = PrefixReuse(
        lambda: make_prompt_cache(model),
        limits=PrefixLimits(memory_bytes=0 if prefix is None else prefix.memory_bytes),
    )
    arguments = {**batch_arguments(model, tokenizer, config, rules), "prefixes": prefixes}
    return TextBatch(model, **arguments) if draft is None else DraftedBatch(model, draft, **arguments)


def batch_arguments(model: Any, tokenizer: Any, config: dict[str, Any], rules: OutputRules) -> dict[str, Any]:
    """What a ``TextBatch`` of this model is made with, less its prefix cache."""
    return {
        "eos_token_ids": tokenizer.eos_token_ids,
        "vocabulary_size": vocabulary_size_of(config, tokenizer),
        "new_detokenizer": lambda: tokenizer.detokenizer,
        "token_bytes": token_bytes_of(tokenizer),
        "rules": rules,
        "limits": batch_limits(model, BatchLimits(prefill_chunk_tokens=prefill_chunk_tokens())),
    }


def prefill_chunk_tokens() -> int:
    """How much of a prompt is evaluated between two tokens of the others."""
    return _CHUNK_CPU_TOKENS if on_cpu() else _CHUNK_GPU_TOKENS


def _prefix_disk(prefix: PrefixOptions, facts: RunnerFacts) -> PrefixDisk:
    """The disk tier; what was written by a model or by software that differs in anything here is not read."""
    made_by = [
        *(facts.weights_digest, facts.tokenizer_digest, facts.template_digest),
        *(facts.dtype, facts.quantization or "", facts.device),
        *(facts.versions[package] for package in ("mlx", "mlx-lm")),
    ]
    return PrefixDisk(
        prefix.folder, model=prefix.model, identity=digest_of_text("\n".join(made_by)), bytes_max=prefix.disk_bytes
    )


def warm_up(batch: TextBatch) -> None:
    """Generate one token: compiles what the device compiles, and refuses a model that fails on its first request.

    Raises:
        EvaluationFailed: it does.
    """
    frames = batch.add(Generate(id=0, token_ids=(0, 0), parameters=_WARM_UP), received_s=time.monotonic())
    while batch.active:
        frames = batch.step()
    for frame in frames:
        if isinstance(frame, Failed):
            raise EvaluationFailed(frame.message)
    exempt_from_collection()


def vocabulary_size_of(config: dict[str, Any], tokenizer: Any) -> int:
    """The rows of the embedding; the tokenizer's size is at most that, and the answer where the config is silent."""
    nested = config.get("text_config")
    size = config.get("vocab_size") or (nested.get("vocab_size") if isinstance(nested, dict) else None)
    return int(size or len(tokenizer))
