"""A real HTTP server on a real socket, in this process: real use cases over a scripted engine and a log in memory."""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any

import httpx
from openai import AsyncOpenAI

from manent.adapters.http.app import create_app
from manent.adapters.http.context import HttpLimits, HttpServices, Scrape
from manent.adapters.http.principal import Authenticate, everybody_is
from manent.adapters.http.request import App
from manent.adapters.http.server import HttpServer
from manent.adapters.images.fetching import ImageFetcher
from manent.adapters.images.reader import CheckedImages
from manent.adapters.inference.script import Script
from manent.adapters.inference.scripted import ScriptedEngine
from manent.adapters.store.memory import MemoryEventStore
from manent.adapters.store.memory_work import MemoryFileContent
from manent.app.batches import BatchCases, build_batch_cases
from manent.app.http_services import http_services
from manent.app.settings import Settings
from manent.app.system import RandomIds, SystemClock
from manent.app.use_case_set import UseCases
from manent.app.usecases import build_use_cases
from manent.domain.access import LOCAL_OPERATOR, Principal, Scope
from manent.domain.files import FileContent
from manent.domain.health import Health
from manent.domain.limits import Limiter
from manent.domain.ports import Clock, EventStore
from manent.domain.records import EventFilter, LogEntry
from manent.domain.streams import StreamBuffer
from manent.domain.telemetry import NO_TELEMETRY, Telemetry
from manent.domain.usecases.manage_keys import ManageKeys
from tests.support.webhooks import memory_webhooks

Ready = Callable[[], Awaitable[Mapping[str, str]]]

USER = {"role": "user", "content": "hello"}
WAIT_S = 5.0
# httpx would otherwise load all of the world's certificates for each client.
NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


def client(subject: str, tenant: str = "t") -> Principal:
    """Somebody with the scopes of an ordinary client."""
    scopes = frozenset({Scope.CHAT, Scope.SESSIONS, Scope.MODELS_READ})
    return Principal(tenant=tenant, subject=subject, scopes=scopes)


async def no_problems() -> Mapping[str, str]:
    """The server is ready."""
    return {}


@dataclass(frozen=True, kw_only=True)
class Running:
    """A server that runs, and what is behind it."""

    port: int
    server: HttpServer
    app: App
    services: HttpServices
    engine: ScriptedEngine
    store: EventStore
    use_cases: UseCases
    batch_cases: BatchCases
    http: httpx.AsyncClient

    @property
    def address(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def tls_address(self) -> str:
        """Where it listens behind TLS."""
        return f"https://localhost:{self.port}"

    def openai(self) -> AsyncOpenAI:
        """The official client, pointed here."""
        return AsyncOpenAI(base_url=f"{self.address}/v1", api_key="any", max_retries=0, timeout=WAIT_S)

    async def chat(self, path: str = "/v1/chat/completions", **members: Any) -> httpx.Response:
        """Post a chat with defaults that work."""
        return await self.http.post(path, json={"model": "default", "messages": [USER], **members})

    async def log(self, type_name: str | None = None) -> list[LogEntry]:
        """The log, or its events of one type."""
        return await self.store.query(EventFilter(type=type_name), limit=1000)

    async def payload_of(self, type_name: str) -> dict[str, Any]:
        """The payload of the one event of a type, once it is there."""
        async with asyncio.timeout(WAIT_S):
            while not (found := await self.log(type_name)):  # noqa: ASYNC110 (the log sends no event)
                await asyncio.sleep(0.005)
        assert len(found) == 1
        payload: dict[str, Any] = json.loads(found[0].payload or b"null")
        return payload


@asynccontextmanager
async def running_server(
    script: Script | None = None,
    *,
    engine: ScriptedEngine | None = None,
    limits: HttpLimits | None = None,
    ready: Ready = no_problems,
    principal: Principal = LOCAL_OPERATOR,
    authenticate: Authenticate | None = None,
    keys: ManageKeys | None = None,
    session_wait_s: float = 0.05,
    store: EventStore | None = None,
    clock: Clock | None = None,
    fetcher: ImageFetcher | None = None,
    telemetry: Telemetry = NO_TELEMETRY,
    scrape: Scrape | None = None,
    streams: StreamBuffer | None = None,
    limiter: Limiter | None = None,
    content: FileContent | None = None,
    tls: ssl.SSLContext | None = None,
    **policy: str,
) -> AsyncGenerator[Running, None]:
    """Serve until the block ends."""
    clock, ids = clock or SystemClock(), RandomIds()
    store = store or MemoryEventStore(clock=clock, ids=ids)
    engine = engine or ScriptedEngine(script)
    settings = Settings(session_wait_s=session_wait_s, _env_file=None, **policy)  # type: ignore[arg-type]  # by name
    use_cases = build_use_cases(
        settings,
        store=store,
        engine=engine,
        clock=clock,
        ids=ids,
        limiter=limiter,
        streams=streams,
        telemetry=telemetry,
    )

    kept = store.work if isinstance(store, MemoryEventStore) else MemoryEventStore(clock=clock, ids=ids).work
    content = content or MemoryFileContent(kept, now_us=clock.now_us)
    batch_cases = build_batch_cases(settings, store, content, clock=clock, ids=ids)

    async def health() -> Health:
        return Health(problems=await ready())

    services = http_services(
        use_cases,
        files=batch_cases.files,
        batches=batch_cases.batches,
        ids=ids,
        images=CheckedImages(fetcher or ImageFetcher("data")),
        authenticate=authenticate or everybody_is(principal),
        keys=keys,
        health=health,
        version="0.0.0",
        webhooks=memory_webhooks(store, clock, ids),
        telemetry=telemetry,
        scrape=scrape,
    )
    listening = socket.create_server(("127.0.0.1", 0))
    app = create_app(services, limits or HttpLimits())
    server = HttpServer(app, listening, tls=tls)
    await server.start()
    port = listening.getsockname()[1]
    try:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=WAIT_S, verify=NO_TLS) as http:
            yield Running(
                port=port,
                server=server,
                app=app,
                services=services,
                engine=engine,
                store=store,
                use_cases=use_cases,
                batch_cases=batch_cases,
                http=http,
            )
    finally:
        use_cases.reruns.stop()
        await use_cases.live.drain(finish_s=0.0, close_s=1.0)
        await use_cases.reruns.drain(close_s=1.0)
        await server.close(0.2)


class RawConnection:
    """A socket that says exactly what a test wants, and breaks when it wants."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def send(self, data: bytes) -> None:
        """Send ``data``."""
        self._writer.write(data)
        await self._writer.drain()

    async def post_chat(self, **members: Any) -> None:
        """Send a whole chat request."""
        body = json.dumps({"model": "default", "messages": [USER], **members}).encode()
        head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: {len(body)}\r\n"
        await self.send(head.encode() + b"content-type: application/json\r\n\r\n" + body)

    async def read_until(self, mark: bytes) -> bytes:
        """Read until ``mark``."""
        async with asyncio.timeout(WAIT_S):
            return await self._reader.readuntil(mark)

    async def read_to_end(self) -> bytes:
        """Read until the server closes."""
        async with asyncio.timeout(WAIT_S):
            return await self._reader.read()

    async def read_answer(self) -> tuple[int, dict[str, str], Any]:
        """Read one answer with a JSON body: status, headers, body."""
        head = (await self.read_until(b"\r\n\r\n")).decode().split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:]) if name}
        async with asyncio.timeout(WAIT_S):
            body = await self._reader.readexactly(int(headers["content-length"]))
        return int(head[0].split(" ")[1]), headers, json.loads(body)

    async def read_some(self) -> bytes:
        """Read whatever is there."""
        async with asyncio.timeout(WAIT_S):
            return await self._reader.read(2**14)

    def half_close(self) -> None:
        """Say that nothing more will be sent."""
        self._writer.write_eof()

    def break_off(self) -> None:
        """Close at once, as a process that dies."""
        self._writer.transport.abort()


@asynccontextmanager
async def raw_connection(port: int, *, receive_buffer_bytes: int | None = None) -> AsyncGenerator[RawConnection, None]:
    """Connect; a small receive buffer makes a slow reader slow at once."""
    connection = socket.socket()
    if receive_buffer_bytes is not None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer_bytes)
    connection.setblocking(False)  # noqa: FBT003 (the socket's own API)
    await asyncio.get_running_loop().sock_connect(connection, ("127.0.0.1", port))
    reader, writer = await asyncio.open_connection(sock=connection, limit=2**14)
    try:
        yield RawConnection(reader, writer)
    finally:
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()


def sse_events(text: str) -> list[str]:
    """The data of each event of a stream, comments left out."""
    blocks = text.split("\n\n")
    assert blocks.pop() == ""
    fields = [line for block in blocks for line in block.split("\n")]
    return [field.removeprefix("data: ") for field in fields if field.startswith("data: ")]


def unchunked(answer: bytes) -> bytes:
    """The body of an answer in chunked encoding."""
    rest, body = answer.partition(b"\r\n\r\n")[2], b""
    while rest:
        size, _, rest = rest.partition(b"\r\n")
        length = int(size, 16)
        body, rest = body + rest[:length], rest[length + 2 :]
        if length == 0:
            break
    return body
