"""How much a credential, a subject, a model or an address may ask for in a time: the rules, and the counter's port.

A limit of N in a period is a bucket that holds N and refills steadily within the period: whoever was idle may spend N
at once, and N a period from then on. What is kept of it is how much is used and when that was so (the generic cell
rate algorithm of ITU-T I.371, in the form that counts what is used).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from enum import StrEnum
from typing import NamedTuple, Protocol

from manent.domain.errors import DomainError, InvalidValue

AMOUNT_MAX = 10**9
MINUTE_S = 60
HOUR_S = 3600
RUNNING_RETRY_S = 1.0
"""When to ask again where as many run as may: when one of them ends is not known."""
ROUNDING = 1e-6
"""Sums of floats may miss a whole number by so much; nothing is counted that is as small."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestLimits:
    """Bounds of one credential; None is no bound. Tokens count the prompt's and the answer's.

    Raises:
        InvalidValue: a bound is below 1 or above ``AMOUNT_MAX``.
    """

    requests_per_minute: int | None = None
    requests_per_hour: int | None = None
    tokens_per_minute: int | None = None
    tokens_per_hour: int | None = None
    running_max: int | None = None

    def __post_init__(self) -> None:
        for one in fields(self):
            amount = getattr(self, one.name)
            if amount is not None and not 1 <= amount <= AMOUNT_MAX:
                raise InvalidValue(f"{one.name} is {amount}; it must be 1 to {AMOUNT_MAX}, or absent for no limit")


NO_LIMITS = RequestLimits()


class LimitedBy(StrEnum):
    """Whose requests a limit counts together."""

    KEY = "key"
    SUBJECT = "subject"
    MODEL = "model"
    ADDRESS = "address"


class Measure(StrEnum):
    """What a limit counts."""

    REQUESTS = "requests"
    TOKENS = "tokens"
    RUNNING = "running"


@dataclass(frozen=True, slots=True)
class Limit:
    """At most ``amount`` in ``period_s`` for ``name``; what runs (``Measure.RUNNING``) has no period.

    ``key`` tells it from all others, whatever its amount; it is made once, since it is looked up for every request.
    """

    by: LimitedBy
    name: str
    measure: Measure
    amount: int
    period_s: int = 0
    key: str = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "key", f"{self.by}:{self.measure}:{self.period_s}:{self.name}")

    @property
    def words(self) -> str:
        """What it limits, for people."""
        if self.measure is Measure.RUNNING:
            return "running completions"
        return f"{self.measure} per {'minute' if self.period_s == MINUTE_S else 'hour'}"


@dataclass(frozen=True, slots=True)
class Charge:
    """What a request costs of a limit."""

    limit: Limit
    cost: int = 1


class Level(NamedTuple):
    """Where a limit stands: what is left of it, when all of it is back, and how long what was asked has to wait."""

    limit: Limit
    remaining: int
    reset_s: float
    wait_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Taken:
    """Whether all charges were taken, or none; the levels after that, one for each charge in its order."""

    allowed: bool
    levels: tuple[Level, ...]


class Limiter(Protocol):
    """Counts against limits, each call as a whole and at one moment, whoever else counts at that moment."""

    async def take(self, charges: Sequence[Charge], *, lease: str = "", enforced: bool = True) -> Taken:
        """Take all charges if each limit has room for its own; what is not ``enforced`` is taken in any case.

        A cost above a whole amount needs all of it. Charges of what runs are held under ``lease`` until it is settled,
        and lapse where its server ends without that.
        """
        ...

    async def settle(self, corrections: Sequence[Charge], *, lease: str) -> None:
        """Correct what was taken under ``lease`` by costs of either sign, and end it. Never refused."""
        ...


class RateLimited(DomainError):
    """A limit is reached; the message names it. ``levels`` are those of all limits that were looked at."""

    code = "rate_limit_exceeded"

    def __init__(self, levels: Sequence[Level]) -> None:
        worst = max(levels, key=lambda level: level.wait_s)
        limit, wait_s = worst.limit, worst.wait_s
        super().__init__(
            f"Rate limit reached for {limit.by} {limit.name!r}: {limit.words} (limit {limit.amount}, remaining "
            f"{worst.remaining}). Try again in {wait_s:.3g} s.",
            retry_after_s=wait_s,
        )
        self.levels = tuple(levels)
        self.limit = limit


class Bucket(NamedTuple):
    """What is used of an amount, at a time; absent is empty."""

    used: float = 0.0
    at_us: int = 0

    def drained(self, now_us: int, *, amount: int, period_s: int) -> Bucket:
        """The same now: what came back since is used no more. A clock that was set back gives nothing back."""
        elapsed_us = max(0, now_us - self.at_us)
        return Bucket(max(0.0, self.used - elapsed_us * amount / (period_s * 1_000_000)), now_us)


def has_room(charge: Charge, used: float) -> bool:
    """Whether a limit of which ``used`` is gone has room for a charge; one beyond the whole amount needs all of it."""
    return used + min(charge.cost, charge.limit.amount) <= charge.limit.amount + ROUNDING


def level_after(charge: Charge, used: float, *, taken: bool) -> Level:
    """How a limit stands of which ``used`` was gone before a charge, which was ``taken`` or refused.

    It is refused for want of room here, which makes it wait, or in another limit.
    """
    limit = charge.limit
    now_used = used + charge.cost if taken else used
    remaining = max(0, int(limit.amount - now_used + ROUNDING))
    waits = not taken and not has_room(charge, used)
    if limit.measure is Measure.RUNNING:
        return Level(limit, remaining, reset_s=RUNNING_RETRY_S, wait_s=RUNNING_RETRY_S if waits else 0.0)
    unit_s = limit.period_s / limit.amount
    missing = used + min(charge.cost, limit.amount) - limit.amount if waits else 0.0
    return Level(limit, remaining, reset_s=max(0.0, now_used * unit_s), wait_s=missing * unit_s)
