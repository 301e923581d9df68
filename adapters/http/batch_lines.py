"""The lines of batches: read, and answered by the very handlers that answer the same requests of clients.

A line passes plugins, limits of tokens and the log as any request does. It is nobody's connection, so that what is
about one is refused: streams, and answers that come later. Its request id is the ``id`` of its answer.
"""

from __future__ import annotations

import json
import logging
from types import SimpleNamespace
from typing import Any, cast

import msgspec
from sanic import HTTPResponse
from sanic.compat import Header

from manent.adapters.http.answers import error_answer
from manent.adapters.http.context import Documents, Exchange, HttpLimits, HttpServices
from manent.adapters.http.errors import RequestRefused
from manent.adapters.http.json_body import parse_json
from manent.adapters.http.middleware import passed
from manent.adapters.http.request import App, HttpRequest, RequestContext
from manent.adapters.http.routes import ROUTES
from manent.adapters.http.streams import OpenStreams
from manent.domain.access import Principal
from manent.domain.batch_work import Line, LineAnswer, LineRefused
from manent.domain.batches import ENDPOINTS
from manent.domain.errors import DomainError, InternalError, ModelNotFound
from manent.domain.model_access import models_to_try
from manent.domain.telemetry import REQUEST, RequestScope

CUSTOM_ID_CHARS_MAX = 512
CUT = 100
NESTED_MAX = 500
"""How deeply a body may be nested: well below what the parser can read, however deep in calls it is when it does."""

NOT_IN_BATCHES = {
    "stream": "the answer of a line comes whole",
    "background": "every line is answered in the background",
    "deterministic": "it would have the model alone, while others wait",
}
"""Members of a body that must not be true, and why."""

PATIENT = frozenset({"engine_busy", "rate_limit_exceeded", "store_unavailable", "shutting_down"})
"""Codes of failures that pass by themselves, however long that takes."""

AGAIN = frozenset(
    {
        "insufficient_memory",
        "interrupted",
        "model_load_failed",
        "model_unavailable",
        "runner_crashed",
        "session_busy",
        "version_conflict",
    }
)
"""Codes of failures that may pass."""

_log = logging.getLogger("manent.batches")
_ROUTES = {f"/v1{route.path}": route for route in ROUTES if route.method == "POST" and f"/v1{route.path}" in ENDPOINTS}
_NO_DOCUMENTS = Documents(openapi=b"", openapi_3_0=b"")


class HttpBatchRequests:
    """Implements ``BatchRequests``."""

    def __init__(self, services: HttpServices, limits: HttpLimits) -> None:
        self._services = services
        self._limits = limits
        context = RequestContext(
            ids=services.ids,
            body_bytes_max=limits.body_bytes_max,
            body_timeout_s=limits.body_timeout_s,
            stall_timeout_s=limits.stall_timeout_s,
            connections_max=0,
            proxies=limits.proxies,
            streams=OpenStreams(0),
            websockets=OpenStreams(0),
        )
        self._app = cast("App", SimpleNamespace(ctx=SimpleNamespace(http=context)))

    def check(self, line: Line, principal: Principal) -> str:
        """See ``BatchRequests.check``."""
        members = _members(line.raw)
        if line.raw.count(b"[") + line.raw.count(b"{") > NESTED_MAX and _is_nested(members, NESTED_MAX):
            raise LineRefused("invalid_json_line", f"the line is nested more than {NESTED_MAX} deep")
        custom_id = members.get("custom_id")
        if not isinstance(custom_id, str) or not 1 <= len(custom_id) <= CUSTOM_ID_CHARS_MAX:
            raise LineRefused(
                "missing_required_parameter" if custom_id is None else "invalid_custom_id",
                f"custom_id must be a string of 1 to {CUSTOM_ID_CHARS_MAX} characters",
                param="custom_id",
            )
        if members.get("method") != "POST":
            raise LineRefused(
                "invalid_method", f"method is {members.get('method')!r:.{CUT}}; it must be 'POST'", param="method"
            )
        if members.get("url") != line.endpoint:
            raise LineRefused(
                "mismatched_url",
                f"url is {members.get('url')!r:.{CUT}}; it must be the batch's endpoint, {line.endpoint!r}",
                param="url",
            )
        unknown = members.keys() - {"custom_id", "method", "url", "body"}
        if unknown:
            raise LineRefused("unknown_parameter", f"a line has no {min(unknown)!r:.{CUT}}", param=min(unknown)[:CUT])
        self._check_body(members.get("body"), principal)
        return custom_id

    def _check_body(self, body: object, principal: Principal) -> None:
        if not isinstance(body, dict):
            raise LineRefused("invalid_body", "body must be an object: the request", param="body")
        for name, why in NOT_IN_BATCHES.items():
            if body.get(name) not in (None, False):
                raise LineRefused("unsupported_parameter", f"{name} is not for batches: {why}", param=f"body.{name}")
        model = body.get("model")
        if not isinstance(model, str):
            raise LineRefused("missing_required_parameter", "model must be the name of a model", param="body.model")
        if len(_body_bytes(body)) > self._limits.body_bytes_max:
            raise LineRefused(
                "request_too_large", f"the body is over the limit of {self._limits.body_bytes_max} bytes", param="body"
            )
        try:
            models_to_try(principal, model, self._services.engine.resolve)
        except ModelNotFound as error:
            raise LineRefused(error.code, error.message, param="body.model") from None

    async def answer(self, line: Line, principal: Principal) -> LineAnswer:
        """See ``BatchRequests.answer``."""
        exchange = self._exchange(line, principal)
        REQUEST.set(RequestScope(request_id=exchange.request.request_id, correlation_id=line.batch_id))
        route = _ROUTES[line.endpoint]
        try:
            response = await passed(route, exchange, lambda: route.handler(exchange))
        except DomainError as error:
            return self.failed(line, error)
        except Exception as error:  # noqa: BLE001 (the boundary: a defect ends its line, and not the batch)
            _log.exception("line %d of batch %s ended in a defect", line.number, line.batch_id)
            return self.failed(line, InternalError(f"internal error ({type(error).__name__})"))
        if response is None:
            return self.failed(line, InternalError("a line was answered with a stream"))
        return LineAnswer(line=_answered(line, response), succeeded=True)

    def failed(self, line: Line, error: DomainError) -> LineAnswer:
        """See ``BatchRequests.failed``."""
        return LineAnswer(
            line=_answered(line, error_answer(error)),
            succeeded=False,
            again=error.code in PATIENT | AGAIN,
            patient=error.code in PATIENT,
            retry_after_s=error.retry_after_s,
        )

    def unanswered(self, line: Line, code: str, message: str) -> LineAnswer:
        """See ``BatchRequests.unanswered``."""
        return LineAnswer(line=_written(line, response=None, error={"code": code, "message": message}), succeeded=False)

    def _exchange(self, line: Line, principal: Principal) -> Exchange:
        """The line as a request that came over no connection. Its key has what it is asked for generated once."""
        request = HttpRequest(
            url_bytes=line.endpoint.encode("ascii"),
            headers=Header(
                [
                    ("content-type", "application/json"),
                    ("idempotency-key", str(line.number)),
                    ("x-request-id", request_id(line)),
                    ("x-correlation-id", line.batch_id),
                ]
            ),
            version="1.1",
            method="POST",
            transport=None,
            app=self._app,
        )
        request.body = _body_bytes(_members(line.raw)["body"])
        return Exchange(
            request=request,
            principal=principal,
            services=self._services,
            limits=self._limits,
            documents=_NO_DOCUMENTS,
            batch_id=line.batch_id,
        )


def request_id(line: Line) -> str:
    """The id of a line's answer, and of the request that its events in the log name."""
    return f"batch_req_{line.batch_id.removeprefix('batch_')}_{line.number}"


def _members(raw: bytes) -> dict[str, Any]:
    try:
        members = parse_json(raw.removesuffix(b"\r"))
    except RequestRefused as refusal:
        what = refusal.message.partition(": ")[2] or refusal.message
        raise LineRefused("invalid_json_line", f"the line could not be read as JSON: {what}") from None
    if not isinstance(members, dict):
        raise LineRefused("invalid_json_line", "the line is not a JSON object")
    return members


def _is_nested(value: object, levels: int) -> bool:
    """Whether there are arrays or objects in each other, more than so many."""
    level: list[object] = [value]
    for _ in range(levels):
        level = [
            inner
            for outer in level
            if isinstance(outer, dict | list)
            for inner in (outer.values() if isinstance(outer, dict) else outer)
        ]
    return any(isinstance(inner, dict | list) for inner in level)


def _body_bytes(body: object) -> bytes:
    """The same for the same line; a number may have as many digits as it likes."""
    return json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()


def _answered(line: Line, response: HTTPResponse) -> bytes:
    body = msgspec.Raw(response.body or b"null")
    told = {"status_code": response.status, "request_id": request_id(line), "body": body}
    return _written(line, response=told, error=None)


def _written(line: Line, *, response: dict[str, Any] | None, error: dict[str, str] | None) -> bytes:
    members = {
        "id": request_id(line),
        "custom_id": _members(line.raw).get("custom_id"),
        "response": response,
        "error": error,
    }
    return msgspec.json.encode(members) + b"\n"
