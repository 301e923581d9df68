"""CORS, names, proxies, TLS, and bounds on connections, over real sockets."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path

import httpx
import pytest

from manent.adapters.http.context import HttpLimits
from manent.adapters.http.cors import Origins
from manent.adapters.http.forwarded import TrustedProxies
from manent.adapters.http.hosts import HostNames
from manent.adapters.http.tls import Certificate, CertificateUnusable
from manent.adapters.inference.script import Script
from tests.support.certificates import Authority
from tests.support.hooks import Held
from tests.support.http import WAIT_S, Running, raw_connection, running_server

GOOD, EVIL = "https://app.example", "https://app.example.evil.example"
ASKS = {"access-control-request-method": "POST", "access-control-request-headers": "authorization,content-type"}
CORS = HttpLimits(origins=Origins([GOOD, "https://*.tail.ts.net"], credentials=True))


@pytest.mark.parametrize("origin", [GOOD, "https://mac.tail.ts.net"])
async def test_pages_of_named_origins_may_use_the_server(origin: str) -> None:
    """Preflight, answer and error, each with the origin, what may be read, and Vary."""
    async with running_server(limits=CORS) as running:
        asked = await running.http.options("/v1/chat/completions", headers={"origin": origin, **ASKS})
        assert (asked.status_code, asked.content) == (204, b"")
        assert "POST" in asked.headers["access-control-allow-methods"]
        assert {"authorization", "content-type", "x-stainless-lang"} <= set(
            asked.headers["access-control-allow-headers"].split(", ")
        )
        posted = await running.http.post(
            "/v1/chat/completions",
            json={"model": "default", "messages": [{"role": "user", "content": "x"}]},
            headers={"origin": origin},
        )
        failed = await running.http.post("/v1/chat/completions", json={}, headers={"origin": origin})
        assert (posted.status_code, failed.status_code) == (200, 400)
        for answer in (asked, posted, failed):
            assert answer.headers["access-control-allow-origin"] == origin
            assert answer.headers["access-control-allow-credentials"] == "true"
            assert answer.headers["vary"] == "origin"
            assert "x-ratelimit-remaining-tokens" in answer.headers["access-control-expose-headers"]
        assert (await running.http.get("/v1/models")).headers["vary"] == "origin"


@pytest.mark.parametrize("limits", [CORS, HttpLimits()], ids=["some origins", "none"])
async def test_pages_of_others_change_nothing(limits: HttpLimits) -> None:
    """No preflight passes, nothing is said that lets a page read, and what it sends without asking is refused."""
    async with running_server(limits=limits) as running:
        for origin in (
            EVIL,
            "null",
            "http://app.example",
            f"{GOOD}:8443",
            "https://evil.example",
            running.address + "0",
        ):
            asked = await running.http.options("/v1/sessions", headers={"origin": origin, **ASKS})
            assert asked.status_code in {403, 405}
            posted = await running.http.post("/v1/sessions", headers={"origin": origin})
            assert (posted.status_code, posted.json()["error"]["code"]) == (403, "origin_not_allowed")
            read = await running.http.get("/v1/models", headers={"origin": origin})
            assert read.status_code == 200
            for answer in (asked, posted, read):
                assert not [name for name in answer.headers if name.startswith("access-control-")]
        assert await running.log() == []
        own = await running.http.post("/v1/sessions", headers={"origin": running.address})
        assert own.status_code == 201


async def test_every_answer_tells_browsers_to_be_careful() -> None:
    """Answers, errors, streams and pages; a page's own policy goes before the general one."""
    async with running_server() as running:
        answers = [
            await running.http.get("/v1/models"),
            await running.http.get("/nothing"),
            await running.chat(stream=True),
            await running.http.get("/docs"),
        ]
        for answer in answers:
            assert answer.headers["x-content-type-options"] == "nosniff"
            assert answer.headers["x-frame-options"] == "DENY"
            assert "default-src 'none'" in answer.headers["content-security-policy"]
            assert "strict-transport-security" not in answer.headers
            assert "cache-control" in answer.headers
        assert "script-src 'self'" in answers[-1].headers["content-security-policy"]
        assert "script-src" not in answers[0].headers["content-security-policy"]


async def test_names_and_proxies_are_those_of_the_settings() -> None:
    """A proxy's word for the name and the scheme counts, a client's does not; TLS in front is told onwards."""
    limits = HttpLimits(hosts=HostNames(["*.example.com"]), proxies=TrustedProxies(["127.0.0.0/8"]))
    async with running_server(limits=limits) as running:
        forwarded = {"x-forwarded-for": "192.0.2.9", "x-forwarded-host": "a.example.com", "x-forwarded-proto": "https"}
        answer = await running.http.get("/v1/models", headers=forwarded)
        assert answer.status_code == 200
        assert answer.headers["strict-transport-security"] == "max-age=31536000"
        own = {"origin": "https://a.example.com", **forwarded}
        assert (await running.http.post("/v1/sessions", headers=own)).status_code == 201
        evil = {**forwarded, "x-forwarded-host": "a.example.com.evil"}
        assert (await running.http.get("/v1/models", headers=evil)).status_code == 421
        assert (await running.http.get("/v1/models", headers={"host": "a.example.com"})).status_code == 200
        assert (await running.http.get("/v1/models")).status_code == 421
    async with running_server(limits=HttpLimits(hosts=HostNames(["*.example.com"]))) as running:
        assert (await running.http.get("/v1/models", headers=forwarded)).status_code == 421


@asynccontextmanager
async def tls_server(authority: Authority, script: Script | None = None) -> AsyncGenerator[tuple[Running, Certificate]]:
    """A server behind TLS."""
    certificate = Certificate(authority.chain, authority.key)
    async with running_server(script, tls=certificate.context) as running:
        yield running, certificate


async def presented(running: Running, authority: Authority) -> int:
    """The serial number of the certificate that a new connection gets."""
    reader, writer = await asyncio.open_connection("127.0.0.1", running.port, ssl=authority.client())
    found = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.close()
    await writer.wait_closed()
    del reader
    return authority.serial_in(found)


async def test_a_new_certificate_is_taken_without_a_broken_stream(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A stream that was begun before ends well; what is half written or broken is logged once, and changes nothing."""
    authority, held = Authority(tmp_path), Held(2)
    first = authority.issue()
    async with (
        tls_server(authority, Script(before_delta=held)) as (running, certificate),
        httpx.AsyncClient(verify=authority.client(), timeout=WAIT_S) as client,
    ):
        body = {"model": "default", "messages": [{"role": "user", "content": "x"}], "stream": True}
        streaming = asyncio.create_task(client.post(f"{running.tls_address}/v1/chat/completions", json=body))
        await held.reached.wait()
        assert await presented(running, authority) == first
        assert not certificate.look()
        second = authority.issue("mac.tail.ts.net")
        assert certificate.look()
        assert await presented(running, authority) == second
        whole_key, whole_chain = authority.key.read_bytes(), authority.chain.read_bytes()
        authority.issue()
        authority.key.write_bytes(whole_key)  # the certificate is new already, its key not yet
        assert not certificate.look()
        assert not certificate.look()
        authority.key.unlink()
        assert not certificate.look()
        authority.chain.write_text("nonsense")
        assert not certificate.look()
        assert await presented(running, authority) == second
        assert len([one for one in caplog.records if one.levelname == "ERROR"]) == 3
        authority.key.write_bytes(whole_key)
        authority.chain.write_bytes(whole_chain)
        assert certificate.look()
        held.released.set()
        assert (await streaming).text.endswith("data: [DONE]\n\n")


async def test_the_certificate_is_watched(tmp_path: Path) -> None:
    """The loop finds what changed by itself."""
    authority = Authority(tmp_path)
    authority.issue()
    async with tls_server(authority) as (running, certificate), asyncio.timeout(WAIT_S):
        watching = asyncio.create_task(certificate.watch(every_s=0.01))
        second = authority.issue()
        while await presented(running, authority) != second:  # noqa: ASYNC110 (it tells nobody)
            await asyncio.sleep(0.01)
        watching.cancel()


async def test_old_versions_and_plain_text_are_not_served(tmp_path: Path) -> None:
    """TLS 1.2 and later; HTTP on that port ends the connection, and the server goes on."""
    authority = Authority(tmp_path)
    authority.issue()
    async with tls_server(authority) as (running, _):
        for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            context = authority.client(maximum=version)
            async with httpx.AsyncClient(base_url=running.tls_address, verify=context, timeout=WAIT_S) as client:
                answer = await client.get("/v1/models")
                assert answer.status_code == 200
                assert "strict-transport-security" not in answer.headers  # never for loopback's names
        old = authority.client()
        old.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
        with pytest.warns(DeprecationWarning, match="TLSv1_1"):
            old.maximum_version = ssl.TLSVersion.TLSv1_1
        with pytest.raises(ssl.SSLError):
            await asyncio.open_connection("127.0.0.1", running.port, ssl=old)
        async with raw_connection(running.port) as raw:
            await raw.send(b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n")
            assert b"HTTP/1.1 200" not in await raw.read_to_end()
        assert await presented(running, authority)


def test_a_certificate_that_cannot_be_used_is_told(tmp_path: Path) -> None:
    """By the files and what is wrong with them, before anything is served."""
    authority = Authority(tmp_path)
    with pytest.raises(CertificateUnusable, match="No such file"):
        Certificate(authority.chain, authority.key)
    authority.issue()
    authority.key.write_text("nonsense")
    with pytest.raises(CertificateUnusable, match="do not make a certificate"):
        Certificate(authority.chain, authority.key)


async def test_idle_connections_make_room() -> None:
    """Hundreds that ask nothing stay within the bound, and whoever asks something is served at once."""
    async with running_server(limits=HttpLimits(connections_max=50)) as running, AsyncExitStack() as stack:
        for _ in range(500):
            idle = stack.enter_context(socket.socket())
            idle.setblocking(False)  # noqa: FBT003 (the socket's own API)
            await asyncio.get_running_loop().sock_connect(idle, ("127.0.0.1", running.port))
        async with raw_connection(running.port) as raw:
            await raw.post_chat()
            assert (await raw.read_answer())[0] == 200
            assert running.server.connections <= 50
            await raw.post_chat()
            assert (await raw.read_answer())[0] == 200


async def test_busy_connections_do_not_make_room() -> None:
    """Where every connection works, one more is told to come again, in JSON; what works goes on."""
    held = Held(1)
    script = Script(before_delta=held)
    async with running_server(script, limits=HttpLimits(connections_max=8)) as running, AsyncExitStack() as stack:
        busy = [await stack.enter_async_context(raw_connection(running.port)) for _ in range(8)]
        for raw in busy:
            await raw.post_chat()
        async with asyncio.timeout(WAIT_S):
            while len(running.engine.requests) < 8:  # noqa: ASYNC110 (it tells nobody)
                await asyncio.sleep(0.005)
        refused = await stack.enter_async_context(raw_connection(running.port))
        status, headers, body = await refused.read_answer()
        assert (status, body["error"]["code"], headers["retry-after"]) == (503, "too_many_connections", "1")
        held.released.set()
        assert [(await raw.read_answer())[0] for raw in busy] == [200] * 8
        assert running.server.connections == 8


async def test_a_header_that_drips_is_cut_off() -> None:
    """A byte now and then does not hold a connection for longer than the time of a header, nor do other requests."""
    limits = HttpLimits(header_timeout_s=0.3, keep_alive_timeout_s=1.0)
    async with running_server(limits=limits) as running, raw_connection(running.port) as raw:
        await raw.post_chat()
        assert (await raw.read_answer())[0] == 200
        answer = asyncio.create_task(raw.read_answer())
        for byte in b"GET / HTTP/1.1\r\nhost: localhost\r\nx: " + b"a" * 200:
            await asyncio.sleep(0.05)
            if answer.done():
                break
            await raw.send(bytes([byte]))
        status, _, body = await answer
        assert (status, body["error"]["code"]) == (408, "request_timeout")


async def test_the_rest_of_a_body_that_drips_is_cut_off() -> None:
    """A request that is answered before its body is there does not hold its connection by sending on and on."""
    limits = HttpLimits(keep_alive_timeout_s=0.3)
    async with running_server(limits=limits) as running, raw_connection(running.port) as raw:
        await raw.send(b"POST /nothing HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1000\r\n\r\n")
        assert (await raw.read_answer())[0] == 404
        async with asyncio.timeout(WAIT_S):
            while running.server.connections:
                await asyncio.sleep(0.05)
                with suppress(ConnectionError, RuntimeError):  # uvloop's word for a socket that is closed
                    await raw.send(b"x")
