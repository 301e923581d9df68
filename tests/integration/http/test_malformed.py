"""Requests that are broken on purpose: each is told in JSON, with an id, and the server goes on."""

from __future__ import annotations

import asyncio
import json

import pytest

from manent.adapters.http.context import HttpLimits
from tests.support.http import raw_connection, running_server

SMALL = HttpLimits(body_bytes_max=1000, header_timeout_s=0.2, body_timeout_s=0.2)
CHAT = b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"


@pytest.mark.parametrize(
    ("request_bytes", "status", "code"),
    [
        (b"NONSENSE\r\n\r\n", 400, "bad_request"),
        (b"GET /v1/models HTTP/3.7\r\n\r\n", 400, "bad_request"),
        (b"GET /v1/models HTTP/1.1\r\nno colon\r\n\r\n", 400, "bad_request"),
        (b"GET /\xc3\xbc HTTP/1.1\r\nhost: localhost\r\n\r\n", 400, "bad_request"),
        (b"GET / HTTP/1.1\r\nhost: localhost\r\nx: " + b"a" * 20_000 + b"\r\n\r\n", 431, "headers_too_large"),
        (CHAT + b"content-length: -5\r\n\r\n", 400, "bad_request"),
        (CHAT + b"content-length: ten\r\n\r\n", 400, "bad_request"),
        (CHAT + b"content-length: 5\r\ncontent-length: 6\r\n\r\n", 400, "bad_request"),
        (CHAT + b"transfer-encoding: chunked\r\n\r\nzz\r\n", 400, "bad_request"),
        (CHAT + b"expect: the-best\r\ncontent-length: 2\r\n\r\n{}", 417, "expectation_failed"),
        (CHAT + b"content-length: 5000\r\n\r\n" + b"x" * 5000, 413, "request_too_large"),
        (CHAT + b"content-length: 5000\r\nexpect: 100-continue\r\n\r\n", 413, "request_too_large"),
        (CHAT + b"content-length: 9999999999999\r\n\r\n", 413, "request_too_large"),
        (CHAT + b"content-length: 500\r\n\r\n{", 408, "request_timeout"),
        (CHAT + b"transfer-encoding: chunked\r\n\r\n5\r\n{", 408, "request_timeout"),
        (b"GET /v1/models HTTP/1.1\r\nhost: localhost\r\n", 408, "request_timeout"),
        (CHAT + b"content-length: 0\r\n\r\n", 400, "invalid_json"),
    ],
    ids=lambda value: repr(value)[-40:],
)
async def test_a_broken_request_is_told_in_json(request_bytes: bytes, status: int, code: str) -> None:
    """Whatever arrives, the answer is OpenAI's envelope with the right status and a request id."""
    async with running_server(limits=SMALL) as running, raw_connection(running.port) as raw:
        await raw.send(request_bytes)
        found_status, headers, body = await raw.read_answer()
        assert (found_status, body["error"]["code"]) == (status, code)
        assert set(body["error"]) == {"message", "type", "param", "code"}
        assert headers["content-type"] == "application/json"
        assert headers["x-request-id"].startswith("req_")
        assert (await running.http.get("/health/live")).status_code == 200


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", "invalid_json"),
        (b"{", "invalid_json"),
        (b"[]", "invalid_json"),
        (b"null", "invalid_json"),
        (b'{"model": "default", "model": "x", "messages": []}', "invalid_json"),
        (b'{"model": NaN}', "invalid_json"),
        (b'{"model": "\\ud800"}', "invalid_json"),
        (b"\xff\xfe", "invalid_json"),
        (b"[" * 900, "invalid_json"),
        (
            b'{"model": "default", "messages": [{"role": "user", "content": "x"}], "temperature": 1e999}',
            "invalid_value",
        ),
        (
            b'{"model": "default", "messages": [{"role": "user", "content": "x"}], "a": '
            + b"[" * 200
            + b"]" * 200
            + b"}",
            "unknown_parameter",
        ),
    ],
    ids=lambda value: repr(value)[:40],
)
async def test_a_broken_body_is_a_400(body: bytes, code: str) -> None:
    """No document, however wrong, is anything but a 400 that says what is wrong with it."""
    async with running_server(limits=SMALL) as running:
        answer = await running.http.post(
            "/v1/chat/completions", content=body, headers={"content-type": "application/json"}
        )
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, code)
        assert await running.log() == []


@pytest.mark.parametrize("content_type", [None, "text/plain", "multipart/form-data; boundary=x"])
async def test_a_body_that_is_not_declared_as_json_is_a_415(content_type: str | None) -> None:
    """A web page that posts without asking does not get through to a server on this machine."""
    async with running_server() as running:
        headers = {} if content_type is None else {"content-type": content_type}
        answer = await running.http.post("/v1/chat/completions", content=b"{}", headers=headers)
        assert (answer.status_code, answer.json()["error"]["code"]) == (415, "unsupported_media_type")


async def test_too_large_a_body_is_told_to_a_client_that_sends_first() -> None:
    """A client that writes its whole body before it reads gets the 413, not a reset connection."""
    async with running_server(limits=HttpLimits(body_bytes_max=100_000)) as running:
        fits = {"model": "none", "messages": [{"role": "user", "content": "x" * 99_000}]}
        assert (await running.http.post("/v1/chat/completions", json=fits)).status_code == 404
        for size in (100_001, 5_000_000):
            answer = await running.http.post("/v1/sessions", json={"messages": "x" * size})
            assert (answer.status_code, answer.json()["error"]["code"]) == (413, "request_too_large")
            assert answer.headers["connection"] == "close"
            assert "100000" in answer.json()["error"]["message"]


async def test_a_body_in_small_pieces_is_read() -> None:
    """Chunked bodies, byte by byte, are bodies."""
    async with running_server() as running, raw_connection(running.port) as raw:
        body = json.dumps({"model": "default", "messages": [{"role": "user", "content": "é"}]}).encode()
        await raw.send(CHAT + b"transfer-encoding: chunked\r\n\r\n")
        for byte in body:
            await raw.send(b"1\r\n" + bytes([byte]) + b"\r\n")
        await raw.send(b"0\r\n\r\n")
        status, _, _ = await raw.read_answer()
        assert status == 200


async def test_a_connection_is_reused_after_a_refusal() -> None:
    """A 400 costs its request and nothing else of the connection."""
    async with running_server() as running, raw_connection(running.port) as raw:
        for _ in range(3):
            await raw.post_chat(temperature="hot")
            assert (await raw.read_answer())[0] == 400
            await raw.post_chat()
            assert (await raw.read_answer())[0] == 200
        assert running.server.connections == 1


async def test_an_idle_connection_is_closed_in_time() -> None:
    """A connection on which nothing is asked does not stay for ever."""
    limits = HttpLimits(keep_alive_timeout_s=0.2)
    async with running_server(limits=limits) as running, raw_connection(running.port) as raw:
        await raw.post_chat()
        await raw.read_answer()
        assert await raw.read_to_end() == b""
        await asyncio.sleep(0)
        assert running.server.connections == 0
