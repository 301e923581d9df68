"""OpenAPI 3.1 out of the table of routes, the wire models, the parameter table and the error table: nothing by hand."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from functools import cache
from typing import Any, Literal

import msgspec
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from manent.adapters.http import anthropic_parameters as anthropic
from manent.adapters.http.context import Documents
from manent.adapters.http.errors import ERRORS
from manent.adapters.http.openapi_3_0 import as_openapi_3_0
from manent.adapters.http.parameter_table import Parameter, Treatment
from manent.adapters.http.parameters import CHAT_PARAMETERS, MESSAGE_PARAMETERS
from manent.adapters.http.query import ListQuery, PairsQuery, QueryParameter
from manent.adapters.http.response_parameters import INPUT_PARAMETERS, RESPONSE_PARAMETERS
from manent.adapters.http.route import ACCESS_ERRORS, PREFIXES, REQUEST_HEADERS, Route, openapi_path
from manent.adapters.http.routes import ROUTES
from manent.adapters.http.wire_embeddings import EMBEDDING_PARAMETERS
from manent.adapters.http.wire_text import TEXT_PARAMETERS
from manent.domain.access import AUDITED, Scope

COMMON_ERRORS = (
    "bad_request",
    "refused_by_middleware",
    "request_timeout",
    "uri_too_long",
    "headers_too_large",
    "internal_error",
)
LIMITED = ("rate_limit_exceeded",)
ALIASES = "Aliases"
SWITCHED = 101
SECURITY_SCHEMES = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "An API key (mnt_…) or a JWT."},
    "apiKey": {"type": "apiKey", "in": "header", "name": "X-API-Key", "description": "An API key or a JWT."},
}
SECURITY: list[dict[str, list[str]]] = [{name: []} for name in SECURITY_SCHEMES]
HEADERS = {
    "x-request-id": {
        "description": "The request's id: the client's X-Request-ID where it is 1 to 128 safe characters.",
        "schema": {"type": "string"},
    },
    "openai-version": {"description": "The version of OpenAI's API.", "schema": {"type": "string"}},
    "openai-processing-ms": {
        "description": "Milliseconds from the request's header to the answer's.",
        "schema": {"type": "string"},
    },
}
ETAG = {"etag": {"description": "The version of the session's stream, in quotes.", "schema": {"type": "string"}}}


@cache
def build_documents(version: str) -> Documents:
    """The description as bytes, in today's form and in the one that the page understands; made once in a process."""
    document = build_openapi(version)
    return Documents(openapi=msgspec.json.encode(document), openapi_3_0=msgspec.json.encode(as_openapi_3_0(document)))


def build_openapi(version: str, routes: Sequence[Route] = ROUTES) -> dict[str, Any]:
    """The description of ``routes``."""
    paths: defaultdict[str, dict[str, Any]] = defaultdict(dict)
    for route in routes:
        for index, path in enumerate(route.paths):
            paths[openapi_path(path)][route.method.lower()] = _operation(route, path, is_alias=index > 0)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Manent",
            "version": version,
            "description": (
                "An OpenAI-compatible server in which every conversation is an append-only record. "
                f"Every path under {PREFIXES[0]} is also served under {PREFIXES[1]}."
            ),
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "tags": [{"name": name} for name in (*dict.fromkeys(route.tag for route in routes), ALIASES)],
        "paths": dict(paths),
        "components": {"schemas": _schemas(routes), "securitySchemes": SECURITY_SCHEMES},
    }


def _operation(route: Route, path: str, *, is_alias: bool) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": f"{route.name}Alias" if is_alias else route.name,
        "summary": route.summary,
        "tags": [ALIASES if is_alias else route.tag],
        "parameters": [
            *({"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in _names(path)),
            *(_query_parameter(row) for row in route.query),
            *(
                {"name": name, "in": "header", "description": REQUEST_HEADERS[name], "schema": {"type": "string"}}
                for name in (*route.takes, *(("X-Access-Purpose",) if _reads_of_others(route) else ()))
            ),
        ],
        "responses": _responses(route),
    }
    if not route.public:
        # With {} a request without a credential is described as well: on loopback, and where settings open the part.
        operation["security"] = [*SECURITY, {}]
        if route.scope is not None:
            operation["description"] = f"Needs the scope `{route.scope}`."
    if route.body is not None:
        operation["requestBody"] = {
            "required": route.body_required,
            "content": {"application/json": {"schema": _ref(route.body)}},
        }
    if route.files:
        file = {"schema": {"type": "string", "contentMediaType": "application/octet-stream"}}
        operation["requestBody"] = {"required": True, "content": dict.fromkeys(route.files, file)}
    return operation


def _reads_of_others(route: Route) -> bool:
    return route.reads and route.scope in AUDITED - {Scope.MODELS_READ}


def _query_parameter(row: QueryParameter) -> dict[str, Any]:
    style = {"style": "deepObject", "explode": True} if isinstance(row, PairsQuery) else {}
    name = f"{row.name}[]" if isinstance(row, ListQuery) else row.name
    return {"name": name, "in": "query", "description": row.says, "schema": row.schema, **style}


def _responses(route: Route) -> dict[str, Any]:
    schema: dict[str, Any] = {} if route.answer is None else _ref(route.answer)
    content: dict[str, Any] = {route.content_type: {"schema": schema}}
    content |= {media_type: {"schema": {}} for media_type in route.other_types}
    if route.streams is not None:
        content["text/event-stream"] = {"schema": _ref(route.streams)}
    headers = {**HEADERS, **ETAG} if route.etag else HEADERS
    responses = {str(route.status): {"description": "The answer.", "headers": headers, "content": content}}
    if route.status == SWITCHED:
        responses = {str(SWITCHED): {"description": "A WebSocket, on the same connection.", "headers": headers}}
    if "If-None-Match" in route.takes:
        responses["304"] = {"description": "The client has this version.", "headers": headers}
    codes: defaultdict[int, list[str]] = defaultdict(list)
    access_errors = () if route.public else (*ACCESS_ERRORS, *LIMITED)
    for code in dict.fromkeys((*route.errors, *access_errors, *COMMON_ERRORS)):
        codes[ERRORS[code].status].append(code)
    for status, names in sorted(codes.items()):
        responses[str(status)] = {
            "description": " ".join(f"`{name}`: {ERRORS[name].why}" for name in names),
            "headers": HEADERS,
            "content": {"application/json": {"schema": _ref(route.error_answer)}},
        }
    if route.answer_503 is not None:
        responses["503"] = {
            "description": "The problems.",
            "headers": HEADERS,
            "content": {"application/json": {"schema": _ref(route.answer_503)}},
        }
    return responses


def _schemas(routes: Sequence[Route]) -> dict[str, Any]:
    received = [route.body for route in routes if route.body is not None]
    sent = [model for route in routes for model in (route.answer, route.streams, route.answer_503) if model is not None]
    wanted: dict[type[BaseModel], Literal["validation", "serialization"]] = dict.fromkeys(received, "validation")
    wanted |= dict.fromkeys((*sent, *(route.error_answer for route in routes)), "serialization")
    _, definitions = models_json_schema(list(wanted.items()), ref_template="#/components/schemas/{model}")
    schemas: dict[str, Any] = definitions["$defs"]
    _describe(schemas["ChatRequest"], CHAT_PARAMETERS)
    _describe(schemas["TextRequest"], TEXT_PARAMETERS)
    _describe(schemas["EmbeddingsRequest"], EMBEDDING_PARAMETERS)
    _describe(schemas["ResponseRequest"], RESPONSE_PARAMETERS)
    _describe(schemas["InputTokensRequest"], INPUT_PARAMETERS)
    _describe(schemas["ChatMessage"], MESSAGE_PARAMETERS)
    _describe(schemas["MessageRequest"], anthropic.MESSAGE_PARAMETERS)
    _describe(schemas["TokenCountRequest"], anthropic.COUNT_PARAMETERS)
    return schemas


def _describe(schema: dict[str, Any], table: Sequence[Parameter]) -> None:
    """Add what the table says: a description to what is honored, and the values that ask for nothing to the rest."""
    for row in table:
        if row.treatment is Treatment.REFUSED:
            schema["properties"][row.name] = {
                "description": f"Not supported: {row.says}.",
                "enum": [None, *row.neutral],
            }
        else:
            effect = "" if row.treatment is Treatment.HONORED else "Accepted without effect: "
            schema["properties"][row.name].setdefault("description", f"{effect}{row.says}.")


def _ref(model: type[BaseModel]) -> dict[str, Any]:
    return {"$ref": f"#/components/schemas/{model.__name__}"}


def _names(path: str) -> list[str]:
    return re.findall(r"<(\w+):\w+>", path)
