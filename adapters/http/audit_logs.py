"""GET /v1/organization/audit_logs: the log in the words of OpenAI's administration API."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from sanic import HTTPResponse

from manent.adapters.http.answers import JSON_TYPE, bytes_answer
from manent.adapters.http.context import Exchange
from manent.adapters.http.errors import RequestRefused
from manent.adapters.http.query import FlagQuery, IntQuery, ListQuery, PairsQuery, QueryParameter, TextQuery
from manent.adapters.http.route import STORE_ERRORS, Route
from manent.adapters.http.wire_audit import AuditLogList
from manent.domain.access import Scope
from manent.domain.audit_log import MICROSECONDS, AuditEntry, AuditFilter, AuditType
from manent.domain.usecases.read_audit_log import LIMIT_MAX

ENTRY = re.compile(r"audit_log-([1-9][0-9]{0,17})", re.ASCII)
SECONDS = re.compile(r"[0-9]{1,12}", re.ASCII)
RANGE = ("gt", "gte", "lt", "lte")

AUDIT_QUERY: Sequence[QueryParameter] = (
    PairsQuery(name="effective_at", says="only entries of this range of Unix seconds: gt, gte, lt, lte"),
    ListQuery(
        name="event_types",
        says="only entries of these types; of OpenAI's types that are not recorded here there are none",
        pattern=r"[a-z_]{1,64}(\.[a-z_]{1,64}){1,4}",
    ),
    ListQuery(name="actor_ids", says="only what these subjects did"),
    ListQuery(name="actor_emails", says="only what subjects that are these addresses of mail did"),
    ListQuery(name="resource_ids", says="only what happened to these: keys, sessions, responses, completions"),
    ListQuery(name="project_ids", says="only entries of these tenants; one's own is the only one that is seen"),
    FlagQuery(name="tenant_only", says="only entries of OpenAI's tenants, of which there are none here"),
    TextQuery(name="after", says="id of the last entry of the page before: older ones follow"),
    TextQuery(name="before", says="id of the first entry of a page: newer ones, up to it"),
    IntQuery(name="limit", says="how many entries to return", minimum=1, maximum=LIMIT_MAX, default=20),
)


async def list_audit_logs(exchange: Exchange) -> HTTPResponse:
    """A page of entries, newest first."""
    query = exchange.query
    after, before = _position(query, "after"), _position(query, "before")
    wanted = _asked(query, tenant=exchange.principal.tenant)
    page = await exchange.services.audit_log.page(
        exchange.principal, wanted, after=after, before=before, limit=query["limit"]
    )
    entries = [_members(entry) for entry in page.entries]
    body = {
        "object": "list",
        "data": entries,
        "first_id": entries[0]["id"] if entries else None,
        "last_id": entries[-1]["id"] if entries else None,
        "has_more": page.has_more,
    }
    return bytes_answer(msgspec.json.encode(body), JSON_TYPE)


def _asked(query: Mapping[str, Any], *, tenant: str) -> AuditFilter:
    types = tuple(AuditType)
    if query["event_types"]:
        types = tuple(one for one in types if one.value in query["event_types"])
    if query["tenant_only"] or (query["project_ids"] and tenant not in query["project_ids"]):
        types = ()
    actors = [*query["actor_ids"], *query["actor_emails"]]
    if query["actor_ids"] and query["actor_emails"]:  # both must match
        actors = [one for one in query["actor_ids"] if one in query["actor_emails"]]
    filtered = bool(query["actor_ids"] or query["actor_emails"])
    since_us, until_us = _times(query["effective_at"])
    return AuditFilter(
        types=types,
        actors=actors if filtered else None,
        resources=query["resource_ids"] or None,
        since_us=since_us,
        until_us=until_us,
    )


def _times(given: Mapping[str, str]) -> tuple[int | None, int | None]:
    """The range in microseconds, inclusive: an entry's time is told in whole seconds, rounded down."""
    read: dict[str, int] = {}
    for name, value in given.items():
        param = f"effective_at[{name[:20]}]"
        if name not in RANGE:
            raise RequestRefused(
                "unknown_parameter", f"effective_at has {', '.join(RANGE)}, not {name[:20]!r}", param=param
            )
        if not SECONDS.fullmatch(value):
            raise RequestRefused("invalid_type", f"expected Unix seconds, but got {value[:80]!r}", param=param)
        read[name] = int(value)
    begins = [read["gte"]] if "gte" in read else []
    begins += [read["gt"] + 1] if "gt" in read else []
    ends = [read["lt"]] if "lt" in read else []
    ends += [read["lte"] + 1] if "lte" in read else []
    return (max(begins) * MICROSECONDS if begins else None), (min(ends) * MICROSECONDS - 1 if ends else None)


def _position(query: Mapping[str, Any], name: str) -> int | None:
    written: str | None = query[name]
    if written is None:
        return None
    match = ENTRY.fullmatch(written)
    if match is None:
        raise RequestRefused(
            "invalid_value", f"{name} is {written[:80]!r}; it must be the id of an entry, as audit_log-42", param=name
        )
    return int(match[1])


def _members(entry: AuditEntry) -> dict[str, Any]:
    return {
        "id": f"audit_log-{entry.position}",
        "object": "organization.audit_log",
        "type": entry.type.value,
        "effective_at": entry.at_us // MICROSECONDS,
        "project": {"id": entry.tenant, "name": entry.tenant},
        "actor": _actor(entry),
        entry.type.value: _details(entry),
    }


def _actor(entry: AuditEntry) -> dict[str, Any]:
    user = {"id": entry.actor, **({"email": entry.actor} if "@" in entry.actor else {})}
    return {"type": "session", "session": {"user": user, "ip_address": entry.address}}


def _details(entry: AuditEntry) -> dict[str, Any]:
    """What OpenAI tells of an entry's type; of a failed login also how often, and with what."""
    match entry.type:
        case AuditType.KEY_CREATED:
            return {"id": entry.resource_id, "data": {"scopes": _listed(entry)}}
        case AuditType.KEY_UPDATED:
            changes = {"scopes": _listed(entry), "expires_in_seconds": entry.expires_in_s}
            return {"id": entry.resource_id, "changes_requested": changes}
        case AuditType.LOGIN_FAILED:
            code, message = entry.error or (None, None)
            return {"error_code": code, "error_message": message, "credential": entry.resource_id, "count": entry.count}
        case _:
            return {"id": entry.resource_id}


def _listed(entry: AuditEntry) -> list[str] | None:
    return None if entry.scopes is None else list(entry.scopes)


AUDIT_ROUTE = Route(
    name="listAuditLogs",
    method="GET",
    path="/organization/audit_logs",
    handler=list_audit_logs,
    scope=Scope.AUDIT,
    summary="Read what happened to keys, logins and deletions, as OpenAI's administration API has it",
    tag="Log",
    answer=AuditLogList,
    query=AUDIT_QUERY,
    errors=("invalid_type", "invalid_value", "unknown_parameter", "permission_denied", "log_corrupt", *STORE_ERRORS),
)
