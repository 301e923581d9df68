"""What a rerun does, from two states of a conversation alone."""

from __future__ import annotations

from hypothesis import given as for_all
from hypothesis import strategies as st

from manent.domain.events import MessageAppended, SessionEvent
from manent.domain.messages import Message, Role, ToolCall
from manent.domain.rerun_plan import RerunPlan, changes_of, plan_rerun
from manent.domain.session import SessionState
from manent.domain.session_fold import fold
from tests.support.conversation import NOW_US, assistant, message, revised, said, started, system, system_replaced, user

ONE, TWO, THREE = user("one"), user("two"), user("three")
FIRST, SECOND = assistant("first"), assistant("second")


def shown(plan: RerunPlan) -> list[tuple[list[str], str]]:
    """The turns as texts."""
    return [([said.text for said in turn.messages], turn.answer.text) for turn in plan.turns]


def test_all_answers_behind_the_past_are_generated_again() -> None:
    """With what was said in between, and what was said last and never answered."""
    plan = plan_rerun([], [system("be brief"), ONE, FIRST, TWO, SECOND, THREE])
    assert shown(plan) == [(["be brief", "one"], "first"), (["two"], "second")]
    assert [said.text for said in plan.rest] == ["three"]
    assert (plan.system, plan.kept) == (None, None)


def test_a_question_in_the_past_is_answered_first() -> None:
    """Nothing new is said before the first answer where the past ends with its question."""
    assert shown(plan_rerun([ONE], [ONE, FIRST, TWO, SECOND])) == [([], "first"), (["two"], "second")]


def test_behind_an_answer_the_next_turn_comes_first() -> None:
    """What stands in the past is not generated again."""
    assert shown(plan_rerun([ONE, FIRST], [ONE, FIRST, TWO, SECOND])) == [(["two"], "second")]


def test_nothing_follows_the_end() -> None:
    """A plan from the whole to the whole is empty."""
    plan = plan_rerun([ONE, FIRST], [ONE, FIRST])
    assert (plan.turns, plan.rest) == ((), ())


def test_what_nobody_asked_for_is_said_as_it_was() -> None:
    """An assistant's message without a question before it, and one that calls tools: its results must follow it."""
    call = Message(
        message_id="msg_call", role=Role.ASSISTANT, content=(), tool_calls=(ToolCall(id="c", name="f", arguments="{}"),)
    )
    result = message("tool", "42")
    plan = plan_rerun([], [assistant("hello"), ONE, call, result, FIRST, SECOND])
    assert shown(plan) == [(["hello", "one", "", "42"], "first")]
    assert [said.text for said in plan.rest] == ["second"]


def test_a_history_that_was_revised_later_is_revised_in_the_fork() -> None:
    """The past ends where it departs from what the conversation became."""
    edited = user("one, edited")
    past, whole = [ONE, FIRST], [edited, assistant("other"), TWO, SECOND]
    plan = plan_rerun(past, whole)
    assert (plan.kept, shown(plan)) == (0, [(["one, edited"], "other"), (["two"], "second")])
    assert applied(plan, past) == []


def test_a_system_prompt_that_was_replaced_later_is_replaced_in_the_fork() -> None:
    """The turns of the past stay."""
    past = [system("old"), ONE, FIRST]
    plan = plan_rerun(past, [system("new"), ONE, FIRST, TWO, SECOND])
    assert ([said.text for said in plan.system or ()], plan.kept) == (["new"], None)
    assert shown(plan) == [(["two"], "second")]
    assert applied(plan, past) == ["new", "one", "first"]


def test_a_system_prompt_that_came_later_is_put_in_front() -> None:
    """A conversation that began without one."""
    plan = plan_rerun([ONE, FIRST], [system("new"), ONE, FIRST, TWO, SECOND])
    assert applied(plan, [ONE, FIRST]) == ["new", "one", "first"]
    assert shown(plan) == [(["two"], "second")]


def applied(plan: RerunPlan, past: list[Message]) -> list[str]:
    """The past after the plan's changes."""
    said: list[SessionEvent] = [
        MessageAppended(session_id="s", message=one, appended_by="ann", completion_id=None, appended_at_us=NOW_US)
        for one in past
    ]
    state = fold(SessionState(session_id="s", tenant="acme"), [started(), *said])
    changes = changes_of(plan, past, session_id="s", by="ann", now_us=NOW_US)
    return [message.text for message in fold(state, changes).messages]


@st.composite
def histories(draw: st.DrawFn) -> list[SessionEvent]:
    """What may happen in a session: turns, edits, new system prompts."""
    events: list[SessionEvent] = [started()]
    state = fold(SessionState(session_id="s", tenant="acme"), events)
    for number in range(draw(st.integers(0, 12))):
        kind = draw(st.sampled_from(["user", "assistant", "revise", "system"]))
        event: SessionEvent = said(kind, f"{kind} {number}") if kind in {"user", "assistant"} else system_replaced(kind)
        if kind == "system":
            event = system_replaced(f"system {number}")
        leading = len(state.leading_system)
        if kind == "revise":
            if len(state.messages) <= leading:
                continue
            index = draw(st.integers(leading, len(state.messages) - 1))
            event = revised(index, state.messages[index].message_id)
        events.append(event)
        state = fold(state, [event])
    return events


@for_all(histories(), st.data())
def test_every_plan_leads_to_the_whole_conversation(events: list[SessionEvent], data: st.DataObject) -> None:
    """From any version of any history: the changed past, what is said, and the answers are the conversation."""
    version = data.draw(st.integers(1, len(events)))
    empty = SessionState(session_id="s", tenant="acme")
    past, whole = fold(empty, events[:version]), fold(empty, events)
    plan = plan_rerun(past.messages, whole.messages)
    begun = applied(plan, list(past.messages))
    rerun = [text for turn in plan.turns for text in (*(m.text for m in turn.messages), turn.answer.text)]
    assert [*begun, *rerun, *(m.text for m in plan.rest)] == [m.text for m in whole.messages]
