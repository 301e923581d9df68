"""Middleware for Manent: while a file announces maintenance, what would change anything is refused, with the reason."""

from __future__ import annotations

import logging
import os
from pathlib import Path

from manent.domain.extensions import AnswerFacts, Refusal, RequestFacts

SLOW_S = 30.0

_log = logging.getLogger("manent_maintenance")


class Maintenance:
    """The file is the one that MAINTENANCE_FILE names; what stands in it is told to clients."""

    def __init__(self) -> None:
        self._file = Path(os.environ.get("MAINTENANCE_FILE", "/run/manent/maintenance"))

    async def before(self, request: RequestFacts) -> None:
        """Let reads pass, and all else only while there is no file."""
        if request.method != "GET" and self._file.exists():
            raise Refusal(self._file.read_text(encoding="utf-8").strip() or "maintenance is going on")

    async def after(self, request: RequestFacts, answer: AnswerFacts) -> None:
        """Tell of what took long."""
        if answer.elapsed_s > SLOW_S:
            _log.warning(
                "%s of %s took %.0f s: %d", request.operation, request.subject, answer.elapsed_s, answer.status
            )
