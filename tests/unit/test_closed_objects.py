"""Arguments have the members that their schema lists."""

from __future__ import annotations

from typing import Any

import pytest

from manent.adapters.inference.closed_objects import closed

A: dict[str, Any] = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
B: dict[str, Any] = {"type": "object", "properties": {"b": {"type": "integer"}}}
CLOSED_A = {**A, "additionalProperties": False}
CLOSED_B = {**B, "additionalProperties": False}


@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        (A, CLOSED_A),
        ({"type": "object", "properties": {}}, {"type": "object", "properties": {}, "additionalProperties": False}),
        ({"anyOf": [A, B]}, {"anyOf": [CLOSED_A, CLOSED_B]}),
        ({"type": "array", "items": A}, {"type": "array", "items": CLOSED_A}),
        ({"$ref": "#/$defs/A", "$defs": {"A": A}}, {"$ref": "#/$defs/A", "$defs": {"A": CLOSED_A}}),
        (
            {"type": "object", "properties": {"properties": A}},
            {"type": "object", "properties": {"properties": CLOSED_A}, "additionalProperties": False},
        ),
    ],
)
def test_objects_that_list_their_members_have_no_others(schema: dict[str, Any], expected: dict[str, Any]) -> None:
    """Wherever in a schema they stand."""
    assert closed(schema) == expected


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "object"},
        {**A, "additionalProperties": True},
        {**A, "patternProperties": {"^x": {}}},
        {**A, "required": ["a", "other"]},
        {"allOf": [A, B]},
        {**A, "anyOf": [B, {"required": ["c"]}]},
        {**B, "$ref": "#/$defs/A", "$defs": {"A": A}},
    ],
)
def test_what_is_open_on_purpose_stays_open(schema: dict[str, Any]) -> None:
    """As the schema says, or because closing one part of it would shut out what another lists."""
    assert closed(schema) == schema
