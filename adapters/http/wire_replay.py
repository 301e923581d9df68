"""What clients send and get for replays: forks, reruns, comparisons, contexts, as pydantic models."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from manent.adapters.http.wire import Wire
from manent.adapters.http.wire_completions import CompletionUsage
from manent.adapters.http.wire_requests import INT64_MAX, INT64_MIN, MAX_TOKENS_MAX, Metadata, SessionId, Stop
from manent.adapters.http.wire_responses import Answer, ForkOf, SessionMessage

VERSION_MAX = 2**31 - 1

Version = Annotated[int, Field(ge=1, le=VERSION_MAX)]


class ForkRequest(Wire):
    """A request for a fork."""

    at_version: Version | None = None
    session_id: SessionId | None = None
    metadata: Metadata | None = None


class RerunRequest(Wire):
    """A request for a rerun."""

    from_version: Version
    model: Annotated[str, Field(min_length=1, max_length=256)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    max_tokens: Annotated[int, Field(ge=1, le=MAX_TOKENS_MAX)] | None = None
    seed: Annotated[int, Field(ge=INT64_MIN, le=INT64_MAX)] | None = None
    stop: Stop = None
    session_id: SessionId | None = None


class Problem(Answer):
    """What went wrong."""

    code: str
    message: str


class Rerun(Answer):
    """How far a rerun is; ``session_id`` is the fork that it fills."""

    id: str
    object: Literal["session.rerun"] = "session.rerun"
    session_id: str
    source: ForkOf
    from_version: int
    model: str | None = Field(description="The model that was asked for; null is the one that answered each turn.")
    status: Literal["queued", "running", "completed", "failed", "interrupted"]
    turns_done: int
    turns_total: int
    completion_id: str | None = Field(description="The completion that was requested last, while it runs.")
    error: Problem | None
    started_at: int = Field(description="Seconds since 1970.")
    ended_at: int | None = Field(description="Seconds since 1970.")


class Sampling(Answer):
    """Effective parameters of a completion."""

    temperature: float
    top_p: float
    max_tokens: int
    seed: int
    stop: list[str]


class Durations(Answer):
    """Where a completion's time went, in seconds."""

    queue_s: float
    prefill_s: float
    decode_s: float


class AnsweredBy(Answer):
    """The completion that generated an answer."""

    id: str
    model: str
    finish_reason: Literal["stop", "length"]
    parameters: Sampling
    usage: CompletionUsage
    timings: Durations
    system_fingerprint: str


class DiffSide(Answer):
    """A turn on one side; ``completion`` is null where a client brought the answer."""

    messages: list[SessionMessage]
    answer: SessionMessage | None
    completion: AnsweredBy | None


class DiffTurn(Answer):
    """A turn on both sides."""

    number: int = Field(description="Counted from 1, with the shared turns.")
    status: Literal["equal", "changed", "only_in_a", "only_in_b"]
    same_messages: bool
    same_answer: bool
    a: DiffSide | None
    b: DiffSide | None


class DiffOf(Answer):
    """A session that is compared."""

    session_id: str
    version: int
    parent: ForkOf | None


class DiffCounts(Answer):
    """How many turns behind the shared past relate how."""

    equal: int
    changed: int
    only_in_a: int
    only_in_b: int


class SessionDiff(Answer):
    """A page of a comparison; ``last_id`` goes into ``after`` for the next one."""

    object: Literal["session.diff"] = "session.diff"
    a: DiffOf
    b: DiffOf
    common: ForkOf | None = Field(description="The last event that both have in common, where they have a past so.")
    shared_turns: int
    counts: DiffCounts
    data: list[DiffTurn]
    first_id: str | None
    last_id: str | None
    has_more: bool


class SeenPrompt(Answer):
    """The prompt, rendered now."""

    text: str
    token_ids: list[int]


class CompletionContext(Answer):
    """What exactly the model saw."""

    id: str
    object: Literal["chat.completion.context"] = "chat.completion.context"
    session_id: str | None
    position: int = Field(description="Of the CompletionRequested in the log.")
    model: str
    model_asked: str
    parameters: Sampling
    truncation: Literal["auto", "disabled"] | None
    messages: list[SessionMessage]
    dropped: list[SessionMessage] = Field(description="Left out to fit the window.")
    prompt_tokens: int
    verdict: Literal["matches", "differs", "unavailable"] = Field(
        description="Whether the prompt as rendered now has the recorded digest; unavailable: it cannot be rendered."
    )
    changed: list[Literal["weights", "tokenizer", "template"]] = Field(
        description="What of the model is not as it was when it answered."
    )
    prompt: SeenPrompt | None
    problem: Problem | None = Field(description="Why the prompt cannot be rendered now.")
