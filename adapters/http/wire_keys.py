"""What clients send and get to manage API keys, as pydantic models."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Field

from manent.adapters.http.parameter_table import Parameter, Treatment
from manent.adapters.http.wire import Wire
from manent.adapters.http.wire_responses import Answer
from manent.domain.access_keys import (
    LIMIT_MAX,
    MODEL_CHARS_MAX,
    MODELS_MAX,
    NAME_CHARS_MAX,
    OVERLAP_S_MAX,
    REASON_CHARS_MAX,
    SUBJECT,
)

EXPIRES_IN_S_MAX = 100 * 366 * 24 * 3600
SCOPES_MAX = 16

Count = Annotated[int, Field(ge=1, le=LIMIT_MAX)]
ModelName = Annotated[str, Field(min_length=1, max_length=MODEL_CHARS_MAX)]
ModelNames = Annotated[list[ModelName], Field(max_length=MODELS_MAX)]
ScopeName = Literal["chat", "sessions", "models:read", "models:manage", "events:read", "audit", "admin"]
ScopeNames = Annotated[list[ScopeName], Field(min_length=1, max_length=SCOPES_MAX)]
Name = Annotated[str, Field(min_length=1, max_length=NAME_CHARS_MAX)]
ExpiresIn = Annotated[int, Field(ge=1, le=EXPIRES_IN_S_MAX)]


class KeyLimits(Wire):
    """How much a key may ask for; what is not given has no bound of its own."""

    requests_per_minute: Count | None = None
    requests_per_hour: Count | None = None
    tokens_per_minute: Count | None = None
    tokens_per_hour: Count | None = None
    running_max: Count | None = None


class KeyAllows(Wire):
    """What a key allows; what is not given is not restricted."""

    scopes: ScopeNames | None = None
    models: ModelNames | None = None
    default_model: ModelName | None = None
    fallback_models: ModelNames | None = None
    limits: KeyLimits | None = None
    expires_in_s: ExpiresIn | None = None


class KeyRequest(KeyAllows):
    """A request for a key."""

    name: Name
    subject: str = Field(max_length=128, json_schema_extra={"pattern": f"^{SUBJECT.pattern}$"})


class KeyUpdate(KeyAllows):
    """What is to be different about a key; null takes a restriction away, what is not given stays."""

    name: Name | None = None


class KeyRotation(Wire):
    """A request for a new secret."""

    overlap_s: int | None = Field(None, ge=0, le=OVERLAP_S_MAX)
    expires_in_s: ExpiresIn | None = None


class KeyRevocation(Wire):
    """A request to end a key."""

    reason: str | None = Field(None, max_length=REASON_CHARS_MAX)


def _row(name: str, says: str) -> Parameter:
    return Parameter(name=name, treatment=Treatment.HONORED, says=says)


_GRANT = (
    _row("scopes", "what it allows; without it chat, sessions and models:read"),
    _row("models", "ids or aliases of the only models that exist for it; null is all"),
    _row("default_model", "the model that 'default' means for it"),
    _row("fallback_models", "models to try, in their order, where the one asked for cannot be used"),
    _row("limits", "requests and tokens per minute and hour, and running_max requests at once"),
    _row("expires_in_s", "seconds from now after which it does not hold any more; null is never"),
)
KEY_PARAMETERS: Sequence[Parameter] = (
    _row("name", "required; what it is for, in 1 to 100 characters"),
    _row("subject", "required; whose conversations it starts and reads: 1 to 128 of A-Z a-z 0-9 . _ : @ + = ~ / -"),
    *_GRANT,
)
KEY_UPDATE_PARAMETERS: Sequence[Parameter] = (_row("name", "what it is for"), *_GRANT)
KEY_ROTATION_PARAMETERS: Sequence[Parameter] = (
    _row("overlap_s", "how long the secret before holds, seconds; a day unless given, 0 ends it at once"),
    _row("expires_in_s", "seconds from now after which the key does not hold any more; without it, its end stays"),
)
KEY_REVOCATION_PARAMETERS: Sequence[Parameter] = (_row("reason", "why, for the log; at most 200 characters"),)


class KeyLimitsAnswer(Answer):
    """The bounds of a key; null is none of its own."""

    requests_per_minute: int | None
    requests_per_hour: int | None
    tokens_per_minute: int | None
    tokens_per_hour: int | None
    running_max: int | None


class Key(Answer):
    """An API key, without its secret."""

    id: str
    object: Literal["api_key"] = "api_key"
    name: str
    tenant: str
    subject: str
    scopes: list[str]
    models: list[str] | None
    default_model: str | None
    fallback_models: list[str]
    limits: KeyLimitsAnswer | None
    shown: str = Field(description="What its secret begins with.")
    status: Literal["active", "expired", "revoked"]
    created_at: int
    created_by: str
    expires_at: int | None
    rotated_at: int | None
    overlap_until: int | None = Field(description="Until when the secret before the last rotation holds.")
    revoked_at: int | None
    revoked_by: str | None
    reason: str | None


class IssuedKey(Key):
    """An API key with its secret, which is told this once and kept nowhere."""

    key: str = Field(description="The secret: what clients send as their API key.")


class KeyList(Answer):
    """A page of keys."""

    object: Literal["list"] = "list"
    data: list[Key]
    first_id: str | None
    last_id: str | None
    has_more: bool
