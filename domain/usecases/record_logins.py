"""Failed logins as events: gathered for a minute, so that whoever guesses cannot fill the log with it."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass

from manent.domain.access import LOCAL_OPERATOR
from manent.domain.access_errors import InvalidCredential
from manent.domain.access_events import LoginFailed, access_stream
from manent.domain.errors import StoreUnavailable
from manent.domain.login_guard import network_of
from manent.domain.ports import Clock, EventStore, Ids
from manent.domain.records import EventContext
from manent.domain.safe_errors import safe_name

WINDOW_S = 60.0
TOLD_APART_MAX = 16
"""How many kinds of failure of one window are told apart; all others are one event together."""
REASON_CHARS_MAX = 200
CLOSE_S = 1.0
SOMEBODY = "-"

_log = logging.getLogger("manent.access")


@dataclass(slots=True)
class _Failures:
    count: int
    began_at_us: int
    failed_at_us: int


@dataclass(frozen=True, slots=True)
class _Kind:
    tenant: str
    address: str | None
    credential: str
    reason: str


OTHERS = _Kind(LOCAL_OPERATOR.tenant, None, "unknown", "other failed logins of many addresses")


class RecordFailedLogins:
    """Gathers failures, and records what gathered: in the tenant of the key, where it was one, else in the default."""

    def __init__(self, *, store: EventStore, clock: Clock, ids: Ids) -> None:
        self._store = store
        self._clock = clock
        self._ids = ids
        self._gathered: dict[_Kind, _Failures] = {}

    def note(self, error: InvalidCredential, *, address: str) -> None:
        """Gather a failure."""
        tenant = error.tenant or LOCAL_OPERATOR.tenant
        kind = _Kind(tenant, network_of(address), error.known_as, error.message[:REASON_CHARS_MAX])
        if kind not in self._gathered and len(self._gathered) >= TOLD_APART_MAX:
            kind = OTHERS
        now_us = self._clock.now_us()
        failures = self._gathered.setdefault(kind, _Failures(0, now_us, now_us))
        failures.count += 1
        failures.failed_at_us = now_us

    async def record(self) -> None:
        """Record what gathered.

        Raises:
            StoreUnavailable: the rest could not be, and is kept for the next time.
        """
        for kind, failures in list(self._gathered.items()):
            del self._gathered[kind]
            try:
                await self._append(kind, failures)
            except StoreUnavailable:
                self._put_back(kind, failures)
                raise

    async def keep_recording(self) -> None:
        """Record once a window until cancelled, and then what is left."""
        try:
            while True:
                await self._clock.sleep(WINDOW_S)
                try:
                    await self.record()
                except StoreUnavailable as error:
                    _log.warning("failed logins are not recorded yet: %s", safe_name(error))
        finally:
            try:
                async with asyncio.timeout(CLOSE_S):
                    await self.record()
            except (StoreUnavailable, TimeoutError) as error:
                _log.warning("failed logins of the last minute were not recorded: %s", safe_name(error))

    def _put_back(self, kind: _Kind, failures: _Failures) -> None:
        """Gather ``failures`` again, with those of their kind that came meanwhile."""
        later = self._gathered.get(kind)
        if later is not None:
            failures.count += later.count
            failures.failed_at_us = later.failed_at_us
        self._gathered[kind] = failures

    async def _append(self, kind: _Kind, failures: _Failures) -> None:
        login_id = self._ids.new("login_")
        event = LoginFailed(
            login_id=login_id,
            address=kind.address,
            credential=kind.credential,
            reason=kind.reason,
            count=failures.count,
            began_at_us=failures.began_at_us,
            failed_at_us=failures.failed_at_us,
        )
        actor = kind.credential if kind.credential.startswith("key_") else SOMEBODY
        context = EventContext(tenant=kind.tenant, actor=actor)
        await self._store.append(access_stream(login_id), [event], expected_version=0, context=context)
