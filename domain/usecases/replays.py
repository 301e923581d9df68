"""What analysts do with recorded conversations, put together: one thing to hand to whoever offers it to them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from manent.domain.ports import Clock, EventStore, Ids, InferenceEngine
from manent.domain.usecases.complete_chat import CompleteChat
from manent.domain.usecases.completion_context import ShowContext
from manent.domain.usecases.diff_sessions import DiffSessions
from manent.domain.usecases.end_rerun import EndRerun
from manent.domain.usecases.export_session import ExportSession
from manent.domain.usecases.find_completion import FindCompletion
from manent.domain.usecases.fork_session import ForkSession
from manent.domain.usecases.import_session import ImportSession, SessionFile
from manent.domain.usecases.replay import Replay
from manent.domain.usecases.rerun_session import RerunSession
from manent.domain.usecases.run_rerun import RunRerun
from manent.domain.usecases.running_reruns import RunningReruns
from manent.domain.usecases.sessions import Sessions
from manent.domain.usecases.verify_completion import VerifyCompletion

ReadEventsFile = Callable[[bytes, Ids], SessionFile]
"""Knows the log's format; raises ImportRefused."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """What needs the log alone."""

    replay: Replay
    fork: ForkSession
    diff: DiffSessions
    export: ExportSession
    imports: ImportSession
    read_events_file: ReadEventsFile


@dataclass(frozen=True, slots=True, kw_only=True)
class Replays:
    """Everything: what needs the log alone, and what needs a model."""

    recorded: Recorded
    find: FindCompletion
    rerun: RerunSession
    context: ShowContext
    verify: VerifyCompletion


def build_recorded(
    *, store: EventStore, sessions: Sessions, clock: Clock, ids: Ids, read_events_file: ReadEventsFile
) -> Recorded:
    """What needs the log alone, over ``store``."""
    replay = Replay(store, sessions, clock)
    return Recorded(
        replay=replay,
        fork=ForkSession(store=store, sessions=sessions, replay=replay, clock=clock, ids=ids),
        diff=DiffSessions(store=store, replay=replay),
        export=ExportSession(store=store, replay=replay),
        imports=ImportSession(store=store, sessions=sessions, clock=clock, ids=ids),
        read_events_file=read_events_file,
    )


def build_replays(
    *,
    recorded: Recorded,
    store: EventStore,
    sessions: Sessions,
    engine: InferenceEngine,
    chat: CompleteChat,
    ending: EndRerun,
    reruns: RunningReruns,
    clock: Clock,
    ids: Ids,
    alone_max_s: float,
) -> Replays:
    """Everything, over the server's completions and its bounded set of reruns."""
    run = RunRerun(sessions=sessions, chat=chat, ending=ending, reruns=reruns, clock=clock, ids=ids)
    rerun = RerunSession(
        store=store,
        replay=recorded.replay,
        forking=recorded.fork,
        engine=engine,
        run=run,
        reruns=reruns,
        clock=clock,
        ids=ids,
    )
    find = FindCompletion(store=store, replay=recorded.replay)
    verify = VerifyCompletion(store=store, find=find, engine=engine, clock=clock, alone_max_s=alone_max_s)
    context = ShowContext(find=find, engine=engine)
    return Replays(recorded=recorded, find=find, rerun=rerun, context=context, verify=verify)
