"""What is presented to prove who asks, and the ports that make and judge it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from manent.domain.access import Principal
from manent.domain.access_events import KeySecret

KEY_PREFIX = "mnt_"
KEY_CHARS = len(KEY_PREFIX) + 64
"""An API key is its prefix and 256 random bits in hexadecimal."""

SHOWN_CHARS = 12
TOKEN_CHARS_MAX = 8192


@dataclass(frozen=True, slots=True, kw_only=True)
class NewSecret:
    """A secret on its only way to whom it is for, and what is kept of it."""

    text: str
    kept: KeySecret

    def __repr__(self) -> str:
        return f"NewSecret({self.kept.shown}…)"


class KeySecrets(Protocol):
    """Makes the secrets of API keys, and knows them again by a keyed digest (HMAC-SHA-256)."""

    @property
    def secret_id(self) -> str:
        """The name of the server's secret under which digests are made."""
        ...

    def new(self) -> NewSecret:
        """A new secret of 256 random bits."""
        ...

    def digest(self, text: str) -> str:
        """The keyed digest of what was presented."""
        ...

    def same(self, one: str, other: str) -> bool:
        """Whether two digests are the same, in a time that does not depend on where they differ."""
        ...


class TokenVerifier(Protocol):
    """Judges signed tokens (RFC 7519)."""

    async def verify(self, token: str) -> Principal:
        """Whose the token is.

        Raises:
            InvalidCredential: it does not hold, and what is wrong with it.
        """
        ...

    def is_for(self, token: str) -> bool:
        """Whether the token says that it is of this kind; nothing of it was judged."""
        ...
