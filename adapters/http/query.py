"""Query parameters: declared once for the parser and for the documentation, read strictly."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl

from manent.adapters.http.errors import RequestRefused
from manent.adapters.http.parameter_table import Parameter, Treatment, honored_members
from manent.adapters.http.times import microseconds

FIELDS_MAX = 32
INT_DIGITS_MAX = 19


@dataclass(frozen=True, slots=True, kw_only=True)
class IntQuery:
    """An integer within bounds."""

    name: str
    says: str
    minimum: int
    maximum: int
    default: int | None = None

    def read(self, text: str) -> int:
        """The value of ``text``."""
        digits = text.removeprefix("-")
        if not (digits.isascii() and digits.isdigit() and len(digits) <= INT_DIGITS_MAX):
            raise _invalid("invalid_type", self.name, f"expected an integer, but got {text[:80]!r}")
        value = int(text)
        if not self.minimum <= value <= self.maximum:
            raise _invalid("invalid_value", self.name, f"{value} is not between {self.minimum} and {self.maximum}")
        return value

    @property
    def schema(self) -> dict[str, Any]:
        """Its JSON schema."""
        schema: dict[str, Any] = {"type": "integer", "minimum": self.minimum, "maximum": self.maximum}
        return schema if self.default is None else {**schema, "default": self.default}


@dataclass(frozen=True, slots=True, kw_only=True)
class TextQuery:
    """A text up to a length, or one of a set."""

    name: str
    says: str
    chars_max: int = 256
    choices: tuple[str, ...] = ()
    default: str | None = None

    def read(self, text: str) -> str:
        """The value of ``text``."""
        if self.choices and text not in self.choices:
            raise _invalid("invalid_value", self.name, f"{text[:80]!r} is not one of {', '.join(self.choices)}")
        if not 1 <= len(text) <= self.chars_max:
            raise _invalid("invalid_value", self.name, f"it has {len(text)} characters, not 1 to {self.chars_max}")
        return text

    @property
    def schema(self) -> dict[str, Any]:
        """Its JSON schema."""
        schema: dict[str, Any] = {"type": "string"}
        schema |= {"enum": list(self.choices)} if self.choices else {"minLength": 1, "maxLength": self.chars_max}
        return schema if self.default is None else {**schema, "default": self.default}


@dataclass(frozen=True, slots=True, kw_only=True)
class TimeQuery:
    """A time, read into microseconds since 1970; an integer is taken for those, or for seconds."""

    name: str
    says: str
    counts_seconds: bool = False
    default: int | None = None

    def read(self, text: str) -> int:
        """The value of ``text``."""
        try:
            return microseconds(text, counts_seconds=self.counts_seconds)
        except ValueError as error:
            # A + that was not percent-encoded arrives as a space, and nothing but an offset has one here.
            hint = "; write + as %2B in a query" if " " in text else ""
            raise _invalid("invalid_value", self.name, f"{error}{hint}") from None

    @property
    def schema(self) -> dict[str, Any]:
        """Its JSON schema."""
        return {"oneOf": [{"type": "string", "format": "date-time"}, {"type": "integer", "minimum": 0}]}


@dataclass(frozen=True, slots=True, kw_only=True)
class PairsQuery:
    """Any number of pairs, each written ``name[key]=value``."""

    name: str
    says: str

    def take(self, given: dict[str, str]) -> dict[str, str]:
        """The pairs, taken out of ``given``."""
        prefix = f"{self.name}["
        names = [name for name in given if name.startswith(prefix) and name.endswith("]")]
        return {name[len(prefix) : -1]: given.pop(name) for name in names}

    @property
    def schema(self) -> dict[str, Any]:
        """Its JSON schema."""
        return {"type": "object", "additionalProperties": True}


@dataclass(frozen=True, slots=True, kw_only=True)
class FlagQuery:
    """true or false."""

    name: str
    says: str
    default: bool = False

    def read(self, text: str) -> bool:
        """The value of ``text``."""
        if text not in {"true", "false"}:
            raise _invalid("invalid_type", self.name, f"expected true or false, but got {text[:80]!r}")
        return text == "true"

    @property
    def schema(self) -> dict[str, Any]:
        """Its JSON schema."""
        return {"type": "boolean", "default": self.default}


@dataclass(frozen=True, slots=True, kw_only=True)
class ListQuery:
    """Any number of values, each written ``name[]=value`` or ``name=value``, as OpenAI's SDKs do.

    They are of a set or, where there are no ``choices``, texts that are ``pattern``, if there is one.
    """

    name: str
    says: str
    choices: tuple[str, ...] = ()
    pattern: str = r"[^\x00]{1,256}"

    @property
    def names(self) -> tuple[str, str]:
        """How a value's parameter may be named."""
        return self.name, f"{self.name}[]"

    def take(self, pairs: list[tuple[str, str]]) -> list[str]:
        """The values, taken out of ``pairs``."""
        found = [value for name, value in pairs if name in self.names]
        pairs[:] = [pair for pair in pairs if pair[0] not in self.names]
        unknown = next((value for value in found if not self._takes(value)), None)
        if unknown is not None:
            wanted = f"one of {', '.join(self.choices)}" if self.choices else f"of the form {self.pattern}"
            raise _invalid("invalid_value", self.name, f"{unknown[:80]!r} is not {wanted}")
        return found

    @property
    def schema(self) -> dict[str, Any]:
        """Its JSON schema."""
        items = {"enum": list(self.choices)} if self.choices else {"pattern": f"^{self.pattern}$"}
        return {"type": "array", "items": {"type": "string", **items}}

    def _takes(self, value: str) -> bool:
        return value in self.choices if self.choices else re.fullmatch(self.pattern, value) is not None


QueryParameter = IntQuery | TextQuery | TimeQuery | FlagQuery | PairsQuery | ListQuery


def read_query(query_string: str, known: Sequence[QueryParameter]) -> dict[str, Any]:
    """The parameters of ``query_string``, with defaults filled in (None where there is none).

    Raises:
        RequestRefused: one is unknown, given twice, or no value of its kind.
    """
    if not query_string and not known:
        return {}
    pairs = _split(query_string)
    read: dict[str, Any] = {row.name: row.take(pairs) for row in known if isinstance(row, ListQuery)}
    given = _unique(pairs)
    read |= {row.name: row.take(given) for row in known if isinstance(row, PairsQuery)}
    single = [row for row in known if not isinstance(row, PairsQuery | ListQuery)]
    rows = [Parameter(name=row.name, treatment=Treatment.HONORED, says=row.says) for row in single]
    honored_members(given, rows)
    for row in single:
        read[row.name] = row.read(given[row.name]) if row.name in given else row.default
    return read


def _split(query_string: str) -> list[tuple[str, str]]:
    try:
        return parse_qsl(query_string, keep_blank_values=True, max_num_fields=FIELDS_MAX, errors="strict")
    except UnicodeDecodeError:
        raise RequestRefused("invalid_value", "the query is not UTF-8") from None
    except ValueError:
        raise RequestRefused("invalid_value", f"the query has more than {FIELDS_MAX} parameters") from None


def _unique(pairs: Sequence[tuple[str, str]]) -> dict[str, str]:
    given: dict[str, str] = {}
    for name, value in pairs:
        if name in given:
            raise _invalid("invalid_value", name[:80], "it is given twice")
        if "\x00" in name or "\x00" in value:
            raise _invalid("invalid_value", name[:80].replace("\x00", "\\0"), "it holds a NUL character")
        given[name] = value
    return given


def _invalid(code: str, name: str, what: str) -> RequestRefused:
    return RequestRefused(code, f"Invalid value for query parameter '{name}': {what}.", param=name)
