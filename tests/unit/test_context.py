"""Which messages the model sees when not all of them fit."""

from __future__ import annotations

import pytest
from hypothesis import given as for_all
from hypothesis import strategies as st

from manent.domain.context import select_messages
from manent.domain.errors import ContextLengthExceeded
from manent.domain.generation import ModelCard, RequestedParameters
from manent.domain.messages import Message, Role
from manent.domain.parameters import effective_parameters, output_reserve_tokens
from tests.support.conversation import assistant, message, system, user

CARD = ModelCard(model_id="m", context_length=100, created_at_s=0)


def test_everything_is_kept_that_fits() -> None:
    """A conversation within the budget is not touched."""
    messages = [system("s"), user("a"), assistant("b"), user("c")]
    selection = select_messages(messages, [1, 1, 1, 1], budget_tokens=4)
    assert (list(selection.kept), list(selection.dropped)) == (messages, [])


def test_the_oldest_turns_go_first_and_the_system_prompt_stays() -> None:
    """What is kept is the system prompt and the end of the conversation, beginning with a user's message."""
    messages = [system("s"), user("a"), assistant("b"), user("c"), assistant("d"), user("e")]
    selection = select_messages(messages, [1, 1, 1, 1, 1, 1], budget_tokens=5)
    assert [m.text for m in selection.kept] == ["s", "c", "d", "e"]
    assert [messages[i].text for i in selection.dropped] == ["a", "b"]


def test_a_tool_call_is_not_cut_from_its_results() -> None:
    """A call and its results are kept or dropped together."""
    messages = [user("a"), assistant("call"), message("tool", "one"), message("tool", "two"), user("b")]
    selection = select_messages(messages, [5, 5, 5, 5, 5], budget_tokens=15)
    assert [m.text for m in selection.kept] == ["b"]


def test_the_last_message_is_kept_even_if_it_is_too_long() -> None:
    """Nothing to say is never what the model is asked: the caller refuses what is too long."""
    selection = select_messages([system("s"), user("a"), user("b")], [50, 1, 500], budget_tokens=10)
    assert [m.text for m in selection.kept] == ["s", "b"]


ROLES = st.sampled_from(["user", "assistant", "tool", "system"])


@for_all(st.lists(st.tuples(ROLES, st.integers(1, 9)), min_size=1, max_size=20), st.integers(0, 60))
def test_a_selection_is_a_system_prompt_and_an_end(parts: list[tuple[str, int]], budget: int) -> None:
    """Kept and dropped make up the whole; what is kept fits, or cannot be made shorter."""
    messages = [message(role, str(i)) for i, (role, _) in enumerate(parts)]
    counts = [count for _, count in parts]
    selection = select_messages(messages, counts, budget_tokens=budget)
    prompt = [m for i, m in enumerate(messages) if all(x.role is Role.SYSTEM for x in messages[: i + 1])]
    rest = messages[len(prompt) :]
    assert list(selection.kept[: len(prompt)]) == prompt
    assert [*(messages[i] for i in selection.dropped), *selection.kept[len(prompt) :]] == rest
    cost = sum(counts[messages.index(m)] for m in selection.kept)
    turns: list[Message] = list(selection.kept[len(prompt) :])
    if cost > budget and rest:
        assert all(m.role is Role.TOOL for m in turns[1:])
    if selection.dropped and turns:
        assert turns[0].role is not Role.TOOL


def test_an_unset_output_length_takes_what_is_left_of_the_window() -> None:
    """Without max_tokens the answer may fill the window; a model's default shortens that."""
    asked = RequestedParameters()
    assert effective_parameters(CARD, asked, prompt_tokens=60, new_seed=lambda: 7).max_tokens == 40
    short = ModelCard(model_id="m", context_length=100, created_at_s=0, default_max_tokens=30)
    assert effective_parameters(short, asked, prompt_tokens=60, new_seed=lambda: 7).max_tokens == 30
    assert effective_parameters(short, asked, prompt_tokens=90, new_seed=lambda: 7).max_tokens == 10


@pytest.mark.parametrize(("prompt_tokens", "max_tokens"), [(100, None), (90, 11), (101, 1)])
def test_what_does_not_fit_is_refused_with_the_numbers(prompt_tokens: int, max_tokens: int | None) -> None:
    """The error names the window, the prompt and the completion, as OpenAI's does."""
    asked = RequestedParameters(max_tokens=max_tokens)
    with pytest.raises(ContextLengthExceeded) as caught:
        effective_parameters(CARD, asked, prompt_tokens=prompt_tokens, new_seed=lambda: 7)
    for number in (100, prompt_tokens, prompt_tokens + (max_tokens or 1)):
        assert str(number) in caught.value.message


def test_given_parameters_win_over_the_models_defaults() -> None:
    """Zero is a value, not an absence."""
    card = ModelCard(model_id="m", context_length=100, created_at_s=0, default_temperature=0.7, default_top_p=0.9)
    asked = RequestedParameters(temperature=0.0, top_p=0.5, seed=0, stop=("x",))
    given = effective_parameters(card, asked, prompt_tokens=1, new_seed=lambda: 7)
    assert (given.temperature, given.top_p, given.seed, given.stop) == (0.0, 0.5, 0, ("x",))
    unset = effective_parameters(card, RequestedParameters(), prompt_tokens=1, new_seed=lambda: 7)
    assert (unset.temperature, unset.top_p, unset.seed) == (0.7, 0.9, 7)


def test_truncation_reserves_room_for_the_answer() -> None:
    """What was asked for, else the model's default, and never more than a fourth of the window unasked."""
    assert output_reserve_tokens(CARD, RequestedParameters(max_tokens=60)) == 60
    assert output_reserve_tokens(CARD, RequestedParameters()) == 25
    small = ModelCard(model_id="m", context_length=100, created_at_s=0, default_max_tokens=10)
    assert output_reserve_tokens(small, RequestedParameters()) == 10
