"""Which methods an address knows, for the ``Allow`` header of a 405 (RFC 9110, 15.5.6)."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence

from manent.adapters.http.route import Route


class AllowedMethods:
    """Knows the table of routes; Sanic tells the methods of some addresses only."""

    def __init__(self, routes: Sequence[Route]) -> None:
        methods: defaultdict[str, set[str]] = defaultdict(set)
        for route in routes:
            for path in route.paths:
                methods[path].add(route.method)
        # A path without placeholders wins, and the first in the table after that: as the router has it.
        in_order = sorted(methods, key=lambda path: "<" in path)
        self._known = [(_pattern(path), sorted(methods[path])) for path in in_order]

    def of(self, path: str) -> list[str]:
        """The methods of ``path``, sorted."""
        return next((methods for pattern, methods in self._known if pattern.fullmatch(path)), [])


def _pattern(path: str) -> re.Pattern[str]:
    """A Sanic path as an expression: ``<id:str>`` is one step of it, ``<id:path>`` one or more."""
    steps = re.split(r"(<\w+:\w+>)", path)
    return re.compile("".join(_step(step) for step in steps))


def _step(step: str) -> str:
    if not step.startswith("<"):
        return re.escape(step)
    return ".+" if step.endswith(":path>") else "[^/]+"
