"""Limits over HTTP: told in OpenAI's headers, refused before anything is sent, corrected at every kind of end."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import httpx
import openai
import pytest
from sanic import Request

from manent.adapters.http.context import HttpLimits
from manent.adapters.http.errors import RequestRefused
from manent.adapters.http.forwarded import TrustedProxies
from manent.adapters.inference.script import Hook, Script
from manent.adapters.inference.scripted import SCRIPTED_CARD, ScriptedEngine
from manent.domain.access import Principal, Scope
from manent.domain.embedding import ModelType
from manent.domain.errors import EngineUnavailable
from manent.domain.generation import ModelCard
from manent.domain.limits import RequestLimits
from tests.support.hooks import Held
from tests.support.http import USER, WAIT_S, Running, raw_connection, running_server

CARD = ModelCard(model_id="vectors", context_length=20, created_at_s=0, aliases=("embed",), type=ModelType.EMBEDDING)
TOLD = [
    f"x-ratelimit-{what}-{measure}" for measure in ("requests", "tokens") for what in ("limit", "remaining", "reset")
]


def waiting(gate: asyncio.Event) -> Hook:
    """A hook that waits until the gate is open."""

    async def hook(_delta: int) -> None:
        await gate.wait()

    return hook


async def by_key(request: Request) -> Principal:
    """Whoever's name stands where a key would; key_small has limits of its own."""
    name = request.headers.get("authorization", "").removeprefix("Bearer ")
    if not name.startswith("key_"):
        raise RequestRefused("permission_denied", "no key")
    own = RequestLimits(running_max=1, requests_per_minute=2) if name == "key_small" else None
    return Principal(tenant="t", subject="s", scopes=frozenset(Scope), credential_id=name, limits=own)


def bearer(name: str) -> dict[str, str]:
    """The header of a key."""
    return {"authorization": f"Bearer {name}"}


async def remaining_tokens(running: Running) -> int:
    """What is left, as a small completion is told that comes after; its own reservation is given back."""
    answer = await running.chat(max_tokens=1)
    return int(answer.headers["x-ratelimit-remaining-tokens"])


@pytest.mark.parametrize("stream", [False, True])
async def test_every_answer_tells_where_the_limits_stand(*, stream: bool) -> None:
    """Success and refusal, streamed or not; the refusal is a 429 that says which limit and when to come again."""
    async with running_server(limits_per_subject="requests_per_hour=2 tokens_per_hour=100000") as running:
        for left in (1, 0):
            answer = await running.chat(stream=stream)
            assert answer.status_code == 200
            assert set(TOLD) <= set(answer.headers)
            assert answer.headers["x-ratelimit-limit-requests"] == "2"
            assert answer.headers["x-ratelimit-remaining-requests"] == str(left)
            assert answer.headers["x-ratelimit-reset-requests"].startswith(("30m0s", "59m5", "1h0m0s"))
        refused = await running.chat(stream=stream)
        assert refused.status_code == 429
        assert refused.headers["content-type"] == "application/json"
        error = refused.json()["error"]
        assert (error["code"], error["type"]) == ("rate_limit_exceeded", "rate_limit_error")
        assert "subject 'default/local': requests per hour (limit 2, remaining 0)" in error["message"]
        assert 1700 < int(refused.headers["retry-after"]) <= 1800
        assert int(refused.headers["retry-after-ms"]) <= 1_800_000
        assert refused.headers["x-ratelimit-remaining-requests"] == "0"
        async with running.openai() as client:
            with pytest.raises(openai.RateLimitError) as raised:
                await client.models.list()
        assert raised.value.code == "rate_limit_exceeded"
        assert (await running.http.get("/health/live")).status_code == 200
        assert len(await running.log("CompletionRequested")) == 2


async def test_tokens_are_corrected_when_they_are_known() -> None:
    """Finished, refused, repeated under a key: what was really used is what is gone, and no repetition is charged."""
    async with running_server(limits_per_subject="tokens_per_hour=100000") as running:
        whole = await remaining_tokens(running)
        answer = await running.chat(max_tokens=2000)
        assert 1900 < whole - int(answer.headers["x-ratelimit-remaining-tokens"]) < 2100
        now = await remaining_tokens(running)
        assert whole - now <= 2 * answer.json()["usage"]["total_tokens"]
        assert (await running.chat(model="none")).status_code == 404
        assert (await running.chat(max_tokens=10**6)).status_code == 400
        assert now - await remaining_tokens(running) <= 12
        before = await remaining_tokens(running)
        body = {"model": "default", "messages": [USER], "max_tokens": 2000}
        for _ in range(4):
            answer = await running.http.post("/v1/chat/completions", json=body, headers={"idempotency-key": "k"})
            assert answer.status_code == 200
        assert before - await remaining_tokens(running) <= 24


@pytest.mark.parametrize("stream", [False, True])
async def test_a_completion_that_fails_or_is_left_costs_what_it_used(*, stream: bool) -> None:
    """The rest of what it reserved comes back, whatever it ended in."""
    held = Held(1)
    async with running_server(limits_per_subject="tokens_per_hour=100000") as running:
        whole = await remaining_tokens(running)
        running.engine.script = Script(failure=EngineUnavailable("gone"))
        await running.chat(max_tokens=2000, stream=stream)
        running.engine.script = Script(before_delta=held)
        leaving = asyncio.create_task(running.chat(max_tokens=2000, stream=stream))
        async with asyncio.timeout(WAIT_S):
            await held.reached.wait()
        leaving.cancel()
        await asyncio.wait([leaving])
        await running.payload_of("CompletionCancelled")
        running.engine.script = Script()
        assert whole - await remaining_tokens(running) <= 40


@pytest.mark.timeout(20)
async def test_concurrency_is_limited_for_each_key() -> None:
    """Another completion of the same key waits for the end of the first; other keys do not."""
    gate = asyncio.Event()
    script = Script(before_delta=waiting(gate))
    async with running_server(script, authenticate=by_key, limits_per_key="running_max=2") as running:

        async def ask(key: str) -> httpx.Response:
            body = {"model": "default", "messages": [USER]}
            return await running.http.post("/v1/chat/completions", json=body, headers=bearer(key))

        async def begun(key: str) -> asyncio.Task[httpx.Response]:
            before = len(running.engine.requests)
            task = asyncio.create_task(ask(key))
            while len(running.engine.requests) == before:  # noqa: ASYNC110 (it tells nobody)
                await asyncio.sleep(0.005)
            return task

        first = [await begun("key_a"), await begun("key_a")]
        refused = await ask("key_a")
        assert refused.status_code == 429
        assert "key 'key_a': running completions (limit 2, remaining 0)" in refused.json()["error"]["message"]
        assert refused.headers["retry-after"] == "1"
        first += [await begun("key_b"), await begun("key_small")]
        assert "limit 1" in (await ask("key_small")).json()["error"]["message"]
        gate.set()
        assert [answer.status_code for answer in await asyncio.gather(*first)] == [200] * 4
        assert (await ask("key_a")).status_code == 200


async def test_keys_are_not_guessed_for_ever() -> None:
    """Whoever is not recognized is counted by address; a proxy's word counts where it is asked for."""
    limits = HttpLimits(proxies=TrustedProxies(["127.0.0.1"]))
    async with running_server(limits=limits, authenticate=by_key, limits_per_address="requests_per_hour=3") as running:

        async def ask(address: str, key: str) -> int:
            headers = {"x-forwarded-for": address, **bearer(key)}
            return (await running.http.get("/v1/models", headers=headers)).status_code

        assert [await ask("192.0.2.1", "wrong") for _ in range(5)] == [403, 403, 403, 429, 429]
        assert await ask("6.6.6.6, 192.0.2.1", "key_a") == 429
        assert [await ask("192.0.2.2", "key_a") for _ in range(4)] == [200, 200, 200, 429]


async def test_a_forged_forward_changes_nothing() -> None:
    """Without a trusted proxy, the connection's address is the one that counts."""
    async with running_server(limits_per_address="requests_per_hour=2") as running:
        forged: Sequence[dict[str, str]] = [
            {"x-forwarded-for": f"192.0.2.{n}", "forwarded": f"for=192.0.2.{n}"} for n in range(4)
        ]
        answers = [await running.http.get("/v1/models", headers=headers) for headers in forged]
        assert [answer.status_code for answer in answers] == [200, 200, 429, 429]
        assert "address '127.0.0.1'" in answers[-1].json()["error"]["message"]


async def test_embeddings_are_counted() -> None:
    """By tokens and by model, with the same headers."""
    async with running_server(
        engine=ScriptedEngine(cards=(SCRIPTED_CARD, CARD)), limits_per_model="requests_per_hour=2 tokens_per_hour=50"
    ) as running:
        body = {"model": "embed", "input": ["one two three", "four"]}
        first = await running.http.post("/v1/embeddings", json=body)
        assert first.status_code == 200, first.text
        assert first.headers["x-ratelimit-limit-tokens"] == "50"
        assert first.headers["x-ratelimit-remaining-requests"] == "1"
        assert (await running.http.post("/v1/embeddings", json=body)).status_code == 200
        refused = await running.http.post("/v1/embeddings", json=body)
        assert refused.status_code == 429
        assert refused.headers["x-ratelimit-limit-tokens"] == "50"
        assert "model 'vectors': requests per hour" in refused.json()["error"]["message"]
        assert (await running.chat()).status_code == 200


async def test_openais_client_waits_and_comes_again() -> None:
    """Its own retries follow the headers: refused for a moment, it has its answer in the end."""
    async with running_server(limits_per_subject="requests_per_minute=120") as running:
        client = running.openai()
        while (await running.http.get("/v1/models")).status_code == 200:
            pass
        patient = client.with_options(max_retries=5)
        assert (await patient.models.list()).data
        await client.close()


async def test_a_thousand_at_once_are_counted_one_by_one() -> None:
    """Exactly the allowed number is answered, on twenty connections that ask without waiting."""
    asked = b"GET /v1/models/none HTTP/1.1\r\nhost: localhost\r\n\r\n" * 49
    last = b"GET /v1/models/none HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n"

    async def ask(port: int) -> bytes:
        async with raw_connection(port) as raw:
            await raw.send(asked + last)
            return await raw.read_to_end()

    async with running_server(limits_per_subject="requests_per_hour=250") as running:
        answers = b"".join(await asyncio.gather(*(ask(running.port) for _ in range(20))))
    assert answers.count(b"HTTP/1.1 404 ") == 250
    assert answers.count(b"HTTP/1.1 429 ") == 750


@pytest.mark.timeout(20)
async def test_streams_are_bounded_in_number() -> None:
    """One more than the bound is told before it is opened; a completion that is not streamed goes on."""
    gate = asyncio.Event()
    script = Script(before_delta=waiting(gate))
    async with running_server(script, limits=HttpLimits(streams_max=2)) as running:
        streams = [asyncio.create_task(running.chat(stream=True)) for _ in range(2)]
        while len(running.use_cases.live) < 2:  # noqa: ASYNC110 (it tells nobody)
            await asyncio.sleep(0.005)
        refused = await running.chat(stream=True)
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "too_many_streams")
        assert refused.headers["retry-after"] == "5"
        whole = asyncio.create_task(running.chat())
        gate.set()
        answers = await asyncio.gather(*streams, whole)
        assert [answer.status_code for answer in answers] == [200] * 3
        assert (await running.chat(stream=True)).status_code == 200
