"""The frames between the server and a runner: a four-byte big-endian length, and a msgpack map whose ``type`` names it.

Both ends are the same release of Manent, so there are no versions. Nothing here knows processes or MLX.
"""

from __future__ import annotations

import asyncio
import struct

import msgspec

from manent.adapters.inference.embedding_frames import Embed, Embedded
from manent.adapters.inference.prefix_stats import PrefixStats
from manent.domain.caching import CacheUse
from manent.domain.drafting import DraftUse
from manent.domain.generation import FinishReason, SamplingParameters, Timings, TokenLogprobs, Usage
from manent.domain.images import ImagesUsed
from manent.domain.messages import Message, ToolCall
from manent.domain.output_shape import OutputShape

FRAME_MAX_BYTES = 64 * 2**20
"""No frame may be larger: a prompt of a million tokens is 5 MB, so more than this is a fault and not a need."""

LENGTH = struct.Struct(">I")


class ProtocolError(Exception):
    """The other end broke the protocol: the connection is of no more use."""


class _Frame(msgspec.Struct, frozen=True, tag_field="type", tag=str.lower):
    """What all frames share; request ids are chosen by the server and unique within a connection."""


class Render(_Frame, frozen=True):
    """Apply the chat template, with the generation prompt, and tokenize; compile what ``shape`` demands."""

    id: int
    messages: tuple[Message, ...]
    shape: OutputShape | None = None


class Explain(_Frame, frozen=True):
    """Do what Render asks for, and show the text between template and tokenizer."""

    id: int
    messages: tuple[Message, ...]
    shape: OutputShape | None = None


class Tokenize(_Frame, frozen=True):
    """Tokenize ``text`` without a template or, where ``token_ids`` are given, say what they mean."""

    id: int
    text: str | None
    token_ids: tuple[int, ...] | None


class CountTokens(_Frame, frozen=True):
    """Say what each message adds to a prompt; of images the size tells that, and their data stays behind."""

    id: int
    messages: tuple[Message, ...]


class PrefixScope(msgspec.Struct, frozen=True):
    """A domain's ``CacheScope`` under names that tell nothing; see ``prefix_settings``."""

    tenant: str
    conversation: str | None = None
    durable: bool = False


class Generate(_Frame, frozen=True):
    """Continue ``token_ids``; without ``prefix`` the prefix cache is neither asked nor filled.

    ``history_tokens``, ``messages``, ``raw`` are as in ``RenderedPrompt``; the ids stand in what the runner logs.
    """

    id: int
    token_ids: tuple[int, ...]
    parameters: SamplingParameters
    prefix: PrefixScope | None = None
    history_tokens: int = 0
    messages: tuple[Message, ...] = ()
    raw: bool = False
    request_id: str | None = None
    correlation_id: str | None = None


class Cancel(_Frame, frozen=True):
    """Stop the generation before its next token; there is no answer, and frames under way are to be ignored."""

    id: int


class Forget(_Frame, frozen=True):
    """Drop what the prefix cache keeps of a conversation, or without one of the whole tenant; there is no answer."""

    id: int
    tenant: str
    conversation: str | None = None


class Ping(_Frame, frozen=True):
    """Answered by the thread that evaluates: an answer means that it is alive, and not only its process."""

    id: int


class Shutdown(_Frame, frozen=True):
    """End the process now."""


class RunnerFacts(msgspec.Struct, frozen=True):
    """What a loaded model is, for provenance; ``other_pids`` are this machine's processes that hold parts of it too."""

    context_length: int | None
    vocabulary_size: int
    weights_digest: str
    tokenizer_digest: str
    template_digest: str
    versions: dict[str, str]
    device: str
    dtype: str
    quantization: str | None
    memory_bytes: int
    load_s: float
    adapter_digest: str | None = None
    other_pids: tuple[int, ...] = ()


class Ready(_Frame, frozen=True):
    """The model is loaded and has evaluated a token."""

    facts: RunnerFacts


class LoadFailed(_Frame, frozen=True):
    """The model cannot be loaded; the process ends."""

    reason: str


class Rendered(_Frame, frozen=True):
    """Answer to Render; ``history_tokens`` are as in ``RenderedPrompt``."""

    id: int
    token_ids: tuple[int, ...]
    history_tokens: int = 0


class Explained(_Frame, frozen=True):
    """Answer to Explain and to Tokenize."""

    id: int
    text: str
    token_ids: tuple[int, ...]


class Counted(_Frame, frozen=True):
    """Answer to CountTokens."""

    id: int
    token_counts: tuple[int, ...]


class Progress(_Frame, frozen=True):
    """The request waits or is being prefilled, and the runner is alive; at most one per second and request."""

    id: int
    processed_tokens: int
    total_tokens: int


class Delta(_Frame, frozen=True):
    """Tokens that were sampled for a choice, and the text that became certain (it may be empty, and lag behind).

    ``logprobs`` are those of the tokens that the text is made of, where they were asked for.
    """

    id: int
    text: str
    token_ids: tuple[int, ...]
    index: int = 0
    logprobs: tuple[TokenLogprobs, ...] = ()
    reasoning: str = ""
    tool_calls: tuple[ToolCall, ...] = ()


class Finished(_Frame, frozen=True):
    """The generation ended well: why each choice did, in their order. Every token was in a Delta before.

    A choice that a stop string ended has it in ``stop_sequences``.
    """

    id: int
    finish_reasons: tuple[FinishReason, ...]
    stop_sequences: tuple[str | None, ...]
    usage: Usage
    timings: Timings
    batch_size_max: int
    cache: CacheUse = CacheUse()
    batch_sizes: dict[int, int] = {}
    images: ImagesUsed | None = None
    draft: DraftUse | None = None


class Failed(_Frame, frozen=True):
    """The request failed; ``code`` is a domain error's. Other requests are not concerned.

    ``param`` is the parameter at fault, where it is another than what the request is about.
    """

    id: int
    code: str
    message: str
    param: str | None = None


class Pong(_Frame, frozen=True):
    """Answer to Ping: how many evaluations of the model there were so far, and how many requests are open.

    ``memory_bytes`` is what the device's allocator holds, its cache included.
    """

    id: int
    steps: int
    active: int
    memory_bytes: int = 0
    prefix: PrefixStats = PrefixStats()


ServerFrame = Render | Explain | Tokenize | CountTokens | Generate | Embed | Cancel | Forget | Ping | Shutdown
RunnerFrame = (
    Ready | LoadFailed | Rendered | Explained | Counted | Embedded | Progress | Delta | Finished | Failed | Pong
)

_encoder = msgspec.msgpack.Encoder()
_server_frames: msgspec.msgpack.Decoder[ServerFrame] = msgspec.msgpack.Decoder(ServerFrame)
_runner_frames: msgspec.msgpack.Decoder[RunnerFrame] = msgspec.msgpack.Decoder(RunnerFrame)


def encode(frame: ServerFrame | RunnerFrame) -> bytes:
    """The frame as it travels, its length first.

    Raises:
        ProtocolError: it is larger than FRAME_MAX_BYTES.
    """
    body = _encoder.encode(frame)
    check_length(len(body))
    return LENGTH.pack(len(body)) + body


def decode_server_frame(body: bytes) -> ServerFrame:
    """The frame of a body that a server sent; ProtocolError if it is none."""
    try:
        return _server_frames.decode(body)
    except msgspec.DecodeError as error:
        raise ProtocolError(f"not a frame of the server: {error}") from error


def decode_runner_frame(body: bytes) -> RunnerFrame:
    """The frame of a body that a runner sent; ProtocolError if it is none."""
    try:
        return _runner_frames.decode(body)
    except msgspec.DecodeError as error:
        raise ProtocolError(f"not a frame of a runner: {error}") from error


async def read_runner_frame(reader: asyncio.StreamReader) -> RunnerFrame | None:
    """The next frame, or None where the runner closed between two frames; waits without a bound of its own."""
    try:
        (length,) = LENGTH.unpack(await reader.readexactly(LENGTH.size))
        check_length(length)
        return decode_runner_frame(await reader.readexactly(length))
    except asyncio.IncompleteReadError as error:
        if error.expected == LENGTH.size and not error.partial:
            return None
        raise ProtocolError("the runner ended in the middle of a frame") from error


def check_length(length: int) -> None:
    """Raise ProtocolError for a frame larger than FRAME_MAX_BYTES."""
    if length > FRAME_MAX_BYTES:
        raise ProtocolError(f"a frame of {length} bytes: the bound is {FRAME_MAX_BYTES}")
