"""The one table of routes: what Sanic serves and what /openapi.json describes are both made from it."""

from __future__ import annotations

from collections.abc import Sequence

from manent.adapters.http import (
    chat_socket,
    docs,
    embeddings,
    event_stream,
    events,
    health,
    log,
    text,
)
from manent.adapters.http import wire_responses as answers
from manent.adapters.http.anthropic_routes import ANTHROPIC_ROUTES
from manent.adapters.http.audit_logs import AUDIT_ROUTE
from manent.adapters.http.chat_routes import CREATE_CHAT, RESUME_CHAT
from manent.adapters.http.embeddings import EMBEDDING_ERRORS
from manent.adapters.http.key_routes import KEY_ROUTES
from manent.adapters.http.metrics import METRICS_ROUTE
from manent.adapters.http.model_routes import MODEL_ROUTES
from manent.adapters.http.replay_routes import REPLAY_ROUTES
from manent.adapters.http.response_routes import RESPONSE_ROUTES
from manent.adapters.http.route import STORE_ERRORS, TEXT_ERRORS, Route
from manent.adapters.http.session_routes import SESSION_ROUTES
from manent.adapters.http.stored import STORED_ROUTES
from manent.adapters.http.webhook_routes import WEBHOOK_ROUTES
from manent.adapters.http.wire_embeddings import EmbeddingList, EmbeddingsRequest
from manent.adapters.http.wire_text import TextCompletion, TextCompletionChunk, TextRequest
from manent.domain.access import Scope

ROUTES: Sequence[Route] = (
    CREATE_CHAT,
    *STORED_ROUTES,
    Route(
        name="createCompletion",
        method="POST",
        path="/completions",
        handler=text.create_text_completion,
        summary="Continue prompts as they stand, without a chat template",
        tag="Chat",
        body=TextRequest,
        answer=TextCompletion,
        streams=TextCompletionChunk,
        takes=("Idempotency-Key",),
        errors=TEXT_ERRORS,
        scope=Scope.CHAT,
    ),
    RESUME_CHAT,
    Route(
        name="chatSocket",
        method="GET",
        path="/ws/chat",
        handler=chat_socket.chat_socket,
        summary="Chats over a WebSocket: the chunks of many streams on one connection",
        tag="Chat",
        status=101,
        errors=("upgrade_required", "invalid_value", "origin_not_allowed", "too_many_websockets", "shutting_down"),
        scope=Scope.CHAT,
    ),
    Route(
        name="createEmbeddings",
        method="POST",
        path="/embeddings",
        handler=embeddings.create_embeddings,
        scope=Scope.CHAT,
        summary="Turn texts into vectors",
        tag="Embeddings",
        body=EmbeddingsRequest,
        answer=EmbeddingList,
        errors=EMBEDDING_ERRORS,
    ),
    *RESPONSE_ROUTES,
    *ANTHROPIC_ROUTES,
    *MODEL_ROUTES,
    *SESSION_ROUTES,
    *REPLAY_ROUTES,
    *WEBHOOK_ROUTES,
    *KEY_ROUTES,
    Route(
        name="listEvents",
        method="GET",
        path="/events",
        handler=events.list_events,
        scope=Scope.EVENTS_READ,
        summary="Read the event log",
        tag="Log",
        answer=answers.EventList,
        query=events.EVENTS_QUERY,
        errors=("invalid_type", "invalid_value", "unknown_parameter", "permission_denied", *STORE_ERRORS),
    ),
    Route(
        name="streamEvents",
        method="GET",
        path="/events/stream",
        handler=event_stream.stream_events,
        scope=Scope.EVENTS_READ,
        summary="Follow the event log",
        tag="Log",
        content_type="text/event-stream",
        answer=answers.Event,
        query=event_stream.EVENT_STREAM_QUERY,
        errors=(
            "invalid_type",
            "invalid_value",
            "unknown_parameter",
            "permission_denied",
            "too_many_tails",
            "shutting_down",
            *STORE_ERRORS,
        ),
    ),
    Route(
        name="retrieveEvent",
        method="GET",
        path="/events/<position:str>",
        handler=events.retrieve_event,
        scope=Scope.EVENTS_READ,
        summary="Retrieve an event by its position",
        tag="Log",
        answer=answers.Event,
        errors=("unknown_parameter", "permission_denied", "event_not_found", *STORE_ERRORS),
    ),
    *(
        Route(
            name=name,
            method="GET",
            path=path,
            handler=handler,
            summary=summary,
            scope=Scope.AUDIT,
            tag="Log",
            answer=answer,
            query=query,
            errors=log.LOG_ERRORS,
        )
        for name, path, handler, summary, answer, query in log.LOG_ROUTES
    ),
    AUDIT_ROUTE,
    Route(
        name="live",
        method="GET",
        path="/health/live",
        alias="/api/v1/health/live",
        handler=health.live,
        summary="Whether the process answers",
        tag="Health",
        answer=answers.Live,
        under_v1=False,
        public=True,
    ),
    *(
        Route(
            name=name,
            method="GET",
            path=f"/health/{name}",
            alias=f"/api/v1/health/{name}",
            handler=handler,
            summary=summary,
            tag="Health",
            answer=answers.Ready,
            answer_503=answers.Ready,
            under_v1=False,
            public=True,
        )
        for name, handler, summary in (
            ("ready", health.ready, "Whether requests can be served; 503 names the problems"),
            ("startup", health.startup, "Whether the start is over: 503 until it was ready for the first time"),
        )
    ),
    METRICS_ROUTE,
    *(
        Route(
            name=name,
            method="GET",
            path=path,
            handler=handler,
            summary=summary,
            tag="Documentation",
            answer=answer,
            content_type=content_type,
            errors=("unknown_url", "internal_error") if "<" in path else ("internal_error",),
            under_v1=False,
            opened_by="docs",
        )
        for name, path, handler, summary, answer, content_type in (
            ("welcome", "/", health.welcome, "Where things are", answers.Welcome, "application/json"),
            ("openapi", "/openapi.json", docs.openapi, "This description", None, "application/json"),
            ("docs", "/docs", docs.page, "This description as a page", None, "text/html"),
            ("docsFile", "/docs/<name:str>", docs.file, "A file of that page", None, "*/*"),
        )
    ),
)
