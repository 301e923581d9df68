"""API keys: what a key is after its events, and what may be decided about it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from enum import StrEnum

from manent.domain.access import ModelAccess, Principal, Scope, has_scope
from manent.domain.access_errors import KeyIsRevoked, KeyNotFound
from manent.domain.access_events import (
    KeyChanged,
    KeyCreated,
    KeyEvent,
    KeyGrant,
    KeyRevoked,
    KeyRotated,
    KeySecret,
)
from manent.domain.errors import InvalidValue, PermissionDenied

SUBJECT = re.compile(r"[A-Za-z0-9._:@+=~/-]{1,128}")
SCOPE_NAMES = frozenset(scope.value for scope in Scope)
RESERVED_SUBJECTS = frozenset({"manent"})
NAME_CHARS_MAX = 100
REASON_CHARS_MAX = 200
MODELS_MAX = 100
MODEL_CHARS_MAX = 200
OVERLAP_S_MAX = 30 * 24 * 3600
LIMIT_MAX = 10**12
US_PER_S = 1_000_000


class KeyStatus(StrEnum):
    """Whether a key holds."""

    ACTIVE = "active"
    EXPIRED = "expired"
    REVOKED = "revoked"


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldSecret:
    """A secret by which a key is known, until a time (None: as long as the key holds)."""

    kept: KeySecret
    until_us: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyState:
    """A key as its events left it; ``version`` is its stream's. The first of ``secrets`` is the newest."""

    key_id: str
    grant: KeyGrant
    secrets: tuple[HeldSecret, ...]
    created_by: str
    created_at_us: int
    rotated_at_us: int | None = None
    revoked_at_us: int | None = None
    revoked_by: str | None = None
    reason: str | None = None
    version: int = field(default=0, compare=False)

    def status(self, now_us: int) -> KeyStatus:
        """Whether it holds now."""
        if self.revoked_at_us is not None:
            return KeyStatus.REVOKED
        expires_at_us = self.grant.expires_at_us
        return KeyStatus.EXPIRED if expires_at_us is not None and expires_at_us <= now_us else KeyStatus.ACTIVE

    def holds(self, digest: str, now_us: int) -> bool:
        """Whether the secret with this digest holds now: the newest, or the one before within its overlap."""
        return any(
            held.kept.digest == digest and (held.until_us is None or held.until_us > now_us) for held in self.secrets
        )

    @property
    def principal(self) -> Principal:
        """Who comes with it; scopes of a later version of Manent are nothing here."""
        grant = self.grant
        return Principal(
            tenant=grant.tenant,
            subject=grant.subject,
            scopes=known_scopes(grant.scopes),
            credential_id=self.key_id,
            limits=grant.limits,
            models=ModelAccess(allowed=grant.models, default=grant.default_model, fallbacks=grant.fallback_models),
        )


def known_scopes(names: Iterable[str]) -> frozenset[Scope]:
    """The scopes of these names, as far as this version knows them."""
    return frozenset(Scope(name) for name in names if name in SCOPE_NAMES)


def evolve_key(state: KeyState | None, event: KeyEvent) -> KeyState | None:
    """The key after ``event``; what happens to no key leaves none."""
    match event:
        case KeyCreated(key_id=key_id, grant=grant, secret=secret, created_by=by, created_at_us=at_us):
            held = (HeldSecret(kept=secret),)
            return KeyState(key_id=key_id, grant=grant, secrets=held, created_by=by, created_at_us=at_us, version=1)
        case _ if state is None:
            return None
        case KeyChanged(grant=grant):
            after = replace(state, grant=grant)
        case KeyRotated(secret=secret, overlap_until_us=until_us, expires_at_us=expires_us, rotated_at_us=at_us):
            secrets = (HeldSecret(kept=secret), replace(state.secrets[0], until_us=until_us))
            grant = replace(state.grant, expires_at_us=expires_us)
            after = replace(state, secrets=secrets, grant=grant, rotated_at_us=at_us)
        case KeyRevoked(reason=reason, revoked_by=by, revoked_at_us=at_us):
            after = replace(state, reason=reason, revoked_by=by, revoked_at_us=at_us)
    return replace(after, version=state.version + 1)


def check_may_manage(by: Principal, tenant: str) -> None:
    """Raise unless ``by`` may make and end keys of ``tenant``.

    Raises:
        PermissionDenied: it is no administrator.
        KeyNotFound: it is another tenant's administrator, to whom these keys do not exist.
    """
    if not has_scope(by, Scope.ADMIN):
        raise PermissionDenied("managing keys needs the scope 'admin'")
    if by.tenant != tenant:
        raise KeyNotFound("there is no such key")


def check_grant(grant: KeyGrant, *, now_us: int) -> None:
    """Raise InvalidValue, naming what is wrong, unless a key may be made for ``grant``."""
    for param, value in (("tenant", grant.tenant), ("subject", grant.subject)):
        if not SUBJECT.fullmatch(value) or value in RESERVED_SUBJECTS:
            raise InvalidValue(
                f"{param} is {value[:80]!r}; it must be 1 to 128 of A-Z a-z 0-9 . _ : @ + = ~ / - and not 'manent'",
                param=param,
            )
    if not 1 <= len(grant.name) <= NAME_CHARS_MAX or not grant.name.isprintable():
        raise InvalidValue(f"name must be 1 to {NAME_CHARS_MAX} printable characters", param="name")
    unknown = [scope for scope in grant.scopes if scope not in SCOPE_NAMES]
    if unknown or not grant.scopes:
        wanted = ", ".join(Scope)
        what = f"{unknown[0][:40]!r} is no scope" if unknown else "a key needs a scope"
        raise InvalidValue(f"{what}; there are {wanted}", param="scopes")
    _check_models(grant)
    if grant.limits is not None:
        _check_limits(grant)
    if grant.expires_at_us is not None and grant.expires_at_us <= now_us:
        raise InvalidValue("the key would have expired already", param="expires_at")


def _check_models(grant: KeyGrant) -> None:
    for param, names in (("models", grant.models), ("fallback_models", grant.fallback_models)):
        if names is not None and (len(names) > MODELS_MAX or any(not _is_model_name(name) for name in names)):
            raise InvalidValue(
                f"{param} must be at most {MODELS_MAX} ids or aliases of 1 to {MODEL_CHARS_MAX} characters", param=param
            )
    if grant.default_model is not None and not _is_model_name(grant.default_model):
        raise InvalidValue(f"default_model must have 1 to {MODEL_CHARS_MAX} characters", param="default_model")


def _is_model_name(name: str) -> bool:
    return 1 <= len(name) <= MODEL_CHARS_MAX and name.isprintable()


def _check_limits(grant: KeyGrant) -> None:
    limits = grant.limits
    for name in limits.__dataclass_fields__ if limits is not None else ():
        value = getattr(limits, name)
        if value is not None and not 1 <= value <= LIMIT_MAX:
            raise InvalidValue(f"limits.{name} is {value}; it must be at least 1, or null for none", param="limits")


def decide_change(state: KeyState, grant: KeyGrant, *, by: Principal, now_us: int) -> list[KeyEvent]:
    """The event that gives a key another grant, of the same tenant and subject; none where it has it already.

    Raises:
        KeyIsRevoked: it was revoked.
        InvalidValue: no key may be for this grant.
    """
    check_may_manage(by, state.grant.tenant)
    _check_not_revoked(state)
    check_grant(grant, now_us=now_us)
    if grant == state.grant:
        return []
    return [KeyChanged(key_id=state.key_id, grant=grant, changed_by=by.subject, changed_at_us=now_us)]


def decide_rotate(
    state: KeyState, secret: KeySecret, *, overlap_s: int, expires_at_us: int | None, by: Principal, now_us: int
) -> list[KeyEvent]:
    """The event that gives a key a new secret.

    Raises:
        KeyIsRevoked: it was revoked.
        InvalidValue: the overlap is beyond its bounds, or the key would have expired.
    """
    check_may_manage(by, state.grant.tenant)
    _check_not_revoked(state)
    if not 0 <= overlap_s <= OVERLAP_S_MAX:
        raise InvalidValue(f"overlap_s is {overlap_s}; it must be 0 to {OVERLAP_S_MAX}", param="overlap_s")
    check_grant(replace(state.grant, expires_at_us=expires_at_us), now_us=now_us)
    return [
        KeyRotated(
            key_id=state.key_id,
            secret=secret,
            overlap_until_us=now_us + overlap_s * US_PER_S,
            expires_at_us=expires_at_us,
            rotated_by=by.subject,
            rotated_at_us=now_us,
        )
    ]


def decide_revoke(state: KeyState, reason: str | None, *, by: Principal, now_us: int) -> list[KeyEvent]:
    """The event that ends a key; none where it was ended before."""
    check_may_manage(by, state.grant.tenant)
    if reason is not None and (len(reason) > REASON_CHARS_MAX or not reason.isprintable()):
        raise InvalidValue(f"reason must be at most {REASON_CHARS_MAX} printable characters", param="reason")
    if state.revoked_at_us is not None:
        return []
    return [KeyRevoked(key_id=state.key_id, reason=reason, revoked_by=by.subject, revoked_at_us=now_us)]


def _check_not_revoked(state: KeyState) -> None:
    if state.revoked_at_us is not None:
        raise KeyIsRevoked(f"key {state.key_id!r} was revoked; make a new one")
