"""The routes of sessions, a part of the one table."""

from __future__ import annotations

from collections.abc import Sequence

from manent.adapters.http import session_messages as messages
from manent.adapters.http import sessions
from manent.adapters.http import wire_responses as answers
from manent.adapters.http.replay_moment import AS_OF_QUERY
from manent.adapters.http.route import BODY_ERRORS, BODY_LIMITS, SESSION_ERRORS, STORE_ERRORS, Route
from manent.adapters.http.wire_requests import ChatMessage, SessionRequest, SessionUpdate
from manent.domain.access import Scope

QUERY_ERRORS = ("invalid_type", "invalid_value", "unknown_parameter")
READ_ERRORS = ("invalid_value", "unknown_parameter", "session_not_found", "session_expired", *STORE_ERRORS)
WRITE_ERRORS = (*BODY_ERRORS, *BODY_LIMITS, *STORE_ERRORS, "idempotency_conflict", "event_too_large")
SESSION = "/sessions/<session_id:str>"

SESSION_ROUTES: Sequence[Route] = (
    Route(
        name="createSession",
        method="POST",
        path="/sessions",
        handler=sessions.create_session,
        scope=Scope.SESSIONS,
        summary="Start a session",
        tag="Sessions",
        body=SessionRequest,
        body_required=False,
        answer=answers.Session,
        status=201,
        takes=("Idempotency-Key",),
        etag=True,
        errors=(*WRITE_ERRORS, "unsupported_parameter", "session_already_exists"),
    ),
    Route(
        name="listSessions",
        method="GET",
        path="/sessions",
        handler=sessions.list_sessions,
        scope=Scope.SESSIONS,
        summary="List sessions",
        tag="Sessions",
        answer=answers.SessionList,
        query=sessions.SESSIONS_QUERY,
        errors=(*QUERY_ERRORS, "permission_denied", *STORE_ERRORS),
    ),
    Route(
        name="retrieveSession",
        method="GET",
        path=SESSION,
        handler=sessions.retrieve_session,
        scope=Scope.SESSIONS,
        summary="Retrieve a session as it stands, or as it stood",
        tag="Sessions",
        answer=answers.Session,
        query=AS_OF_QUERY,
        takes=("If-None-Match",),
        etag=True,
        errors=("invalid_type", *READ_ERRORS),
    ),
    Route(
        name="updateSession",
        method="POST",
        path=SESSION,
        handler=sessions.update_session,
        scope=Scope.SESSIONS,
        summary="Change a session's metadata and time to live",
        tag="Sessions",
        body=SessionUpdate,
        answer=answers.Session,
        takes=("Idempotency-Key", "If-Match"),
        etag=True,
        errors=(*WRITE_ERRORS, "session_not_found", "session_closed", "session_expired", "precondition_failed"),
    ),
    Route(
        name="deleteSession",
        method="DELETE",
        path=SESSION,
        handler=sessions.delete_session,
        scope=Scope.SESSIONS,
        summary="Close a session for good",
        tag="Sessions",
        answer=answers.SessionDeleted,
        takes=("If-Match",),
        errors=("invalid_value", "unknown_parameter", *SESSION_ERRORS, "precondition_failed", *STORE_ERRORS),
    ),
    Route(
        name="createSessionMessage",
        method="POST",
        path=f"{SESSION}/messages",
        handler=messages.create_session_message,
        scope=Scope.SESSIONS,
        summary="Add a message to a session, without an answer",
        tag="Sessions",
        body=ChatMessage,
        answer=answers.SessionMessage,
        status=201,
        takes=("Idempotency-Key", "If-Match"),
        etag=True,
        errors=(*WRITE_ERRORS, "unsupported_parameter", *SESSION_ERRORS, "precondition_failed"),
    ),
    Route(
        name="listSessionMessages",
        method="GET",
        path=f"{SESSION}/messages",
        handler=messages.list_session_messages,
        scope=Scope.SESSIONS,
        summary="List the messages of a session",
        tag="Sessions",
        answer=answers.SessionMessageList,
        query=messages.MESSAGES_QUERY,
        takes=("If-None-Match",),
        etag=True,
        errors=("invalid_type", *READ_ERRORS),
    ),
    Route(
        name="retrieveSessionMessage",
        method="GET",
        path=f"{SESSION}/messages/<message_id:str>",
        handler=messages.retrieve_session_message,
        scope=Scope.SESSIONS,
        summary="Retrieve a message of a session",
        tag="Sessions",
        answer=answers.SessionMessage,
        takes=("If-None-Match",),
        etag=True,
        errors=(*READ_ERRORS, "message_not_found"),
    ),
)
