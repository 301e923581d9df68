"""Sessions over HTTP: start, look at, list, change, delete. Their messages are in ``session_messages.py``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sanic import HTTPResponse

from manent.adapters.http import wire_responses
from manent.adapters.http.answers import json_answer, session_headers
from manent.adapters.http.chat_command import read_session_request, session_command
from manent.adapters.http.conditions import etag_headers, expected_version, not_modified
from manent.adapters.http.context import Exchange
from manent.adapters.http.idempotency import idempotency_key
from manent.adapters.http.json_body import json_object, read_body
from manent.adapters.http.parameters import honored_update
from manent.adapters.http.query import IntQuery, PairsQuery, QueryParameter, TextQuery, TimeQuery
from manent.adapters.http.replay_moment import asked_moment
from manent.adapters.http.validation import validated
from manent.adapters.http.wire_requests import SessionUpdate
from manent.adapters.http.wire_responses import ForkOf, Session, SessionDeleted, SessionList
from manent.domain.errors import SessionNotFound
from manent.domain.session import SessionState, SessionStatus
from manent.domain.session_limits import SESSION_ID
from manent.domain.session_list import ListedSession
from manent.domain.session_upkeep import SessionChange
from manent.domain.usecases.list_sessions import SessionQuery
from manent.domain.usecases.manage_sessions import ChangeSession

STATUSES: Mapping[SessionStatus, wire_responses.SessionStatus] = {
    SessionStatus.OPEN: "open",
    SessionStatus.EXPIRED: "expired",
    SessionStatus.DELETED: "deleted",
}

SESSIONS_QUERY: Sequence[QueryParameter] = (
    PairsQuery(name="metadata", says="only sessions with this value, as metadata[key]=value; several must all match"),
    TextQuery(name="owner", says="only this subject's; without the scope audit or admin, one's own are all there is"),
    TextQuery(name="status", says="only these", choices=tuple(STATUSES.values()), default="open"),
    TimeQuery(name="created_after", says="only what was started at this time or later", counts_seconds=True),
    TimeQuery(name="created_before", says="only what was started before this time", counts_seconds=True),
    TextQuery(name="after", says="the id of the session that the page begins behind"),
    IntQuery(name="limit", says="how many sessions to return", minimum=1, maximum=100, default=20),
    TextQuery(name="order", says="asc begins with the oldest session", choices=("asc", "desc"), default="desc"),
)


async def create_session(exchange: Exchange) -> HTTPResponse:
    """Start a session; an empty body starts one with a new id and nothing in it."""
    asked = await read_body(
        exchange.request,
        lambda: read_session_request(
            json_object(exchange.request, may_be_empty=True), messages_max=exchange.limits.messages_max
        ),
    )
    state = await exchange.services.sessions.start(await session_command(asked, exchange))
    headers = {**session_headers(state.session_id), **etag_headers(state.version)}
    return json_answer(session_answer(state), status=201, headers=headers)


async def retrieve_session(exchange: Exchange, session_id: str) -> HTTPResponse:
    """A session as it stands, or as it stood."""
    principal, session_id, services = exchange.principal, possible_id(session_id), exchange.services
    if (moment := asked_moment(exchange.query)) is not None:
        state = await services.replays.recorded.replay.at(principal, session_id, moment)
    else:
        state = await services.sessions.get(principal, session_id)
    return not_modified(exchange, state.version) or _answer(state)


async def list_sessions(exchange: Exchange) -> HTTPResponse:
    """A page of sessions, the newest first unless asked otherwise."""
    query = exchange.query
    page = await exchange.services.session_list.page(
        exchange.principal,
        SessionQuery(
            status=SessionStatus(query["status"]),
            owner=query["owner"],
            metadata=query["metadata"],
            created_after_us=query["created_after"],
            created_before_us=query["created_before"],
            after=query["after"],
            limit=query["limit"],
            descending=query["order"] == "desc",
        ),
    )
    data = [_listed(session) for session in page.sessions]
    return json_answer(
        SessionList(
            data=data,
            first_id=data[0].id if data else None,
            last_id=data[-1].id if data else None,
            has_more=page.has_more,
        )
    )


async def update_session(exchange: Exchange, session_id: str) -> HTTPResponse:
    """Change a session's metadata and time to live."""
    asked = validated(SessionUpdate, honored_update(json_object(exchange.request)))
    state = await exchange.services.sessions.change(
        ChangeSession(
            principal=exchange.principal,
            session_id=possible_id(session_id),
            change=SessionChange(
                metadata=asked.metadata, ttl_s=asked.ttl_s, changes_ttl="ttl_s" in asked.model_fields_set
            ),
            expected=expected_version(exchange),
            request_id=exchange.request.request_id,
            idempotency=idempotency_key(exchange),
        )
    )
    return _answer(state)


async def delete_session(exchange: Exchange, session_id: str) -> HTTPResponse:
    """Close a session for good; what was recorded stays in the log."""
    await exchange.services.sessions.delete(
        exchange.principal,
        possible_id(session_id),
        request_id=exchange.request.request_id,
        expected=expected_version(exchange),
    )
    return json_answer(SessionDeleted(id=session_id))


def possible_id(session_id: str) -> str:
    """``session_id``, if any session could have it; nothing else ever reaches the store."""
    if not SESSION_ID.fullmatch(session_id):
        raise SessionNotFound(f"no session {session_id[:160]!r} was found")
    return session_id


def session_answer(state: SessionState) -> Session:
    """A session on the wire."""
    parent = state.parent
    return Session(
        id=state.session_id,
        created_at=state.started_at_us // 1_000_000,
        updated_at=state.changed_at_us // 1_000_000,
        status=STATUSES[state.status],
        owner=state.owner,
        metadata=dict(state.metadata),
        ttl_s=state.ttl_s,
        expires_at=_seconds(state.expires_at_us),
        parent=None if parent is None else ForkOf(session_id=parent.session_id, version=parent.version),
        version=state.version,
        message_count=len(state.messages),
    )


def _answer(state: SessionState) -> HTTPResponse:
    return json_answer(session_answer(state), headers=etag_headers(state.version))


def _listed(session: ListedSession) -> Session:
    parent = session.parent
    return Session(
        id=session.session_id,
        created_at=session.started_at_us // 1_000_000,
        updated_at=session.changed_at_us // 1_000_000,
        status=STATUSES[session.status],
        owner=session.owner,
        metadata=dict(session.metadata),
        ttl_s=session.ttl_s,
        expires_at=_seconds(session.expires_at_us),
        parent=None if parent is None else ForkOf(session_id=parent.session_id, version=parent.version),
        version=session.version,
        message_count=None,
    )


def _seconds(time_us: int | None) -> int | None:
    return None if time_us is None else time_us // 1_000_000
