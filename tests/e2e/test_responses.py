"""Responses and conversations with a real model over a real server, through openai-python."""

from __future__ import annotations

import pytest
from openai import OpenAI

from tests.support.strict import strict_response

CAPITAL = "What is the capital of France? Answer in one word."


@pytest.mark.timeout(120)
def test_a_chain_of_responses(client: OpenAI) -> None:
    """Created, streamed, gone on from and read again: the model knows what came before, and the log what was said."""
    raw = client.responses.with_raw_response.create(
        model="default", input=CAPITAL, instructions="Answer in English.", temperature=0, max_output_tokens=16
    )
    first = strict_response(raw.content)
    assert "Paris" in first.output_text
    with client.responses.stream(
        model="default",
        input="Say that again.",
        previous_response_id=first.id,
        temperature=0,
        max_output_tokens=12,
    ) as stream:
        numbers = [event.sequence_number for event in stream]
        second = stream.get_final_response()
    assert numbers == list(range(len(numbers)))
    assert second.usage is not None
    assert first.usage is not None
    assert second.usage.input_tokens > first.usage.input_tokens
    again = client.responses.retrieve(second.id)
    assert again.output_text == second.output_text
    replayed = client.responses.retrieve(second.id, stream=True, starting_after=numbers[3])
    assert [event.sequence_number for event in replayed] == numbers[4:]
    assert len(list(client.responses.input_items.list(second.id, limit=2))) == 3


@pytest.mark.timeout(120)
def test_a_conversation_with_a_form(client: OpenAI) -> None:
    """A format is enforced in a conversation, whose items are what was said; in the background, too."""
    talk = client.conversations.create(items=[{"role": "user", "content": "My name is Ada."}])
    schema = {
        "type": "object",
        "properties": {"name": {"type": "string", "maxLength": 12}},
        "required": ["name"],
        "additionalProperties": False,
    }
    begun = client.responses.create(
        model="default",
        input="What is my name?",
        conversation=talk.id,
        background=True,
        temperature=0,
        text={"format": {"type": "json_schema", "name": "name", "schema": schema}},
    )
    events = list(client.responses.retrieve(begun.id, stream=True))
    assert events[-1].type == "response.completed"
    done = client.responses.retrieve(begun.id)
    assert done.output_text.startswith('{"name"')
    items = list(client.conversations.items.list(talk.id, order="asc"))
    assert [item.id for item in items[-1:]] == [item.id for item in done.output]
    assert len(items) == 3
    client.conversations.delete(talk.id)
