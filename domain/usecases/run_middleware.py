"""Middleware run around a request: each with its name, within a bound, and none may take the server down."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping

from manent.domain.errors import DomainError
from manent.domain.extensions import AnswerFacts, Middleware, PluginError, RequestFacts

MIDDLEWARE_S = 5.0

_log = logging.getLogger("manent.plugins")


class MiddlewareChain:
    """All middleware of a server, by name, in their order."""

    def __init__(self, middleware: Mapping[str, Middleware], *, timeout_s: float = MIDDLEWARE_S) -> None:
        self._middleware = dict(middleware)
        self._timeout_s = timeout_s

    def __bool__(self) -> bool:
        return bool(self._middleware)

    async def before(self, request: RequestFacts) -> list[str]:
        """Ask each whether the request may pass; the names of those that ``after`` is for.

        Raises:
            Refusal, or another DomainError: one of them refused. PluginError: one of them failed, which is logged.
        """
        passed: list[str] = []
        for name, middleware in self._middleware.items():
            try:
                async with asyncio.timeout(self._timeout_s):
                    await middleware.before(request)
            except DomainError:
                raise
            except Exception as error:
                # By its type: what a plugin says of its failure may be anybody's words.
                what = f"the plugin {name!r} failed before {request.operation} ({type(error).__name__})"
                _log.error("%s, request %s", what, request.request_id)
                raise PluginError(what) from error
            passed.append(name)
        return passed

    async def after(self, passed: list[str], request: RequestFacts, answer: AnswerFacts) -> None:
        """Tell those of ``before``, the last first, how it was answered."""
        for name in reversed(passed):
            try:
                async with asyncio.timeout(self._timeout_s):
                    await self._middleware[name].after(request, answer)
            except Exception:  # noqa: BLE001 (the answer is given already: a plugin's failure is logged, and its own)
                _log.exception("the plugin %r failed after %s", name, request.operation)
