"""Signed tokens judged (RFC 7519, with RFC 8725's advice), and what their claims say of who comes with them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jwt

from manent.domain.access import Principal
from manent.domain.access_errors import InvalidCredential
from manent.domain.access_keys import RESERVED_SUBJECTS, SUBJECT, known_scopes
from manent.domain.credentials import TOKEN_CHARS_MAX

SCOPES_MAX = 64

# What pyjwt lets through of Python's own, of tokens that were made to be strange.
STRANGE = (jwt.PyJWTError, ValueError, TypeError, OverflowError, RecursionError, AttributeError, KeyError)
TOLD: Mapping[type[Exception], str] = {
    jwt.ExpiredSignatureError: "the token has expired",
    jwt.ImmatureSignatureError: "the token does not hold yet (nbf, iat)",
    jwt.InvalidAudienceError: "the token is for another audience",
    jwt.InvalidIssuerError: "the token is of another issuer",
    jwt.InvalidSignatureError: "the token's signature is wrong",
    jwt.InvalidAlgorithmError: "the token is signed with another algorithm than this server takes",
    jwt.MissingRequiredClaimError: "the token lacks a claim (exp, iss, aud and the subject's are required)",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """How tokens are judged: one algorithm, one issuer, one audience."""

    algorithm: str
    issuer: str
    audience: str
    leeway_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimNames:
    """Which claims tell tenant, subject and scopes; without ``tenant``, all are of ``default_tenant``."""

    tenant: str | None = "tenant"
    subject: str = "sub"
    scopes: str = "scope"
    default_tenant: str = "default"


def unverified_header(token: str) -> dict[str, Any]:
    """The header of a token, of which nothing was judged.

    Raises:
        InvalidCredential: it is too large, or no token.
    """
    if len(token) > TOKEN_CHARS_MAX:
        raise InvalidCredential(f"the token has over {TOKEN_CHARS_MAX} characters", known_as="token")
    try:
        return dict(jwt.get_unverified_header(token))
    except STRANGE:
        raise InvalidCredential("the token cannot be read", known_as="token") from None


def verified_claims(token: str, key: Any, judged: Judged) -> dict[str, Any]:
    """The claims of a token whose signature, time, issuer and audience hold.

    Raises:
        InvalidCredential: one of them does not.
    """
    try:
        claims: dict[str, Any] = jwt.decode(
            token,
            key,
            algorithms=[judged.algorithm],
            issuer=judged.issuer,
            audience=judged.audience,
            leeway=judged.leeway_s,
            options={"require": ["exp", "iss", "aud"], "enforce_minimum_key_length": True},
        )
    except STRANGE as error:
        told = next((text for kind, text in TOLD.items() if isinstance(error, kind)), "the token does not hold")
        raise InvalidCredential(told, known_as="token") from None
    return claims


def principal_of(claims: Mapping[str, Any], names: ClaimNames, *, credential_id: str | None = None) -> Principal:
    """Who the claims say it is.

    Raises:
        InvalidCredential: they do not say it, or with characters that no subject has.
    """
    tenant = names.default_tenant if names.tenant is None else _name(claims, names.tenant)
    return Principal(
        tenant=tenant,
        subject=_name(claims, names.subject),
        scopes=known_scopes(_scopes(claims.get(names.scopes))),
        credential_id=credential_id,
    )


def _name(claims: Mapping[str, Any], claim: str) -> str:
    value = claims.get(claim)
    if not isinstance(value, str) or not SUBJECT.fullmatch(value) or value in RESERVED_SUBJECTS:
        raise InvalidCredential(
            f"the token's claim {claim!r} must be 1 to 128 of A-Z a-z 0-9 . _ : @ + = ~ / -", known_as="token"
        )
    return value


def _scopes(value: object) -> list[str]:
    """A list, or words with blanks between them (RFC 8693, 4.2)."""
    words = value.split() if isinstance(value, str) else value
    if not isinstance(words, list) or len(words) > SCOPES_MAX:
        return []
    return [word for word in words if isinstance(word, str)]
