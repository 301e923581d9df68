"""Responses and conversations, put together: one thing to hand to whoever offers them."""

from __future__ import annotations

from dataclasses import dataclass

from manent.domain.ports import Clock, EventStore, Ids, InferenceEngine
from manent.domain.streams import StreamBuffer
from manent.domain.usecases.cancel_response import CancelResponse, WatchCancellations
from manent.domain.usecases.complete_chat import CompleteChat
from manent.domain.usecases.conversation_items import ConversationItems
from manent.domain.usecases.create_response import CreateResponse
from manent.domain.usecases.find_completion import FindCompletion
from manent.domain.usecases.live_completions import LiveCompletions
from manent.domain.usecases.manage_sessions import ManageSessions
from manent.domain.usecases.read_responses import ReadResponses
from manent.domain.usecases.replays import Recorded
from manent.domain.usecases.resolve_items import ResolveItems
from manent.domain.usecases.sessions import Sessions
from manent.domain.usecases.turns import Turns


@dataclass(frozen=True, slots=True, kw_only=True)
class Responses:
    """Creating responses, reading and cancelling them, and the items of conversations."""

    create: CreateResponse
    read: ReadResponses
    cancel: CancelResponse
    watch: WatchCancellations
    items: ConversationItems
    resolve: ResolveItems


@dataclass(frozen=True, slots=True, kw_only=True)
class Ports:
    """What they stand on."""

    store: EventStore
    engine: InferenceEngine
    clock: Clock
    ids: Ids
    streams: StreamBuffer


def build_responses(
    chat: CompleteChat,
    manage: ManageSessions,
    recorded: Recorded,
    sessions: Sessions,
    turns: Turns,
    *,
    live: LiveCompletions,
    ports: Ports,
) -> Responses:
    """Everything, over the server's completions and sessions."""
    store, engine, clock, ids = ports.store, ports.engine, ports.clock, ports.ids
    completions = FindCompletion(store=store, replay=recorded.replay)
    read = ReadResponses(
        store=store,
        sessions=sessions,
        completions=completions,
        manage=manage,
        live=live,
        streams=ports.streams,
        clock=clock,
    )
    cancel = CancelResponse(responses=read, sessions=sessions, clock=clock)
    watch = WatchCancellations(store, live, clock)
    resolve = ResolveItems(responses=read, ids=ids)
    create = CreateResponse(
        chat=chat,
        sessions=sessions,
        responses=read,
        items=resolve,
        replay=recorded.replay,
        fork=recorded.fork,
        live=live,
        engine=engine,
        clock=clock,
        ids=ids,
    )
    items = ConversationItems(sessions=sessions, turns=turns, items=resolve, engine=engine, clock=clock)
    return Responses(create=create, read=read, cancel=cancel, watch=watch, items=items, resolve=resolve)
