"""Levels of single loggers, as a setting says them: ``manent.http=warning,manent.store=debug``."""

from __future__ import annotations

import re

LEVELS = ("debug", "info", "warning", "error")


def parse_levels(text: str) -> dict[str, str]:
    """The level of each logger that is named.

    Raises:
        ValueError: an entry is no logger's name with a level.
    """
    found = {}
    for entry in filter(None, text.split(",")):
        name, _, level = (part.strip() for part in entry.partition("="))
        if not re.fullmatch(r"[A-Za-z][\w.]*", name) or level not in LEVELS:
            raise ValueError(f"{entry!r} is not understood; write logger=level, with one of {', '.join(LEVELS)}")
        found[name] = level
    return found
