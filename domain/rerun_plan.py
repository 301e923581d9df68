"""What a rerun does: which of a conversation's answers are generated again, and what is said in between. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from manent.domain.events import HistoryRevised, SystemPromptReplaced
from manent.domain.messages import Message, Role
from manent.domain.session import leading_system

ASKING = frozenset({Role.USER, Role.TOOL})


@dataclass(frozen=True, slots=True, kw_only=True)
class RerunTurn:
    """``messages`` are said, then ``answer`` is generated anew; it is the original's, for its parameters."""

    messages: tuple[Message, ...]
    answer: Message


@dataclass(frozen=True, slots=True, kw_only=True)
class RerunPlan:
    """From the past that is shared to the whole conversation.

    ``system`` replaces the system prompt and ``kept`` messages of the past stand, where the original's client rewrote
    either later on (None: nothing of the past changed). ``rest`` is said after the last answer.
    """

    system: tuple[Message, ...] | None
    kept: int | None
    turns: tuple[RerunTurn, ...]
    rest: tuple[Message, ...]


def plan_rerun(past: Sequence[Message], whole: Sequence[Message]) -> RerunPlan:
    """The plan that leads from ``past`` through the messages of ``whole`` that are not in it.

    An assistant's message is generated again where it answers a user or a tool. Those that call tools are said as
    they were, since the results that follow belong to their calls; so are those that nobody asked for.
    """
    system = _replaced_system(past, whole)
    standing = list(past) if system is None else [*system, *past[len(leading_system(past)) :]]
    shared = _shared(standing, whole)
    kept = shared if shared < len(standing) else None
    asked = _is_asked(standing[:shared])
    turns: list[RerunTurn] = []
    said: list[Message] = []
    for message in whole[shared:]:
        if message.role is Role.ASSISTANT and not message.tool_calls and asked:
            turns.append(RerunTurn(messages=tuple(said), answer=message))
            said, asked = [], False
            continue
        said.append(message)
        asked = message.role in ASKING or (asked and message.role is Role.SYSTEM)
    return RerunPlan(system=system, kept=kept, turns=tuple(turns), rest=tuple(said))


def changes_of(
    plan: RerunPlan, past: Sequence[Message], *, session_id: str, by: str, now_us: int
) -> list[SystemPromptReplaced | HistoryRevised]:
    """The events by which the past becomes what the plan begins with; none where nothing of it changed."""
    changes: list[SystemPromptReplaced | HistoryRevised] = []
    standing = list(past)
    if plan.system is not None:
        standing = [*plan.system, *past[len(leading_system(past)) :]]
        changes.append(
            SystemPromptReplaced(session_id=session_id, messages=plan.system, replaced_by=by, replaced_at_us=now_us)
        )
    if plan.kept is not None:
        changes.append(
            HistoryRevised(
                session_id=session_id,
                from_message_id=standing[plan.kept].message_id,
                from_index=plan.kept,
                revised_by=by,
                revised_at_us=now_us,
            )
        )
    return changes


def _replaced_system(past: Sequence[Message], whole: Sequence[Message]) -> tuple[Message, ...] | None:
    before, after = leading_system(past), leading_system(whole)
    shared = _shared(before, after)
    unchanged = shared == len(before) == len(after)
    only_begun = shared == len(before) == len(past)  # what is missing of it is said like everything else
    if unchanged or only_begun:
        return None
    return tuple(after)


def _shared(some: Sequence[Message], others: Sequence[Message]) -> int:
    """How many messages both begin with: the same ones, not only the same words."""
    length = 0
    for one, other in zip(some, others, strict=False):
        if one.message_id != other.message_id:
            break
        length += 1
    return length


def _is_asked(messages: Sequence[Message]) -> bool:
    """Whether somebody waits for an answer at the end."""
    for message in reversed(messages):
        if message.role is not Role.SYSTEM:
            return message.role in ASKING
    return False
