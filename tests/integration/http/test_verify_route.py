"""Deterministic completions over HTTP, and their verification: what is answered, refused, and given up."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from manent.adapters.http.wire_verify import CompletionVerification
from manent.adapters.inference.script import Script, token_of
from tests.support.hooks import Held
from tests.support.http import USER, WAIT_S, raw_connection, running_server, sse_events

PIECES = ("One", " two", " three")


@pytest.mark.parametrize("prefix", ["/v1", "/api/v1"])
async def test_a_completion_is_verified(prefix: str) -> None:
    """Exact, and then, where the model says something else, diverged with both tokens and the gap."""
    async with running_server(Script(pieces=PIECES)) as running:
        answer = await running.chat(deterministic=True, n=2, store=True)
        path = f"{prefix}/chat/completions/{answer.json()['id']}/verify"
        exact = await running.http.post(path)
        assert exact.status_code == 200, exact.text
        told = CompletionVerification.model_validate_json(exact.text)
        assert (told.verdict, told.compared_tokens, told.divergence, told.changed) == ("exact", 5, None, [])
        running.engine.script = Script(pieces=("One", " 2", " three"))
        parted = CompletionVerification.model_validate_json((await running.http.post(path, json={})).text)
        assert parted.verdict == "diverged"
        assert parted.divergence is not None
        assert parted.divergence.model_dump() == {
            "choice": 1,
            "position": 0,
            "recorded": {"token_id": token_of(" two"), "text": None},
            "rerun": {"token_id": token_of(" 2"), "text": " 2"},
            "logit_gap": 1.0,
        }
        events = await running.log("CompletionVerified")
        assert [event.header.position for event in events] == [told.position, parted.position]


async def test_a_stream_is_deterministic_as_well() -> None:
    """Its effective parameters say so in the log, and it can be verified by its id."""
    async with running_server(Script(pieces=PIECES)) as running:
        answer = await running.chat(deterministic=True, stream=True, session_id="s")
        assert sse_events(answer.text)[-1] == "[DONE]"
        requested = await running.payload_of("CompletionRequested")
        assert requested["parameters"]["deterministic"] is True
        told = await running.http.post(f"/v1/chat/completions/{requested['completion_id']}/verify")
        assert (told.json()["verdict"], told.json()["session_id"]) == ("exact", "s")


@pytest.mark.parametrize(
    ("completion", "body", "status", "code", "param"),
    [
        ("chatcmpl-nothing", {}, 404, "completion_not_found", "completion_id"),
        ("no%20id", {}, 404, "completion_not_found", "completion_id"),
        ("chatcmpl-nothing", {"other_versions": "yes"}, 400, "invalid_type", "other_versions"),
        ("chatcmpl-nothing", {"other_version": True}, 400, "unknown_parameter", "other_version"),
    ],
)
async def test_what_cannot_be_verified_is_told(
    completion: str, body: dict[str, Any], status: int, code: str, param: str
) -> None:
    """By its code and the parameter at fault."""
    async with running_server() as running:
        answer = await running.http.post(f"/v1/chat/completions/{completion}/verify", json=body)
        error = answer.json()["error"]
        assert (answer.status_code, error["code"], error["param"]) == (status, code, param)


async def test_deterministic_is_true_or_false() -> None:
    """Anything else is refused by name."""
    async with running_server() as running:
        error = (await running.chat(deterministic="yes")).json()["error"]
        assert (error["code"], error["param"]) == ("invalid_type", "deterministic")


async def test_a_client_that_leaves_stops_the_rerun() -> None:
    """The model is free again at once, and nothing is recorded of it."""
    async with running_server(Script(pieces=PIECES)) as running:
        answer = await running.chat(deterministic=True, store=True, messages=[USER])
        held = Held(1)
        running.engine.script = Script(pieces=PIECES, before_delta=held)
        async with raw_connection(running.port) as client:
            path = f"/v1/chat/completions/{answer.json()['id']}/verify"
            await client.send(f"POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-length: 0\r\n\r\n".encode())
            await held.reached.wait()
            client.break_off()
            async with asyncio.timeout(WAIT_S):
                while running.engine.admission["scripted"].in_flight:  # noqa: ASYNC110 (sockets send no event)
                    await asyncio.sleep(0.005)
        assert await running.log("CompletionVerified") == []
        running.engine.script = Script(pieces=PIECES)
        assert (await running.chat()).status_code == 200
