"""What exactly the model saw: a completion's messages and its prompt, rendered again and compared with the record."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from manent.domain.access import Principal, may_audit
from manent.domain.errors import (
    CompletionNotFound,
    ContentNotRecorded,
    DomainError,
    EngineUnavailable,
    InvalidValue,
    ModelLoadError,
    ModelNotFound,
    SessionNotFound,
)
from manent.domain.events import CompletionGenerated, CompletionRequested, DroppedMessages, completion_stream
from manent.domain.generation import ExplainedPrompt, Provenance
from manent.domain.messages import Message
from manent.domain.output_shape import OutputShape
from manent.domain.ports import EventStore, InferenceEngine
from manent.domain.records import EventFilter, EventHeader, RecordedEvent
from manent.domain.usecases.replay import AsOf, Replay

PAGE = 500


class PromptVerdict(StrEnum):
    """What rendering the prompt again says about the recorded commitment to its tokens."""

    MATCHES = "matches"
    DIFFERS = "differs"
    UNAVAILABLE = "unavailable"


@dataclass(frozen=True, slots=True, kw_only=True)
class CompletionContext:
    """``messages`` in the order in which the model saw them, and ``dropped`` to fit its window.

    ``prompt`` is today's rendering, with ``changed`` naming what is not as it was when the answer was generated
    (weights, tokenizer, template; empty where there is no answer to compare with). Without it ``problem`` says why.
    """

    requested: CompletionRequested
    header: EventHeader
    messages: tuple[Message, ...]
    dropped: tuple[Message, ...]
    verdict: PromptVerdict
    prompt: ExplainedPrompt | None
    changed: tuple[str, ...]
    problem: DomainError | None


class ShowContext:
    """Finds a completion by its id and renders its prompt again."""

    def __init__(self, *, store: EventStore, replay: Replay, engine: InferenceEngine) -> None:
        self._store = store
        self._replay = replay
        self._engine = engine

    async def run(self, principal: Principal, completion_id: str) -> CompletionContext:
        """The context of a completion.

        Raises:
            CompletionNotFound: there is none with this id for this principal.
            ContentNotRecorded: it is recorded without its words, or they were erased.
            SessionGone: its session expired, and ``principal`` is no auditor.
        """
        header, requested = await self._request(principal, completion_id)
        messages = await self._messages(principal, header, requested)
        seen: tuple[Message, ...] = tuple(messages)
        dropped: tuple[Message, ...] = ()
        if requested.context is not None:
            seen = _chosen(messages, requested.context.message_ids)
            dropped = _left_out(messages, requested.context.dropped)
        prompt, problem = await self._rendered(requested.model_id, seen, requested.parameters.shape)
        verdict = PromptVerdict.UNAVAILABLE
        changed: tuple[str, ...] = ()
        if prompt is not None:
            same = requested.prompt_digest.matches(prompt.rendered.token_bytes)
            verdict = PromptVerdict.MATCHES if same else PromptVerdict.DIFFERS
            changed = _changed(prompt, await self._provenance(header, completion_id))
        return CompletionContext(
            requested=requested,
            header=header,
            messages=seen,
            dropped=dropped,
            verdict=verdict,
            prompt=prompt,
            changed=changed,
            problem=problem,
        )

    async def _messages(
        self, principal: Principal, header: EventHeader, requested: CompletionRequested
    ) -> Sequence[Message]:
        if requested.session_id is None:
            return _recorded_input(requested)
        at = AsOf(version=header.stream_version)
        try:
            return (await self._replay.at(principal, requested.session_id, at)).messages
        except SessionNotFound:
            raise _not_found(requested.completion_id) from None

    async def _request(self, principal: Principal, completion_id: str) -> tuple[EventHeader, CompletionRequested]:
        found = await self._find(principal.tenant, completion_id)
        if found is None or not isinstance(found.event, CompletionRequested):
            raise _not_found(completion_id)
        own = found.header.actor == principal.subject
        if found.event.session_id is None and not own and not may_audit(principal, tenant=found.header.tenant):
            raise _not_found(completion_id)
        return found.header, found.event

    async def _find(self, tenant: str, completion_id: str) -> RecordedEvent | None:
        alone = await self._store.read_stream(tenant, completion_stream(completion_id), limit=1)
        if alone:
            return alone[0]
        position = await self._store.find_completion(tenant, completion_id)
        if position is None:
            return None
        (entry,) = await self._store.query(EventFilter(), after_position=position - 1, limit=1)
        header = entry.header
        (recorded,) = await self._store.read_stream(
            tenant, header.stream_id, after_version=header.stream_version - 1, limit=1
        )
        return recorded

    async def _rendered(
        self, model_id: str, messages: Sequence[Message], shape: OutputShape | None
    ) -> tuple[ExplainedPrompt | None, DomainError | None]:
        try:
            return await self._engine.explain(self._engine.resolve(model_id).model_id, messages, shape=shape), None
        except (ModelNotFound, ModelLoadError, EngineUnavailable, InvalidValue) as error:
            return None, error

    async def _provenance(self, header: EventHeader, completion_id: str) -> Provenance | None:
        """What generated the answer, if one was generated."""
        after = header.stream_version
        while True:
            page = await self._store.read_stream(header.tenant, header.stream_id, after_version=after, limit=PAGE)
            for recorded in page:
                if isinstance(recorded.event, CompletionGenerated) and recorded.event.completion_id == completion_id:
                    return recorded.event.provenance
            if len(page) < PAGE:
                return None
            after += len(page)


def _not_found(completion_id: str) -> CompletionNotFound:
    return CompletionNotFound(f"no completion {completion_id[:160]!r} was found")


def _recorded_input(requested: CompletionRequested) -> tuple[Message, ...]:
    messages = tuple(message.content for message in requested.input if message.content is not None)
    if len(messages) < len(requested.input) or not messages:
        raise ContentNotRecorded(
            f"completion {requested.completion_id!r} was recorded without its content; use a session, send store: true "
            "or set MANENT_RECORD=content to have it recorded"
        )
    return messages


def _chosen(messages: Sequence[Message], message_ids: Sequence[str]) -> tuple[Message, ...]:
    known = {message.message_id: message for message in messages}
    missing = [message_id for message_id in message_ids if message_id not in known]
    if missing:
        raise ContentNotRecorded(f"the content of message {missing[0]!r} is not in the log any more: it was erased")
    return tuple(known[message_id] for message_id in message_ids)


def _left_out(messages: Sequence[Message], dropped: DroppedMessages | None) -> tuple[Message, ...]:
    if dropped is None:
        return ()
    ids = [message.message_id for message in messages]
    start = ids.index(dropped.first_message_id) if dropped.first_message_id in ids else len(ids)
    found = tuple(messages[start : start + dropped.count])
    if len(found) != dropped.count or found[-1].message_id != dropped.last_message_id:
        raise ContentNotRecorded("the content of a message that was left out is not in the log any more: it was erased")
    return found


def _changed(prompt: ExplainedPrompt, then: Provenance | None) -> tuple[str, ...]:
    if then is None:
        return ()
    pairs = (
        ("weights", prompt.weights_digest, then.weights_digest),
        ("tokenizer", prompt.tokenizer_digest, then.tokenizer_digest),
        ("template", prompt.template_digest, then.template_digest),
    )
    return tuple(name for name, now, before in pairs if now != before)
