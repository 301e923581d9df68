"""The state of a session from many events at once: what ``evolve`` says one by one. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from manent.domain.event_times import happened_at_us
from manent.domain.events import (
    CompletionCancelled,
    CompletionFailed,
    CompletionGenerated,
    CompletionRequested,
    MessageAppended,
)
from manent.domain.messages import Message
from manent.domain.session import SessionState, evolve
from manent.domain.short_events import (
    CancelledInShort,
    FailedInShort,
    GeneratedInShort,
    RequestInShort,
    SessionStep,
)


def fold(state: SessionState, events: Iterable[SessionStep], *, last_event_id: str = "") -> SessionState:
    """The state after all of ``events``, without a state for each event of a turn; the last one has this id."""
    said: list[Message] = []
    steps, open_id, changed_at_us = 0, state.open_completion_id, state.changed_at_us
    for event in events:
        match event:
            case MessageAppended():
                said.append(event.message)
            case RequestInShort() | CompletionRequested():
                open_id = event.completion_id
            case (
                GeneratedInShort()
                | FailedInShort()
                | CancelledInShort()
                | CompletionGenerated()
                | CompletionFailed()
                | CompletionCancelled()
            ):
                open_id = None if open_id == event.completion_id else open_id
            case _:
                state = evolve(_after_turns(state, steps, said, open_id, changed_at_us), event)
                steps, said, open_id, changed_at_us = 0, [], state.open_completion_id, state.changed_at_us
                continue
        steps += 1
        at_us = happened_at_us(event) or 0
        changed_at_us = max(changed_at_us, at_us)
    state = _after_turns(state, steps, said, open_id, changed_at_us, last_event_id=last_event_id)
    if not last_event_id or state.last_event_id == last_event_id:
        return state
    return replace(state, last_event_id=last_event_id)


def _after_turns(
    state: SessionState,
    steps: int,
    said: Sequence[Message],
    open_id: str | None,
    changed_at_us: int,
    *,
    last_event_id: str = "",
) -> SessionState:
    if steps == 0:
        return state
    return replace(
        state,
        version=state.version + steps,
        messages=state.messages.extended(*said),
        open_completion_id=open_id,
        changed_at_us=changed_at_us,
        last_event_id=last_event_id,
    )
