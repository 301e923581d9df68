"""Sanic's request, with an id of its own, a clock, and a body that must arrive whole, small enough and in time."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from time import perf_counter
from types import SimpleNamespace
from typing import Any, cast
from urllib.parse import urlsplit

from sanic import Request, Sanic
from sanic.config import Config
from sanic.http import Http

from manent.adapters.http.errors import RequestRefused
from manent.adapters.http.forwarded import Origin, TrustedProxies
from manent.adapters.http.streams import OpenStreams
from manent.adapters.http.strict_head import check_head
from manent.domain.limits import Level
from manent.domain.ports import Ids
from manent.domain.telemetry import NO_TELEMETRY, REQUEST, RequestEnded, RequestScope, Telemetry
from manent.domain.usecases.running import RunningCompletion

SAFE_ID = re.compile(r"[A-Za-z0-9._:@+=~/-]{1,128}")
TRACEPARENT = re.compile(
    r"(?!ff)[0-9a-f]{2}-(?P<trace_id>(?!0{32})[0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(-.*)?"
)
UNMATCHED = "unmatched"
CORRELATION_HEADERS = ("x-correlation-id", "x-session-id", "session_id")
# A client that sends too much reads the answer only after it has sent everything: so much more is read and dropped.
DRAIN_BYTES_MAX = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestContext:
    """What requests and connections need of their application; ``templates`` names Sanic's paths as the API does."""

    ids: Ids
    body_bytes_max: int
    body_timeout_s: float
    stall_timeout_s: float
    connections_max: int
    proxies: TrustedProxies
    streams: OpenStreams
    websockets: OpenStreams
    telemetry: Telemetry = NO_TELEMETRY
    templates: Mapping[str, str] = field(default_factory=dict)


App = Sanic[Config, SimpleNamespace]


class HttpRequest(Request):
    """A request to Manent."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._context: RequestContext = self.app.ctx.http
        self.started_s = perf_counter()
        self.is_stream = False
        self.error_code: str | None = None
        self.told_as: RequestScope | None = None
        self.levels: tuple[Level, ...] = ()
        self.completion: RunningCompletion | None = None
        self._request_id: str | None = None
        self._correlation_id: str | None = None
        self._is_correlated = False
        self._origin: Origin | None = None
        if self.head:  # there is none where Sanic makes up a request, to answer what was no request
            check_head(self.head)

    @property
    def request_id(self) -> str:
        """The client's ``X-Request-ID`` if it is 1 to 128 safe characters, else a new id."""
        if self._request_id is None:
            self._request_id = safe_id(self.headers.get("x-request-id")) or self._context.ids.new("req_")
        return self._request_id

    @property
    def correlation_id(self) -> str | None:
        """What the client calls the conversation that this request belongs to; recorded, and nothing else.

        Agents send ``session_id`` headers beside full histories: to make them stateful would corrupt both. Where there
        is no such name, the client's trace is one (W3C Trace Context).
        """
        if not self._is_correlated:
            self._is_correlated = True
            self._correlation_id = _correlation_id(self.headers)
        return self._correlation_id

    def begin(self) -> None:
        """Tell that the request arrived; what is done for it from now on is known as done for it."""
        parent = self.headers.get("traceparent")
        self.told_as = RequestScope(
            request_id=self.request_id,
            correlation_id=self.correlation_id,
            span=self._context.telemetry.request_began(parent),
            parent=parent,
        )
        REQUEST.set(self.told_as)

    def end(self, status: int, error: str | None) -> None:
        """Tell that it was answered, a stream to its end."""
        context = self._context
        context.telemetry.request_ended(
            RequestEnded(
                method=self.method,
                route=self.template,
                status=status,
                duration_s=perf_counter() - self.started_s,
                error=error,
                scope=self.told_as,
            )
        )

    @property
    def origin(self) -> Origin:
        """Where the request comes from, and the scheme and the Host that it was sent to."""
        if self._origin is None:
            transport = self._transport
            peer = None if transport is None else transport.get_extra_info("peername")
            secure = transport is not None and transport.get_extra_info("ssl_object") is not None
            self._origin = self._context.proxies.origin_of(
                peer[0] if isinstance(peer, tuple) else None,
                lambda name: self.headers.getall(name, []),
                scheme="https" if secure else "http",
                host=self._host,
            )
        return self._origin

    @property
    def told_levels(self) -> tuple[Level, ...]:
        """Where the limits stand that counted the request, and the completion that it asked for."""
        return self.levels if self.completion is None else self.levels + self.completion.reservation.levels

    @property
    def streams(self) -> OpenStreams:
        """The places for streams."""
        return self._context.streams

    @property
    def websockets(self) -> OpenStreams:
        """The places for WebSockets."""
        return self._context.websockets

    @property
    def is_upgrade(self) -> bool:
        """Whether it asks for a WebSocket in place of an answer (RFC 6455, 4.1)."""
        return any("websocket" in value.lower() for value in self.headers.getall("upgrade", []))

    @property
    def template(self) -> str:
        """The path of its route as the API names it."""
        return UNMATCHED if self.route is None else self._context.templates.get(self.uri_template or "", UNMATCHED)

    @property
    def elapsed_ms(self) -> float:
        """Milliseconds since the request's header was read."""
        return (perf_counter() - self.started_s) * 1000

    def watch_connection(self) -> None:
        """Have the client's disconnect noticed while the handler works.

        Sanic pauses reading when 64 KiB have gathered, so after a large body nobody would hear the connection close.
        """
        transport = self._transport
        if transport is not None and not transport.is_closing():
            transport.resume_reading()

    def close_after_answer(self) -> None:
        """Have the connection closed behind this answer."""
        if isinstance(self.stream, Http):
            self.stream.keep_alive = False

    def break_off(self) -> None:
        """Cut the connection: the client sees that an answer which has begun is not whole."""
        if self._transport is not None:
            self._transport.abort()

    async def receive_body(self) -> None:
        """Read the body; Sanic calls this before the handler, and its own timeouts do not cover a slow body.

        Raises:
            RequestRefused: it is too large, or did not arrive in time.
        """
        stream, bytes_max = self.stream, self._context.body_bytes_max
        if self.body or stream is None:
            return
        if isinstance(stream, Http) and _is_there(stream, bytes_max):
            self._check_coding()
            self.body = await stream.read() or b""
            if self.body:
                await stream.read()  # Sanic sees only now that this was all
            return
        timeout_s = self._context.body_timeout_s
        pieces: list[bytes] = []
        try:
            async with asyncio.timeout(timeout_s), aclosing(self._pieces(bytes_max)) as body:
                async for data in body:
                    pieces.append(data)  # noqa: PERF401 (a comprehension cannot be closed)
        except TimeoutError:
            raise self._late(f"the request's body did not arrive within {timeout_s:g} s") from None
        self.body = b"".join(pieces)

    async def body_pieces(self, bytes_max: int) -> AsyncGenerator[bytes, None]:
        """The body as it comes in, for routes that read it themselves; it may go on as long as it does not stop.

        Raises:
            RequestRefused: it is too large, known once all of it came; or nothing more came in time.
        """
        timeout_s = self._context.body_timeout_s
        async with aclosing(self._pieces(bytes_max)) as body:
            while True:
                try:
                    async with asyncio.timeout(timeout_s):
                        data = await anext(body, None)
                except TimeoutError:
                    raise self._late(f"nothing of the request's body arrived for {timeout_s:g} s") from None
                if data is None:
                    return
                yield data

    async def _pieces(self, bytes_max: int) -> AsyncGenerator[bytes, None]:
        """The body up to its bound, in pieces. What is beyond is read and dropped, so that the refusal is read."""
        self._check_coding()
        stream = self.stream
        if not isinstance(stream, Http):
            return
        if (stream.request_bytes or 0) > bytes_max and stream.expecting_continue:
            stream.expecting_continue = False  # the answer alone, without an invitation before it
            self.close_after_answer()
            raise _too_large(bytes_max)
        stream.request_max_size = bytes_max + DRAIN_BYTES_MAX
        size_bytes = 0
        async for data in stream:
            size_bytes += len(data)
            if max(size_bytes, stream.request_bytes or 0) <= bytes_max:
                yield data
        if size_bytes > bytes_max:
            self.close_after_answer()
            raise _too_large(bytes_max)

    def _check_coding(self) -> None:
        coding = self.headers.get("content-encoding")
        if coding not in {None, "", "identity"}:
            self.close_after_answer()
            raise RequestRefused(
                "unsupported_media_type", f"content-encoding {coding[:80]!r} is not supported; send the body as it is"
            )

    def _late(self, what: str) -> RequestRefused:
        self.close_after_answer()
        if isinstance(self.stream, Http):
            self.stream.request_body = None  # the rest is not waited for behind the answer either
        return RequestRefused("request_timeout", what)

    @property
    def _host(self) -> str:
        """The Host, or that of an address in absolute form, which goes before it (RFC 9112, 3.2.2)."""
        if self.raw_url.startswith(b"/"):
            return self.headers.get("host", "")
        return urlsplit(self.raw_url.decode("ascii", "replace")).netloc or self.headers.get("host", "")

    @property
    def _transport(self) -> asyncio.Transport | None:
        return cast("asyncio.Transport | None", self.transport)


def _correlation_id(headers: Mapping[str, str]) -> str | None:
    for name in CORRELATION_HEADERS:
        found = safe_id(headers.get(name))
        if found is not None:
            return found
    parent = headers.get("traceparent")
    traced = None if parent is None else TRACEPARENT.fullmatch(parent)
    return None if traced is None else traced["trace_id"]


def safe_id(value: str | None) -> str | None:
    """``value`` if it can stand in a header, an event and a log line."""
    return value if value is not None and SAFE_ID.fullmatch(value) else None


def _is_there(stream: Http, bytes_max: int) -> bool:
    """Whether the whole body has come with the header, as most do: then there is nothing to wait for or to refuse."""
    if cast("object", stream.request_body) is not True or stream.expecting_continue:
        return False
    return (stream.request_bytes_left or 0) <= min(len(stream.recv_buffer), bytes_max)


def _too_large(bytes_max: int) -> RequestRefused:
    return RequestRefused("request_too_large", f"the request's body is over the limit of {bytes_max} bytes")
