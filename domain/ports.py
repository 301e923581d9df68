"""What the domain needs of the world: the event store, the context cache, the engine, the clock, ids."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from manent.domain.admission import Priority, QueuePlace
from manent.domain.batch_work import WorkDirectory
from manent.domain.embedding import EmbeddingEngine
from manent.domain.events import DomainEvent
from manent.domain.generation import GenerationRequest, GenerationResult, ModelCard, RenderedPrompt, TextDelta
from manent.domain.merkle import Frontier
from manent.domain.messages import Message
from manent.domain.model_host import ModelHost
from manent.domain.output_shape import OutputShape
from manent.domain.prompts import ExplainedPrompt, TextPrompt
from manent.domain.records import (
    Appended,
    EventContext,
    EventFilter,
    IdempotencyKey,
    LogEntry,
    OpenCompletion,
    RecordedEvent,
    StreamEvent,
)
from manent.domain.session import SessionState
from manent.domain.session_list import SessionDirectory
from manent.domain.stored_completions import StoredCompletionDirectory
from manent.domain.waiting import Gone


class EventStore(Protocol):
    """The append-only log. Every method raises StoreUnavailable where the database refuses or does not answer."""

    @property
    def directory(self) -> SessionDirectory:
        """The sessions of the log, by what they are found by."""
        ...

    @property
    def stored(self) -> StoredCompletionDirectory:
        """The stored completions of the log, by what they are found by."""
        ...

    @property
    def work(self) -> WorkDirectory:
        """The files and batches of the log, by what they are found by."""
        ...

    async def append(
        self,
        stream_id: str,
        events: Sequence[DomainEvent],
        *,
        expected_version: int,
        context: EventContext,
        idempotency: IdempotencyKey | None = None,
    ) -> Appended:
        """Commit ``events`` at the end of the stream, all or none, and return only after the commit.

        A caller that is cancelled while it waits does not undo the commit. With an idempotency key that was used
        before, nothing is written and the first append's place is returned, whatever the version.

        Raises:
            IdempotencyConflict: the key was used with another request.
            VersionConflict: the stream is not at ``expected_version`` (0: it does not exist yet).
            EventTooLarge: an event's payload is larger than the log accepts.
        """
        ...

    async def read_stream(
        self, tenant: str, stream_id: str, *, after_version: int = 0, max_version: int | None = None, limit: int = 500
    ) -> list[RecordedEvent]:
        """At most ``limit`` events of one stream in its order, with versions above ``after_version``.

        Raises:
            LogCorrupt: a payload is not what its header promises.
        """
        ...

    async def read_events(
        self, tenant: str, stream_id: str, *, after_version: int = 0, max_version: int | None = None, limit: int = 500
    ) -> Sequence[StreamEvent]:
        """What ``read_stream`` reads, without the headers and in short: for folds, several times as fast.

        Raises:
            LogCorrupt: a payload is not what its header promises.
        """
        ...

    async def query(
        self, event_filter: EventFilter, *, after_position: int = 0, limit: int = 100, newest_first: bool = False
    ) -> list[LogEntry]:
        """At most ``limit`` events in log order with positions above ``after_position``: a keyset page, undecoded.

        With ``newest_first`` they are the last ones, in the other order.
        """
        ...

    async def find_answer(self, key: IdempotencyKey) -> Appended | None:
        """Where the append with this key landed, if there was one.

        Raises:
            IdempotencyConflict: the key was used with another request.
        """
        ...

    async def find_completion(self, tenant: str, completion_id: str) -> int | None:
        """Where the CompletionRequested of a completion in a session is; one without has a stream of its own."""
        ...

    async def head(self) -> Frontier:
        """The frontier of the tree over all headers: its size is the last position."""
        ...

    async def tree_node(self, level: int, index: int) -> bytes:
        """A perfect node of the tree (``manent.domain.merkle``), at any level, of leaves that are all there."""
        ...

    async def open_completions(self, *, completion_id: str | None = None, limit: int = 100) -> list[OpenCompletion]:
        """Completions that were requested and have no terminal event, oldest first; ``completion_id`` asks for one."""
        ...

    async def orphaned_completions(self, *, completion_id: str | None = None, limit: int = 100) -> list[OpenCompletion]:
        """Those of ``open_completions`` that no *other* server runs."""
        ...

    def observe(self, observer: Callable[[int | None], None]) -> None:
        """Have ``observer`` called with the last position after each commit that is heard of, None where it is unknown.

        Those of this process are all heard of; an observer learns when to look, and never relies on the rest.
        """
        ...

    async def ping(self) -> None:
        """Return if the database answers, and took what it was last given."""
        ...


class ContextCache(Protocol):
    """Folded sessions, kept near. It may forget anything at any time, and what it tells is checked against the log.

    A cache that several processes share raises CacheUnavailable where it does not answer; behind a circuit breaker,
    as every use case has it, it never does.
    """

    async def get(self, tenant: str, session_id: str) -> SessionState | None:
        """The latest state that it knows, or None; its ``last_event_id`` is the one it was put with."""
        ...

    async def put(self, state: SessionState, *, before: SessionState | None = None) -> None:
        """Keep ``state``, unless a later version of it is kept already.

        ``before`` is an earlier state of the session from which this one was folded: where that one is kept, only
        what is new need be written.
        """
        ...

    async def forget(self, tenant: str, session_id: str) -> None:
        """Drop what is kept of the session."""
        ...


class InferenceEngine(ModelHost, EmbeddingEngine, Protocol):
    """Rendering, generation, embeddings. Models are named by the ``model_id`` of their card, and loaded when needed."""

    def models(self) -> Sequence[ModelCard]:
        """The registry, in its order."""
        ...

    def resolve(self, model: str) -> ModelCard:
        """The card of an id or alias.

        Raises:
            ModelNotFound: the registry knows no such name.
        """
        ...

    def place(
        self,
        model: str,
        *,
        priority: Priority = Priority.INTERACTIVE,
        alone: bool = False,
        gone: Gone | None = None,
    ) -> AbstractAsyncContextManager[QueuePlace]:
        """A place at a loaded model, waited for in its bounded queue; held from before ``render`` until ``generate``
        ended. The model is the one that is asked for or, where that cannot be used, the next of its fallbacks; the
        place says which. A model that somebody has a place at is not unloaded.

        It is taken before a request is recorded, so that what the bound refuses is refused, and not a failure. ``gone``
        returns when nobody wants it any more. With ``alone`` nobody else has a place at the model meanwhile.

        Raises:
            ModelNotFound: the registry knows no such name.
            EngineBusy: on entering, when too many wait already, or no place became free in time.
            ModelLoadError, InsufficientMemory, ModelUnavailable, EngineUnavailable: no model of the chain can be used.
            CompletionCancelledError: on entering, when it was not wanted any more.
        """
        ...

    async def render(
        self, model_id: str, messages: Sequence[Message], *, shape: OutputShape | None = None
    ) -> RenderedPrompt:
        """Apply the model's chat template, with the generation prompt and the tools of ``shape``; compile its rules.

        Raises:
            ModelLoadError, EngineUnavailable: no runner can do it now.
            InvalidValue: the model's template refuses these messages, or it cannot be shown their images.
        """
        ...

    async def explain(
        self, model_id: str, messages: Sequence[Message], *, shape: OutputShape | None = None
    ) -> ExplainedPrompt:
        """What ``render`` makes of the messages now, in words too, and by what; raises as ``render`` does."""
        ...

    async def tokenize(self, model_id: str, prompt: TextPrompt) -> ExplainedPrompt:
        """A prompt without a chat template, to be continued as it stands, with its text; an empty one is the model's
        mark of a document's beginning or end.

        Raises:
            ModelLoadError, EngineUnavailable: no runner can do it now.
            InvalidValue: the model does not have one of the tokens.
        """
        ...

    async def count_tokens(self, model_id: str, messages: Sequence[Message]) -> tuple[int, ...]:
        """What each message adds to a prompt, in tokens; an estimate where a template looks across messages.

        Raises as ``render`` does.
        """
        ...

    def generate(self, request: GenerationRequest) -> AsyncGenerator[TextDelta | GenerationResult, None]:
        """Yield deltas as they become certain and, last, one GenerationResult. Closing it cancels within one token.

        Raises:
            ModelLoadError, EngineUnavailable, GenerationFailed: after any number of deltas.
        """
        ...

    async def forget(self, tenant: str, conversation: str | None = None) -> None:
        """Drop what is kept, in memory and on disk, of the prompts and answers of a conversation or a whole tenant.

        What another conversation said as well stays, as that one's. A generation that still runs is not kept.
        """
        ...


class Clock(Protocol):
    """The time of day, and waiting."""

    def now_us(self) -> int:
        """Microseconds since 1970, UTC."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Return after ``seconds``."""
        ...


class Ids(Protocol):
    """Randomness: ids that cannot be guessed, salts, seeds."""

    def new(self, prefix: str) -> str:
        """A new id, ``<prefix>_<32 hex digits>`` or the like; the first 48 bits are a time, the other 80 are random.

        Later ids sort behind earlier ones, so that an index of them grows at its end.
        """
        ...

    def salt(self) -> bytes:
        """32 random bytes."""
        ...

    def seed(self) -> int:
        """A random seed below 2**31."""
        ...
