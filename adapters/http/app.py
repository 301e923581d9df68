"""The Sanic application: every route of the table, wrapped the same way; every answer with its id and its time."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, cast
from urllib.parse import unquote

from sanic import HTTPResponse, Request, Sanic
from sanic.config import Config
from sanic.response import BaseHTTPResponse

from manent.adapters.http.allowed import AllowedMethods
from manent.adapters.http.context import Documents, Exchange, HttpLimits, HttpServices
from manent.adapters.http.error_handler import JsonErrorHandler
from manent.adapters.http.front_door import admit, front_headers, preflight
from manent.adapters.http.middleware import passed
from manent.adapters.http.openapi import build_documents
from manent.adapters.http.query import read_query
from manent.adapters.http.request import App, HttpRequest, RequestContext
from manent.adapters.http.request_log import log_request
from manent.adapters.http.route import Route, openapi_path
from manent.adapters.http.routes import ROUTES
from manent.adapters.http.streams import WEBSOCKETS, OpenStreams
from manent.domain.access import check_entry

# Sanic counts the silence of a handler against this: a long generation is no fault. What a handler may wait for is
# bounded where it waits: turns, queues, max_tokens, body_timeout_s, stall_timeout_s.
RESPONSE_TIMEOUT_S = 7 * 24 * 3600

# What OpenAI calls the only version of its API that there has been.
OPENAI_VERSION = "2020-10-01"

SWITCHED = 101

NO_DOCUMENTS = Documents(openapi=b"", openapi_3_0=b"")

SanicHandler = Callable[..., Coroutine[Any, Any, HTTPResponse | None]]


def create_app(services: HttpServices, limits: HttpLimits, routes: Sequence[Route] = ROUTES) -> App:
    """An application that serves ``routes`` with ``services``; several may live in one process."""
    app: App = Sanic(
        f"manent-{uuid.uuid4().hex}",
        config=_config(limits),
        request_class=HttpRequest,
        error_handler=JsonErrorHandler(AllowedMethods(ROUTES)),
        configure_logging=False,
    )
    app.ctx.http = RequestContext(
        ids=services.ids,
        body_bytes_max=limits.body_bytes_max,
        body_timeout_s=limits.body_timeout_s,
        stall_timeout_s=limits.stall_timeout_s,
        telemetry=services.telemetry,
        templates={path: openapi_path(route.paths[0]) for route in routes for path in route.paths},
        connections_max=limits.connections_max,
        proxies=limits.proxies,
        streams=OpenStreams(limits.streams_max),
        websockets=OpenStreams(limits.websockets_max, WEBSOCKETS),
    )
    documents = build_documents(services.version) if routes is ROUTES else NO_DOCUMENTS
    for route in routes:
        handler = _wrapped(route, services, limits, documents)
        for index, path in enumerate(route.paths):
            name = f"{route.name}Alias" if index else route.name
            # Without a format Sanic reads each handler's source to guess one; none of its own pages is ever sent.
            app.route(path, methods=[route.method], name=name, error_format="json", stream=route.reads_body)(handler)
    if limits.origins:
        app.register_middleware(preflight(limits), "request")
    app.register_middleware(_finisher(limits), "response")
    return app


def _config(limits: HttpLimits) -> Config:
    """Sanic's settings; nothing of the environment gets in."""
    config = Config(env_prefix=None)
    config.update(
        {
            "ACCESS_LOG": False,
            "AUTO_EXTEND": False,
            "MOTD": False,
            "KEEP_ALIVE_TIMEOUT": limits.keep_alive_timeout_s,
            "REQUEST_MAX_HEADER_SIZE": limits.header_bytes_max,
            "REQUEST_MAX_SIZE": max(limits.body_bytes_max, limits.header_bytes_max),
            "REQUEST_TIMEOUT": limits.header_timeout_s,
            "RESPONSE_TIMEOUT": RESPONSE_TIMEOUT_S,
        }
    )
    return config


def _wrapped(route: Route, services: HttpServices, limits: HttpLimits, documents: Documents) -> SanicHandler:
    """The handler of ``route`` with everything around it that no route may forget."""
    public, reads = route.is_open(limits.public), route.reads

    async def handle(request: Request, **path: str) -> HTTPResponse | None:
        sent = cast("HttpRequest", request)
        sent.begin()
        principal = await admit(sent, services, limits, public=public)
        check_entry(principal, route.scope, reads=reads)
        query = read_query(request.query_string, route.query) if route.under_v1 else {}
        exchange = Exchange(
            request=sent,
            principal=principal,
            services=services,
            limits=limits,
            documents=documents,
            query=query,
        )
        # Sanic would decode some kinds of placeholders and leave others, such as the ids of models, as they came.
        names = {name: unquote(value) for name, value in path.items()} if path else path
        return await passed(route, exchange, lambda: route.handler(exchange, **names))

    if route.status == SWITCHED:
        vars(handle)["is_websocket"] = True  # what Sanic asks, not to miss an answer
    return handle


def _finisher(limits: HttpLimits) -> Callable[[Request, BaseHTTPResponse], None]:
    def finish(request: Request, response: BaseHTTPResponse) -> None:
        """Put on an answer what all have; this runs for every one, also for those that Sanic itself refuses."""
        if not isinstance(request, HttpRequest):
            return
        response.headers["x-request-id"] = request.request_id
        response.headers["openai-version"] = OPENAI_VERSION
        response.headers["openai-processing-ms"] = str(max(1, round(request.elapsed_ms)))
        front_headers(request, response.headers, limits)
        if not request.is_stream:
            log_request(request, response.status)

    return finish
