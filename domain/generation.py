"""What the engine is asked for and what it answers: parameters, prompt, usage, provenance, result."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal

from manent.domain.caching import CacheScope, CacheUse
from manent.domain.drafting import DraftUse
from manent.domain.embedding import ModelType
from manent.domain.images import ImagesUsed
from manent.domain.made_often import made_often
from manent.domain.messages import Message, ToolCall, digests_of
from manent.domain.output_shape import OutputShape


class FinishReason(StrEnum):
    """Why generation ended, in OpenAI's words."""

    STOP = "stop"
    LENGTH = "length"
    TOOL_CALLS = "tool_calls"


class Truncation(StrEnum):
    """What happens to a history longer than the context window (OpenAI Responses, ``truncation``)."""

    AUTO = "auto"
    DISABLED = "disabled"


@made_often
@dataclass(frozen=True, slots=True, kw_only=True)
class RequestedParameters:
    """Sampling parameters as the client gave them; None leaves the choice to the model's defaults."""

    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    max_tokens: int | None = None
    stop: tuple[str, ...] = ()
    stop_token_ids: tuple[int, ...] = ()
    seed: int | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    repetition_penalty: float | None = None
    logit_bias: dict[int, float] = field(default_factory=dict)
    n: int = 1
    logprobs: bool = False
    top_logprobs: int = 0
    deterministic: bool = False
    shape: OutputShape | None = None


@made_often
@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingParameters:
    """Effective parameters: what the engine really used, every default filled in.

    They work in this order, which is vLLM's: ``logit_bias``; ``repetition_penalty`` over prompt and output,
    ``frequency_penalty`` and ``presence_penalty`` over the output; ``temperature``; ``min_p``, ``top_k``, ``top_p``.
    ``temperature`` 0 is greedy; ``top_p`` in (0, 1]; ``top_k`` 0, ``min_p`` 0 and ``repetition_penalty`` 1 do nothing;
    ``max_tokens`` (of each choice) at least 1; ``seed`` below 2**63. ``n`` choices share the prompt. With ``logprobs``
    each token comes with the logarithm of the probability that the model itself gave it, before all of the above, and
    with the ``top_logprobs`` most probable tokens. A ``deterministic`` request is evaluated alone and without a prefix
    cache, so that a rerun of it can be compared token by token.
    """

    temperature: float
    top_p: float
    max_tokens: int
    seed: int
    stop: tuple[str, ...] = ()
    stop_token_ids: tuple[int, ...] = ()
    top_k: int = 0
    min_p: float = 0.0
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    repetition_penalty: float = 1.0
    logit_bias: dict[int, float] = field(default_factory=dict)
    n: int = 1
    logprobs: bool = False
    top_logprobs: int = 0
    deterministic: bool = False
    shape: OutputShape | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelCard:
    """A model of the registry, loaded or not.

    ``context_length`` counts tokens of prompt and output together. ``available`` is False where the model's
    folder is missing; ``created_at_s`` is seconds since 1970.
    """

    model_id: str
    context_length: int
    created_at_s: int
    owned_by: str = "manent"
    aliases: tuple[str, ...] = ()
    available: bool = True
    default_temperature: float = 1.0
    default_top_p: float = 1.0
    default_max_tokens: int | None = None
    type: ModelType = ModelType.LLM

    @property
    def reads_images(self) -> bool:
        """Whether messages for it may have images."""
        return self.type is ModelType.VLM

    @property
    def input_modalities(self) -> tuple[Literal["text", "image"], ...]:
        """What may be in messages for it, in OpenAI's words."""
        return ("text", "image") if self.reads_images else ("text",)


@made_often
@dataclass(frozen=True, slots=True, kw_only=True)
class Provenance:
    """What produced an answer: enough for an auditor to name it and for an analyst to reproduce it.

    Digests are ``sha256:<hex>``; ``weights_digest`` includes the adapter. ``versions`` maps names of software to
    versions. ``batch_size_max`` is the largest batch the request was part of, and ``batch_sizes`` says how many of its
    tokens came out of batches of each size (0 and nothing where it did not end well); ``cache`` says what was not
    evaluated for it, but reused. ``images`` is None where there were none, ``draft`` where no draft model was used.
    """

    weights_digest: str
    tokenizer_digest: str
    template_digest: str
    versions: dict[str, str]
    device: str
    dtype: str
    quantization: str | None
    batch_size_max: int = 0
    cache: CacheUse = field(default_factory=CacheUse)
    adapter_digest: str | None = None
    batch_sizes: dict[int, int] = field(default_factory=dict)
    images: ImagesUsed | None = None
    draft: DraftUse | None = None


@made_often
@dataclass(frozen=True, slots=True, kw_only=True)
class RenderedPrompt:
    """The exact tokens that the model is given: chat template and tokenizer applied.

    Tokens only say where images are; ``messages`` are those that it was rendered from, where there are any among them.
    The model knows token ids below ``vocabulary_size``. The first ``history_tokens`` are the messages themselves, and
    the rest asks for the next one: a later prompt of the conversation begins with the former, perhaps not the latter.
    ``made_by`` is what will generate behind it, where that is known. What follows a ``raw`` prompt is all text.
    """

    token_ids: tuple[int, ...]
    vocabulary_size: int = 2**31
    history_tokens: int = 0
    made_by: Provenance | None = None
    messages: tuple[Message, ...] = ()
    raw: bool = False

    @property
    def committed_bytes(self) -> bytes:
        """What a commitment to the prompt is made of: ``token_bytes`` and the SHA-256 of each image, in order."""
        images = [image for message in self.messages for image in message.images]
        return self.token_bytes + digests_of(images)

    @property
    def token_bytes(self) -> bytes:
        """The token ids as little-endian unsigned 32-bit integers, the form that digests are made of."""
        return struct.pack(f"<{len(self.token_ids)}I", *self.token_ids)


@made_often
@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Exact token counts, from the tokenizer and never estimated; ``reasoning_tokens`` are of ``completion_tokens``."""

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int = 0
    reasoning_tokens: int = 0

    @property
    def total_tokens(self) -> int:
        """Prompt and completion together."""
        return self.prompt_tokens + self.completion_tokens

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            prompt_tokens=self.prompt_tokens + other.prompt_tokens,
            completion_tokens=self.completion_tokens + other.completion_tokens,
            cached_tokens=self.cached_tokens + other.cached_tokens,
            reasoning_tokens=self.reasoning_tokens + other.reasoning_tokens,
        )


@made_often
@dataclass(frozen=True, slots=True, kw_only=True)
class Timings:
    """Where the time of a completion went, in seconds of the runner's monotonic clock."""

    queue_s: float
    prefill_s: float
    decode_s: float


@made_often
@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationRequest:
    """One generation, ready for the engine. Without a ``cache`` scope nothing is reused, and nothing kept."""

    completion_id: str
    model_id: str
    prompt: RenderedPrompt
    parameters: SamplingParameters
    cache: CacheScope | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenCandidate:
    """A token that the model could have said, with the natural logarithm of its probability.

    ``token_bytes`` is what it adds to the text; a character may span several tokens.
    """

    token_id: int
    token_bytes: bytes
    logprob: float


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenLogprobs:
    """What the model thought where it said ``chosen``: the most probable tokens there, best first."""

    chosen: TokenCandidate
    top: tuple[TokenCandidate, ...] = ()


@made_often
@dataclass(frozen=True, slots=True, kw_only=True)
class TextDelta:
    """Text of choice ``index`` that became certain, and the tokens evaluated since its last delta.

    Text may lag behind tokens. ``logprobs`` go with the text: those of its tokens, before reasoning and tool calls
    were taken out. A tool call comes as a whole.
    """

    text: str
    token_ids: tuple[int, ...]
    index: int = 0
    logprobs: tuple[TokenLogprobs, ...] = ()
    reasoning: str = ""
    tool_calls: tuple[ToolCall, ...] = ()


@made_often
@dataclass(frozen=True, slots=True, kw_only=True)
class GeneratedChoice:
    """One answer. ``text`` is exactly the concatenation of its deltas; so are token ids and log probabilities.

    ``stop_sequence`` is the one of the parameters' ``stop`` that ended it, if one did.
    """

    text: str
    token_ids: tuple[int, ...]
    finish_reason: FinishReason
    logprobs: tuple[TokenLogprobs, ...] = ()
    reasoning: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    stop_sequence: str | None = None


@made_often
@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationResult:
    """How a generation ended: ``n`` choices, and what all of them used together."""

    choices: tuple[GeneratedChoice, ...]
    usage: Usage
    timings: Timings
    provenance: Provenance

    @property
    def text(self) -> str:
        """The text of the first choice."""
        return self.choices[0].text

    @property
    def token_ids(self) -> tuple[int, ...]:
        """The token ids of the first choice."""
        return self.choices[0].token_ids

    @property
    def finish_reason(self) -> FinishReason:
        """Why the first choice ended."""
        return self.choices[0].finish_reason
