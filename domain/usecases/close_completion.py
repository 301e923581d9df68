"""The terminal event of a completion: exactly one, whatever happens around it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Container, Sequence

from manent.domain.errors import DomainError, StoreUnavailable, VersionConflict
from manent.domain.events import (
    CompletionFailed,
    CompletionGenerated,
    CompletionOutcome,
    SessionEvent,
    completion_stream,
    is_session_stream,
    session_of,
)
from manent.domain.generation import TextDelta
from manent.domain.output import Alternative, PartialOutput
from manent.domain.output_pieces import PieceSizes, chat_sizes, sizes_of
from manent.domain.ports import Clock, EventStore
from manent.domain.records import EventContext, OpenCompletion
from manent.domain.responses import RESPONSE_IDS
from manent.domain.session import SessionState, decide_close
from manent.domain.streams import NoStreamBuffer, StreamBuffer, StreamKey
from manent.domain.usecases.despite_outages import despite_outages
from manent.domain.usecases.end_rerun import EndRerun, is_rerun
from manent.domain.usecases.sessions import Sessions

KEPT_MAX = 10_000
KEPT_RETRY_S = 2.0
CONFLICTS_MAX = 32
ORPHANS_PAGE = 1000

_log = logging.getLogger("manent.completions")


class CloseCompletion:
    """Appends terminal events, against conflicts and a store that is away.

    What cannot be recorded while its client waits is kept, told to the client as a failure, and recorded as that
    failure as soon as the store is back: by ``keep_closing``, or by the session's next request.
    """

    def __init__(self, store: EventStore, sessions: Sessions, clock: Clock, buffer: StreamBuffer | None = None) -> None:
        self._store = store
        self._sessions = sessions
        self._clock = clock
        self._buffer = buffer or NoStreamBuffer()
        self._kept: dict[str, tuple[CompletionFailed, EventContext]] = {}
        self._kept_some = asyncio.Event()

    @property
    def kept(self) -> int:
        """How many completions ended and could not be recorded yet."""
        return len(self._kept)

    async def close(self, outcome: CompletionOutcome, *, context: EventContext) -> bool:
        """Record ``outcome``; False where another terminal event stands already.

        Raises:
            StoreUnavailable: the store stayed away. The completion is recorded as failed once it is back.
        """
        try:
            return await despite_outages(lambda: self._close_once(outcome, context), self._clock)
        except StoreUnavailable as error:
            self._keep(outcome, context, error)
            raise

    async def close_interrupted(self, found: OpenCompletion) -> bool:
        """Close a completion that nobody runs: with what is kept of it, or as interrupted by its server's end."""
        kept = self._kept.get(found.completion_id)
        outcome, context = kept if kept is not None else await self._interrupted(found)
        closed = await self.close(outcome, context=context)
        self._kept.pop(found.completion_id, None)
        return closed

    async def keep_closing(self) -> None:
        """Record what is kept, again and again until it is recorded; runs as long as the server does."""
        while True:
            await self._kept_some.wait()
            await self.close_kept()
            if self._kept:
                await self._clock.sleep(KEPT_RETRY_S)
            else:
                self._kept_some.clear()

    async def close_kept(self) -> None:
        """Try once to record all that is kept; stops at the first that the store refuses."""
        for completion_id, (outcome, context) in list(self._kept.items()):
            try:
                await self._close_once(outcome, context)
            except StoreUnavailable:
                return
            except DomainError as error:
                _log.warning("completion %s cannot be closed: %s", completion_id, error.message)
            self._kept.pop(completion_id, None)

    def _keep(self, outcome: CompletionOutcome, context: EventContext, error: StoreUnavailable) -> None:
        """Keep what happened as the failure that its client is told; beyond the bound, the next start closes it."""
        if len(self._kept) >= KEPT_MAX:
            return
        self._kept[outcome.completion_id] = self._as_told(outcome, error), context
        self._kept_some.set()

    def _as_told(self, outcome: CompletionOutcome, error: StoreUnavailable) -> CompletionFailed:
        if isinstance(outcome, CompletionFailed):
            return outcome
        ended = "was generated" if isinstance(outcome, CompletionGenerated) else "was cancelled"
        return CompletionFailed(
            completion_id=outcome.completion_id,
            session_id=outcome.session_id,
            model_id=outcome.model_id,
            code=error.code,
            reason=f"it {ended}, but that could not be recorded in time: {error.message}",
            text=outcome.text,
            token_ids=outcome.token_ids,
            usage=outcome.usage,
            failed_at_us=self._clock.now_us(),
            alternatives=outcome.alternatives,
            reasoning=outcome.reasoning,
            tool_calls=outcome.tool_calls,
            provenance=outcome.provenance,
            piece_sizes=outcome.piece_sizes,
        )

    async def _interrupted(self, found: OpenCompletion) -> tuple[CompletionFailed, EventContext]:
        """The failure, with what its readers may have seen before the server ended."""
        stream = StreamKey(tenant=found.tenant, completion_id=found.completion_id)
        deltas = await self._buffer.read(stream, 0)
        output = PartialOutput(1 + max((delta.index for delta in deltas), default=0))
        for delta in deltas:
            output.add(delta)
        first, *others = output.choices
        outcome = CompletionFailed(
            completion_id=found.completion_id,
            session_id=session_of(found.stream_id) if is_session_stream(found.stream_id) else None,
            model_id=None,
            code="interrupted",
            reason="the server ended before the completion did",
            text=first.text if deltas else None,
            token_ids=tuple(first.token_ids) if deltas else None,
            usage=None,
            alternatives=tuple(
                Alternative(
                    index=index,
                    finish_reason=None,
                    text=choice.text,
                    text_digest=None,
                    token_ids=tuple(choice.token_ids),
                    reasoning=choice.reasoning or None,
                    tool_calls=tuple(choice.tool_calls),
                )
                for index, choice in enumerate(others, start=1)
            ),
            reasoning=first.reasoning or None,
            tool_calls=tuple(first.tool_calls),
            piece_sizes=_sizes(found, deltas),
            failed_at_us=self._clock.now_us(),
        )
        return outcome, EventContext(tenant=found.tenant, actor="manent", causation_id=found.completion_id)

    async def _close_once(self, outcome: CompletionOutcome, context: EventContext) -> bool:
        if outcome.session_id is None:
            return await self._close_alone(outcome, context)

        async def decide(state: SessionState) -> Sequence[SessionEvent]:
            return decide_close(state, outcome, now_us=self._clock.now_us())

        _, appended = await self._sessions.decide_and_record(
            context.tenant, outcome.session_id, decide, context=context, conflicts_max=CONFLICTS_MAX
        )
        return appended is not None

    async def _close_alone(self, outcome: CompletionOutcome, context: EventContext) -> bool:
        """Close a completion without a session: its stream holds the request, as version 1, and nothing else."""
        stream_id = completion_stream(outcome.completion_id)
        try:
            await self._store.append(stream_id, [outcome], expected_version=1, context=context)
        except VersionConflict:
            return False
        return True


def _sizes(found: OpenCompletion, deltas: Sequence[TextDelta]) -> PieceSizes | None:
    """How what was kept had been streamed."""
    if not deltas:
        return None
    if found.completion_id.startswith(RESPONSE_IDS):
        return sizes_of(deltas, with_logprobs=False)  # a failure has none
    return chat_sizes(deltas)


class CloseInterrupted:
    """Closes what a crash left open: all at start-up, and what other servers leave behind while this one runs."""

    def __init__(
        self,
        store: EventStore,
        closing: CloseCompletion,
        ending: EndRerun,
        clock: Clock,
        *,
        live: Sequence[Container[str]],
        every_s: float,
    ) -> None:
        self._store = store
        self._closing = closing
        self._ending = ending
        self._clock = clock
        self._live = live
        self._every_s = every_s

    async def run(self) -> int:
        """Close all completions and reruns that no server runs; how many there were."""
        closed = 0
        while found := await self._orphans():
            closed_now = [await self._close(completion) for completion in found]
            closed += sum(closed_now)
            if not any(closed_now):
                break
        return closed

    async def keep_sweeping(self) -> None:
        """Look for such completions again and again; one that is found at two looks in a row is closed.

        What ends between the looks needs nobody's help.
        """
        seen: set[str] = set()
        while True:
            await self._clock.sleep(self._every_s)
            found = await self._orphans()
            for completion in found:
                if completion.completion_id in seen and await self._close(completion):
                    _log.warning("closed completion %s, which its server left open", completion.completion_id)
            seen = {completion.completion_id for completion in found}

    async def _orphans(self) -> list[OpenCompletion]:
        found = await self._store.orphaned_completions(limit=ORPHANS_PAGE)
        return [one for one in found if not any(one.completion_id in live for live in self._live)]

    async def _close(self, found: OpenCompletion) -> bool:
        if is_rerun(found):
            return await self._ending.interrupted(found)
        return await self._closing.close_interrupted(found)
