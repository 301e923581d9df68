"""Who asks, and what they may see. Ownership is decided here, never in a handler."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from manent.domain.errors import PermissionDenied
from manent.domain.limits import RequestLimits
from manent.domain.made_often import made_often


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


AUDITED = frozenset({Scope.CHAT, Scope.SESSIONS, Scope.EVENTS_READ, Scope.MODELS_READ})
"""What auditors read without the scope for it: conversations, the log, and the models that they name."""

SUFFICIENT = {scope: frozenset({scope, Scope.ADMIN}) for scope in Scope} | {
    Scope.MODELS_READ: frozenset({Scope.MODELS_READ, Scope.MODELS_MANAGE, Scope.ADMIN})
}
"""The scopes that are, or include, each: ``admin`` includes all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelAccess:
    """The models of a credential; names are ids or aliases, ``allowed`` None is every model.

    ``default`` is what ``default`` means for it; ``fallbacks`` are tried in their order where a model cannot be used.
    """

    allowed: tuple[str, ...] | None = None
    default: str | None = None
    fallbacks: tuple[str, ...] = ()


class Visit(Protocol):
    """One request, as what reads in its name needs it: it writes down what is read of others."""

    async def note(self, reader: Principal, *, resource: str, owner: str | None, count: int = 1) -> None:
        """Have it recorded, before anything is answered, that ``reader`` reads ``resource``: once for each.

        Raises:
            StoreUnavailable: it could not be recorded, so it must not be read.
        """
        ...


@made_often
@dataclass(frozen=True, slots=True, kw_only=True)
class Principal:
    """A tenant and a subject in it, with the scopes of the credential that was presented.

    ``credential_id`` names the credential, and never holds it; ``limits`` are its own, None where it has none.
    ``visit`` is the request by which it comes; None for who works on the database itself.
    """

    tenant: str
    subject: str
    scopes: frozenset[Scope] = frozenset()
    credential_id: str | None = None
    limits: RequestLimits | None = None
    models: ModelAccess = ModelAccess()
    visit: Visit | None = field(default=None, compare=False, repr=False)


def has_scope(principal: Principal, scope: Scope) -> bool:
    """Whether ``principal`` has ``scope``, or one that includes it."""
    return not principal.scopes.isdisjoint(SUFFICIENT[scope])


def check_entry(principal: Principal, scope: Scope | None, *, reads: bool) -> None:
    """Raise unless ``principal`` may come to where ``scope`` is needed; ``reads`` where nothing is changed there.

    Raises:
        PermissionDenied: it has not the scope.
    """
    if scope is None or has_scope(principal, scope):
        return
    if reads and scope in AUDITED and Scope.AUDIT in principal.scopes:
        return
    raise PermissionDenied(f"this needs the scope {scope.value!r}, which the credential does not have")


def may_use(principal: Principal, *, tenant: str, owner: str) -> bool:
    """Whether ``principal`` may converse in, change or delete what ``owner`` started: only the owner may."""
    return principal.tenant == tenant and principal.subject == owner


def may_read(principal: Principal, *, tenant: str, owner: str) -> bool:
    """Whether ``principal`` may read it: the owner, and auditors and administrators of the same tenant."""
    return may_use(principal, tenant=tenant, owner=owner) or may_audit(principal, tenant=tenant)


def may_audit(principal: Principal, *, tenant: str) -> bool:
    """Whether ``principal`` may read what its owner closed: auditors and administrators of the tenant."""
    return principal.tenant == tenant and has_scope(principal, Scope.AUDIT)


def may_manage_models(principal: Principal) -> bool:
    """Whether ``principal`` may load, unload and pin models: administrators, and those with the scope for it."""
    return has_scope(principal, Scope.MODELS_MANAGE)


async def note_reading(principal: Principal, *, resource: str, owner: str | None, count: int = 1) -> None:
    """Have it recorded that ``principal`` reads ``resource`` of ``owner`` (None: of several), unless it is its own.

    Raises:
        StoreUnavailable: it could not be recorded, so it must not be read.
    """
    if principal.visit is not None and owner != principal.subject:
        await principal.visit.note(principal, resource=resource, owner=owner, count=count)


def one_owner(owners: Iterable[str]) -> str | None:
    """The one of ``owners``, or None where they are several."""
    found = set(owners)
    return found.pop() if len(found) == 1 else None


# Whoever can read the data folder; also everybody who reaches the server, as long as there are no keys.
LOCAL_OPERATOR = Principal(tenant="default", subject="local", scopes=frozenset(Scope))
