"""What of the messages that a client sends is new, given what its session already holds.

Chat clients resend, edit, regenerate and compact their histories; agents send the last message only. Both are
everyday, and neither may double or lose a turn.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum

from manent.domain.access import Principal
from manent.domain.errors import HistoryConflict, InvalidValue
from manent.domain.events import HistoryRevised, SessionEvent, SystemPromptReplaced
from manent.domain.messages import Message, Role, common_prefix_length, same_messages
from manent.domain.session import SessionState, appended, leading_system


class SessionMode(StrEnum):
    """How sent messages relate to the stored history."""

    AUTO = "auto"
    APPEND = "append"
    STRICT = "strict"


def reconcile(
    state: SessionState, sent: Sequence[Message], *, mode: SessionMode, by: Principal, now_us: int
) -> list[SessionEvent]:
    """The events that bring the stored history in line with ``sent``.

    ``append`` takes everything as new; nothing is the wish to have the unanswered end answered. ``auto`` and
    ``strict`` compare: what repeats the whole stored history, or its unanswered end (a retry), is not new. Where a
    resent history (one that holds an assistant's message) or its system prompt departs from what is stored, ``auto``
    revises the stored history and ``strict`` refuses. Tools' results alone answer the last message's calls.

    Raises:
        InvalidValue: there is nothing to answer.
        HistoryConflict: the mode is ``strict`` and the histories depart; the message says where.
    """
    if not sent and mode is SessionMode.APPEND and state.unanswered:
        return []
    if not sent:
        raise InvalidValue("messages is empty; send at least one message", param="messages")
    if mode is SessionMode.APPEND or not state.messages:
        return [*appended(state.session_id, sent, by=by, now_us=now_us)]
    system = _reconcile_system(state, sent, mode=mode, by=by, now_us=now_us)
    revised: list[SessionEvent] = []
    stored_start, sent_start = len(state.leading_system), len(leading_system(sent))
    stored, sent_turns = state.messages[stored_start:], list(sent[sent_start:])
    shared = common_prefix_length(stored, sent_turns)
    if shared == len(stored):
        new = sent_turns[shared:]
    elif any(message.role is Role.ASSISTANT for message in sent_turns):
        revised = [_revise(state, stored_start + shared, sent_start + shared, mode=mode, by=by, now_us=now_us)]
        new = sent_turns[shared:]
    else:
        new = [] if _is_retry(state.unanswered, sent_turns) else sent_turns
    return [*revised, *system, *appended(state.session_id, new, by=by, now_us=now_us)]


def _reconcile_system(
    state: SessionState, sent: Sequence[Message], *, mode: SessionMode, by: Principal, now_us: int
) -> list[SessionEvent]:
    prompt = leading_system(sent)
    if not prompt or same_messages(prompt, state.leading_system):
        return []
    if mode is SessionMode.STRICT:
        raise _conflict(0, state.messages[0])
    return [
        SystemPromptReplaced(
            session_id=state.session_id, messages=tuple(prompt), replaced_by=by.subject, replaced_at_us=now_us
        )
    ]


def _revise(
    state: SessionState, stored_index: int, sent_index: int, *, mode: SessionMode, by: Principal, now_us: int
) -> HistoryRevised:
    departed = state.messages[stored_index]
    if mode is SessionMode.STRICT:
        raise _conflict(sent_index, departed)
    return HistoryRevised(
        session_id=state.session_id,
        from_message_id=departed.message_id,
        from_index=stored_index,
        revised_by=by.subject,
        revised_at_us=now_us,
    )


def _is_retry(unanswered: Sequence[Message], sent: Sequence[Message]) -> bool:
    if not sent or len(sent) > len(unanswered):
        return False
    return same_messages(unanswered[len(unanswered) - len(sent) :], sent)


def _conflict(sent_index: int, stored: Message) -> HistoryConflict:
    return HistoryConflict(
        f"messages[{sent_index}] departs from the stored history, which has {stored.role} message "
        f"{stored.message_id} there; send the stored history, or session_mode 'auto' to revise it",
        param=f"messages[{sent_index}]",
    )
