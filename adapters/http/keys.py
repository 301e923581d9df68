"""/v1/keys: what administrators do with the API keys of their tenant."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from sanic import HTTPResponse

from manent.adapters.http import wire_keys as wire
from manent.adapters.http.answers import json_answer
from manent.adapters.http.context import Exchange
from manent.adapters.http.json_body import json_object, read_body
from manent.adapters.http.parameter_table import Parameter, honored_members
from manent.adapters.http.query import IntQuery, QueryParameter, TextQuery
from manent.adapters.http.validation import validated
from manent.adapters.http.wire import Wire
from manent.domain.access import Scope
from manent.domain.access_events import KeyGrant
from manent.domain.access_keys import US_PER_S, KeyState
from manent.domain.errors import InvalidValue, StoreUnavailable
from manent.domain.limits import RequestLimits
from manent.domain.usecases.manage_keys import Issued, ManageKeys, RotateKey

DEFAULT_SCOPES = (Scope.CHAT, Scope.SESSIONS, Scope.MODELS_READ)
NO_STORE = {"cache-control": "no-store"}

KEYS_QUERY: Sequence[QueryParameter] = (
    TextQuery(name="after", says="the id of the key that the page begins behind"),
    IntQuery(name="limit", says="how many keys to return", minimum=1, maximum=100, default=20),
)

Asked = TypeVar("Asked", bound=Wire)


async def create_key(exchange: Exchange) -> HTTPResponse:
    """Make a key; its secret is in this answer and nowhere else."""
    asked = await _read(exchange, wire.KeyRequest, wire.KEY_PARAMETERS)
    keys = _keys(exchange)
    grant = KeyGrant(
        name=asked.name,
        tenant=exchange.principal.tenant,
        subject=asked.subject,
        scopes=tuple(asked.scopes or DEFAULT_SCOPES),
        models=None if asked.models is None else tuple(asked.models),
        default_model=asked.default_model,
        fallback_models=tuple(asked.fallback_models or ()),
        limits=_limits(asked.limits),
        expires_at_us=_expires_at_us(asked.expires_in_s, keys.now_us()),
    )
    issued = await keys.create(exchange.principal, grant, request_id=exchange.request.request_id)
    return json_answer(_issued(issued, keys.now_us()), status=201, headers=NO_STORE)


async def list_keys(exchange: Exchange) -> HTTPResponse:
    """A page of keys, the oldest first."""
    keys = _keys(exchange)
    found = await keys.list(exchange.principal)
    after, limit = exchange.query["after"], exchange.query["limit"]
    if after is not None:
        ids = [key.key_id for key in found]
        if after not in ids:
            raise InvalidValue(f"after is {after!r}, which is no key of your tenant", param="after")
        found = found[ids.index(after) + 1 :]
    page = found[:limit]
    return json_answer(
        wire.KeyList(
            data=[wire.Key(**key_members(key, keys.now_us())) for key in page],
            first_id=page[0].key_id if page else None,
            last_id=page[-1].key_id if page else None,
            has_more=len(found) > limit,
        )
    )


async def retrieve_key(exchange: Exchange, key_id: str) -> HTTPResponse:
    """One key."""
    keys = _keys(exchange)
    return _answer(await keys.get(exchange.principal, key_id), keys)


async def update_key(exchange: Exchange, key_id: str) -> HTTPResponse:
    """Change what a key allows; its secret stays."""
    asked = await _read(exchange, wire.KeyUpdate, wire.KEY_UPDATE_PARAMETERS)
    keys = _keys(exchange)
    changes = _changes(asked, keys.now_us())
    state = await keys.change(
        exchange.principal,
        key_id,
        lambda grant: replace(grant, **changes),
        request_id=exchange.request.request_id,
    )
    return _answer(state, keys)


async def rotate_key(exchange: Exchange, key_id: str) -> HTTPResponse:
    """Give a key a new secret; the one before holds for the overlap."""
    asked = await _read(exchange, wire.KeyRotation, wire.KEY_ROTATION_PARAMETERS)
    keys = _keys(exchange)
    wish = RotateKey(expires_in_s=asked.expires_in_s)
    if asked.overlap_s is not None:
        wish = replace(wish, overlap_s=asked.overlap_s)
    issued = await keys.rotate(exchange.principal, key_id, wish, request_id=exchange.request.request_id)
    return json_answer(_issued(issued, keys.now_us()), headers=NO_STORE)


async def revoke_key(exchange: Exchange, key_id: str) -> HTTPResponse:
    """End a key for good."""
    asked = await _read(exchange, wire.KeyRevocation, wire.KEY_REVOCATION_PARAMETERS)
    keys = _keys(exchange)
    state = await keys.revoke(exchange.principal, key_id, reason=asked.reason, request_id=exchange.request.request_id)
    return _answer(state, keys)


def key_members(state: KeyState, now_us: int) -> dict[str, Any]:
    """The members of a ``Key``."""
    grant, older = state.grant, state.secrets[1:]
    return {
        "id": state.key_id,
        "name": grant.name,
        "tenant": grant.tenant,
        "subject": grant.subject,
        "scopes": list(grant.scopes),
        "models": None if grant.models is None else list(grant.models),
        "default_model": grant.default_model,
        "fallback_models": list(grant.fallback_models),
        "limits": None if grant.limits is None else _limits_answer(grant.limits),
        "shown": state.secrets[0].kept.shown,
        "status": state.status(now_us).value,
        "created_at": state.created_at_us // US_PER_S,
        "created_by": state.created_by,
        "expires_at": _seconds(grant.expires_at_us),
        "rotated_at": _seconds(state.rotated_at_us),
        "overlap_until": _seconds(older[0].until_us) if older else None,
        "revoked_at": _seconds(state.revoked_at_us),
        "revoked_by": state.revoked_by,
        "reason": state.reason,
    }


async def _read(exchange: Exchange, model: type[Asked], rows: Sequence[Parameter]) -> Asked:
    members = await read_body(exchange.request, lambda: json_object(exchange.request, may_be_empty=True))
    return validated(model, honored_members(members, rows))


def _keys(exchange: Exchange) -> ManageKeys:
    if exchange.services.keys is None:
        raise StoreUnavailable("this server keeps no keys")
    return exchange.services.keys


def _changes(asked: wire.KeyUpdate, now_us: int) -> Mapping[str, Any]:
    """The fields of a grant that were given, as they are to be."""
    given = asked.model_fields_set
    values: dict[str, Any] = {
        "name": asked.name,
        "scopes": asked.scopes and tuple(asked.scopes),
        "models": None if asked.models is None else tuple(asked.models),
        "default_model": asked.default_model,
        "fallback_models": tuple(asked.fallback_models or ()),
        "limits": _limits(asked.limits),
    }
    for name in ("name", "scopes"):
        if name in given and values[name] is None:
            raise InvalidValue(f"{name} cannot be null", param=name)
    changes = {name: value for name, value in values.items() if name in given}
    if "expires_in_s" in given:
        changes["expires_at_us"] = _expires_at_us(asked.expires_in_s, now_us)
    return changes


def _limits(given: wire.KeyLimits | None) -> RequestLimits | None:
    return None if given is None else RequestLimits(**given.model_dump())


def _limits_answer(limits: RequestLimits) -> wire.KeyLimitsAnswer:
    return wire.KeyLimitsAnswer(**{name: getattr(limits, name) for name in wire.KeyLimitsAnswer.model_fields})


def _expires_at_us(expires_in_s: int | None, now_us: int) -> int | None:
    return None if expires_in_s is None else now_us + expires_in_s * US_PER_S


def _seconds(time_us: int | None) -> int | None:
    return None if time_us is None else time_us // US_PER_S


def _answer(state: KeyState, keys: ManageKeys) -> HTTPResponse:
    return json_answer(wire.Key(**key_members(state, keys.now_us())))


def _issued(issued: Issued, now_us: int) -> wire.IssuedKey:
    return wire.IssuedKey(**key_members(issued.key, now_us), key=issued.secret.text)
