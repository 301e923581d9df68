"""Reruns: a fork whose answers are generated again. What is recorded when one is asked for, and how far it is."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from manent.domain.access import Principal
from manent.domain.embedding import CHAT_TYPES, check_type
from manent.domain.errors import InvalidValue, RerunNotFound
from manent.domain.events import session_of, session_stream
from manent.domain.model_access import models_to_try
from manent.domain.ports import Clock, EventStore, Ids, InferenceEngine
from manent.domain.records import Appended, EventFilter
from manent.domain.replay_events import Fork, RerunEnded, RerunStarted
from manent.domain.rerun_plan import RerunPlan, changes_of, plan_rerun
from manent.domain.session import SessionState
from manent.domain.usecases.answered import answered
from manent.domain.usecases.end_rerun import RERUN_PREFIX
from manent.domain.usecases.fork_session import ForkSession
from manent.domain.usecases.lineage import lineage
from manent.domain.usecases.replay import AsOf, Replay
from manent.domain.usecases.rerun_progress import read_progress
from manent.domain.usecases.run_rerun import Rerun, RerunCommand, RunRerun, model_of
from manent.domain.usecases.running_reruns import Place, RunningRerun, RunningReruns
from manent.domain.usecases.sessions import context_of

TURNS_MAX = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class RerunStatus:
    """How far a rerun is: ``queued``, ``running``, ``completed``, ``failed`` or ``interrupted``."""

    started: RerunStarted
    status: str
    turns_done: int
    completion_id: str | None
    ended: RerunEnded | None


class RerunSession:
    """Starts reruns, and tells how far they are."""

    def __init__(
        self,
        *,
        store: EventStore,
        replay: Replay,
        forking: ForkSession,
        engine: InferenceEngine,
        run: RunRerun,
        reruns: RunningReruns,
        clock: Clock,
        ids: Ids,
    ) -> None:
        self._store = store
        self._replay = replay
        self._forking = forking
        self._engine = engine
        self._run = run
        self._reruns = reruns
        self._clock = clock
        self._ids = ids

    async def start(self, command: RerunCommand) -> RerunStatus:
        """Record the rerun and have it run once there is room; it goes on whoever leaves.

        Raises:
            SessionNotFound, SessionAlreadyExists: as of a fork.
            InvalidValue: there is no such version, or nothing to generate behind it.
            ModelNotFound, WrongModelType: the registry has not all the models that are to answer, or one cannot chat.
            TooManyReruns, ShuttingDown: nothing was recorded.
        """
        if command.idempotency is not None and (kept := await self._store.find_answer(command.idempotency)):
            return await self._status_at(command.principal, kept)
        beginning = asyncio.create_task(self._begin(command, self._reruns.take_place()))
        beginning.add_done_callback(lambda done: done.cancelled() or done.exception())  # its asker may be gone
        return await asyncio.shield(beginning)

    async def status(self, principal: Principal, session_id: str) -> RerunStatus:
        """How far the rerun is that fills a session.

        Raises:
            SessionNotFound: there is no such session for this principal.
            RerunNotFound: it is no rerun.
        """
        state = await self._replay.at(principal, session_id)
        progress = await read_progress(self._store, state.tenant, session_stream(session_id))
        if progress.started is None:
            raise RerunNotFound(f"session {session_id!r} is no rerun")
        running = self._reruns.of_session(state.tenant, session_id)
        if progress.ended is not None:
            status, done = progress.ended.status, progress.ended.turns_done
        else:
            begun = progress.completion_id is not None or (running is not None and running.started)
            status, done = "running" if begun else "queued", progress.turns_done
        return RerunStatus(
            started=progress.started,
            status=status,
            turns_done=done,
            completion_id=None if progress.ended is not None else progress.completion_id,
            ended=progress.ended,
        )

    async def _status_at(self, principal: Principal, kept: Appended) -> RerunStatus:
        """The rerun that an earlier request with the same idempotency key started."""
        (entry,) = await self._store.query(EventFilter(), after_position=kept.position - 1, limit=1)
        return await self.status(principal, session_of(entry.header.stream_id))

    async def _begin(self, command: RerunCommand, place: Place) -> RerunStatus:
        """Record the rerun and have it run; once that has begun it is finished, also if whoever asked has left."""
        try:
            work, started, appended = await self._recorded(command)
        except BaseException:
            place.close()
            raise
        if appended.repeated:
            place.close()
            return await self._status_at(command.principal, appended)
        self._reruns.run(work.running, lambda: self._run.live_through(work), place)
        return RerunStatus(started=started, status="queued", turns_done=0, completion_id=None, ended=None)

    async def _recorded(self, command: RerunCommand) -> tuple[Rerun, RerunStarted, Appended]:
        by = command.principal
        whole = await self._replay.at(by, command.session_id)
        past = await self._past(command, whole)
        plan = plan_rerun(past.messages, whole.messages)
        self._check_length(command, plan)
        segments = await lineage(self._store, whole.tenant, whole.session_id, whole.version)
        answers = {turn.answer.message_id for turn in plan.turns}
        completions = await answered(self._store, whole.tenant, segments, answers)
        for model in {model_of(command, completions.get(turn.answer.message_id)) for turn in plan.turns}:
            first = models_to_try(by, model, self._engine.resolve)[0]
            check_type(model, self._engine.resolve(first).type, *CHAT_TYPES)
        rerun_id, fork_id = self._ids.new(RERUN_PREFIX), command.rerun_session_id or self._ids.new("sess_")
        now_us = self._clock.now_us()
        started = RerunStarted(
            session_id=fork_id,
            rerun_id=rerun_id,
            source=Fork(session_id=whole.session_id, version=whole.version),
            from_version=past.version,
            model_asked=command.model,
            parameters=command.parameters,
            turns=len(plan.turns),
            started_by=by.subject,
            started_at_us=now_us,
        )
        context = context_of(by, request_id=command.request_id, correlation_id=rerun_id)
        changes = changes_of(plan, past.messages, session_id=fork_id, by=by.subject, now_us=now_us)
        _, appended = await self._forking.start(
            past,
            by=by,
            fork_id=fork_id,
            metadata={},
            context=context,
            idempotency=command.idempotency,
            then=[started, *changes],
        )
        running = RunningRerun(rerun_id=rerun_id, tenant=by.tenant, session_id=fork_id)
        work = Rerun(command=command, plan=plan, completions=completions, running=running, context=context)
        return work, started, appended

    async def _past(self, command: RerunCommand, whole: SessionState) -> SessionState:
        if not 1 <= command.from_version <= whole.version:
            raise InvalidValue(
                f"from_version {command.from_version} does not exist; the session has 1 to {whole.version}",
                param="from_version",
            )
        return await self._replay.at(command.principal, command.session_id, AsOf(version=command.from_version))

    def _check_length(self, command: RerunCommand, plan: RerunPlan) -> None:
        if not plan.turns:
            raise InvalidValue(
                f"nothing was answered behind version {command.from_version}: there is nothing to generate again",
                param="from_version",
            )
        if len(plan.turns) > TURNS_MAX:
            raise InvalidValue(
                f"{len(plan.turns)} answers follow version {command.from_version}; a rerun has at most {TURNS_MAX}",
                param="from_version",
            )
