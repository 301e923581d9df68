"""The prefix cache in the domain's words: whose it is, and what it did for a completion."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from manent.domain.made_often import made_often


class CacheMiss(StrEnum):
    """Why no more of a prompt was found in the prefix cache. What other tenants have there is never told."""

    COLD = "cold"
    """Nothing that begins like it is known."""
    DIVERGED = "diverged"
    """What is known parts from it at token ``known_tokens``."""
    EVICTED = "evicted"
    """More was there once, and was given up for something else."""
    NOT_TRIMMABLE = "not_trimmable"
    """The model's state cannot be cut back to the place where the two part."""
    TOO_SHORT = "too_short"
    """So short a prompt is evaluated again at no cost that could be noticed."""
    DISABLED = "disabled"
    """The server keeps no prefix cache, or the request came without a scope to look in."""
    UNSUPPORTED = "unsupported"
    """The model's layers keep their state in a form that cannot be taken out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheUse:
    """What the prefix cache did for a prompt; how many tokens it saved is in ``Usage.cached_tokens``.

    ``source`` is ``memory`` or ``disk``, None if nothing was reused. ``miss`` is why no more was, None where all that
    is known was. ``known_tokens`` counts the prompt's leading tokens that were known, reusable or not.
    """

    source: str | None = None
    miss: CacheMiss | None = CacheMiss.DISABLED
    known_tokens: int = 0


@made_often
@dataclass(frozen=True, slots=True, kw_only=True)
class CacheScope:
    """In whose prefix cache a generation may look, and whose it adds to. Nothing is shared between tenants.

    ``conversation`` is what can be forgotten again by name. ``durable`` allows what is kept to outlive the process on
    disk, which is only right for content that is recorded anyway.
    """

    tenant: str
    conversation: str | None = None
    durable: bool = False
