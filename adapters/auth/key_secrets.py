"""The secrets of API keys: random, and known again by an HMAC-SHA-256 that nobody can make without the server."""

from __future__ import annotations

import hashlib
import hmac
import secrets

from manent.adapters.auth.secret_file import AccessSecret
from manent.domain.access_events import KeySecret
from manent.domain.credentials import KEY_PREFIX, SHOWN_CHARS, NewSecret

RANDOM_BYTES = 32


class HmacKeySecrets:
    """See ``KeySecrets``."""

    def __init__(self, secret: AccessSecret) -> None:
        self._key = secret.derived("api keys")
        self._secret_id = secret.secret_id

    @property
    def secret_id(self) -> str:
        """See ``KeySecrets.secret_id``."""
        return self._secret_id

    def new(self) -> NewSecret:
        """See ``KeySecrets.new``."""
        text = KEY_PREFIX + secrets.token_hex(RANDOM_BYTES)
        kept = KeySecret(shown=text[:SHOWN_CHARS], digest=self.digest(text), secret_id=self._secret_id)
        return NewSecret(text=text, kept=kept)

    def digest(self, text: str) -> str:
        """See ``KeySecrets.digest``."""
        return hmac.digest(self._key, text.encode("utf-8", "surrogateescape"), hashlib.sha256).hex()

    def same(self, one: str, other: str) -> bool:
        """See ``KeySecrets.same``."""
        return hmac.compare_digest(one, other)
