"""How much a credential, a subject, a model or an address may ask for in a time."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestLimits:
    """Bounds of one credential; None is no bound. Tokens count the prompt's and the answer's."""

    requests_per_minute: int | None = None
    requests_per_hour: int | None = None
    tokens_per_minute: int | None = None
    tokens_per_hour: int | None = None
    running_max: int | None = None
