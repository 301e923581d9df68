"""The routes of API keys, a part of the one table."""

from __future__ import annotations

from collections.abc import Sequence

from manent.adapters.http import keys, wire_keys
from manent.adapters.http.route import BODY_ERRORS, BODY_LIMITS, STORE_ERRORS, Route
from manent.domain.access import Scope

KEY = "/keys/<key_id:str>"
WRITE_ERRORS = (*BODY_ERRORS, *BODY_LIMITS, *STORE_ERRORS)

KEY_ROUTES: Sequence[Route] = (
    Route(
        name="createKey",
        method="POST",
        path="/keys",
        handler=keys.create_key,
        scope=Scope.ADMIN,
        summary="Make an API key; the answer is the only place where its secret is",
        tag="Keys",
        body=wire_keys.KeyRequest,
        answer=wire_keys.IssuedKey,
        status=201,
        errors=WRITE_ERRORS,
    ),
    Route(
        name="listKeys",
        method="GET",
        path="/keys",
        handler=keys.list_keys,
        scope=Scope.ADMIN,
        summary="List the API keys of the tenant",
        tag="Keys",
        answer=wire_keys.KeyList,
        query=keys.KEYS_QUERY,
        errors=("invalid_type", "invalid_value", "unknown_parameter", *STORE_ERRORS),
    ),
    Route(
        name="retrieveKey",
        method="GET",
        path=KEY,
        handler=keys.retrieve_key,
        scope=Scope.ADMIN,
        summary="Retrieve an API key, without its secret",
        tag="Keys",
        answer=wire_keys.Key,
        errors=("unknown_parameter", "key_not_found", *STORE_ERRORS),
    ),
    *(
        Route(
            name=name,
            method="POST",
            path=path,
            handler=handler,
            scope=Scope.ADMIN,
            summary=summary,
            tag="Keys",
            body=body,
            body_required=False,
            answer=answer,
            errors=(*WRITE_ERRORS, "key_not_found", "key_revoked", "version_conflict"),
        )
        for name, path, handler, summary, body, answer in (
            (
                "updateKey",
                KEY,
                keys.update_key,
                "Change what an API key allows",
                wire_keys.KeyUpdate,
                wire_keys.Key,
            ),
            (
                "rotateKey",
                f"{KEY}/rotate",
                keys.rotate_key,
                "Give an API key a new secret; the one before holds for a while",
                wire_keys.KeyRotation,
                wire_keys.IssuedKey,
            ),
            (
                "revokeKey",
                f"{KEY}/revoke",
                keys.revoke_key,
                "End an API key for good",
                wire_keys.KeyRevocation,
                wire_keys.Key,
            ),
        )
    ),
)
