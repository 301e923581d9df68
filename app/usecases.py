"""The use cases, put together over whatever adapters they are given."""

from __future__ import annotations

from dataclasses import dataclass

from manent.adapters.projections.lru import LruContextCache
from manent.app.settings import Settings
from manent.domain.ports import Clock, EventStore, Ids, InferenceEngine
from manent.domain.usecases.accept_completion import AcceptCompletion
from manent.domain.usecases.close_completion import CloseCompletion, CloseInterrupted
from manent.domain.usecases.complete_chat import CompleteChat
from manent.domain.usecases.follow_log import FollowLog
from manent.domain.usecases.log_reader import LogSignal
from manent.domain.usecases.manage_models import ManageModels
from manent.domain.usecases.manage_sessions import ManageSessions
from manent.domain.usecases.query_log import QueryLog
from manent.domain.usecases.repeat_completion import RepeatCompletion
from manent.domain.usecases.replay import Replay
from manent.domain.usecases.running import LiveCompletions
from manent.domain.usecases.sessions import Sessions
from manent.domain.usecases.turns import Turns


@dataclass(frozen=True, slots=True, kw_only=True)
class UseCases:
    """What a Manent can do, and the ports it does it with."""

    store: EventStore
    engine: InferenceEngine
    live: LiveCompletions
    complete_chat: CompleteChat
    manage_models: ManageModels
    manage_sessions: ManageSessions
    query_log: QueryLog
    follow_log: FollowLog
    replay: Replay
    closing: CloseCompletion
    close_interrupted: CloseInterrupted


def build_use_cases(
    settings: Settings, *, store: EventStore, engine: InferenceEngine, clock: Clock, ids: Ids
) -> UseCases:
    """Put the use cases together over the given adapters."""
    sessions = Sessions(store, LruContextCache(budget_bytes=settings.cache_bytes))
    closing = CloseCompletion(store, sessions, clock)
    live = LiveCompletions()
    signal = LogSignal()
    store.observe(signal.notify)
    turns = Turns(wait_s=settings.session_wait_s, waiting_max=settings.session_waiting_max)
    accept = AcceptCompletion(
        store=store,
        sessions=sessions,
        engine=engine,
        closing=closing,
        clock=clock,
        ids=ids,
        live=live,
        record_content=settings.record == "content",
    )
    return UseCases(
        store=store,
        engine=engine,
        live=live,
        complete_chat=CompleteChat(
            accept=accept,
            repeat=RepeatCompletion(store, clock),
            closing=closing,
            engine=engine,
            turns=turns,
            live=live,
            clock=clock,
            ids=ids,
            timeout_max_s=settings.timeout_max_s,
        ),
        manage_models=ManageModels(engine),
        manage_sessions=ManageSessions(
            store=store, sessions=sessions, engine=engine, turns=turns, live=live, clock=clock, ids=ids
        ),
        query_log=QueryLog(store),
        follow_log=FollowLog(store, signal),
        replay=Replay(sessions),
        closing=closing,
        close_interrupted=CloseInterrupted(store, closing),
    )
