"""What clients of responses and conversations take back or call off, as events; ``domain.events`` has the rest."""

from __future__ import annotations

from dataclasses import dataclass

from manent.domain.messages import Message


@dataclass(frozen=True, slots=True, kw_only=True)
class ResponseDeleted:
    """The response is not told any more; its conversation stands, and what was recorded stays in the log.

    It stands in the stream ``completion-<response_id>``, which a completion in a session has no other use for.
    """

    response_id: str
    session_id: str
    deleted_by: str
    deleted_at_us: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemRemoved:
    """An item of the conversation was removed: message number ``message_index`` (from 0) is ``left`` of it now.

    With None the whole message is gone from the state; the log keeps it.
    """

    session_id: str
    item_id: str
    message_id: str
    message_index: int
    left: Message | None
    removed_by: str
    removed_at_us: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CancellationRequested:
    """Somebody asked to stop a completion that another server runs, which reads this and does.

    The header's ``causation_id`` is the completion's id. The terminal event follows, and tells whether it came in time.
    """

    completion_id: str
    session_id: str
    requested_by: str
    requested_at_us: int


ConversationEvent = ItemRemoved | CancellationRequested
