"""Deltas of a chat, made again from their sizes and the whole content."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given as for_all
from hypothesis import strategies as st

from manent.domain.delta_sizes import DeltaSizes, delta_sizes, deltas_of
from manent.domain.generation import TextDelta, TokenCandidate, TokenLogprobs
from manent.domain.messages import ToolCall
from manent.domain.output import PartialOutput

CHOICES = 3
CALLS = st.builds(ToolCall, id=st.text(max_size=3), name=st.text(max_size=3), arguments=st.text(max_size=3))
LOGPROBS = st.integers(0, 9).map(
    lambda token: TokenLogprobs(chosen=TokenCandidate(token_id=token, token_bytes=b"a", logprob=-1.0), top=())
)
DELTAS = st.builds(
    TextDelta,
    index=st.integers(0, CHOICES - 1),
    text=st.text(max_size=4),
    token_ids=st.just((1,)),
    reasoning=st.text(max_size=4),
    tool_calls=st.lists(CALLS, max_size=2).map(tuple),
    logprobs=st.lists(LOGPROBS, max_size=2).map(tuple),
)


def wholes(deltas: list[TextDelta]) -> list[TextDelta]:
    """All content of each choice."""
    output = PartialOutput(CHOICES)
    for delta in deltas:
        output.add(delta)
    return [
        TextDelta(
            index=index,
            text=choice.text,
            token_ids=(),
            logprobs=tuple(choice.logprobs),
            reasoning=choice.reasoning,
            tool_calls=tuple(choice.tool_calls),
        )
        for index, choice in enumerate(output.choices)
    ]


@for_all(st.lists(DELTAS, max_size=12))
def test_sizes_and_content_are_the_deltas(deltas: list[TextDelta]) -> None:
    """Each delta of each choice comes back, also one that says nothing; all but its tokens."""
    assert deltas_of(delta_sizes(deltas), wholes(deltas)) == [replace(delta, token_ids=()) for delta in deltas]


def test_an_ordinary_chat_costs_one_number_a_delta() -> None:
    """What would be zeros is not recorded."""
    deltas = [TextDelta(text=text, token_ids=(1,)) for text in ("Hel", "", "lo")]
    assert delta_sizes(deltas) == DeltaSizes(texts=(3, 0, 2))


def test_sizes_that_do_not_fit_make_no_more_than_there_is() -> None:
    """Choices that are not there are empty."""
    assert deltas_of(DeltaSizes(texts=(9, 9), choices=(0, 7)), wholes([TextDelta(text="a", token_ids=())])) == [
        TextDelta(text="a", token_ids=()),
        TextDelta(index=7, text="", token_ids=()),
    ]
