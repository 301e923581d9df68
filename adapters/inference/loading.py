"""Loading a model in a runner, and the facts about it that go into every completion's provenance."""

from __future__ import annotations

import gc
import os
import platform
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from threading import Thread
from typing import Any, TypeVar

import mlx.core as mx
from mlx.utils import tree_flatten
from mlx_lm.models.cache import make_prompt_cache
from mlx_lm.utils import load

from manent.adapters.inference.batch_limits import BatchLimits
from manent.adapters.inference.digests import DigestCache, digest_of_text
from manent.adapters.inference.memory import process_bytes
from manent.adapters.inference.mlx_text import TextBatch
from manent.adapters.inference.model_folder import adapter_files, context_length_of, tokenizer_files, weight_files
from manent.adapters.inference.output_rules import OutputRules
from manent.adapters.inference.prefix_cache import PrefixLimits
from manent.adapters.inference.prefix_disk import PrefixDisk
from manent.adapters.inference.prefix_reuse import PrefixReuse
from manent.adapters.inference.prefix_settings import PrefixOptions
from manent.adapters.inference.protocol import Failed, Generate, RunnerFacts
from manent.adapters.inference.token_text import token_bytes_of
from manent.domain.generation import SamplingParameters

_PACKAGES = ("manent", "mlx", "mlx-lm", "transformers", "tokenizers", "llguidance")
_WARM_UP = SamplingParameters(temperature=0.0, top_p=1.0, max_tokens=1, seed=0)

# Prefill of 800 tokens on a CPU takes the same time in chunks of 64 as in one piece, and the longest step falls from
# 4.9 s to 0.4 s. A GPU wants larger pieces to be busy.
_CHUNK_CPU_TOKENS = 64
_CHUNK_GPU_TOKENS = 256

_T = TypeVar("_T")


class EvaluationFailed(Exception):
    """The model was loaded, but cannot be evaluated."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedModel:
    """A model that has evaluated a token, its tokenizer, and what is known of both."""

    batch: TextBatch
    tokenizer: Any
    rules: OutputRules
    facts: RunnerFacts

    def device_bytes(self) -> int:
        """What MLX's allocator holds, with what it keeps for the next evaluation."""
        return mx.get_active_memory() + mx.get_cache_memory()


def load_model(
    folder: Path,
    config: dict[str, Any],
    *,
    digest_folder: Path,
    adapter: Path | None = None,
    prefix: PrefixOptions | None = None,
) -> LoadedModel:
    """Load, digest and warm up a model; on the thread that will evaluate it.

    Args:
        folder: where it lies; found complete by ``check_model_folder``.
        config: its configuration, which that check gave back.
        digest_folder: where digests of files are remembered.
        adapter: the folder of a LoRA adapter, found complete as well; it counts as a part of the weights.
        prefix: the prefix cache; None is for none.

    Raises:
        EvaluationFailed: the model cannot be evaluated.
        Exception: whatever the model's own code raises.
    """
    began_s = time.monotonic()
    digests = DigestCache(digest_folder)
    # Hashing releases the GIL, and so does loading: for a model that is seen for the first time they overlap.
    weights = [folder / "config.json", *weight_files(folder), *([] if adapter is None else adapter_files(adapter))]
    weights_digest = _in_background(lambda: digests.digest_of_files(weights))
    model, tokenizer = load(str(folder), adapter_path=None if adapter is None else str(adapter))[:2]
    # The first call may set the tokenizer's truncation and padding; later ones only read, from two threads.
    tokenizer.encode("a", add_special_tokens=False)
    vocabulary_size = _vocabulary_size(config, tokenizer)
    rules = OutputRules(tokenizer, vocabulary_size=vocabulary_size, eos_token_ids=tokenizer.eos_token_ids)
    batch = _new_batch(model, tokenizer, vocabulary_size, rules, prefix)
    _warm_up(batch)
    _exempt_from_collection()
    facts = RunnerFacts(
        context_length=context_length_of(config),
        vocabulary_size=vocabulary_size,
        weights_digest=weights_digest.result(),
        tokenizer_digest=digests.digest_of_files(tokenizer_files(folder)),
        template_digest=digest_of_text(str(tokenizer.chat_template or "")),
        versions={"python": platform.python_version(), **{package: _version(package) for package in _PACKAGES}},
        device=_device(),
        dtype=_dtype(model),
        quantization=_quantization(config),
        memory_bytes=max(process_bytes(os.getpid()), mx.get_active_memory()),
        load_s=time.monotonic() - began_s,
    )
    if prefix is not None and prefix.disk_bytes:
        batch.prefixes.open_disk(_prefix_disk(prefix, facts))
    return LoadedModel(batch=batch, tokenizer=tokenizer, rules=rules, facts=facts)


def _exempt_from_collection() -> None:
    """What the imports and the model made stays for good; a collection that walks through it stalls every stream."""
    gc.collect()
    gc.freeze()


def _new_batch(
    model: Any, tokenizer: Any, vocabulary_size: int, rules: OutputRules, prefix: PrefixOptions | None
) -> TextBatch:
    return TextBatch(
        model,
        eos_token_ids=tokenizer.eos_token_ids,
        vocabulary_size=vocabulary_size,
        new_detokenizer=lambda: tokenizer.detokenizer,
        token_bytes=token_bytes_of(tokenizer),
        rules=rules,
        limits=BatchLimits(prefill_chunk_tokens=_CHUNK_CPU_TOKENS if _on_cpu() else _CHUNK_GPU_TOKENS),
        prefixes=PrefixReuse(
            lambda: make_prompt_cache(model),
            limits=PrefixLimits(memory_bytes=0 if prefix is None else prefix.memory_bytes),
        ),
    )


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


def _warm_up(batch: TextBatch) -> None:
    """Generate one token: compiles what the device compiles, and refuses a model that fails on its first request."""
    frames = batch.add(Generate(id=0, token_ids=(0, 0), parameters=_WARM_UP), received_s=time.monotonic())
    while batch.active:
        frames = batch.step()
    for frame in frames:
        if isinstance(frame, Failed):
            raise EvaluationFailed(frame.message)


def _in_background(work: Callable[[], _T]) -> Future[_T]:
    """The result of work on a daemon thread, which does not keep a process alive that gives up loading."""
    future: Future[_T] = Future()

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as error:  # noqa: BLE001 (handed over to whoever asks for the result)
            future.set_exception(error)

    Thread(target=run, name="digests", daemon=True).start()
    return future


def _vocabulary_size(config: dict[str, Any], tokenizer: Any) -> int:
    """The rows of the embedding; the tokenizer's size is at most that, and the answer where the config is silent."""
    nested = config.get("text_config")
    size = config.get("vocab_size") or (nested.get("vocab_size") if isinstance(nested, dict) else None)
    return int(size or len(tokenizer))


def _version(package: str) -> str:
    try:
        return version(package)
    except ModuleNotFoundError:
        return "unknown"


def _on_cpu() -> bool:
    return mx.default_device() == mx.Device(mx.cpu)


def _device() -> str:
    if _on_cpu():
        return f"cpu ({platform.machine()})"
    return f"gpu ({mx.device_info().get('device_name', 'unknown')})"


def _dtype(model: Any) -> str:
    """The floating-point type that most parameters have, by bytes."""
    sizes: dict[str, int] = {}
    parameters: Any = tree_flatten(model.parameters())
    for _, array in parameters:
        if mx.issubdtype(array.dtype, mx.floating):
            name = str(array.dtype).removeprefix("mlx.core.")
            sizes[name] = sizes.get(name, 0) + array.nbytes
    return max(sizes, key=lambda name: sizes[name], default="unknown")


def _quantization(config: dict[str, Any]) -> str | None:
    scheme = config.get("quantization") or config.get("quantization_config")
    if not isinstance(scheme, dict) or "bits" not in scheme:
        return None
    return f"{scheme.get('mode', 'affine')} {scheme['bits']}-bit, group {scheme.get('group_size')}"
