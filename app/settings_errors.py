"""What is wrong with a setting, in words that show no secret."""

from __future__ import annotations

import re

from pydantic_core import ErrorDetails

SECRET_FIELDS = frozenset({"jwt_secret"})


def told(problem: ErrorDetails, prefix: str) -> str:
    """What is wrong with a setting, or with several together."""
    message = problem["msg"].removeprefix("Value error, ")
    if not problem["loc"]:
        return message
    name = str(problem["loc"][0])
    value = "***" if name in SECRET_FIELDS else repr(_without_password(problem["input"]))
    return f"{prefix}{name.upper()}={value}: {message}"


def _without_password(value: object) -> object:
    return re.sub(r"(://[^:@/]*:)[^@]*@", r"\1***@", value) if isinstance(value, str) else value
