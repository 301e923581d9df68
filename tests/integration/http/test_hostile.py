"""Input that is meant to harm: each piece gets a clear refusal, none a 500, and the server answers on."""

from __future__ import annotations

import asyncio
import gzip
import json
import re
import zlib
from collections.abc import AsyncGenerator
from typing import Any

import pytest
import pytest_asyncio

from manent.adapters.http.context import HttpLimits
from tests.support.http import USER, Running, raw_connection, running_server

LIMITS = HttpLimits(body_bytes_max=12_000_000, header_timeout_s=0.4, body_timeout_s=0.4, messages_max=1000)
GET = b"GET /v1/models HTTP/1.1\r\nhost: localhost\r\n"
POST = b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
CHAT = json.dumps({"model": "default", "messages": [USER]}).encode()
STATUS = re.compile(rb"HTTP/1\.1 (\d{3}) ")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def running() -> AsyncGenerator[Running, None]:
    """One server for all that is hurled at it."""
    async with running_server(limits=LIMITS) as made:
        yield made


def chunked(*chunks: bytes) -> bytes:
    """A body in chunks."""
    return b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n\r\n"


SMUGGLED = b"GET /v1/smuggled HTTP/1.1\r\nhost: localhost\r\n\r\n"


@pytest.mark.parametrize(
    ("sent", "status", "code"),
    [
        # Headers.
        (GET + b"x: a\nset-cookie: b\r\n\r\n", 400, "bad_request"),
        (GET + b"x: a\rb\r\n\r\n", 400, "bad_request"),
        (GET + b"x-request-id: a\x00b\r\n\r\n", 400, "bad_request"),
        (GET + b"x: a\r\n folded\r\n\r\n", 400, "bad_request"),
        (GET + b"x : a\r\n\r\n", 400, "bad_request"),
        (GET.replace(b"\r\n", b"\n") + b"\n\n", 408, "request_timeout"),
        (b"GET /v1/models HTTP/1.1\nhost: localhost\r\n\r\n", 400, "bad_request"),
        (GET + b"host: evil.example\r\n\r\n", 400, "bad_request"),
        (b"GET /v1/models HTTP/1.1\r\n\r\n", 421, "unknown_host"),
        (GET + b"".join(b"x-%d: y\r\n" % n for n in range(3000)) + b"\r\n", 431, "headers_too_large"),
        (b"GET /v1/models?" + b"a=b&" * 3_500 + b" HTTP/1.1\r\nhost: localhost\r\n\r\n", 400, "invalid_value"),
        (b"GET /v1/models?" + b"a" * 90_000 + b" HTTP/1.1\r\nhost: localhost\r\n\r\n", 431, "headers_too_large"),
        (b"GET /v1/%00 HTTP/1.1\r\nhost: localhost\r\n\r\n", 404, "unknown_url"),
        (b"GET /v1/sessions/a%0d%0ax:%20y HTTP/1.1\r\nhost: localhost\r\n\r\n", 404, "session_not_found"),
        (b"GET /v1/sessions/a%00b HTTP/1.1\r\nhost: localhost\r\n\r\n", 404, "session_not_found"),
        (b"GET /v1/sessions/%ff%fe HTTP/1.1\r\nhost: localhost\r\n\r\n", 404, "session_not_found"),
        (b"GET /v1/../../etc/passwd HTTP/1.1\r\nhost: localhost\r\n\r\n", 404, "unknown_url"),
        # Targets in other forms.
        (b"GET http://evil.example/v1/models HTTP/1.1\r\nhost: localhost\r\n\r\n", 421, "unknown_host"),
        (b"GET http://localhost@evil.example/v1/models HTTP/1.1\r\nhost: localhost\r\n\r\n", 400, "bad_request"),
        (b"CONNECT evil.example:443 HTTP/1.1\r\nhost: localhost\r\n\r\n", 400, "bad_request"),
        (b"GET //evil.example/v1/models HTTP/1.1\r\nhost: localhost\r\n\r\n", 404, "unknown_url"),
        (b"OPTIONS * HTTP/1.1\r\nhost: localhost\r\n\r\n", 405, "method_not_allowed"),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400, "bad_request"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400, "bad_request"),
        # Two lengths, or a length and chunks: what follows is never taken for a request.
        (POST + b"content-length: 2\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n" + SMUGGLED, 400, "bad_request"),
        (POST + b"transfer-encoding: chunked\r\ncontent-length: 2\r\n\r\n0\r\n\r\n" + SMUGGLED, 400, "bad_request"),
        (POST + b"content-length: 0\r\ncontent-length: 48\r\n\r\n" + SMUGGLED, 400, "bad_request"),
        (POST + b"content-length: 0, 48\r\n\r\n" + SMUGGLED, 400, "bad_request"),
        (POST + b"content-length: +2\r\n\r\n{}", 400, "bad_request"),
        (POST + b"content-length: \xd9\xa2\r\n\r\n{}", 400, "bad_request"),
        (POST + b"transfer-encoding: xchunked\r\n\r\n0\r\n\r\n" + SMUGGLED, 400, "bad_request"),
        (POST + b"transfer-encoding: chunked, identity\r\n\r\n0\r\n\r\n" + SMUGGLED, 400, "bad_request"),
        (POST + b"transfer-encoding:\x0bchunked\r\n\r\n0\r\n\r\n" + SMUGGLED, 400, "bad_request"),
        (POST.replace(b"1.1", b"1.0") + b"transfer-encoding: chunked\r\n\r\n0\r\n\r\n" + SMUGGLED, 400, "bad_request"),
        (POST + b"transfer-encoding: chunked\r\n\r\n0x2\r\n{}\r\n0\r\n\r\n" + SMUGGLED, 400, "bad_request"),
        (POST + b"transfer-encoding: chunked\r\n\r\n2\r\n{}XX0\r\n\r\n" + SMUGGLED, 400, "bad_request"),
        (POST + b"transfer-encoding: chunked\r\n\r\n2\n{}\r\n0\r\n\r\n" + SMUGGLED, 400, "bad_request"),
        (POST + b"transfer-encoding: chunked\r\n\r\n-2\r\n{}\r\n0\r\n\r\n" + SMUGGLED, 400, "bad_request"),
        (POST + b"transfer-encoding: chunked\r\n\r\n2;" + b"x" * 9000 + b"\r\n{}\r\n0\r\n\r\n", 400, "bad_request"),
        (POST + b"transfer-encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\nhost: evil\r\n\r\n" + SMUGGLED, 400, "bad_request"),
        (POST + b"transfer-encoding: chunked\r\n\r\n" + b"f" * 15 + b"\r\n{}", 413, "request_too_large"),
        # Compressed bodies are not unpacked at all.
        (POST + b"content-encoding: gzip\r\ncontent-length: 2\r\n\r\n{}", 415, "unsupported_media_type"),
        (POST + b"content-encoding: identity, br\r\ncontent-length: 2\r\n\r\n{}", 415, "unsupported_media_type"),
        # Slow bodies.
        (POST + b"content-length: 10\r\n\r\n{", 408, "request_timeout"),
        (POST + b"expect: 100-continue\r\ncontent-length: 99999999999\r\n\r\n", 413, "request_too_large"),
    ],
    ids=lambda value: repr(value)[-60:],
)
@pytest.mark.asyncio(loop_scope="module")
async def test_bytes_that_are_meant_to_harm(running: Running, sent: bytes, status: int, code: str) -> None:
    """One answer in OpenAI's envelope, nothing behind it, the connection closed where its bytes cannot be trusted."""
    async with raw_connection(running.port) as raw:
        await raw.send(sent)
        if status != 408:
            raw.half_close()
        answer = await raw.read_to_end()
    assert [int(found) for found in STATUS.findall(answer)] == [status]
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["error"]["code"] == code
    assert b"smuggled" not in answer
    assert (await running.http.get("/health/live")).status_code == 200


def body_of(**members: Any) -> bytes:
    """A chat with one member more, or another one."""
    return json.dumps({"model": "default", "messages": [USER], **members}).encode()


DEEP = 100_000
BODIES: list[tuple[bytes, int, str]] = [
    (b"[" * DEEP, 400, "invalid_json"),
    (b'{"a":' * DEEP + b"1" + b"}" * DEEP, 400, "invalid_json"),
    (b'{"model": "default", "messages": ' + b"[" * DEEP + b"]" * DEEP + b"}", 400, "invalid_json"),
    (b'{"model": "default", "messages": [' + b"1," * 999_999 + b"1]}", 400, "invalid_value"),
    (body_of(messages=[USER] * 1001), 400, "invalid_value"),
    (body_of(stop=["x"] * 1_000_000), 400, "invalid_value"),
    (body_of(stop_token_ids=[1] * 1_000_000), 400, "invalid_value"),
    (body_of(logit_bias={str(n): 1 for n in range(300_000)}), 400, "invalid_value"),
    (body_of(metadata={str(n): "v" for n in range(300_000)}), 400, "invalid_value"),
    (body_of(tools=[{"type": "function", "function": {"name": "f"}}] * 100_000), 400, "invalid_value"),
    (body_of(messages=[{"role": "user", "content": [{"type": "text", "text": "x"}] * 200_000}]), 400, "invalid_value"),
    (body_of(max_tokens=10**400), 400, "invalid_value"),
    (b'{"model": "default", "messages": [], "seed": ' + b"9" * 100_000 + b"}", 400, "invalid_json"),
    (body_of(temperature=float("nan")), 400, "invalid_json"),
    (body_of(temperature=float("-inf")), 400, "invalid_json"),
    (CHAT[:-1] + b', "temperature": 1e400}', 400, "invalid_value"),
    (CHAT[:-1] + b', "model": "other"}', 400, "invalid_json"),
    (b'{"model": "default", "messages": [{"role": "user", "role": "system", "content": "x"}]}', 400, "invalid_json"),
    (b'{"model": "default", "messages": [{"role": "user", "content": "\\ud800"}]}', 400, "invalid_json"),
    (b'{"model": "default", "\\udfff": 1, "messages": []}', 400, "invalid_json"),
    (b'{"model": "default", "messages": [{"role": "user", "content": "\xff"}]}', 400, "invalid_json"),
    (b'{"model": "default", "messages": [{"role": "user", "content": "\xc0\xaf"}]}', 400, "invalid_json"),
    (b'{"model": "default", "messages": [{"role": "user", "content": "\xed\xa0\x80"}]}', 400, "invalid_json"),
    (b"\xef\xbb\xbf" + CHAT, 400, "invalid_json"),
    (CHAT.decode().encode("utf-16"), 400, "invalid_json"),
    (CHAT + CHAT, 400, "invalid_json"),
    (body_of(session_id="a\r\nx: y"), 400, "invalid_value"),
    (body_of(session_id="a\x00b"), 400, "invalid_value"),
    (body_of(session_id="../../etc"), 400, "invalid_value"),
    (body_of(model="a\x00b"), 404, "model_not_found"),
    (body_of(user="a\x00b" * 10_000), 400, "invalid_value"),
]


@pytest.mark.parametrize(("body", "status", "code"), BODIES, ids=[repr(body[:70]) for body, _, _ in BODIES])
@pytest.mark.asyncio(loop_scope="module")
async def test_documents_that_are_meant_to_harm(running: Running, body: bytes, status: int, code: str) -> None:
    """Deep, wide, ambiguous, of other encodings, with numbers that are none: refused, and nothing is recorded."""
    sending = asyncio.create_task(
        running.http.post("/v1/chat/completions", content=body, headers={"content-type": "application/json"})
    )
    live = await running.http.get("/health/live")
    answer = await sending
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code), answer.text[:300]
    assert len(answer.content) < 2000
    assert live.status_code == 200
    assert await running.log("CompletionRequested") == []


@pytest.mark.parametrize("pack", [gzip.compress, zlib.compress], ids=["gzip", "deflate"])
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/sessions/import", "/v1/embeddings"])
@pytest.mark.asyncio(loop_scope="module")
async def test_bombs_are_not_unpacked(running: Running, pack: Any, path: str) -> None:
    """Ten megabytes of zeros in ten kilobytes: refused by the header, wherever a body is taken."""
    headers = {"content-type": "application/json", "content-encoding": pack.__module__.replace("zlib", "deflate")}
    answer = await running.http.post(path, content=pack(bytes(10_000_000)), headers=headers)
    assert (answer.status_code, answer.json()["error"]["code"]) == (415, "unsupported_media_type")


@pytest.mark.asyncio(loop_scope="module")
async def test_pipelined_requests_are_answered_in_their_order(running: Running) -> None:
    """A hundred in one piece; a refused one among them costs the others nothing."""
    one = GET.replace(b"/v1/models", b"/v1/models/%d")
    requests = [one % number + b"\r\n" for number in range(100)]
    async with raw_connection(running.port) as raw:
        await raw.send(b"".join(requests) + GET + b"connection: close\r\n\r\n")
        answer = await raw.read_to_end()
    assert [int(found) for found in STATUS.findall(answer)] == [404] * 100 + [200]
    assert [int(number) for number in re.findall(rb"model '(\d+)'", answer)] == list(range(100))


@pytest.mark.asyncio(loop_scope="module")
async def test_http_1_0_is_answered_and_closed(running: Running) -> None:
    """With a Host, as HTTP/1.1 is; and absolute form with a name of ours."""
    async with raw_connection(running.port) as raw:
        await raw.send(b"GET /v1/models HTTP/1.0\r\nhost: localhost\r\n\r\n")
        assert b"connection: close" in (old := await raw.read_to_end()).lower()
    assert STATUS.findall(old) == [b"200"]
    async with raw_connection(running.port) as raw:
        await raw.send(b"GET http://127.0.0.1/v1/models HTTP/1.1\r\nhost: evil.example\r\nconnection: close\r\n\r\n")
        assert STATUS.findall(await raw.read_to_end()) == [b"200"]


@pytest.mark.asyncio(loop_scope="module")
async def test_what_clients_send_does_not_come_back_in_headers(running: Running) -> None:
    """Ids that could forge a header are replaced by our own."""
    for wrong in (b"a b", b"a" * 200, b"\xff", b"<script>"):
        async with raw_connection(running.port) as raw:
            await raw.send(GET + b"x-request-id: " + wrong + b"\r\nx-session-id: " + wrong + b"\r\n\r\n")
            status, headers, _ = await raw.read_answer()
        assert status == 200
        assert headers["x-request-id"].startswith("req_")
