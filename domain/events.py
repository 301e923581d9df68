"""The facts that the log records: frozen, past tense, and never changed once written.

A new fact is a new class here and a row in ``adapters/store/codec.py``; a changed shape is a new schema version and
an upcaster there. Times are microseconds since 1970 (``_us``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from manent.domain.admission import Priority
from manent.domain.commitments import SaltedDigest
from manent.domain.completion_input import ContextUsed, InputMessage, InputPrompt
from manent.domain.generation import FinishReason, Provenance, SamplingParameters, Timings, TokenLogprobs, Usage
from manent.domain.made_often import made_often
from manent.domain.messages import Message, Role, TextPart, ToolCall
from manent.domain.operator_events import OperatorEvent
from manent.domain.output import Alternative
from manent.domain.output_pieces import PieceSizes
from manent.domain.replay_events import Fork, RerunEnded, RerunStarted, SessionImported
from manent.domain.response_events import ConversationEvent, ResponseDeleted
from manent.domain.responses import ResponseDetails
from manent.domain.stored_events import StoredCompletionEvent
from manent.domain.verification import CompletionVerified


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionStarted:
    """A conversation began; it belongs to ``owner`` of ``tenant`` from now on."""

    session_id: str
    tenant: str
    owner: str
    metadata: dict[str, str]
    ttl_s: int | None
    parent: Fork | None
    started_at_us: int


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageAppended:
    """The conversation grew by one message; ``completion_id`` names the completion that generated it, if one did."""

    session_id: str
    message: Message
    appended_by: str
    completion_id: str | None
    appended_at_us: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SystemPromptReplaced:
    """The leading system messages were replaced by ``messages``; the rest of the conversation stands."""

    session_id: str
    messages: tuple[Message, ...]
    replaced_by: str
    replaced_at_us: int


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryRevised:
    """The client rewrote the conversation from ``from_message_id`` on.

    The state drops that message (number ``from_index``, counted from 0) and all that followed; the log keeps them.
    """

    session_id: str
    from_message_id: str
    from_index: int
    revised_by: str
    revised_at_us: int


@made_often
@dataclass(frozen=True, slots=True, kw_only=True)
class CompletionRequested:
    """A completion was accepted; exactly one terminal event follows it.

    ``context`` stands for a session's messages, ``input`` for those of a request without one, ``prompt`` for what is
    continued as it stands; ``instructions`` are this request's alone, and seen before all others. ``prompt_digest``
    commits to what the model is given (``RenderedPrompt.committed_bytes``). A ``stored`` one is to be found among its
    owner's stored completions, as those of sessions are; a ``response`` is asked for by its id.
    """

    completion_id: str
    session_id: str | None
    model_asked: str
    model_id: str
    parameters: SamplingParameters
    context: ContextUsed | None
    input: tuple[InputMessage, ...]
    prompt_tokens: int
    prompt_digest: SaltedDigest
    stream: bool
    user: str | None
    metadata: dict[str, str]
    priority: Priority = Priority.INTERACTIVE
    timeout_s: float | None = None
    queue_wait_s: float = 0.0
    instructions: Message | None = None
    response: ResponseDetails | None = None
    prompt: InputPrompt | None = None
    stored: bool = False
    requested_at_us: int


@made_often
@dataclass(frozen=True, slots=True, kw_only=True)
class CompletionGenerated:
    """The completion ended well. ``text`` and ``token_ids`` are None where content is not recorded.

    They are those of the first choice; ``alternatives`` has the others, and ``usage`` counts all. ``text_digest``
    commits to text, reasoning and tool calls (``PartialChoice.commitment``), and ``stored`` is as in the request.
    ``stop_sequence`` is the one of the parameters' ``stop`` that ended it, if one did. ``model_id`` of a terminal event
    is None where a crash left nobody who knew it.
    """

    completion_id: str
    session_id: str | None
    model_id: str | None
    message_id: str
    text: str | None
    text_digest: SaltedDigest
    token_ids: tuple[int, ...] | None
    finish_reason: FinishReason
    usage: Usage
    timings: Timings
    provenance: Provenance
    logprobs: tuple[TokenLogprobs, ...] | None = None
    alternatives: tuple[Alternative, ...] = ()
    reasoning: str | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    piece_sizes: PieceSizes | None = None
    stored: bool = False
    stop_sequence: str | None = None
    generated_at_us: int

    @property
    def answer(self) -> Message:
        """The assistant's message that it is in a session."""
        return Message(
            message_id=self.message_id,
            role=Role.ASSISTANT,
            content=(TextPart(text=self.text or ""),),
            tool_calls=self.tool_calls,
            reasoning=self.reasoning,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class CompletionFailed:
    """The completion ended in an error; ``code`` is the domain error's, or ``interrupted`` after a crash.

    ``provenance`` of an answer that was cut is what generated it, without what only its end would have told.
    """

    completion_id: str
    session_id: str | None
    model_id: str | None
    code: str
    reason: str
    text: str | None
    token_ids: tuple[int, ...] | None
    usage: Usage | None
    alternatives: tuple[Alternative, ...] = ()
    reasoning: str | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    provenance: Provenance | None = None
    piece_sizes: PieceSizes | None = None
    failed_at_us: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CompletionCancelled:
    """The completion was stopped on purpose: ``client_disconnected``, ``session_deleted``, ``shutting_down``."""

    completion_id: str
    session_id: str | None
    model_id: str | None
    reason: str
    text: str | None
    token_ids: tuple[int, ...] | None
    usage: Usage | None
    alternatives: tuple[Alternative, ...] = ()
    reasoning: str | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    provenance: Provenance | None = None
    piece_sizes: PieceSizes | None = None
    cancelled_at_us: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionMetadataChanged:
    """The session's metadata and time to live are these from now on; ``ttl_s`` None is for ever."""

    session_id: str
    metadata: dict[str, str]
    ttl_s: int | None
    changed_by: str
    changed_at_us: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionExpired:
    """Nobody used the session for its time to live; it is closed, and what was recorded stays in the log."""

    session_id: str
    ttl_s: int
    last_used_at_us: int
    expired_at_us: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionDeleted:
    """The session is closed for good; what was recorded stays in the log."""

    session_id: str
    deleted_by: str
    deleted_at_us: int


@dataclass(frozen=True, slots=True, kw_only=True)
class UnknownEvent:
    """An event that a newer Manent wrote: kept as it is, so that an older one reads without loss."""

    type: str
    schema_version: int
    payload: dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class ErasedEvent:
    """An event whose payload was destroyed: its place in the log stands, what it said is gone."""

    type: str


CompletionOutcome = CompletionGenerated | CompletionFailed | CompletionCancelled


SessionEvent = (
    SessionStarted
    | MessageAppended
    | SystemPromptReplaced
    | HistoryRevised
    | CompletionRequested
    | CompletionOutcome
    | SessionMetadataChanged
    | SessionExpired
    | SessionDeleted
    | RerunStarted
    | RerunEnded
    | SessionImported
    | ConversationEvent
    | UnknownEvent
    | ErasedEvent
)
DomainEvent = SessionEvent | OperatorEvent | CompletionVerified | StoredCompletionEvent | ResponseDeleted

SESSION_STREAMS = "session-"
"""What the names of the sessions' streams begin with, and no other's; below, of completions without a session."""
COMPLETION_STREAMS = "completion-"


def session_stream(session_id: str) -> str:
    """The stream of a session, named within its tenant."""
    return f"{SESSION_STREAMS}{session_id}"


def is_session_stream(stream_id: str) -> bool:
    """Whether a stream is that of a session."""
    return stream_id.startswith(SESSION_STREAMS)


def session_of(stream_id: str) -> str:
    """The session whose stream this is; ValueError where it is no session's."""
    if not is_session_stream(stream_id):
        raise ValueError(f"{stream_id!r} is not the stream of a session")
    return stream_id[len(SESSION_STREAMS) :]


def completion_stream(completion_id: str) -> str:
    """The stream of a completion that belongs to no session."""
    return f"{COMPLETION_STREAMS}{completion_id}"
