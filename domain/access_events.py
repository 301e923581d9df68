"""What happens to API keys, and who read what of others, as events of the streams ``access-<id>``.

No event holds a secret: ``secret_digest`` is keyed with the server's own secret, which ``secret_id`` names.
"""

from __future__ import annotations

from dataclasses import dataclass

from manent.domain.limits import RequestLimits


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyGrant:
    """Whose a key is and what it allows.

    ``models`` None is every model; ``limits`` None is none of its own; ``expires_at_us`` None is never.
    """

    name: str
    tenant: str
    subject: str
    scopes: tuple[str, ...]
    models: tuple[str, ...] | None = None
    default_model: str | None = None
    fallback_models: tuple[str, ...] = ()
    limits: RequestLimits | None = None
    expires_at_us: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class KeySecret:
    """What is kept of a secret: ``shown``, the characters it begins with, and ``digest``, in hexadecimal."""

    shown: str
    digest: str
    secret_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyCreated:
    """An API key was made."""

    key_id: str
    grant: KeyGrant
    secret: KeySecret
    created_by: str
    created_at_us: int


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyChanged:
    """What a key allows is this from now on; its secret is the same."""

    key_id: str
    grant: KeyGrant
    changed_by: str
    changed_at_us: int


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyRotated:
    """A key has a new secret; the one before holds until ``overlap_until_us``, and those before that no more."""

    key_id: str
    secret: KeySecret
    overlap_until_us: int
    expires_at_us: int | None
    rotated_by: str
    rotated_at_us: int


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyRevoked:
    """A key holds no more, and never again."""

    key_id: str
    reason: str | None
    revoked_by: str
    revoked_at_us: int


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditRead:
    """An auditor is about to be answered with what is another's.

    ``resource`` says what (a session, a completion, a range of the log), ``owner`` whose, None where it is several
    subjects'; ``count`` is how many of it. ``purpose`` is what the reader gave as ``X-Access-Purpose``.
    """

    read_id: str
    reader: str
    credential_id: str | None
    resource: str
    owner: str | None
    count: int
    purpose: str | None
    read_at_us: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LoginFailed:
    """What was presented did not hold, ``count`` times since ``began_at_us`` from one address for one reason.

    ``credential`` is the id of the key where there was one once, else what was presented (none, token, unknown), and
    nothing that was a secret. ``address`` is None where there were more of them than are told apart.
    """

    login_id: str
    address: str | None
    credential: str
    reason: str
    count: int
    began_at_us: int
    failed_at_us: int


KeyEvent = KeyCreated | KeyChanged | KeyRotated | KeyRevoked
AccessEvent = KeyEvent | AuditRead | LoginFailed


def access_stream(access_id: str) -> str:
    """The stream of a key, of one reading of what is another's, or of failed logins."""
    return f"access-{access_id}"
