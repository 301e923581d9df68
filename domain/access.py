"""Who asks, and what they may see. Ownership is decided here, never in a handler."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from manent.domain.limits import RequestLimits


class Scope(StrEnum):
    """What a credential allows; conversations are its owner's in any case, whatever the scopes."""

    CHAT = "chat"
    SESSIONS = "sessions"
    MODELS_READ = "models:read"
    MODELS_MANAGE = "models:manage"
    EVENTS_READ = "events:read"
    AUDIT = "audit"
    METRICS_READ = "metrics:read"
    ADMIN = "admin"


@dataclass(frozen=True, slots=True, kw_only=True)
class Principal:
    """A tenant and a subject in it, with the scopes of the credential that was presented.

    ``credential_id`` names the credential, and never holds it; ``limits`` are its own, None where it has none.
    """

    tenant: str
    subject: str
    scopes: frozenset[Scope] = frozenset()
    credential_id: str | None = None
    limits: RequestLimits | None = None


def may_use(principal: Principal, *, tenant: str, owner: str) -> bool:
    """Whether ``principal`` may converse in, change or delete what ``owner`` started: only the owner may."""
    return principal.tenant == tenant and principal.subject == owner


def may_read(principal: Principal, *, tenant: str, owner: str) -> bool:
    """Whether ``principal`` may read it: the owner, and auditors and administrators of the same tenant."""
    if principal.tenant != tenant:
        return False
    return principal.subject == owner or bool(principal.scopes & {Scope.AUDIT, Scope.ADMIN})


def may_audit(principal: Principal, *, tenant: str) -> bool:
    """Whether ``principal`` may read what its owner closed: auditors and administrators of the tenant."""
    return principal.tenant == tenant and bool(principal.scopes & {Scope.AUDIT, Scope.ADMIN})


def may_manage_models(principal: Principal) -> bool:
    """Whether ``principal`` may load, unload and pin models: administrators, and those with the scope for it."""
    return bool(principal.scopes & {Scope.MODELS_MANAGE, Scope.ADMIN})


# Whoever can read the data folder; also everybody who reaches the server, as long as there are no keys.
LOCAL_OPERATOR = Principal(tenant="default", subject="local", scopes=frozenset(Scope))
