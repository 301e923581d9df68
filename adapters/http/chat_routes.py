"""The routes of chats: what POST /v1/chat/completions and its resumption are, also where they come over a WebSocket."""

from __future__ import annotations

from manent.adapters.http import chat, chat_resume, wire_completions
from manent.adapters.http.route import CHAT_ERRORS, RESUME_ERRORS, Route
from manent.adapters.http.wire_requests import ChatRequest
from manent.domain.access import Scope

CREATE_CHAT = Route(
    name="createChatCompletion",
    method="POST",
    path="/chat/completions",
    handler=chat.create_chat_completion,
    scope=Scope.CHAT,
    summary="Answer a conversation",
    tag="Chat",
    body=ChatRequest,
    answer=wire_completions.ChatCompletion,
    streams=wire_completions.ChatCompletionChunk,
    takes=("Idempotency-Key", "If-Match"),
    errors=CHAT_ERRORS,
)

RESUME_CHAT = Route(
    name="resumeChatCompletion",
    method="GET",
    path="/chat/completions/<completion_id:str>/stream",
    handler=chat_resume.resume_chat_completion,
    summary="Go on with a streamed completion",
    tag="Chat",
    content_type="text/event-stream",
    answer=wire_completions.ChatCompletionChunk,
    query=chat_resume.RESUME_QUERY,
    takes=("Last-Event-ID",),
    errors=RESUME_ERRORS,
    scope=Scope.CHAT,
)
