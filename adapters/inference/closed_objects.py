"""Schemas of arguments in which objects have the members that they list, and no others."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

_SCHEMA = ("items", "contains")
_SCHEMAS = ("anyOf", "oneOf", "prefixItems")
_NAMED_SCHEMAS = ("properties", "$defs", "definitions")
_OF_OTHER_MEMBERS = frozenset(
    ("additionalProperties", "patternProperties", "propertyNames", "unevaluatedProperties", "minProperties")
)
_OF_THE_SAME_OBJECT = frozenset(("anyOf", "oneOf", "$ref", "if", "dependentSchemas"))


def closed(schema: dict[str, Any]) -> dict[str, Any]:
    """``schema``, with ``additionalProperties`` false where an object lists its members and says nothing of others.

    JSON Schema lets anything be added then, and a weak model that follows a grammar makes members up, which functions
    do not take. Whatever satisfies the result satisfies ``schema``. Where several schemas rule one object, each would
    shut out what the others list: such a schema stays as it is.
    """
    return schema if any(map(_combines, _objects(schema))) else _closed(schema)


def _closed(schema: Any) -> Any:
    if not isinstance(schema, dict):
        return schema
    result = dict(schema)
    for key in _SCHEMA:
        if key in result:
            result[key] = _closed(result[key])
    for key in _SCHEMAS:
        if isinstance(result.get(key), list):
            result[key] = [_closed(one) for one in result[key]]
    for key in _NAMED_SCHEMAS:
        if isinstance(result.get(key), dict):
            result[key] = {name: _closed(one) for name, one in result[key].items()}
    members = schema.get("properties")
    if isinstance(members, dict) and _OF_OTHER_MEMBERS.isdisjoint(schema) and _lists_required(schema, members):
        result["additionalProperties"] = False
    return result


def _lists_required(schema: dict[str, Any], members: dict[str, Any]) -> bool:
    required = schema.get("required", [])
    return isinstance(required, list) and all(name in members for name in required if isinstance(name, str))


def _combines(schema: dict[str, Any]) -> bool:
    return "allOf" in schema or ("properties" in schema and not _OF_THE_SAME_OBJECT.isdisjoint(schema))


def _objects(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        yield value
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from _objects(inner)
