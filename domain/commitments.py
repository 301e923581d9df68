"""Commitments: what is not recorded, and can be shown later to have been what it was."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from manent.domain.made_often import made_often


@made_often
@dataclass(frozen=True, slots=True, kw_only=True)
class SaltedDigest:
    """A commitment to bytes that are not recorded: ``digest`` = SHA-256(salt ‖ bytes), both in hex."""

    salt: str
    digest: str

    @classmethod
    def of(cls, data: bytes, *, salt: bytes) -> SaltedDigest:
        """Commit to ``data``; ``salt`` is 32 random bytes that are used once."""
        return cls(salt=salt.hex(), digest=hashlib.sha256(salt + data).hexdigest())

    def matches(self, data: bytes) -> bool:
        """Whether ``data`` is what was committed to."""
        return hashlib.sha256(bytes.fromhex(self.salt) + data).hexdigest() == self.digest
