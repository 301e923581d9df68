"""OpenAPI 3.1 put in the words of 3.0, for the page: the Swagger UI of the wheel reads no newer one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

DROPPED = frozenset({"propertyNames", "identifier"})


def as_openapi_3_0(document: Mapping[str, Any]) -> dict[str, Any]:
    """``document`` as OpenAPI 3.0.3; nullable, const and exclusive bounds are what differs."""
    older = _older(document)
    return {**older, "openapi": "3.0.3"} if isinstance(older, dict) else {}


def _older(node: Any) -> Any:
    if isinstance(node, list | tuple):
        return [_older(item) for item in node]
    if not isinstance(node, Mapping):
        return node
    found = {key: _older(value) for key, value in node.items() if key not in DROPPED}
    if found.get("type") == "null":
        return {"nullable": True, "enum": [None]}
    if "const" in found and "properties" not in found:
        found["enum"] = [found.pop("const")]
    for exclusive, bound in (("exclusiveMinimum", "minimum"), ("exclusiveMaximum", "maximum")):
        if isinstance(found.get(exclusive), int | float) and not isinstance(found[exclusive], bool):
            found[bound], found[exclusive] = found[exclusive], True
    for union in ("anyOf", "oneOf"):
        if isinstance(found.get(union), list):
            _without_null(found, union)
    return found


def _without_null(schema: dict[str, Any], union: str) -> None:
    kept = [choice for choice in schema[union] if choice.get("enum") != [None]]
    if len(kept) == len(schema[union]):
        return
    schema["nullable"] = True
    schema[union] = kept
    if len(kept) == 1 and "$ref" not in kept[0]:
        schema.pop(union)
        for key, value in kept[0].items():
            schema.setdefault(key, value)
