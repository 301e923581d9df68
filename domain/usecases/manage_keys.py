"""Making, looking at, changing, rotating and revoking API keys; each change is an event."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace

from manent.domain.access import Principal
from manent.domain.access_errors import KeyNotFound
from manent.domain.access_events import KeyCreated, KeyEvent, KeyGrant, access_stream
from manent.domain.access_keys import (
    US_PER_S,
    KeyState,
    KeyStatus,
    check_grant,
    check_may_manage,
    decide_change,
    decide_revoke,
    decide_rotate,
    evolve_key,
)
from manent.domain.credentials import KeySecrets, NewSecret
from manent.domain.errors import InvalidValue, StoreUnavailable, VersionConflict
from manent.domain.ports import Clock, EventStore, Ids
from manent.domain.records import EventContext
from manent.domain.usecases.key_table import KEYS_CORRELATION, KeyTable

KEY_ID_PREFIX = "key_"
ACTIVE_KEYS_MAX = 10_000
ATTEMPTS_MAX = 8
OVERLAP_S = 24 * 3600
"""How long the secret before a rotation holds, unless it is said."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Issued:
    """A key with its secret, which is told this once."""

    key: KeyState
    secret: NewSecret = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class RotateKey:
    """A wish for a new secret; ``expires_in_s`` counts from now, None leaves the key's end as it is."""

    overlap_s: int = OVERLAP_S
    expires_in_s: int | None = None


class ManageKeys:
    """What administrators do with the keys of their tenant."""

    def __init__(self, *, store: EventStore, table: KeyTable, secrets: KeySecrets, clock: Clock, ids: Ids) -> None:
        self._store = store
        self._table = table
        self._secrets = secrets
        self._clock = clock
        self._ids = ids

    def now_us(self) -> int:
        """The moment against which a key's end is compared."""
        return self._clock.now_us()

    async def create(self, by: Principal, grant: KeyGrant, *, request_id: str | None = None) -> Issued:
        """Make a key.

        Raises:
            PermissionDenied: ``by`` is no administrator.
            InvalidValue: no key may be for this grant, it is another tenant's, or the tenant has too many.
        """
        check_may_manage(by, by.tenant)
        if grant.tenant != by.tenant:
            raise InvalidValue("keys of other tenants are made with `manent keys create` on the server", param="tenant")
        now_us = self._clock.now_us()
        check_grant(grant, now_us=now_us)
        active = [key for key in await self.list(by) if key.status(now_us) is KeyStatus.ACTIVE]
        if len(active) >= ACTIVE_KEYS_MAX:
            raise InvalidValue(f"the tenant has {len(active)} keys that hold; revoke some first")
        secret = self._secrets.new()
        event = KeyCreated(
            key_id=self._ids.new(KEY_ID_PREFIX),
            grant=grant,
            secret=secret.kept,
            created_by=by.subject,
            created_at_us=now_us,
        )
        state = await self._record(None, [event], by=by, request_id=request_id)
        return Issued(key=state, secret=secret)

    async def list(self, by: Principal) -> list[KeyState]:
        """The keys of the tenant, in the order in which they were made.

        Raises:
            PermissionDenied: ``by`` is no administrator.
        """
        check_may_manage(by, by.tenant)
        return [key for key in await self._table.all() if key.grant.tenant == by.tenant]

    async def get(self, by: Principal, key_id: str) -> KeyState:
        """A key.

        Raises:
            PermissionDenied: ``by`` is no administrator.
            KeyNotFound: there is none with this id in the tenant.
        """
        check_may_manage(by, by.tenant)
        state = await self._table.get(key_id)
        if state is None or state.grant.tenant != by.tenant:
            raise KeyNotFound(f"there is no key {key_id[:80]!r}")
        return state

    async def change(
        self, by: Principal, key_id: str, change: Callable[[KeyGrant], KeyGrant], *, request_id: str | None = None
    ) -> KeyState:
        """Give a key what ``change`` makes of its grant; tenant and subject stay.

        Raises:
            PermissionDenied, KeyNotFound: as ``get``.
            KeyIsRevoked, InvalidValue: it cannot be changed so.
        """

        def decide(state: KeyState) -> Sequence[KeyEvent]:
            grant = replace(change(state.grant), tenant=state.grant.tenant, subject=state.grant.subject)
            return decide_change(state, grant, by=by, now_us=self._clock.now_us())

        return await self._decide_and_record(by, key_id, decide, request_id=request_id)

    async def rotate(self, by: Principal, key_id: str, wish: RotateKey, *, request_id: str | None = None) -> Issued:
        """Give a key a new secret; the one before holds for the overlap.

        Raises:
            PermissionDenied, KeyNotFound: as ``get``.
            KeyIsRevoked, InvalidValue: it cannot be rotated so.
        """
        secret = self._secrets.new()

        def decide(state: KeyState) -> Sequence[KeyEvent]:
            now_us = self._clock.now_us()
            expires_at_us = state.grant.expires_at_us
            if wish.expires_in_s is not None:
                expires_at_us = now_us + wish.expires_in_s * US_PER_S
            return decide_rotate(
                state, secret.kept, overlap_s=wish.overlap_s, expires_at_us=expires_at_us, by=by, now_us=now_us
            )

        return Issued(key=await self._decide_and_record(by, key_id, decide, request_id=request_id), secret=secret)

    async def revoke(
        self, by: Principal, key_id: str, *, reason: str | None = None, request_id: str | None = None
    ) -> KeyState:
        """End a key for good; one that was ended before is as it was.

        Raises:
            PermissionDenied, KeyNotFound: as ``get``.
        """

        def decide(state: KeyState) -> Sequence[KeyEvent]:
            return decide_revoke(state, reason, by=by, now_us=self._clock.now_us())

        return await self._decide_and_record(by, key_id, decide, request_id=request_id)

    async def _decide_and_record(
        self,
        by: Principal,
        key_id: str,
        decide: Callable[[KeyState], Sequence[KeyEvent]],
        *,
        request_id: str | None,
    ) -> KeyState:
        for _ in range(ATTEMPTS_MAX):
            state = await self.get(by, key_id)
            events = decide(state)
            if not events:
                return state
            try:
                return await self._record(state, events, by=by, request_id=request_id)
            except VersionConflict:
                continue
        raise VersionConflict(f"key {key_id!r} changed {ATTEMPTS_MAX} times while it was written to")

    async def _record(
        self, state: KeyState | None, events: Sequence[KeyEvent], *, by: Principal, request_id: str | None
    ) -> KeyState:
        after = state
        for event in events:
            after = evolve_key(after, event)
        if after is None:
            raise KeyNotFound("there is no such key")
        context = EventContext(
            tenant=by.tenant, actor=by.subject, request_id=request_id, correlation_id=KEYS_CORRELATION
        )
        await self._store.append(
            access_stream(after.key_id),
            events,
            expected_version=0 if state is None else state.version,
            context=context,
        )
        with suppress(StoreUnavailable):  # what is recorded holds, and here as soon as the database answers again
            await self._table.get(after.key_id)
        return after
