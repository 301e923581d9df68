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
    """The value without what stands for a password in it, also in an address that is written wrongly."""
    if not isinstance(value, str):
        return value
    # Up to the last @, or where there is none, what stands in the place of a port and is no number.
    masked = re.sub(r"(://[^:@/[]*:)(?:.*@|(?!\d*(?:[/?]|$))[^@]*$)", r"\1***@", value)
    return re.sub(r"(?i)(pass\w*|pwd|token|secret)=[^&\s]*", r"\1=***", masked)
