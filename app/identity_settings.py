"""Settings of identity, a part of ``Settings``: who may come without a credential, and which tokens are taken."""

from __future__ import annotations

from typing import Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings

SECRET_BYTES_MIN = 32
SECRET_CHARACTERS_MIN = 8
LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
OPENED = ("docs", "models")


class IdentitySettings(BaseSettings):
    """Who may come. Values of secrets are never shown."""

    anonymous: Literal["auto", "local", "none"] = Field(
        "auto",
        description="Who sends no credential, on loopback: auto is the operator until there is an API key or JWT.",
    )
    public: str = Field("docs", description="What needs no credential beside health: docs, models, both, or nothing.")
    jwt_algorithm: Literal["HS256", "RS256", "ES256", "EdDSA"] | None = Field(
        None, description="How tokens of the identity provider are signed; empty takes no JWTs."
    )
    jwt_secret: SecretStr | None = Field(None, description="Secret of HS256, at least 32 random bytes.")
    jwt_jwks: str | None = Field(None, description="Key set of the issuer for the others: an https URL or a file.")
    jwt_issuer: str | None = Field(None, description="Issuer (iss) that tokens must have.")
    jwt_audience: str | None = Field(None, description="Audience (aud) that tokens must have.")
    jwt_leeway_s: float = Field(30.0, ge=0, le=300, description="How far clocks may differ, seconds.")
    jwt_tenant_claim: str = Field("tenant", description="Claim of the tenant; empty has all in the tenant default.")
    jwt_subject_claim: str = Field("sub", description="Claim of the subject.")
    jwt_scopes_claim: str = Field("scope", description="Claim of the scopes, a list or words.")

    @field_validator("jwt_algorithm", "jwt_secret", "jwt_jwks", "jwt_issuer", "jwt_audience", mode="before")
    @classmethod
    def _empty_is_not_given(cls, value: object) -> object:
        return value or None

    @field_validator("public")
    @classmethod
    def _known_parts(cls, value: str) -> str:
        unknown = [part for part in _words(value) if part not in OPENED]
        if unknown:
            raise ValueError(f"{unknown[0]!r} is not one of {', '.join(OPENED)}; leave it empty to open nothing")
        return value

    @field_validator("jwt_secret")
    @classmethod
    def _strong(cls, secret: SecretStr | None) -> SecretStr | None:
        if secret is not None:
            text = secret.get_secret_value()
            if len(text.encode()) < SECRET_BYTES_MIN or len(set(text)) < SECRET_CHARACTERS_MIN:
                raise ValueError(
                    f"it must be at least {SECRET_BYTES_MIN} random bytes; `openssl rand -base64 48` makes some"
                )
        return secret

    @field_validator("jwt_jwks")
    @classmethod
    def _secure_address(cls, value: str | None) -> str | None:
        if value is not None and "://" in value:
            parts = urlsplit(value)
            secure = parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in LOOPBACK)
            if not secure or parts.username is not None:
                raise ValueError("use https://…, or the path of a file; http is for loopback alone")
        return value

    @model_validator(mode="after")
    def _whole_identity(self) -> Self:
        given: dict[str, object] = {
            "MANENT_JWT_ISSUER": self.jwt_issuer,
            "MANENT_JWT_AUDIENCE": self.jwt_audience,
        }
        if self.jwt_algorithm == "HS256":
            given["MANENT_JWT_SECRET"] = self.jwt_secret
        elif self.jwt_algorithm is not None:
            given["MANENT_JWT_JWKS"] = self.jwt_jwks
        missing = [name for name, value in given.items() if not value]
        if self.jwt_algorithm is not None and missing:
            raise ValueError(f"MANENT_JWT_ALGORITHM={self.jwt_algorithm} needs {', '.join(missing)}")
        if self.jwt_algorithm is None and (self.jwt_secret is not None or self.jwt_jwks is not None):
            raise ValueError(
                "MANENT_JWT_SECRET and MANENT_JWT_JWKS need MANENT_JWT_ALGORITHM, which fixes how to judge"
            )
        if self.jwt_algorithm is not None and self.jwt_algorithm != "HS256" and self.jwt_secret is not None:
            raise ValueError(f"MANENT_JWT_SECRET is for HS256, not {self.jwt_algorithm}")
        return self

    @property
    def public_parts(self) -> frozenset[str]:
        """What needs no credential beside health."""
        return frozenset(_words(self.public))


def _words(value: str) -> list[str]:
    return value.replace(",", " ").split()
