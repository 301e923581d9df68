"""What a user of openai-python sees: a real conversation with a real model."""

from __future__ import annotations

import asyncio
from pathlib import Path

import httpx
import pytest
from mlx_lm.utils import load_tokenizer
from openai import AsyncOpenAI, BadRequestError, BaseModel, ConflictError, NotFoundError, OpenAI
from openai.pagination import SyncCursorPage
from openai.types.chat import ChatCompletionMessageParam

from tests.support.server import Server

MODEL = "smollm2-135m-instruct"
CAPITAL = "What is the capital of France? Answer in one word."


def test_chat(client: OpenAI) -> None:
    """A question gets the model's answer, with exact usage and the shape that the client's types promise."""
    completion = client.chat.completions.create(
        model=MODEL, messages=[{"role": "user", "content": CAPITAL}], temperature=0, max_tokens=16
    )
    assert completion.object == "chat.completion"
    assert completion.id.startswith("chatcmpl-")
    assert completion.model == MODEL
    choice = completion.choices[0]
    assert choice.message.role == "assistant"
    assert "Paris" in (choice.message.content or "")
    assert choice.finish_reason == "stop"
    assert completion.usage is not None
    assert completion.usage.total_tokens == completion.usage.prompt_tokens + completion.usage.completion_tokens
    assert completion.usage.prompt_tokens > 10


def test_streamed_chat_equals_the_unstreamed(client: OpenAI) -> None:
    """Role chunk first, the same text in pieces, the same usage last; greedy decoding makes them comparable."""
    asked = {"model": "default", "messages": [{"role": "user", "content": "Count to five."}], "temperature": 0}
    whole = client.chat.completions.create(**asked, max_tokens=12)  # type: ignore[call-overload]  # by name
    chunks = list(
        client.chat.completions.create(  # type: ignore[call-overload]  # by name
            **asked, max_tokens=12, stream=True, stream_options={"include_usage": True}
        )
    )
    assert chunks[0].choices[0].delta.role == "assistant"
    assert chunks[0].choices[0].delta.content == ""
    texts = [choice.delta.content or "" for chunk in chunks for choice in chunk.choices]
    assert "".join(texts) == whole.choices[0].message.content
    assert sum(bool(text) for text in texts) > 3
    assert [chunk.choices[0].finish_reason for chunk in chunks[:-1]][-1] == whole.choices[0].finish_reason == "length"
    assert chunks[-1].choices == []
    assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens == 12
    assert chunks[-1].usage.prompt_tokens == whole.usage.prompt_tokens
    assert len({chunk.id for chunk in chunks}) == 1


def test_three_turns_in_a_session_share_their_context(client: OpenAI, server: Server, starter_model: Path) -> None:
    """The third prompt holds the first turn: its tokens are those of the whole rendered conversation."""
    tokenizer = load_tokenizer(starter_model)  # type: ignore[no-untyped-call]  # mlx_lm is partly typed
    said: list[dict[str, str]] = []
    for text in ("My name is Ada.", "I like tea.", "What is my name?"):
        completion = client.chat.completions.create(
            model=MODEL,
            messages=[{"role": "user", "content": text}],
            extra_body={"session_id": "three-turns"},
            temperature=0,
            max_tokens=12,
        )
        said.append({"role": "user", "content": text})
        assert completion.usage is not None
        rendered = tokenizer.apply_chat_template(said, add_generation_prompt=True, tokenize=True, return_dict=False)
        assert completion.usage.prompt_tokens == len(rendered)
        said.append({"role": "assistant", "content": completion.choices[0].message.content or ""})
    page = httpx.get(f"{server.address}/v1/sessions/three-turns/messages").json()
    assert [message["role"] for message in page["data"]] == ["user", "assistant"] * 3
    requests = httpx.get(
        f"{server.address}/v1/events", params={"stream": "session-three-turns", "type": "CompletionRequested"}
    ).json()["data"]
    assert requests[-1]["payload"]["context"]["message_ids"] == [message["id"] for message in page["data"][:5]]


def test_a_resent_history_is_not_doubled(client: OpenAI, server: Server) -> None:
    """A client that keeps its own history and sends a session id as well has one conversation, not two."""
    history: list[dict[str, str]] = []
    for text in ("Hi.", "Who are you?"):
        history.append({"role": "user", "content": text})
        completion = client.chat.completions.create(
            model=MODEL,
            messages=history,  # type: ignore[arg-type]  # plain dicts
            extra_body={"session_id": "resent"},
            temperature=0,
            max_tokens=8,
        )
        history.append({"role": "assistant", "content": (completion.choices[0].message.content or "").strip()})
    assert httpx.get(f"{server.address}/v1/sessions/resent").json()["message_count"] == 4


def test_the_same_seed_gives_the_same_answer(client: OpenAI) -> None:
    """Sampling with a seed is repeatable; another seed says something else."""

    def answer(seed: int) -> str | None:
        completion = client.chat.completions.create(
            model=MODEL,
            messages=[{"role": "user", "content": "Tell a story."}],
            seed=seed,
            temperature=1.2,
            max_tokens=12,
        )
        return completion.choices[0].message.content

    assert answer(7) == answer(7)
    assert len({answer(seed) for seed in (1, 2, 3)}) > 1


def test_a_stop_sequence_never_shows(client: OpenAI) -> None:
    """Generation ends before the stop string, streamed and not, also where it spans tokens."""
    asked = {
        "model": MODEL,
        "messages": [{"role": "user", "content": "Repeat exactly: one two three four five six"}],
        "temperature": 0,
        "max_tokens": 40,
    }
    full = client.chat.completions.create(**asked).choices[0].message.content  # type: ignore[call-overload]  # by name
    stop = full[len(full) // 2 - 2 : len(full) // 2 + 2]
    cut = client.chat.completions.create(**asked, stop=[stop]).choices[0]  # type: ignore[call-overload]  # by name
    assert cut.message.content == full[: full.index(stop)]
    assert cut.finish_reason == "stop"
    chunks = client.chat.completions.create(**asked, stop=stop, stream=True)  # type: ignore[call-overload]  # by name
    assert "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices) == cut.message.content


def test_text_beyond_ascii_survives_streaming(client: OpenAI) -> None:
    """Characters of several bytes are never cut: what streams in pieces is what is answered whole."""
    asked = {
        "model": MODEL,
        "messages": [{"role": "user", "content": "Repeat exactly: 你好 🙂 größer"}],
        "temperature": 0,
        "max_tokens": 24,
    }
    whole = client.chat.completions.create(**asked).choices[0].message.content  # type: ignore[call-overload]  # by name
    chunks = client.chat.completions.create(**asked, stream=True)  # type: ignore[call-overload]  # by name
    assert "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices) == whole


def test_errors_have_openais_classes(client: OpenAI) -> None:
    """The client raises what it raises for OpenAI, with code, param and request id."""
    with pytest.raises(NotFoundError) as not_found:
        client.chat.completions.create(model="gpt-9", messages=[{"role": "user", "content": "hi"}])
    assert (not_found.value.code, not_found.value.param) == ("model_not_found", "model")
    assert not_found.value.request_id
    with pytest.raises(BadRequestError) as bad:
        client.chat.completions.create(model=MODEL, messages=[])
    assert bad.value.param == "messages"
    with pytest.raises(BadRequestError) as refused:
        client.chat.completions.create(
            model=MODEL,
            messages=[{"role": "user", "content": "hi"}],
            functions=[{"name": "f"}],
        )
    assert (refused.value.code, refused.value.param) == ("unsupported_parameter", "functions")


def test_a_context_that_is_too_long_is_refused_with_the_numbers(client: OpenAI) -> None:
    """The error says how many tokens the window has and how many were sent."""
    with pytest.raises(BadRequestError) as caught:
        client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": "word " * 9000}])
    assert caught.value.code == "context_length_exceeded"
    assert "8192" in caught.value.message
    assert "9" in caught.value.message


def test_a_strict_session_refuses_a_departing_history(client: OpenAI) -> None:
    """409 history_conflict names the place and is not retried."""
    session = {"session_id": "strict", "session_mode": "strict"}
    client.chat.completions.create(
        model=MODEL, messages=[{"role": "user", "content": "Hi."}], extra_body=session, max_tokens=4
    )
    with pytest.raises(ConflictError) as caught:
        client.chat.completions.create(
            model=MODEL,
            messages=[
                {"role": "user", "content": "Hi."},
                {"role": "assistant", "content": "That is not what you said."},
                {"role": "user", "content": "Really?"},
            ],
            extra_body=session,
        )
    assert (caught.value.code, caught.value.param) == ("history_conflict", "messages[1]")
    assert caught.value.response.headers["x-should-retry"] == "false"


def test_models_are_listed_and_found(client: OpenAI) -> None:
    """The registry is OpenAI's list of models."""
    assert MODEL in [model.id for model in client.models.list()]
    assert client.models.retrieve(MODEL).id == MODEL
    with pytest.raises(NotFoundError):
        client.models.retrieve("gpt-9")


async def test_the_async_client_streams_side_by_side(server: Server) -> None:
    """``AsyncOpenAI`` streams several answers at once, and its helper says of each where it ends."""
    async with AsyncOpenAI(base_url=f"{server.address}/v1", api_key="any", max_retries=0) as client:

        async def streamed(text: str) -> str:
            messages: list[ChatCompletionMessageParam] = [{"role": "user", "content": text}]
            async with client.chat.completions.stream(
                model=MODEL, messages=messages, temperature=0, max_tokens=4
            ) as stream:
                events = [event async for event in stream]
            (done,) = [event.content for event in events if event.type == "content.done"]
            assert "".join(event.delta for event in events if event.type == "content.delta") == done
            return done

        first, other, again = await asyncio.gather(streamed("Hello."), streamed("Count to five."), streamed("Hello."))
    assert first
    assert first == again != other


class SessionItem(BaseModel):
    """A session, as far as a pager looks at it."""

    id: str


def test_pages_of_ours_are_read_by_the_clients_own_pager(client: OpenAI) -> None:
    """Sessions are not OpenAI's, but their pages are: ``after`` of the last, until there are no more."""
    for number in range(3):
        client.post("/sessions", cast_to=object, body={"session_id": f"paged-{number}", "metadata": {"pager": "1"}})
    page = client.get_api_list(
        "/sessions", page=SyncCursorPage[SessionItem], model=SessionItem, options={"params": {"limit": 2}}
    )
    ids = [session.id for session in page]
    assert len(page.data) == 2
    assert {f"paged-{number}" for number in range(3)} <= set(ids)
    assert len(ids) == len(set(ids))
