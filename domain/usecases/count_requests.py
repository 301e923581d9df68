"""Requests and tokens counted against the limits of whoever asks: which limits those are, and what a request costs."""

from __future__ import annotations

import ipaddress
from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from dataclasses import dataclass, fields
from functools import lru_cache

from manent.domain.access import Principal
from manent.domain.limits import (
    HOUR_S,
    MINUTE_S,
    NO_LIMITS,
    Charge,
    Level,
    Limit,
    LimitedBy,
    Limiter,
    Measure,
    RateLimited,
    RequestLimits,
)
from manent.domain.messages import Message
from manent.domain.ports import Ids
from manent.domain.telemetry import NO_TELEMETRY, Telemetry

BYTES_PER_TOKEN = 4
MESSAGE_TOKENS = 4
IMAGE_TOKENS = 256
CALLERS_MAX = 4096
IPV6_SUBSCRIBER_BITS = 64
"""Whoever has one address of IPv6 has 2**64 of them: they count as one."""

_RATES = (
    ("requests_per_minute", Measure.REQUESTS, MINUTE_S),
    ("requests_per_hour", Measure.REQUESTS, HOUR_S),
    ("tokens_per_minute", Measure.TOKENS, MINUTE_S),
    ("tokens_per_hour", Measure.TOKENS, HOUR_S),
    ("running_max", Measure.RUNNING, 0),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitPolicy:
    """The limits of everybody; a credential's own go before those per key, one by one."""

    per_key: RequestLimits = NO_LIMITS
    per_subject: RequestLimits = NO_LIMITS
    per_model: RequestLimits = NO_LIMITS
    per_address: RequestLimits = NO_LIMITS


@dataclass(slots=True)
class Reservation:
    """Tokens that a completion has taken beforehand; ``used_tokens`` is set to what it really took."""

    tokens: int
    levels: tuple[Level, ...] = ()
    used_tokens: int = 0


class CountRequests:
    """Refuses what is beyond a limit, and corrects what was reserved once it is known."""

    def __init__(self, limiter: Limiter, policy: LimitPolicy, ids: Ids, telemetry: Telemetry = NO_TELEMETRY) -> None:
        self._limiter = limiter
        self._policy = policy
        self._ids = ids
        self._telemetry = telemetry
        # Whoever asks once asks again: what counts for them is found once.
        self._known_limits = lru_cache(maxsize=CALLERS_MAX)(self._find_limits)
        self._is_limited = policy != LimitPolicy()

    async def request(self, principal: Principal | None, address: str | None) -> tuple[Level, ...]:
        """Count a request of ``principal``, who is None where nobody was recognized, from ``address``.

        Raises:
            RateLimited: there were too many.
        """
        limits = self._limits(principal, address, None)
        return await self._take([Charge(limit) for limit in limits if limit.measure is Measure.REQUESTS])

    def completion(
        self,
        reservation: Reservation,
        *,
        principal: Principal,
        address: str | None,
        model_id: str,
        enforced: bool = True,
    ) -> AbstractAsyncContextManager[None]:
        """Count a completion for as long as the context lasts: its tokens before, and what they really were after.

        Raises:
            RateLimited: on entering, when there is no room for it.
        """
        charges = []
        for limit in self._limits(principal, address, model_id):
            if limit.measure is Measure.TOKENS:
                charges.append(Charge(limit, min(reservation.tokens, limit.amount)))
            elif limit.measure is Measure.RUNNING or limit.by is LimitedBy.MODEL:
                charges.append(Charge(limit))
        return self._counted(reservation, charges, enforced=enforced) if charges else nullcontext()

    @asynccontextmanager
    async def _counted(
        self, reservation: Reservation, charges: Sequence[Charge], *, enforced: bool
    ) -> AsyncGenerator[None, None]:
        lease = self._ids.new("lease_")
        try:
            reservation.levels = await self._take(charges, lease=lease, enforced=enforced)
        except RateLimited as refused:
            reservation.levels = refused.levels
            raise
        try:
            yield
        finally:
            used = reservation.used_tokens
            tokens = [charge for charge in charges if charge.limit.measure is Measure.TOKENS]
            corrections = [Charge(charge.limit, used - charge.cost) for charge in tokens]
            await self._limiter.settle(corrections, lease=lease)

    async def _take(self, charges: Sequence[Charge], *, lease: str = "", enforced: bool = True) -> tuple[Level, ...]:
        if not charges:
            return ()
        taken = await self._limiter.take(charges, lease=lease, enforced=enforced)
        if not taken.allowed:
            refused = RateLimited(taken.levels)
            self._telemetry.limited(f"{refused.limit.by} {refused.limit.measure}")
            raise refused
        return taken.levels

    def _limits(self, principal: Principal | None, address: str | None, model_id: str | None) -> tuple[Limit, ...]:
        if not self._is_limited and (principal is None or principal.limits is None):
            return ()
        return self._known_limits(principal, address, model_id)

    def _find_limits(self, principal: Principal | None, address: str | None, model_id: str | None) -> tuple[Limit, ...]:
        return tuple(self._each_limit(principal, address, model_id))

    def _each_limit(self, principal: Principal | None, address: str | None, model_id: str | None) -> Iterable[Limit]:
        policy = self._policy
        if principal is not None:
            if principal.credential_id is not None:
                own = _merged(principal.limits, policy.per_key)
                yield from _each(LimitedBy.KEY, principal.credential_id, own)
            yield from _each(LimitedBy.SUBJECT, f"{principal.tenant}/{principal.subject}", policy.per_subject)
        if model_id is not None:
            yield from _each(LimitedBy.MODEL, model_id, policy.per_model)
        if address is not None:
            yield from _each(LimitedBy.ADDRESS, subscriber(address), policy.per_address)


def estimated_tokens(messages: Iterable[Message], *, output_tokens: int, choices: int = 1) -> int:
    """About what a completion will take, from what is known before its prompt is made."""
    prompt = 0
    for message in messages:
        text = message.text
        size_bytes = len(text) if text.isascii() else len(text.encode("utf-8", "replace"))
        prompt += MESSAGE_TOKENS + size_bytes // BYTES_PER_TOKEN + IMAGE_TOKENS * len(message.images)
    return prompt + output_tokens * choices


def subscriber(address: str) -> str:
    """Whom an address counts for: itself, and with IPv6 its network of 64 bits."""
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return address
    if isinstance(ip, ipaddress.IPv4Address):
        return address
    if ip.ipv4_mapped is not None:
        return str(ip.ipv4_mapped)
    return str(ipaddress.IPv6Network((int(ip), IPV6_SUBSCRIBER_BITS), strict=False))


def _merged(own: RequestLimits | None, default: RequestLimits) -> RequestLimits:
    if own is None:
        return default
    given = {one.name: getattr(own, one.name) for one in fields(own)}
    return RequestLimits(**{name: getattr(default, name) if value is None else value for name, value in given.items()})


def _each(by: LimitedBy, name: str, limits: RequestLimits) -> Iterable[Limit]:
    for attribute, measure, period_s in _RATES:
        amount = getattr(limits, attribute)
        if amount is not None:
            yield Limit(by, name, measure, amount, period_s)
