"""Short words for sessions in tests: messages, events, and given / when / then over the pure domain."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from manent.domain.access import Principal
from manent.domain.commitments import SaltedDigest
from manent.domain.completion_input import ContextUsed
from manent.domain.events import (
    CompletionCancelled,
    CompletionFailed,
    CompletionGenerated,
    CompletionRequested,
    DomainEvent,
    HistoryRevised,
    MessageAppended,
    SessionDeleted,
    SessionEvent,
    SessionStarted,
    SystemPromptReplaced,
)
from manent.domain.generation import FinishReason, Provenance, SamplingParameters, Timings, Truncation, Usage
from manent.domain.messages import Message, Role, TextPart
from manent.domain.session import SessionState
from manent.domain.session_fold import fold

NOW_US = 1_700_000_000_000_000
ANN = Principal(tenant="acme", subject="ann")
BOB = Principal(tenant="acme", subject="bob")
DIGEST = SaltedDigest.of(b"", salt=bytes(32))
PROVENANCE = Provenance(
    weights_digest="sha256:00",
    tokenizer_digest="sha256:01",
    template_digest="sha256:02",
    versions={"mlx": "0"},
    device="cpu",
    dtype="float32",
    quantization=None,
    batch_size_max=1,
)


def message(role: str, text: str, message_id: str = "") -> Message:
    """A message; without an id it is given one made of what it says."""
    return Message(
        message_id=message_id or f"msg_{role}_{text.strip()}", role=Role(role), content=(TextPart(text=text),)
    )


def user(text: str) -> Message:
    """What a user says."""
    return message("user", text)


def assistant(text: str) -> Message:
    """What the assistant says."""
    return message("assistant", text)


def system(text: str) -> Message:
    """A system prompt."""
    return message("system", text)


def started(owner: str = "ann") -> SessionStarted:
    """Ann's session begins."""
    return SessionStarted(
        session_id="s", tenant="acme", owner=owner, metadata={}, ttl_s=None, parent=None, started_at_us=NOW_US
    )


def said(role: str, text: str, *, by: str = "ann") -> MessageAppended:
    """A message stands in the session."""
    return MessageAppended(
        session_id="s", message=message(role, text), appended_by=by, completion_id=None, appended_at_us=NOW_US
    )


def requested(completion_id: str = "c1") -> CompletionRequested:
    """A completion is open."""
    return CompletionRequested(
        completion_id=completion_id,
        session_id="s",
        model_asked="default",
        model_id="m",
        parameters=SamplingParameters(temperature=0.0, top_p=1.0, max_tokens=8, seed=1),
        context=ContextUsed(message_ids=(), dropped=None, truncation=Truncation.DISABLED),
        input=(),
        prompt_tokens=3,
        prompt_digest=DIGEST,
        stream=False,
        user=None,
        metadata={},
        requested_at_us=NOW_US,
    )


def generated(text: str = "hello", completion_id: str = "c1") -> CompletionGenerated:
    """The completion ended well."""
    return CompletionGenerated(
        completion_id=completion_id,
        session_id="s",
        model_id="m",
        message_id=f"msg_assistant_{text}",
        text=text,
        text_digest=DIGEST,
        token_ids=(1, 2),
        finish_reason=FinishReason.STOP,
        usage=Usage(prompt_tokens=3, completion_tokens=2),
        timings=Timings(queue_s=0.0, prefill_s=0.1, decode_s=0.2),
        provenance=PROVENANCE,
        generated_at_us=NOW_US,
    )


def failed(completion_id: str = "c1") -> CompletionFailed:
    """The completion ended in an error."""
    return CompletionFailed(
        completion_id=completion_id,
        session_id="s",
        model_id="m",
        code="runner_crashed",
        reason="killed",
        text="he",
        token_ids=(1,),
        usage=Usage(prompt_tokens=3, completion_tokens=1),
        failed_at_us=NOW_US,
    )


def cancelled(completion_id: str = "c1") -> CompletionCancelled:
    """The completion was stopped."""
    return CompletionCancelled(
        completion_id=completion_id,
        session_id="s",
        model_id="m",
        reason="client_disconnected",
        text=None,
        token_ids=None,
        usage=None,
        cancelled_at_us=NOW_US,
    )


def deleted() -> SessionDeleted:
    """The session is closed for good."""
    return SessionDeleted(session_id="s", deleted_by="ann", deleted_at_us=NOW_US)


def revised(from_index: int, from_message_id: str) -> HistoryRevised:
    """The client rewrote the conversation from a message on."""
    return HistoryRevised(
        session_id="s", from_message_id=from_message_id, from_index=from_index, revised_by="ann", revised_at_us=NOW_US
    )


def system_replaced(text: str) -> SystemPromptReplaced:
    """The system prompt was replaced."""
    return SystemPromptReplaced(session_id="s", messages=(system(text),), replaced_by="ann", replaced_at_us=NOW_US)


@dataclass
class Scenario:
    """Given these events, when this is decided, then those events follow, or that error."""

    past: Sequence[DomainEvent] = field(default_factory=tuple)

    @property
    def state(self) -> SessionState:
        """What the past adds up to."""
        return fold(SessionState(session_id="s", tenant="acme"), self.past)

    def when(self, decide: Callable[[SessionState], Sequence[SessionEvent]]) -> Decided:
        """Decide on the state."""
        return Decided(decide(self.state))


@dataclass
class Decided:
    """What was decided."""

    events: Sequence[SessionEvent]

    def then(self, *expected: SessionEvent) -> None:
        """Exactly these events."""
        assert list(self.events) == list(expected)


def given(*past: DomainEvent) -> Scenario:
    """A session with a past."""
    return Scenario(past)
