"""Exports and imports over HTTP: whole, interrupted, hostile."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
from contextlib import aclosing
from pathlib import Path

import pytest

from manent.adapters.http.context import HttpLimits
from manent.adapters.store.sqlite import SQLiteEventStore, ensure_log
from manent.app.system import RandomIds, SystemClock
from manent.domain.usecases.import_session import AT_ONCE_MAX
from tests.integration.http.test_replays import talk, texts, two_models
from tests.support.database import empty_database
from tests.support.http import WAIT_S, raw_connection, running_server, unchunked

NDJSON = {"content-type": "application/x-ndjson"}
JSON = {"content-type": "application/json"}


async def test_events_are_exported_as_json_lines() -> None:
    """One event a line, ancestors' first; every payload matches its digest, and lines are as in the log."""
    async with running_server(engine=two_models()) as running:
        await talk(running, "one")
        await running.http.post("/v1/sessions/s/fork", json={"session_id": "f"})
        await talk(running, "two", session_id="f")
        exported = await running.http.get("/v1/sessions/f/export")
        assert exported.headers["content-type"] == "application/x-ndjson"
        lines = exported.text.splitlines()
        assert [json.loads(line)["header"]["position"] for line in lines] == list(range(1, 11))
        for line in lines:
            event = json.loads(line)
            payload = line.split('"payload":', 1)[1].rsplit(',"salt":', 1)[0].encode()
            digest = hashlib.sha256(base64.b64decode(event["salt"]) + payload).hexdigest()
            assert digest == event["header"]["payload_digest"]
        then = await running.http.get("/v1/sessions/f/export?as_of_version=1")
        assert then.text.splitlines() == lines[:6]


@pytest.mark.parametrize("file_format", ["events", "messages"])
@pytest.mark.parametrize("named", [True, False])
async def test_what_is_exported_is_imported(file_format: str, *, named: bool) -> None:
    """Into another server, under the given id, with or without saying what it is."""
    async with running_server(engine=two_models()) as running, running_server() as elsewhere:
        await talk(running, "one", "zwei 🙂")
        exported = await running.http.get(f"/v1/sessions/s/export?format={file_format}")
        headers = NDJSON if file_format == "events" else JSON
        query = f"?session_id=copy{f'&format={file_format}' if named else ''}"
        made = await elsewhere.http.post(f"/v1/sessions/import{query}", content=exported.content, headers=headers)
        assert (made.status_code, made.json()["id"], made.json()["message_count"]) == (201, "copy", 4)
        assert await texts(elsewhere, "copy") == await texts(running, "s")
        imported = await elsewhere.payload_of("SessionImported")
        assert (imported["format"], imported["file_sha256"]) == (
            file_format,
            hashlib.sha256(exported.content).hexdigest(),
        )
        assert {entry.header.actor for entry in await elsewhere.log()} == {"local"}


async def test_an_import_can_be_conversed_in() -> None:
    """The model sees what was imported."""
    async with running_server(engine=two_models()) as running:
        messages = b'[{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]'
        made = await running.http.post("/v1/sessions/import", content=messages, headers=JSON)
        await talk(running, "more", session_id=made.json()["id"])
        assert [message.text for message in running.engine.rendered[-1]] == ["hi", "hello", "more"]


async def test_an_idempotency_key_imports_once() -> None:
    """A repeated import is the first one."""
    async with running_server() as running:
        headers = {**JSON, "idempotency-key": "once"}
        made = [
            await running.http.post(
                "/v1/sessions/import", content=b'[{"role": "user", "content": "hi"}]', headers=headers
            )
            for _ in range(2)
        ]
        assert made[0].json() == made[1].json()


async def test_a_long_import_is_one_session(tmp_path: Path) -> None:
    """More messages than one append takes, on a database: one session in the list, all of it, once for its key."""
    path, count = tmp_path / "manent.db", AT_ONCE_MAX + 1
    empty_database(path)
    await ensure_log(path, RandomIds())
    async with (
        aclosing(SQLiteEventStore(path, clock=SystemClock(), ids=RandomIds())) as store,
        running_server(store=store) as running,
    ):
        content = json.dumps([{"role": "user", "content": str(number)} for number in range(count)])
        headers = {**JSON, "idempotency-key": "once"}
        query = "/v1/sessions/import?session_id=copy"
        made = [await running.http.post(query, content=content, headers=headers, timeout=60) for _ in range(2)]
        assert [(one.status_code, one.json()["message_count"]) for one in made] == [(201, count)] * 2
        listed = (await running.http.get("/v1/sessions")).json()["data"]
        assert [session["id"] for session in listed] == ["copy"]
        page = (await running.http.get("/v1/sessions/copy/messages?order=desc&limit=2")).json()["data"]
        assert [message["content"] for message in page] == [str(count - 1), str(count - 2)]
        parts = made[0].json()["parent"]["session_id"]
        refused = await running.http.post(f"/v1/sessions/{parts}/messages", json={"role": "user", "content": "x"})
        assert refused.json()["error"]["code"] == "session_closed"


async def test_markdown_is_for_reading() -> None:
    """It is served as such."""
    async with running_server(engine=two_models()) as running:
        await talk(running, "one")
        exported = await running.http.get("/v1/sessions/s/export?format=markdown")
        assert exported.headers["content-type"] == "text/markdown; charset=utf-8"
        assert "## 1. user\n\n> one\n" in exported.text


@pytest.mark.parametrize(
    ("query", "headers", "body", "status", "code"),
    [
        ("", {"content-type": "text/plain"}, b"{}", 415, "unsupported_media_type"),
        ("", {}, b"{}", 415, "unsupported_media_type"),
        ("", {**NDJSON, "content-encoding": "gzip"}, b"{}", 415, "unsupported_media_type"),
        ("", {"content-type": "application/x-ndjson; charset=latin-1"}, b"{}", 415, "unsupported_media_type"),
        ("", NDJSON, b"", 400, "import_refused"),
        ("", NDJSON, b'{"object":"event"', 400, "import_refused"),
        ("", JSON, b'{"title": "my chat"}', 400, "import_refused"),
        ("?format=markdown", JSON, b"# hi", 400, "invalid_value"),
        ("?format=events", JSON, b'[{"role": "user", "content": "hi"}]', 400, "import_refused"),
        ("?session_id=no/slash", JSON, b'[{"role": "user", "content": "hi"}]', 400, "invalid_value"),
        ("?session_id=import", JSON, b'[{"role": "user", "content": "hi"}]', 400, "invalid_value"),
        ("?metadata=x", JSON, b"[]", 400, "unknown_parameter"),
    ],
)
async def test_files_that_are_none_are_refused(
    query: str, headers: dict[str, str], body: bytes, status: int, code: str
) -> None:
    """With what is wrong with them, and nothing is recorded."""
    async with running_server() as running:
        refused = await running.http.post(f"/v1/sessions/import{query}", content=body, headers=headers)
        assert (refused.status_code, refused.json()["error"]["code"]) == (status, code)
        assert await running.log() == []


async def test_a_file_over_the_body_limit_is_refused() -> None:
    """As any body is."""
    async with running_server(limits=HttpLimits(body_bytes_max=2048)) as running:
        refused = await running.http.post("/v1/sessions/import", content=b" " * 4096, headers=NDJSON)
        assert (refused.status_code, refused.json()["error"]["code"]) == (413, "request_too_large")


async def test_a_changed_line_is_named_and_nothing_is_imported() -> None:
    """One word in one of many lines."""
    async with running_server(engine=two_models()) as running, running_server() as elsewhere:
        await talk(running, "one", "two", "three")
        exported = (await running.http.get("/v1/sessions/s/export")).content
        refused = await elsewhere.http.post(
            "/v1/sessions/import", content=exported.replace(b'"two"', b'"TWO"'), headers=NDJSON
        )
        assert refused.status_code == 400
        assert refused.json()["error"]["message"].startswith("line 6: its payload is not what")
        assert await elsewhere.log() == []


async def test_an_export_that_is_interrupted_leaves_nothing_behind(tmp_path: Path) -> None:
    """Clients that leave in the middle, again and again: no connection of the database stays taken."""
    path = tmp_path / "manent.db"
    empty_database(path)
    await ensure_log(path, RandomIds())
    store = SQLiteEventStore(path, clock=SystemClock(), ids=RandomIds())
    try:
        async with running_server(engine=two_models(), store=store) as running:
            for _ in range(40):
                big = [{"role": "user", "content": "x" * 200_000}]
                assert (await running.chat(session_id="s", session_mode="append", messages=big)).status_code in {
                    200,
                    400,
                }
            for _ in range(10):
                async with raw_connection(running.port, receive_buffer_bytes=4096) as connection:
                    await connection.send(b"GET /v1/sessions/s/export HTTP/1.1\r\nhost: localhost\r\n\r\n")
                    assert await connection.read_some()
                    connection.break_off()
            whole = await running.http.get("/v1/sessions/s/export")
            assert len(whole.text.splitlines()) == (await running.http.get("/v1/sessions/s")).json()["version"]
            async with asyncio.timeout(WAIT_S):
                while store._readers.pool.checkedout():  # type: ignore[attr-defined]  # noqa: ASYNC110 (SQLAlchemy's pool of a file)
                    await asyncio.sleep(0.01)
    finally:
        await store.aclose()


async def test_a_defect_in_the_middle_of_an_export_is_not_a_whole_file(monkeypatch: pytest.MonkeyPatch) -> None:
    """The status is out already: the connection is cut before the last chunk, so that no client takes it for all."""
    async with running_server(engine=two_models()) as running:
        await talk(running, "one", "two")
        monkeypatch.setattr("manent.domain.usecases.export_session.PAGE", 3)
        query, calls = running.store.query, []

        async def failing(*arguments: object, **named: object) -> object:
            calls.append(1)
            if len(calls) > 2:
                raise RuntimeError("a defect")
            return await query(*arguments, **named)  # type: ignore[arg-type]  # as it was called

        monkeypatch.setattr(running.store, "query", failing)
        async with raw_connection(running.port) as connection:
            await connection.send(b"GET /v1/sessions/s/export HTTP/1.1\r\nhost: localhost\r\n\r\n")
            try:
                answer = await connection.read_to_end()
            except ConnectionResetError:
                answer = b""
        assert not answer.endswith(b"0\r\n\r\n")
        assert len(unchunked(answer).splitlines()) < 9 if answer else True
