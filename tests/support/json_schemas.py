"""Schemas of every kind that is enforced, for outputs that have to satisfy them."""

from __future__ import annotations

from typing import Any

Schema = dict[str, Any]


def record(properties: Schema, *, optional: tuple[str, ...] = (), **more: Any) -> Schema:
    """An object of exactly these members, of which all but ``optional`` are there."""
    required = [name for name in properties if name not in optional]
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False, **more}


def array(items: Schema, least: int, most: int) -> Schema:
    """An array of so many items."""
    return {"type": "array", "items": items, "minItems": least, "maxItems": most}


def text(**more: Any) -> Schema:
    """A string, short unless it says otherwise."""
    return {"type": "string", "maxLength": 6, **more}


DIGIT: Schema = {"type": "integer", "minimum": 0, "maximum": 9}
FLAG: Schema = {"type": "boolean"}
POINT = record({"x": DIGIT, "y": DIGIT})
TREE = record({"v": DIGIT, "kids": {"type": "array", "items": {"$ref": "#/$defs/tree"}, "maxItems": 1}})
CHAIN = record({"next": {"anyOf": [{"$ref": "#"}, {"type": "null"}]}})

SCALARS: list[Schema] = [
    {"type": "boolean"},
    {"type": "null"},
    {"type": "integer"},
    {"type": "number"},
    {"type": "string", "maxLength": 8},
    DIGIT,
    {"type": "integer", "minimum": -5, "maximum": 5},
    {"type": "integer", "exclusiveMinimum": 10, "exclusiveMaximum": 13},
    {"type": "integer", "minimum": 100, "maximum": 999, "multipleOf": 7},
    {"type": "integer", "minimum": 1000},
    {"type": "integer", "maximum": -1},
    {"type": "number", "minimum": 0, "maximum": 1},
    {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 0.5},
    {"type": "number", "minimum": -2.5, "maximum": -0.25},
    {"type": ["integer", "null"]},
    {"type": ["string", "boolean"], "maxLength": 3},
]
STRINGS: list[Schema] = [
    {"type": "string", "minLength": 3, "maxLength": 5},
    {"type": "string", "pattern": "^[a-z]{2,4}$"},
    {"type": "string", "pattern": "^(foo|bar)-[0-9]+$"},
    {"type": "string", "pattern": r"^\d{4}-\d{2}$"},
    {"type": "string", "pattern": "^[^a-z]{1,3}$"},
    {"type": "string", "pattern": "^ä+$"},
    {"type": "string", "format": "date"},
    {"type": "string", "format": "date-time"},
    {"type": "string", "format": "time"},
    {"type": "string", "format": "uuid"},
    {"type": "string", "format": "ipv4"},
    {"type": "string", "format": "email"},
    {"enum": ["red", "green", "blue"]},
    {"enum": [1, 2.5, "three", None, True]},
    {"enum": ['a "quoted" one', "back\\slash", "new\nline", "ü🎉"]},
    {"const": "only"},
    {"const": {"a": [1, {"b": None}]}},
    {"type": "string", "enum": [f"option {number}" for number in range(50)]},
]
ARRAYS: list[Schema] = [
    array(DIGIT, 0, 3),
    array(DIGIT, 2, 2),
    array(text(), 1, 2),
    array(array(FLAG, 1, 2), 1, 2),
    array(POINT, 1, 2),
    array({"anyOf": [DIGIT, FLAG, {"type": "null"}]}, 2, 4),
    {"type": "array", "prefixItems": [DIGIT, FLAG], "items": False, "minItems": 2},
    {"type": "array", "prefixItems": [FLAG], "items": DIGIT, "minItems": 2, "maxItems": 3},
    {"type": "array", "items": {"enum": ["a", "b"]}, "minItems": 3, "maxItems": 5},
    array({"type": "number", "minimum": 0, "maximum": 1}, 2, 3),
]
OBJECTS: list[Schema] = [
    POINT,
    record({"name": text(), "age": {"type": "integer", "minimum": 0, "maximum": 120}}),
    record({"a": DIGIT, "b": FLAG, "c": text()}, optional=("b", "c")),
    record({"only": {"type": "null"}}, optional=("only",)),
    record({"outer": record({"middle": record({"inner": DIGIT})})}),
    record({"points": array(POINT, 1, 2), "closed": FLAG}),
    record({"kind": {"const": "circle"}, "radius": {"type": "number", "minimum": 0, "maximum": 9}}),
    record({"unicode ü": DIGIT, 'quote "': FLAG, "back\\slash": DIGIT}),
    record({"tags": array({"enum": ["x", "y"]}, 0, 2), "meta": record({"id": {"type": "string", "format": "uuid"}})}),
    {"type": "object", "additionalProperties": DIGIT, "maxProperties": 2, "properties": {}},
    {"type": "object", "patternProperties": {"^n_[a-z]$": DIGIT}, "additionalProperties": False},
    record({f"field_{number}": FLAG for number in range(6)}),
    record({"maybe": {"type": ["string", "null"], "maxLength": 4}}),
    record({"nested": array(record({"key": text(minLength=1), "value": {"type": ["integer", "boolean"]}}), 1, 1)}),
]
UNIONS: list[Schema] = [
    {"anyOf": [DIGIT, {"type": "string", "maxLength": 3}]},
    {"anyOf": [POINT, record({"name": text()})]},
    {"oneOf": [record({"kind": {"const": "a"}, "v": DIGIT}), record({"kind": {"const": "b"}, "w": FLAG})]},
    {"anyOf": [array(DIGIT, 1, 2), {"type": "null"}]},
    {"allOf": [{"type": "integer", "minimum": 3}, {"maximum": 6}]},
    {"allOf": [{"properties": {"a": DIGIT}, "required": ["a"]}, record({"a": DIGIT, "b": FLAG})]},
    {"$ref": "#/$defs/point", "$defs": {"point": POINT}},
    {"$ref": "#/$defs/tree", "$defs": {"tree": TREE}},
    CHAIN,
    {
        **record({"shape": {"anyOf": [{"$ref": "#/$defs/p"}, {"$ref": "#/$defs/f"}]}}),
        "$defs": {"p": POINT, "f": FLAG},
    },
    {"definitions": {"d": DIGIT}, "type": "array", "items": {"$ref": "#/definitions/d"}, "maxItems": 3},
    record({"id": {"anyOf": [{"type": "integer", "minimum": 0}, {"type": "string", "format": "uuid"}]}}),
]
SCHEMAS = [*SCALARS, *STRINGS, *ARRAYS, *OBJECTS, *UNIONS]
