"""What a table of parameters is, and how a request is judged by it: nothing is ignored in silence."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from typing import Any

from manent.adapters.http.errors import RequestRefused


class Treatment(StrEnum):
    """What happens to a parameter."""

    HONORED = "honored"
    ACCEPTED = "accepted without effect"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameter:
    """One row: ``neutral`` are the values of a refused parameter that ask for nothing (null always does)."""

    name: str
    treatment: Treatment
    says: str
    neutral: tuple[Any, ...] = ()


class Parameters(tuple[Parameter, ...]):
    """A table that is read for every request; ``rows`` are its rows by name."""

    @cached_property
    def rows(self) -> Mapping[str, Parameter]:
        """The rows by name."""
        return {row.name: row for row in self}

    @cached_property
    def taken(self) -> frozenset[str]:
        """The names of those that are not refused, whatever their value."""
        return frozenset(row.name for row in self if row.treatment is not Treatment.REFUSED)


def honored(name: str, says: str) -> Parameter:
    """A row of what is honored."""
    return Parameter(name=name, treatment=Treatment.HONORED, says=says)


def accepted(name: str, says: str) -> Parameter:
    """A row of what is accepted without effect."""
    return Parameter(name=name, treatment=Treatment.ACCEPTED, says=says)


def refused(name: str, says: str, *neutral: Any) -> Parameter:
    """A row of what is refused, but for the values that ask for nothing."""
    return Parameter(name=name, treatment=Treatment.REFUSED, says=says, neutral=neutral)


def honored_members(members: Mapping[str, Any], table: Sequence[Parameter], *, path: str = "") -> dict[str, Any]:
    """``members`` without the refused ones that ask for nothing.

    Raises:
        RequestRefused: one is unknown, or asks for what is not supported.
    """
    if isinstance(table, Parameters) and table.taken.issuperset(members):
        return dict(members)
    rows = table.rows if isinstance(table, Parameters) else {row.name: row for row in table}
    found: dict[str, Any] = {}
    for name, value in members.items():
        row = rows.get(name)
        param = f"{path}.{name}" if path else name
        if row is None:
            raise RequestRefused("unknown_parameter", _unknown(param, name, list(rows)), param=param[:200])
        if row.treatment is not Treatment.REFUSED:
            found[name] = value
        elif not asks_nothing(row, value):
            raise unsupported(param, row.says, row.neutral)
    return found


def asks_nothing(row: Parameter, value: Any) -> bool:
    """Whether ``value`` of a refused parameter is one that asks for nothing."""
    return value is None or any(_same(value, neutral) for neutral in row.neutral)


def _same(value: Any, neutral: Any) -> bool:
    """JSON equality: 0 and 0.0 are one number, and false is none."""
    if isinstance(value, bool) or isinstance(neutral, bool):
        return value is neutral
    return bool(value == neutral)


def unsupported(param: str, says: str, neutral: Sequence[Any]) -> RequestRefused:
    """The refusal of what is not supported, with what would pass."""
    allowed = "".join(f", {json.dumps(value)}" for value in neutral)
    hint = f"; leave it out or send null{allowed}" if not param.endswith(("role", "type")) else ""
    return RequestRefused("unsupported_parameter", f"Unsupported parameter: '{param}': {says}{hint}.", param=param)


def check_type(members: Mapping[str, Any], path: str, known: Sequence[str], what: str) -> None:
    """Refuse by its name a part of a request, at ``path``, whose type is none of the ``known`` ones.

    Raises:
        RequestRefused: it is not; ``what`` is what such a part is called.
    """
    kind = members.get("type")
    if isinstance(kind, str) and kind not in known:
        raise RequestRefused(
            "unsupported_parameter",
            f"Unsupported parameter: '{path}.type': {kind[:80]!r} is no {what} that Manent has; those that it has: "
            f"{', '.join(known)}.",
            param=f"{path}.type",
        )


def _unknown(param: str, name: str, known: Sequence[str]) -> str:
    nearest = difflib.get_close_matches(name[:64], known, n=1)
    hint = f" Did you mean '{nearest[0]}'?" if nearest else ""
    return f"Unknown parameter: '{param[:200]}'.{hint}"
