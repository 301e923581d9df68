"""What clients get of the audit log, as pydantic models: the shape of OpenAI's administration API."""

from __future__ import annotations

from typing import Literal

from pydantic import ConfigDict, Field

from manent.adapters.http.wire_responses import Answer


class AuditUser(Answer):
    """A subject; one that is an address of mail is told as that too."""

    id: str
    email: str | None = None


class AuditSession(Answer):
    """Who did it and, of a failed login, from where."""

    user: AuditUser
    ip_address: str | None = None


class AuditActor(Answer):
    """Who did it."""

    type: Literal["session"] = "session"
    session: AuditSession


class AuditProject(Answer):
    """The tenant."""

    id: str
    name: str


class AuditLog(Answer):
    """An entry; its details stand under the name of its type."""

    model_config = ConfigDict(extra="allow")

    id: str
    object: Literal["organization.audit_log"] = "organization.audit_log"
    type: Literal["api_key.created", "api_key.updated", "api_key.deleted", "login.failed", "resource.deleted"]
    effective_at: int = Field(description="Unix seconds.")
    project: AuditProject
    actor: AuditActor


class AuditLogList(Answer):
    """A page of entries, newest first; ``last_id`` goes into ``after``."""

    object: Literal["list"] = "list"
    data: list[AuditLog]
    first_id: str | None
    last_id: str | None
    has_more: bool
