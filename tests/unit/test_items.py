"""Items and pieces: what messages and answers look like through OpenAI's nouns, and back again without loss."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manent.domain.errors import InvalidValue
from manent.domain.generation import TextDelta, TokenCandidate, TokenLogprobs
from manent.domain.history import History
from manent.domain.items import find_item, items_of, merged, part_of, without
from manent.domain.messages import Message, Role, TextPart, ToolCall
from manent.domain.output_pieces import PieceReader, RecordedOutput, sizes_of
from manent.domain.response_errors import ItemNotFound
from manent.domain.session import SessionState, evolve
from manent.domain.session_fold import fold
from manent.domain.usecases.conversation_items import decide_remove, item_page
from tests.support.conversation import ANN, NOW_US, said, started, user
from tests.support.conversation import message as short

CALL = ToolCall(id="a", name="f", arguments="{}")
PATCH = ToolCall(id="b", name="patch", arguments='{"input": "x"}', custom=True)
ANSWER = Message(
    message_id="msg_1",
    role=Role.ASSISTANT,
    content=(TextPart(text="so"),),
    reasoning="hm",
    tool_calls=(CALL, PATCH),
)
RESULTS = (
    Message(message_id="msg_2", role=Role.TOOL, content=(TextPart(text="1"),), tool_call_id="a"),
    Message(message_id="msg_3", role=Role.TOOL, content=(TextPart(text="2"),), tool_call_id="b"),
)
TALK = (user("hi"), ANSWER, *RESULTS)
EMPTY = Message(message_id="msg_4", role=Role.ASSISTANT, content=(TextPart(text=""),))


def ids(messages: tuple[Message, ...]) -> list[str]:
    """The ids of all items."""
    return [item.item_id for index in range(len(messages)) for item in items_of(messages, index)]


def test_a_message_is_its_items() -> None:
    """Reasoning, text and calls of an answer, one item for everything else; custom tools have names of their own."""
    assert ids(TALK) == ["msg_user_hi", "rs_1", "msg_1", "fc_1", "ctc_1_1", "fco_2", "ctco_3"]
    assert ids((EMPTY,)) == ["msg_4"]


def test_items_are_found_by_their_ids() -> None:
    """An id leads to its message and part, also where ids of messages have underscores; others lead nowhere."""
    for messages in (TALK, History(TALK)):
        for wanted in ids(TALK):
            found = find_item(messages, wanted)
            assert found is not None
            assert found[1].item_id == wanted
        for odd in ("", "rs_2", "fc_1_1", "msg_1_0", "msg_", "xyz", "ctc_1"):
            assert find_item(messages, odd) is None


def test_items_put_together_are_the_message_again() -> None:
    """Parts that follow one another are one message; a second text, or reasoning, begins another."""
    parts = [part_of(item) for index in range(len(TALK)) for item in items_of(TALK, index)]
    assert merged(parts) == TALK
    said_twice = merged([short("assistant", "a"), short("assistant", "b"), part_of(items_of(TALK, 1)[2])])
    assert [message.text for message in said_twice] == ["a", "b"]
    assert said_twice[1].tool_calls == (CALL,)
    assert len(merged([part_of(items_of(TALK, 1)[2]), part_of(items_of(TALK, 1)[0])])) == 2


def test_what_is_left_without_an_item() -> None:
    """Each part goes alone, the last one takes the message with it."""
    rest: Message | None = ANSWER
    for left in (3, 2, 1, 0):
        assert rest is not None
        rest = without(items_of((rest,), 0)[0])
        assert left == 0 or rest is not None
        assert left == (0 if rest is None else len(items_of((rest,), 0)))
    assert rest is None


def test_removing_an_item_is_an_event_of_its_own() -> None:
    """The state has what is left in its place; what is not there, or would leave a result alone, is refused."""
    state = fold(SessionState(session_id="s", tenant="acme"), [started(), said("user", "hi")])
    state = replace(state, messages=History(TALK))
    (event,) = decide_remove(state, "rs_1", by=ANN, now_us=NOW_US)
    after = evolve(state, event)
    assert list(after.messages) == [TALK[0], replace(ANSWER, reasoning=None), *RESULTS]
    assert list(state.messages) == list(TALK)
    (event,) = decide_remove(after, "msg_user_hi", by=ANN, now_us=NOW_US)
    assert len(evolve(after, event).messages) == 3
    with pytest.raises(InvalidValue, match="result"):
        decide_remove(state, "ctc_1_1", by=ANN, now_us=NOW_US)
    with pytest.raises(ItemNotFound):
        decide_remove(state, "rs_9", by=ANN, now_us=NOW_US)


@given(st.integers(1, 4), st.booleans())
def test_pages_join_to_the_whole(limit: int, descending: bool) -> None:  # noqa: FBT001 (hypothesis gives it)
    """No item is skipped or seen twice, whatever a page's size cuts apart."""
    wanted = ids(TALK)[::-1] if descending else ids(TALK)
    seen: list[str] = []
    after: str | None = None
    while True:
        page = item_page(TALK, after=after, limit=limit, descending=descending)
        seen += [item.item_id for item in page.items]
        if not page.has_more:
            break
        after = seen[-1]
    assert seen == wanted


def logprob(token: str) -> TokenLogprobs:
    """A log probability that can be told from others."""
    return TokenLogprobs(chosen=TokenCandidate(token_id=len(token), token_bytes=token.encode(), logprob=-1.0))


DELTAS = st.lists(
    st.builds(
        TextDelta,
        text=st.sampled_from(["", "a", "b\n", "long text", "é🙂"]),
        token_ids=st.just(()),
        reasoning=st.sampled_from(["", "", "hm", "so 🙂"]),
        logprobs=st.lists(st.builds(logprob, st.text("xyz", min_size=1, max_size=3)), max_size=2).map(tuple),
        tool_calls=st.sampled_from([(), (), (CALL,), (CALL, PATCH)]),
    ),
    max_size=8,
)


@given(DELTAS, st.booleans())
def test_a_stream_is_the_same_when_it_is_told_again(deltas: list[TextDelta], with_logprobs: bool) -> None:  # noqa: FBT001 (hypothesis gives it)
    """Pieces made again of the record are those that were sent, with all that came with them."""
    if not with_logprobs:
        deltas = [replace(delta, logprobs=()) for delta in deltas]
    reader = PieceReader()
    sent = [piece for delta in deltas for piece in reader.push(delta)]
    recorded = RecordedOutput(
        text="".join(delta.text for delta in deltas),
        reasoning="".join(delta.reasoning for delta in deltas),
        tool_calls=tuple(call for delta in deltas for call in delta.tool_calls),
        logprobs=tuple(entry for delta in deltas for entry in delta.logprobs),
        sizes=sizes_of(deltas, with_logprobs=with_logprobs),
    )
    assert recorded.pieces() == sent


def test_without_sizes_an_answer_is_as_few_pieces_as_can_be() -> None:
    """What was recorded before there were sizes, or without them, is told all the same."""
    whole = RecordedOutput(text="a", reasoning="b", tool_calls=(CALL,), logprobs=(), sizes=None)
    assert [(piece.reasoning, piece.text, piece.call) for piece in whole.pieces()] == [
        ("b", "", None),
        ("", "a", None),
        ("", "", CALL),
    ]
