"""A reader who comes back to a completion: on this server, on another one, or after a restart."""

from __future__ import annotations

import asyncio

from manent.domain.access import Principal
from manent.domain.errors import (
    CompletionNotFound,
    ContentNotRecorded,
    DomainError,
    EngineBusy,
    EngineUnavailable,
    RecordedFailure,
)
from manent.domain.events import CompletionCancelled, CompletionFailed, CompletionGenerated, CompletionOutcome
from manent.domain.usecases.find_completion import FindCompletion, FoundRequest
from manent.domain.usecases.live_completions import LiveCompletions
from manent.domain.usecases.recent_completions import RecentCompletions
from manent.domain.usecases.running import RunningCompletion
from manent.domain.usecases.tell_recorded import RequestPlace, TellRecorded

FOLLOWED_MAX = 1000


class ResumeCompletion:
    """Finds a completion for whoever asked for it, wherever it runs or ran."""

    def __init__(
        self,
        *,
        find: FindCompletion,
        recorded: TellRecorded,
        live: LiveCompletions,
        recent: RecentCompletions,
    ) -> None:
        self._find = find
        self._recorded = recorded
        self._live = live
        self._recent = recent
        self._following: set[asyncio.Task[None]] = set()

    @property
    def following(self) -> int:
        """How many completions of other servers, or of the log, are told now."""
        return len(self._following)

    def at_hand(self, principal: Principal, completion_id: str) -> RunningCompletion | None:
        """The completion, where it runs in this process or ended here a short while ago; with one more reader."""
        running = self._live.find(principal.tenant, completion_id) or self._recent.find(principal.tenant, completion_id)
        if running is None or running.subject != principal.subject:
            return None
        running.join()
        running.comes_back = True
        return running

    async def resume(self, principal: Principal, completion_id: str) -> RunningCompletion:
        """The completion, to be followed from any of its deltas on.

        Raises:
            CompletionNotFound: there is none with this id that ``principal`` asked for.
            ContentErased: what was asked for was erased.
            EngineBusy: too many are followed from other servers already.
        """
        running = self.at_hand(principal, completion_id)
        if running is not None:
            return running
        found = await self._find.request(principal, completion_id)
        if found.header.actor != principal.subject:
            raise CompletionNotFound(f"no completion {completion_id[:160]!r} was found")
        return self.follow(principal, found)

    def follow(self, principal: Principal, found: FoundRequest) -> RunningCompletion:
        """A completion that does not run here, told as far as it has come, and on to its end; for whoever may read it.

        Raises:
            EngineBusy: too many are followed from other servers already.
        """
        completion_id = found.requested.completion_id
        if len(self._following) >= FOLLOWED_MAX:
            raise EngineBusy(f"{FOLLOWED_MAX} streams of other servers are followed already", retry_after_s=1.0)
        running = RunningCompletion(
            completion_id=completion_id,
            tenant=principal.tenant,
            subject=principal.subject,
            session_id=found.requested.session_id,
        )
        task = asyncio.create_task(self._tell(running, found), name=f"follow {completion_id}")
        self._following.add(task)
        task.add_done_callback(self._following.discard)
        return running

    async def _tell(self, running: RunningCompletion, found: FoundRequest) -> None:
        header = found.header
        place = RequestPlace(tenant=header.tenant, stream_id=header.stream_id, stream_version=header.stream_version)
        try:
            outcome = await self._recorded.tell(running, found.requested, place)
        except DomainError as error:
            running.fail(error)
        else:
            _end(running, outcome)


def _end(running: RunningCompletion, outcome: CompletionOutcome | None) -> None:
    """Tell readers how it ended, in the words of the log."""
    match outcome:
        case CompletionGenerated() if outcome.text is None and not running.produced:
            running.fail(
                ContentNotRecorded(
                    "this completion was recorded without its content, and what was kept for its readers is gone; use "
                    "a session, or send store: true"
                )
            )
        case CompletionGenerated():
            running.finish(outcome)
        case CompletionFailed():
            running.fail(RecordedFailure(outcome.code, outcome.reason))
        case CompletionCancelled():
            running.fail(RecordedFailure("cancelled", f"the completion was cancelled ({outcome.reason})"))
        case _:
            running.fail(EngineUnavailable("the completion did not end in time; resume once more"))
