"""The use cases, put together over whatever adapters they are given."""

from __future__ import annotations

from dataclasses import dataclass

from manent.adapters.store.session_file import read_events_file
from manent.app.projections import context_cache
from manent.app.settings import Settings
from manent.domain.ports import Clock, ContextCache, EventStore, Ids, InferenceEngine
from manent.domain.streams import NoStreamBuffer, StreamBuffer
from manent.domain.usecases.accept_completion import AcceptCompletion
from manent.domain.usecases.close_completion import CloseCompletion, CloseInterrupted
from manent.domain.usecases.complete_chat import CompleteChat
from manent.domain.usecases.create_embeddings import CreateEmbeddings
from manent.domain.usecases.end_rerun import EndRerun
from manent.domain.usecases.expire_sessions import ExpireSessions
from manent.domain.usecases.follow_log import FollowLog
from manent.domain.usecases.list_sessions import ListSessions
from manent.domain.usecases.log_reader import LogSignal
from manent.domain.usecases.manage_models import ManageModels
from manent.domain.usecases.manage_sessions import ManageSessions
from manent.domain.usecases.query_log import QueryLog
from manent.domain.usecases.recent_completions import RecentCompletions
from manent.domain.usecases.repeat_completion import RepeatCompletion
from manent.domain.usecases.replays import Replays, build_recorded, build_replays
from manent.domain.usecases.resume_completion import ResumeCompletion
from manent.domain.usecases.running import LiveCompletions
from manent.domain.usecases.running_reruns import RunningReruns
from manent.domain.usecases.session_messages import SessionMessages
from manent.domain.usecases.sessions import Sessions
from manent.domain.usecases.tell_recorded import TellRecorded
from manent.domain.usecases.turns import Turns
from manent.domain.usecases.warm_prefixes import WarmPrefixes


@dataclass(frozen=True, slots=True, kw_only=True)
class UseCases:
    """What a Manent can do, and the ports it does it with."""

    store: EventStore
    engine: InferenceEngine
    live: LiveCompletions
    complete_chat: CompleteChat
    create_embeddings: CreateEmbeddings
    manage_models: ManageModels
    manage_sessions: ManageSessions
    list_sessions: ListSessions
    session_messages: SessionMessages
    expire_sessions: ExpireSessions
    query_log: QueryLog
    follow_log: FollowLog
    replays: Replays
    resume: ResumeCompletion
    reruns: RunningReruns
    closing: CloseCompletion
    close_interrupted: CloseInterrupted
    warm_prefixes: WarmPrefixes


def build_use_cases(
    settings: Settings,
    *,
    store: EventStore,
    engine: InferenceEngine,
    clock: Clock,
    ids: Ids,
    cache: ContextCache | None = None,
    streams: StreamBuffer | None = None,
) -> UseCases:
    """Put the use cases together over the given adapters.

    Without ``cache``, contexts are kept in this process; without ``streams``, what streams say is kept there alone.
    """
    sessions = Sessions(store, cache or context_cache(settings, None))
    buffer = streams or NoStreamBuffer()
    closing = CloseCompletion(store, sessions, clock, buffer)
    live = LiveCompletions()
    recent = RecentCompletions(keep_s=settings.stream_keep_s, now_us=clock.now_us)
    told = TellRecorded(store, buffer, clock)
    signal = LogSignal()
    store.observe(signal.notify)
    turns = Turns(wait_s=settings.session_wait_s, waiting_max=settings.session_waiting_max)
    complete_chat = _complete_chat(
        settings,
        sessions,
        turns,
        live,
        Ends(closing=closing, recent=recent, told=told, buffer=buffer),
        store=store,
        engine=engine,
        clock=clock,
        ids=ids,
    )
    ending, every_s = EndRerun(store, sessions, clock), settings.sweep_interval_s
    reruns = RunningReruns(at_once_max=settings.reruns_max, waiting_max=settings.reruns_waiting_max)
    replays = build_replays(
        recorded=build_recorded(
            store=store, sessions=sessions, clock=clock, ids=ids, read_events_file=read_events_file
        ),
        store=store,
        sessions=sessions,
        engine=engine,
        chat=complete_chat,
        ending=ending,
        reruns=reruns,
        clock=clock,
        ids=ids,
        alone_max_s=settings.deterministic_max_s,
    )
    return UseCases(
        store=store,
        engine=engine,
        live=live,
        complete_chat=complete_chat,
        create_embeddings=CreateEmbeddings(engine, timeout_s=settings.timeout_max_s),
        manage_models=ManageModels(engine),
        manage_sessions=ManageSessions(
            store=store, sessions=sessions, engine=engine, turns=turns, live=live, clock=clock, ids=ids
        ),
        list_sessions=ListSessions(directory=store.directory, sessions=sessions, clock=clock),
        session_messages=SessionMessages(store=store, sessions=sessions, turns=turns, clock=clock),
        expire_sessions=ExpireSessions(directory=store.directory, sessions=sessions, clock=clock, every_s=every_s),
        query_log=QueryLog(store),
        follow_log=FollowLog(store, signal),
        replays=replays,
        resume=ResumeCompletion(find=replays.find, recorded=told, live=live, recent=recent),
        reruns=reruns,
        closing=closing,
        close_interrupted=CloseInterrupted(store, closing, ending, clock, live=(live, reruns), every_s=every_s),
        warm_prefixes=WarmPrefixes(
            store=store, sessions=sessions, engine=engine, clock=clock, sessions_max=settings.prefix_warm_sessions
        ),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Ends:
    """What a completion is ended with, and what is left of it for its readers."""

    closing: CloseCompletion
    recent: RecentCompletions
    told: TellRecorded
    buffer: StreamBuffer


def _complete_chat(
    settings: Settings,
    sessions: Sessions,
    turns: Turns,
    live: LiveCompletions,
    ends: Ends,
    *,
    store: EventStore,
    engine: InferenceEngine,
    clock: Clock,
    ids: Ids,
) -> CompleteChat:
    accept = AcceptCompletion(
        store=store,
        sessions=sessions,
        engine=engine,
        closing=ends.closing,
        clock=clock,
        ids=ids,
        live=live,
        record_content=settings.record == "content",
    )
    return CompleteChat(
        accept=accept,
        repeat=RepeatCompletion(store, ends.told),
        closing=ends.closing,
        engine=engine,
        turns=turns,
        live=live,
        clock=clock,
        ids=ids,
        recent=ends.recent,
        buffer=ends.buffer,
        timeout_max_s=settings.timeout_max_s,
        alone_max_s=settings.deterministic_max_s,
    )
