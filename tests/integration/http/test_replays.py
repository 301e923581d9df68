"""Replays over HTTP: sessions as they stood, forks, reruns, comparisons, contexts."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from itertools import count
from typing import Any

import pytest

from manent.adapters.http.wire_replay import CompletionContext, Rerun, SessionDiff
from manent.adapters.http.wire_responses import Session
from manent.adapters.inference.script import Script
from manent.adapters.inference.scripted import SCRIPTED_CARD, ScriptedEngine
from tests.support.hooks import Held
from tests.support.http import WAIT_S, Running, raw_connection, running_server


def two_models() -> ScriptedEngine:
    """Answers that are numbered and name their model."""
    numbers = count(1)
    cards = (SCRIPTED_CARD, replace(SCRIPTED_CARD, model_id="other", aliases=()))
    return ScriptedEngine(lambda request: Script(pieces=(request.model_id, " ", str(next(numbers)))), cards=cards)


async def talk(running: Running, *texts: str, session_id: str = "s") -> str:
    """Turns of a session; the last completion's id."""
    for text in texts:
        answer = await running.chat(session_id=session_id, messages=[{"role": "user", "content": text}], seed=7)
        assert answer.status_code == 200
    return str(answer.json()["id"])


async def rerun_ended(running: Running, session_id: str) -> dict[str, Any]:
    """The rerun once it is over."""
    async with asyncio.timeout(WAIT_S):
        while True:
            body: dict[str, Any] = (await running.http.get(f"/v1/sessions/{session_id}/rerun")).json()
            if body["status"] not in {"queued", "running"}:
                return body
            await asyncio.sleep(0.01)


async def texts(running: Running, session_id: str, query: str = "") -> list[str]:
    """What was said."""
    page = (await running.http.get(f"/v1/sessions/{session_id}/messages{query}")).json()
    return [message["content"] for message in page["data"]]


@pytest.mark.parametrize("prefix", ["/v1", "/api/v1"])
async def test_a_session_is_shown_as_it_stood(prefix: str) -> None:
    """By version, position and time, itself and its messages; with pages, and an entity tag of that version."""
    async with running_server(engine=two_models()) as running:
        await talk(running, "one", "two")
        path = f"{prefix}/sessions/s"
        (first, *_, last) = await running.log("MessageAppended")
        for query in ("as_of_version=2", f"as_of_position={first.header.position}"):
            then = await running.http.get(f"{path}?{query}")
            assert (then.json()["version"], then.json()["message_count"]) == (2, 1)
            assert then.headers["etag"] == '"2"'
            assert [m["content"] for m in (await running.http.get(f"{path}/messages?{query}")).json()["data"]] == [
                "one"
            ]
        now = await running.http.get(f"{path}?as_of={last.header.recorded_at_us}")
        assert now.json() == (await running.http.get(path)).json()
        page = (await running.http.get(f"{path}/messages?as_of_version=8&limit=1&order=desc")).json()
        assert ([m["content"] for m in page["data"]], page["has_more"]) == (["two"], True)


@pytest.mark.parametrize(
    ("query", "code", "param"),
    [
        ("as_of_version=0", "invalid_value", "as_of_version"),
        ("as_of_version=99", "invalid_value", "as_of_version"),
        ("as_of_version=x", "invalid_type", "as_of_version"),
        ("as_of_position=0", "invalid_value", "as_of_position"),
        ("as_of=yesterday", "invalid_value", "as_of"),
        ("as_of=1", "invalid_value", "as_of"),
        ("as_of_version=1&as_of_position=1", "invalid_value", None),
        ("version=1", "unknown_parameter", "version"),
    ],
)
async def test_moments_are_read_strictly(query: str, code: str, param: str | None) -> None:
    """What is no moment of this session gets 400 and its name."""
    async with running_server(engine=two_models()) as running:
        await talk(running, "one")
        for path in ("/v1/sessions/s", "/v1/sessions/s/messages", "/v1/sessions/s/export"):
            refused = await running.http.get(f"{path}?{query}")
            assert (refused.status_code, refused.json()["error"]["code"]) == (400, code)
            assert refused.json()["error"]["param"] == param


async def test_a_session_is_forked() -> None:
    """With a body, without one, under its own id; the answer is a session that names its parent."""
    async with running_server(engine=two_models()) as running:
        await talk(running, "one", "two")
        asked = {"at_version": 5, "session_id": "f", "metadata": {"k": "v"}}
        made = await running.http.post("/v1/sessions/s/fork", json=asked)
        assert (made.status_code, made.headers["x-session-id"]) == (201, "f")
        fork = Session.model_validate_json(made.content)
        assert fork.parent is not None
        assert (fork.parent.session_id, fork.parent.version, fork.metadata) == ("s", 5, {"k": "v"})
        assert await texts(running, "f") == ["one", "scripted 1"]
        bare = await running.http.post("/v1/sessions/s/fork", headers={"idempotency-key": "once"})
        again = await running.http.post("/v1/sessions/s/fork", headers={"idempotency-key": "once"})
        assert bare.json()["id"] == again.json()["id"]
        assert bare.json()["message_count"] == 4


@pytest.mark.parametrize(
    ("path", "body", "status", "code"),
    [
        ("/v1/sessions/nobody/fork", {}, 404, "session_not_found"),
        ("/v1/sessions/s/fork", {"at_version": 0}, 400, "invalid_value"),
        ("/v1/sessions/s/fork", {"at_version": 99}, 400, "invalid_value"),
        ("/v1/sessions/s/fork", {"at_version": "2"}, 400, "invalid_type"),
        ("/v1/sessions/s/fork", {"atversion": 2}, 400, "unknown_parameter"),
        ("/v1/sessions/s/fork", {"session_id": "s"}, 409, "session_already_exists"),
        ("/v1/sessions/s/fork", {"session_id": "import"}, 400, "invalid_value"),
        ("/v1/sessions/s/fork", {"metadata": {"k": 1}}, 400, "invalid_type"),
        ("/v1/sessions/nobody/rerun", {"from_version": 1}, 404, "session_not_found"),
        ("/v1/sessions/s/rerun", {}, 400, "missing_required_parameter"),
        ("/v1/sessions/s/rerun", {"from_version": 5}, 400, "invalid_value"),
        ("/v1/sessions/s/rerun", {"from_version": 1, "model": "nothing"}, 404, "model_not_found"),
        ("/v1/sessions/s/rerun", {"from_version": 1, "temperature": 3}, 400, "invalid_value"),
        ("/v1/sessions/s/rerun", {"from_version": 1, "tools": []}, 400, "unknown_parameter"),
        ("/v1/sessions/s/rerun", {"from_version": 1, "session_id": "s"}, 409, "session_already_exists"),
    ],
)
async def test_what_cannot_be_forked_or_rerun_is_refused(
    path: str, body: dict[str, Any], status: int, code: str
) -> None:
    """Each with its status and code, and nothing is recorded."""
    async with running_server(engine=two_models()) as running:
        await talk(running, "one")
        before = len(await running.log())
        refused = await running.http.post(path, json=body)
        assert (refused.status_code, refused.json()["error"]["code"]) == (status, code)
        assert len(await running.log()) == before


async def test_a_session_is_rerun_by_another_model() -> None:
    """202 with where to follow it; the status leads to its end; the comparison shows both sides."""
    async with running_server(engine=two_models()) as running:
        await talk(running, "one", "two")
        asked = {"from_version": 5, "model": "other", "seed": -1, "stop": "END", "session_id": "r"}
        accepted = await running.http.post("/v1/sessions/s/rerun", json=asked)
        assert accepted.status_code == 202
        begun = Rerun.model_validate_json(accepted.content)
        assert (begun.session_id, begun.status, begun.turns_total, begun.model) == ("r", "queued", 1, "other")
        done = await rerun_ended(running, "r")
        assert (done["status"], done["turns_done"], done["error"]) == ("completed", 1, None)
        assert (await running.http.get(accepted.headers["location"])).json() == done
        assert await texts(running, "r") == ["one", "scripted 1", "two", "other 3"]
        compared = await running.http.get("/v1/sessions/s/diff/r")
        diff = SessionDiff.model_validate_json(compared.content)
        assert diff.common is not None
        assert (diff.shared_turns, diff.common.version, diff.counts.changed) == (1, 5, 1)
        (turn,) = diff.data
        assert turn.a is not None
        assert turn.b is not None
        assert turn.a.completion is not None
        assert turn.b.completion is not None
        assert (turn.a.completion.model, turn.b.completion.model) == ("scripted", "other")
        assert turn.b.completion.parameters.stop == ["END"]
        assert turn.b.completion.parameters.seed == 2**63 - 1
        assert turn.b.completion.usage.completion_tokens == 3


async def test_comparisons_are_paged() -> None:
    """By the turn's number."""
    async with running_server(engine=two_models()) as running:
        for name in ("a", "b"):
            await talk(running, "one", "two", "three", session_id=name)
        first = (await running.http.get("/v1/sessions/a/diff/b?limit=2")).json()
        assert (first["last_id"], first["has_more"]) == ("2", True)
        rest = (await running.http.get("/v1/sessions/a/diff/b?limit=2&after=2")).json()
        assert ([turn["number"] for turn in rest["data"]], rest["has_more"]) == ([3], False)
        missing = await running.http.get("/v1/sessions/a/diff/nobody")
        assert missing.json()["error"]["code"] == "session_not_found"


async def test_a_rerun_goes_on_without_whoever_asked_for_it() -> None:
    """The client is gone before the first answer; the rerun is finished all the same."""
    held = Held(0)
    async with running_server(engine=two_models()) as running:
        await talk(running, "one")
        running.engine.script = Script(pieces=("late",), before_delta=held)
        async with raw_connection(running.port) as connection:
            body = b'{"from_version": 1, "session_id": "r"}'
            head = b"POST /v1/sessions/s/rerun HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
            await connection.send(head + b"content-length: %d\r\n\r\n" % len(body) + body)
            await asyncio.wait_for(held.reached.wait(), WAIT_S)
            connection.break_off()
        held.released.set()
        assert (await rerun_ended(running, "r"))["status"] == "completed"


async def test_reruns_beyond_the_bound_are_told_to_come_again() -> None:
    """503 with Retry-After, and no session is started."""
    held = Held(0)
    async with running_server(engine=two_models()) as running:
        await talk(running, "one")
        running.engine.script = Script(pieces=("late",), before_delta=held)
        for number in range(18):
            accepted = await running.http.post("/v1/sessions/s/rerun", json={"from_version": 1})
            assert accepted.status_code == 202, number
        refused = await running.http.post("/v1/sessions/s/rerun", json={"from_version": 1, "session_id": "r"})
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "too_many_reruns")
        assert refused.headers["retry-after"] == "30"
        assert (await running.http.get("/v1/sessions/r")).status_code == 404
        held.released.set()


async def test_only_reruns_have_a_status() -> None:
    """404 with a code of its own for any other session."""
    async with running_server(engine=two_models()) as running:
        await talk(running, "one")
        refused = await running.http.get("/v1/sessions/s/rerun")
        assert (refused.status_code, refused.json()["error"]["code"]) == (404, "rerun_not_found")


async def test_what_the_model_saw_is_shown() -> None:
    """Messages, text, token ids, and that they are what was committed to; with and without a session."""
    async with running_server(engine=two_models()) as running:
        completion_id = await talk(running, "one", "two")
        shown = await running.http.get(f"/v1/chat/completions/{completion_id}/context")
        context = CompletionContext.model_validate_json(shown.content)
        assert [message.content for message in context.messages] == ["one", "scripted 1", "two"]
        assert (context.verdict, context.session_id) == ("matches", "s")
        assert context.prompt is not None
        assert len(context.prompt.token_ids) == context.prompt_tokens
        stored = (await running.chat(store=True)).json()["id"]
        assert (await running.http.get(f"/v1/chat/completions/{stored}/context")).json()["verdict"] == "matches"


@pytest.mark.parametrize(
    ("completion_id", "status", "code"),
    [("bare", 409, "content_not_recorded"), ("chatcmpl-none", 404, "completion_not_found"), ("a%2Fb", 404, None)],
)
async def test_what_cannot_be_shown_says_why(completion_id: str, status: int, code: str | None) -> None:
    """Not recorded is not the same as not there."""
    async with running_server(engine=two_models()) as running:
        bare = (await running.chat()).json()["id"]
        asked = bare if completion_id == "bare" else completion_id
        refused = await running.http.get(f"/v1/chat/completions/{asked}/context")
        assert refused.status_code == status
        assert code is None or refused.json()["error"]["code"] == code
