"""A server that asks who comes, with keys to come with."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from manent.adapters.auth.key_secrets import HmacKeySecrets
from manent.adapters.auth.secret_file import AccessSecret
from manent.adapters.auth.tokens import NodeTokens
from manent.adapters.http.context import HttpLimits
from manent.adapters.http.principal import identified_by
from manent.adapters.inference.scripted import ScriptedEngine
from manent.adapters.store.memory import MemoryEventStore
from manent.app.system import RandomIds, SystemClock
from manent.domain.access import Principal, Scope
from manent.domain.access_events import KeyGrant
from manent.domain.credentials import TokenVerifier
from manent.domain.login_guard import LoginGuard
from manent.domain.ports import EventStore
from manent.domain.usecases.identify import Anonymous, Identify
from manent.domain.usecases.key_table import KeyTable
from manent.domain.usecases.manage_keys import Issued, ManageKeys
from tests.support.fakes import FakeClock
from tests.support.http import Running, running_server

SECRET = AccessSecret(b"a secret of thirty-two bytes for tests")
CLIENT = (Scope.CHAT, Scope.SESSIONS, Scope.MODELS_READ)


def grant(subject: str, *scopes: Scope, tenant: str = "acme", **more: object) -> KeyGrant:
    """A grant with the scopes of an ordinary client, or others."""
    names = tuple(scope.value for scope in scopes or CLIENT)
    return KeyGrant(name=f"{subject}'s", tenant=tenant, subject=subject, scopes=names, **more)  # type: ignore[arg-type]  # as given


def admin(tenant: str = "acme") -> Principal:
    """Who makes keys of a tenant."""
    return Principal(tenant=tenant, subject="boss", scopes=frozenset({Scope.ADMIN}))


@dataclass(frozen=True, kw_only=True)
class Door:
    """What judges who comes, and makes the keys for it."""

    store: EventStore
    clock: FakeClock
    table: KeyTable
    keys: ManageKeys
    secrets: HmacKeySecrets
    nodes: NodeTokens
    identify: Identify

    async def key(self, subject: str, *scopes: Scope, tenant: str = "acme", **more: object) -> Issued:
        """A new key."""
        return await self.keys.create(admin(tenant), grant(subject, *scopes, tenant=tenant, **more))


def door(
    *,
    store: EventStore | None = None,
    clock: FakeClock | None = None,
    tokens: TokenVerifier | None = None,
    anonymous: Anonymous = Anonymous.AUTO,
    fresh_s: float = 0.0,
    secret: AccessSecret = SECRET,
    guard: LoginGuard | None = None,
) -> Door:
    """A door over an empty log, whose table of keys is caught up for each look."""
    clock = clock or FakeClock()
    store = store or MemoryEventStore(clock=clock, ids=RandomIds())
    secrets, table, nodes = HmacKeySecrets(secret), KeyTable(store, fresh_s=fresh_s), NodeTokens(secret, SystemClock())
    return Door(
        store=store,
        clock=clock,
        table=table,
        keys=ManageKeys(store=store, table=table, secrets=secrets, clock=clock, ids=RandomIds()),
        secrets=secrets,
        nodes=nodes,
        identify=Identify(
            keys=table,
            secrets=secrets,
            clock=clock,
            nodes=nodes,
            tokens=tokens,
            anonymous=anonymous,
            guard=guard,
        ),
    )


@asynccontextmanager
async def guarded_server(
    at: Door, *, engine: ScriptedEngine | None = None, limits: HttpLimits | None = None
) -> AsyncGenerator[Running, None]:
    """A server behind the door."""
    authenticate = identified_by(at.identify, store=at.store, clock=at.clock, ids=RandomIds())
    async with running_server(
        engine=engine, limits=limits, store=at.store, clock=at.clock, authenticate=authenticate, keys=at.keys
    ) as running:
        yield running


def bearer(secret: str) -> dict[str, str]:
    """The header that presents a credential."""
    return {"authorization": f"Bearer {secret}"}
