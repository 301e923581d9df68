"""The items of a conversation: its session's messages through OpenAI's noun. Pages, one, adding, removing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from manent.domain.access import Principal
from manent.domain.errors import InvalidValue, SessionBusy
from manent.domain.events import SessionEvent
from manent.domain.items import Item, ItemKind, find_item, items_of, without
from manent.domain.messages import Message, Role
from manent.domain.ports import Clock, InferenceEngine
from manent.domain.response_errors import ItemNotFound
from manent.domain.response_events import ItemRemoved
from manent.domain.session import SessionState, check_usable
from manent.domain.session_upkeep import check_readable, decide_append
from manent.domain.usecases.resolve_items import Part, ResolveItems
from manent.domain.usecases.sessions import Sessions, context_of
from manent.domain.usecases.turns import Turns


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemPage:
    """A page of items; ``has_more`` tells whether others follow in the asked order."""

    items: Sequence[Item]
    has_more: bool


class ConversationItems:
    """What is said in a conversation, item by item."""

    def __init__(
        self, *, sessions: Sessions, turns: Turns, items: ResolveItems, engine: InferenceEngine, clock: Clock
    ) -> None:
        self._sessions = sessions
        self._engine = engine
        self._turns = turns
        self._items = items
        self._clock = clock

    async def page(
        self, principal: Principal, session_id: str, *, after: str | None, limit: int, descending: bool
    ) -> ItemPage:
        """A page of the conversation as it stands.

        Raises:
            SessionNotFound, SessionGone: as ``ManageSessions.get``.
            InvalidValue: ``after`` is no item of the conversation.
        """
        state = await self._readable(principal, session_id)
        return item_page(state.messages, after=after, limit=limit, descending=descending)

    async def get(self, principal: Principal, session_id: str, item_id: str) -> Item:
        """An item of the conversation as it stands; raises ItemNotFound, and as ``page``."""
        return _found(await self._readable(principal, session_id), item_id)[1]

    async def add(
        self, principal: Principal, session_id: str, parts: Sequence[Part], *, request_id: str | None
    ) -> list[Item]:
        """Add items to the end, behind the answer that is being generated, if one is; nothing is generated.

        Raises:
            SessionNotFound, SessionClosed, SessionGone, SessionBusy: nothing can be added to it.
            InvalidValue: a result answers no call, or a reference leads nowhere.
        """
        said: list[Message] = []

        async def decide(state: SessionState) -> Sequence[SessionEvent]:
            said[:] = await self._items.run(principal, parts, state.messages)
            return decide_append(state, said, expected=None, by=principal, now_us=self._clock.now_us())

        context = context_of(principal, request_id=request_id)
        async with self._turns.take(principal.tenant, session_id):
            after, _ = await self._sessions.decide_and_record(principal.tenant, session_id, decide, context=context)
        count = len(after.messages)
        return [item for index in range(count - len(said), count) for item in items_of(after.messages, index)]

    async def remove(self, principal: Principal, session_id: str, item_id: str, *, request_id: str | None) -> None:
        """Remove an item; the log keeps it, and no engine does. Other items of its message stay.

        Raises:
            SessionNotFound, SessionClosed, SessionGone, SessionBusy: nothing can be changed in it.
            ItemNotFound: the conversation has no such item.
            InvalidValue: it is a call whose result is in the conversation.
        """

        async def decide(state: SessionState) -> Sequence[SessionEvent]:
            return decide_remove(state, item_id, by=principal, now_us=self._clock.now_us())

        context = context_of(principal, request_id=request_id)
        async with self._turns.take(principal.tenant, session_id):
            await self._sessions.decide_and_record(principal.tenant, session_id, decide, context=context)
            await self._engine.forget(principal.tenant, session_id)

    async def _readable(self, principal: Principal, session_id: str) -> SessionState:
        state = await self._sessions.load(principal.tenant, session_id)
        check_readable(state, principal, now_us=self._clock.now_us())
        return state


def item_page(messages: Sequence[Message], *, after: str | None, limit: int, descending: bool) -> ItemPage:
    """A page of the items of ``messages``; raises InvalidValue where ``after`` is none of them."""
    start = len(messages) - 1 if descending else 0
    if after is not None:
        place = find_item(messages, after)
        if place is None:
            raise InvalidValue(f"after is {after[:160]!r}, which is no item here", param="after")
        start = place[0]
    found: list[Item] = []
    passed = after is None
    for item in _items_from(messages, start, descending=descending):
        if passed:
            found.append(item)
            if len(found) > limit:
                break
        passed = passed or item.item_id == after
    return ItemPage(items=found[:limit], has_more=len(found) > limit)


def decide_remove(state: SessionState, item_id: str, *, by: Principal, now_us: int) -> list[SessionEvent]:
    """The event that removes an item; raises as ``ConversationItems.remove``."""
    check_usable(state, by, now_us=now_us)
    if state.open_completion_id is not None:
        raise SessionBusy(f"completion {state.open_completion_id} of session {state.session_id!r} is still open")
    index, item = _found(state, item_id)
    if item.kind is ItemKind.CALL and item.call is not None and _has_result(state, index, item.call.id):
        raise InvalidValue(
            f"item {item_id!r} is a call whose result is in the conversation; delete the result first", param="item_id"
        )
    return [
        ItemRemoved(
            session_id=state.session_id,
            item_id=item_id,
            message_id=item.message.message_id,
            message_index=index,
            left=without(item),
            removed_by=by.subject,
            removed_at_us=now_us,
        )
    ]


def _found(state: SessionState, item_id: str) -> tuple[int, Item]:
    found = find_item(state.messages, item_id)
    if found is None:
        raise ItemNotFound(f"Item with id '{item_id[:160]}' not found in conversation '{state.session_id}'.")
    return found


def _has_result(state: SessionState, index: int, call_id: str) -> bool:
    """Results follow their calls at once."""
    for message in state.messages[index + 1 :]:
        if message.role is not Role.TOOL:
            return False
        if message.tool_call_id == call_id:
            return True
    return False


def _items_from(messages: Sequence[Message], start: int, *, descending: bool) -> Iterator[Item]:
    indexes = range(start, -1, -1) if descending else range(start, len(messages))
    for index in indexes:
        items = items_of(messages, index)
        yield from reversed(items) if descending else items
