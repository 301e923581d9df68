"""What the engine is asked for and what it answers: parameters, prompt, usage, provenance, result."""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass, field
from enum import StrEnum


class FinishReason(StrEnum):
    """Why generation ended, in OpenAI's words."""

    STOP = "stop"
    LENGTH = "length"


class Truncation(StrEnum):
    """What happens to a history longer than the context window (OpenAI Responses, ``truncation``)."""

    AUTO = "auto"
    DISABLED = "disabled"


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestedParameters:
    """Sampling parameters as the client gave them; None leaves the choice to the model's defaults."""

    temperature: float | None = None
    top_p: float | None = None
    max_tokens: int | None = None
    stop: tuple[str, ...] = ()
    seed: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingParameters:
    """Effective parameters: what the engine really used, every default filled in.

    ``temperature`` 0 is greedy; ``top_p`` in (0, 1]; ``max_tokens`` at least 1; ``seed`` below 2**63.
    """

    temperature: float
    top_p: float
    max_tokens: int
    seed: int
    stop: tuple[str, ...] = ()


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


@dataclass(frozen=True, slots=True, kw_only=True)
class RenderedPrompt:
    """The exact tokens that the model is given: chat template and tokenizer applied."""

    token_ids: tuple[int, ...]

    @property
    def token_bytes(self) -> bytes:
        """The token ids as little-endian unsigned 32-bit integers, the form that digests are made of."""
        return struct.pack(f"<{len(self.token_ids)}I", *self.token_ids)


@dataclass(frozen=True, slots=True, kw_only=True)
class ExplainedPrompt:
    """A rendered prompt with its text, and what rendered it; digests are ``sha256:<hex>``, as in ``Provenance``."""

    text: str
    rendered: RenderedPrompt
    weights_digest: str
    tokenizer_digest: str
    template_digest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Exact token counts, from the tokenizer and never estimated."""

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int = 0

    @property
    def total_tokens(self) -> int:
        """Prompt and completion together."""
        return self.prompt_tokens + self.completion_tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class Timings:
    """Where the time of a completion went, in seconds of the runner's monotonic clock."""

    queue_s: float
    prefill_s: float
    decode_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Provenance:
    """What produced an answer: enough for an auditor to name it and for an analyst to reproduce it.

    Digests are ``sha256:<hex>``; ``versions`` maps package names to versions; ``batch_size_max`` is the largest
    batch the request was part of.
    """

    weights_digest: str
    tokenizer_digest: str
    template_digest: str
    versions: dict[str, str]
    device: str
    dtype: str
    quantization: str | None
    batch_size_max: int


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationRequest:
    """One generation, ready for the engine."""

    completion_id: str
    model_id: str
    prompt: RenderedPrompt
    parameters: SamplingParameters


@dataclass(frozen=True, slots=True, kw_only=True)
class TextDelta:
    """Text that became certain, and the tokens evaluated since the last delta (text may lag behind tokens)."""

    text: str
    token_ids: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationResult:
    """How a generation ended. ``text`` is exactly the concatenation of its deltas."""

    text: str
    token_ids: tuple[int, ...]
    finish_reason: FinishReason
    usage: Usage
    timings: Timings
    provenance: Provenance


@dataclass(frozen=True, slots=True, kw_only=True)
class SaltedDigest:
    """A commitment to bytes that are not recorded: ``digest`` = SHA-256(salt ‖ bytes), both in hex."""

    salt: str
    digest: str

    @classmethod
    def of(cls, data: bytes, *, salt: bytes) -> SaltedDigest:
        """Commit to ``data``; ``salt`` is 32 random bytes that are used once."""
        return cls(salt=salt.hex(), digest=hashlib.sha256(salt + data).hexdigest())

    def matches(self, data: bytes) -> bool:
        """Whether ``data`` is what was committed to."""
        return hashlib.sha256(bytes.fromhex(self.salt) + data).hexdigest() == self.digest


@dataclass(slots=True)
class PartialOutput:
    """What a generation has produced so far; it grows by deltas and ends in a terminal event."""

    pieces: list[str] = field(default_factory=list)
    token_ids: list[int] = field(default_factory=list)

    def add(self, delta: TextDelta) -> None:
        """Take the next delta in."""
        self.pieces.append(delta.text)
        self.token_ids.extend(delta.token_ids)

    @property
    def text(self) -> str:
        """The text so far."""
        return "".join(self.pieces)
