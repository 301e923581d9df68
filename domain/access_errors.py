"""What can go wrong with credentials; see ``manent.domain.errors``. No message tells anything of a secret."""

from __future__ import annotations

from manent.domain.errors import DomainError


class InvalidCredential(DomainError):
    """No credential was presented, or one that does not hold.

    ``known_as`` names the key or the kind of token for the log, and is nothing that was a secret; ``tenant`` is whose
    key it was once, None where that is not known.
    """

    code = "invalid_api_key"

    def __init__(self, message: str, *, known_as: str = "unknown", tenant: str | None = None) -> None:
        super().__init__(message)
        self.known_as = known_as
        self.tenant = tenant


class TooManyFailedLogins(DomainError):
    """An address presented too many credentials that do not hold."""

    code = "too_many_failed_logins"


class KeyNotFound(DomainError):
    """There is no key with this id, or it is another tenant's: the answer is the same."""

    code = "key_not_found"
    param = "key_id"


class KeyIsRevoked(DomainError):
    """The key was revoked; nothing of it can be changed any more."""

    code = "key_revoked"
    param = "key_id"
