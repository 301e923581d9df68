"""The use cases, put together over whatever adapters they are given."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from manent.adapters.limits.in_process import InProcessLimiter
from manent.adapters.store.codec import log_event
from manent.adapters.store.session_file import read_events_file
from manent.app.projections import contexts
from manent.app.settings import Settings
from manent.app.use_case_set import UseCases
from manent.domain.limits import Limiter
from manent.domain.ports import Clock, ContextCache, EventStore, Ids, InferenceEngine
from manent.domain.streams import NoStreamBuffer, StreamBuffer
from manent.domain.telemetry import NO_TELEMETRY, Telemetry
from manent.domain.usecases.accept_completion import AcceptCompletion
from manent.domain.usecases.close_completion import CloseCompletion, CloseInterrupted
from manent.domain.usecases.complete_chat import CompleteChat
from manent.domain.usecases.count_requests import CountRequests
from manent.domain.usecases.create_embeddings import CreateEmbeddings
from manent.domain.usecases.end_rerun import EndRerun
from manent.domain.usecases.expire_sessions import ExpireSessions
from manent.domain.usecases.follow_log import FollowLog
from manent.domain.usecases.list_sessions import ListSessions
from manent.domain.usecases.live_completions import LiveCompletions
from manent.domain.usecases.log_reader import LogSignal
from manent.domain.usecases.manage_models import ManageModels
from manent.domain.usecases.manage_sessions import ManageSessions
from manent.domain.usecases.query_log import QueryLog
from manent.domain.usecases.read_audit_log import ReadAuditLog
from manent.domain.usecases.recent_completions import RecentCompletions
from manent.domain.usecases.repeat_completion import RepeatCompletion
from manent.domain.usecases.replays import Recorded, Replays, build_recorded, build_replays
from manent.domain.usecases.responses import Ports, Responses, build_responses
from manent.domain.usecases.resume_completion import ResumeCompletion
from manent.domain.usecases.running_reruns import RunningReruns
from manent.domain.usecases.session_messages import SessionMessages
from manent.domain.usecases.sessions import Sessions
from manent.domain.usecases.stored_completions import StoredCompletions
from manent.domain.usecases.tell_recorded import TellRecorded
from manent.domain.usecases.turns import Turns
from manent.domain.usecases.warm_prefixes import WarmPrefixes


@dataclass(frozen=True, kw_only=True)
class Wiring:
    """The ports, and each use case built from them once, when it is first asked for."""

    settings: Settings
    store: EventStore
    engine: InferenceEngine
    clock: Clock
    ids: Ids
    cache: ContextCache
    streams: StreamBuffer
    limiter: Limiter
    telemetry: Telemetry = NO_TELEMETRY

    def build(self) -> UseCases:
        """All of them."""
        return UseCases(
            store=self.store,
            engine=self.engine,
            live=self.live,
            counting=self.counting,
            complete_chat=self.complete_chat,
            create_embeddings=CreateEmbeddings(
                self.engine, self.counting, timeout_s=self.settings.timeout_max_s, telemetry=self.telemetry
            ),
            manage_models=ManageModels(self.engine),
            manage_sessions=self.manage_sessions,
            list_sessions=ListSessions(directory=self.store.directory, sessions=self.sessions, clock=self.clock),
            session_messages=SessionMessages(
                store=self.store, sessions=self.sessions, turns=self.turns, clock=self.clock
            ),
            expire_sessions=self.expire_sessions,
            query_log=QueryLog(self.store),
            audit_log=ReadAuditLog(self.store, log_event),
            follow_log=FollowLog(self.store, self.signal),
            replays=self.replays,
            stored_completions=StoredCompletions(store=self.store, find=self.replays.find, clock=self.clock),
            resume=self.resume,
            responses=self.responses,
            reruns=self.reruns,
            closing=self.closing,
            close_interrupted=self.close_interrupted,
            warm_prefixes=self.warm_prefixes,
        )

    @cached_property
    def sessions(self) -> Sessions:
        """Sessions, folded from the log."""
        return Sessions(self.store, self.cache)

    @cached_property
    def live(self) -> LiveCompletions:
        """What runs in this process."""
        return LiveCompletions()

    @cached_property
    def recent(self) -> RecentCompletions:
        """What ended in this process a short while ago."""
        return RecentCompletions(keep_s=self.settings.stream_keep_s, now_us=self.clock.now_us)

    @cached_property
    def turns(self) -> Turns:
        """Whose turn it is in a session."""
        return Turns(wait_s=self.settings.session_wait_s, waiting_max=self.settings.session_waiting_max)

    @cached_property
    def signal(self) -> LogSignal:
        """Tells that the log has grown."""
        signal = LogSignal()
        self.store.observe(signal.notify)
        return signal

    @cached_property
    def closing(self) -> CloseCompletion:
        """Terminal events."""
        return CloseCompletion(self.store, self.sessions, self.clock, self.streams)

    @cached_property
    def told(self) -> TellRecorded:
        """Completions told from their buffers and from the log."""
        return TellRecorded(self.store, self.streams, self.clock)

    @cached_property
    def counting(self) -> CountRequests:
        """What is counted against limits."""
        return CountRequests(self.limiter, self.settings.limit_policy, self.ids, self.telemetry)

    @cached_property
    def complete_chat(self) -> CompleteChat:
        """Completions."""
        accept = AcceptCompletion(
            store=self.store,
            sessions=self.sessions,
            engine=self.engine,
            closing=self.closing,
            clock=self.clock,
            ids=self.ids,
            live=self.live,
            record_content=self.settings.record == "content",
        )
        return CompleteChat(
            accept=accept,
            repeat=RepeatCompletion(self.store, self.told),
            closing=self.closing,
            engine=self.engine,
            turns=self.turns,
            live=self.live,
            clock=self.clock,
            ids=self.ids,
            recent=self.recent,
            buffer=self.streams,
            counting=self.counting,
            timeout_max_s=self.settings.timeout_max_s,
            alone_max_s=self.settings.deterministic_max_s,
            telemetry=self.telemetry,
        )

    @cached_property
    def manage_sessions(self) -> ManageSessions:
        """Sessions as their owners see them."""
        return ManageSessions(
            store=self.store,
            sessions=self.sessions,
            engine=self.engine,
            turns=self.turns,
            live=self.live,
            clock=self.clock,
            ids=self.ids,
        )

    @cached_property
    def expire_sessions(self) -> ExpireSessions:
        """The sweep of what nobody used for its time."""
        every_s = self.settings.sweep_interval_s
        return ExpireSessions(directory=self.store.directory, sessions=self.sessions, clock=self.clock, every_s=every_s)

    @cached_property
    def ending(self) -> EndRerun:
        """The ends of reruns."""
        return EndRerun(self.store, self.sessions, self.clock)

    @cached_property
    def reruns(self) -> RunningReruns:
        """The reruns of this process."""
        return RunningReruns(at_once_max=self.settings.reruns_max, waiting_max=self.settings.reruns_waiting_max)

    @cached_property
    def recorded(self) -> Recorded:
        """What analysts do with the log alone."""
        return build_recorded(
            store=self.store,
            sessions=self.sessions,
            clock=self.clock,
            ids=self.ids,
            read_events_file=read_events_file,
        )

    @cached_property
    def replays(self) -> Replays:
        """What analysts do."""
        return build_replays(
            recorded=self.recorded,
            store=self.store,
            sessions=self.sessions,
            engine=self.engine,
            chat=self.complete_chat,
            ending=self.ending,
            reruns=self.reruns,
            clock=self.clock,
            ids=self.ids,
            alone_max_s=self.settings.deterministic_max_s,
        )

    @cached_property
    def resume(self) -> ResumeCompletion:
        """Readers who come back."""
        return ResumeCompletion(find=self.replays.find, recorded=self.told, live=self.live, recent=self.recent)

    @cached_property
    def responses(self) -> Responses:
        """Responses, and the items of conversations."""
        chat, manage, turns = self.complete_chat, self.manage_sessions, self.turns
        ports = Ports(store=self.store, engine=self.engine, clock=self.clock, ids=self.ids, streams=self.streams)
        return build_responses(chat, manage, self.recorded, self.sessions, turns, live=self.live, ports=ports)

    @cached_property
    def close_interrupted(self) -> CloseInterrupted:
        """The sweep of what a crash left open."""
        return CloseInterrupted(
            self.store,
            self.closing,
            self.ending,
            self.clock,
            live=(self.live, self.reruns),
            every_s=self.settings.sweep_interval_s,
        )

    @cached_property
    def warm_prefixes(self) -> WarmPrefixes:
        """Conversations that a model is warmed for."""
        return WarmPrefixes(
            store=self.store,
            sessions=self.sessions,
            engine=self.engine,
            clock=self.clock,
            sessions_max=self.settings.prefix_warm_sessions,
        )


def build_use_cases(
    settings: Settings,
    *,
    store: EventStore,
    engine: InferenceEngine,
    clock: Clock,
    ids: Ids,
    cache: ContextCache | None = None,
    streams: StreamBuffer | None = None,
    limiter: Limiter | None = None,
    telemetry: Telemetry = NO_TELEMETRY,
) -> UseCases:
    """Put the use cases together over the given adapters.

    Without ``cache``, ``limiter`` and ``streams``, contexts, counts and streams are kept in this process alone.
    """
    wiring = Wiring(
        settings=settings,
        store=store,
        engine=engine,
        clock=clock,
        ids=ids,
        cache=contexts(settings, None).cache if cache is None else cache,
        streams=NoStreamBuffer() if streams is None else streams,
        limiter=InProcessLimiter() if limiter is None else limiter,
        telemetry=telemetry,
    )
    return wiring.build()
