"""Shapes that would cost too much, or that nothing finite satisfies, are refused before any work."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from manent.domain.errors import InvalidValue
from manent.domain.output_shape import FormatKind, OutputFormat, OutputShape, Tool, ToolChoice
from manent.domain.schema_limits import check_shape

F = Tool(name="f")


def asking(value: Any) -> OutputShape:
    """An answer that keeps to a schema."""
    return OutputShape(format=OutputFormat(kind=FormatKind.JSON_SCHEMA, definition=json.dumps(value)))


def nested(depth: int) -> Any:
    """Arrays in arrays."""
    schema: dict[str, Any] = {"type": "null"}
    for _ in range(depth):
        schema = {"type": "array", "items": schema}
    return schema


def needing(name: str, **more: Any) -> dict[str, Any]:
    """An object that must have a member of another kind."""
    return {"type": "object", "properties": {"a": {"$ref": f"#/$defs/{name}"}}, "required": ["a"], **more}


ENDLESS: dict[str, Any] = {
    "itself": {"$ref": "#"},
    "by a member": {"type": "object", "properties": {"a": {"$ref": "#"}}, "required": ["a"]},
    "by an item": {"type": "array", "items": {"$ref": "#"}, "minItems": 1},
    "by all": {"allOf": [{"$ref": "#"}, {}]},
    "by each option": {"anyOf": [{"$ref": "#"}, {"type": "array", "prefixItems": [{"$ref": "#"}], "minItems": 1}]},
    "in a circle": needing("b", **{"$defs": {"b": needing("c"), "c": needing("b")}}),
}
FINITE: dict[str, Any] = {
    "an option": {"anyOf": [{"$ref": "#"}, {"type": "null"}]},
    "may be absent": {"type": "object", "properties": {"a": {"$ref": "#"}}},
    "may be empty": {"type": "array", "items": {"$ref": "#"}},
    "a member that is no schema of its own": {"type": "object", "required": ["a"]},
    "used twice": {"allOf": [{"$ref": "#/$defs/x"}, {"$ref": "#/$defs/x"}], "$defs": {"x": {"type": "integer"}}},
    "not an object": True,
}


@pytest.mark.parametrize("value", ENDLESS.values(), ids=ENDLESS)
def test_a_schema_that_cannot_end_is_refused(value: Any) -> None:
    """Its reference leads back to itself on every way."""
    with pytest.raises(InvalidValue, match="no finite answer"):
        check_shape(asking(value))


@pytest.mark.parametrize("value", FINITE.values(), ids=FINITE)
def test_a_schema_that_can_end_is_taken(value: Any) -> None:
    """Recursion is fine where there is a way out of it."""
    check_shape(asking(value))


BEYOND: dict[str, tuple[OutputShape, str]] = {
    "depth": (asking(nested(70)), "nested deeper than 64 levels"),
    "nodes": (asking({"enum": list(range(6000))}), "more than 5000 values"),
    "bytes": (asking({"const": "x" * 70_000}), "at most 65536 are allowed"),
    "a tool": (OutputShape(tools=(Tool(name="f", parameters=json.dumps(nested(70))),)), "nested deeper"),
    "all tools": (OutputShape(tools=tuple(Tool(name=f"f{i}", description="x" * 9000) for i in range(40))), "256 KiB"),
    "how many": (OutputShape(tools=tuple(Tool(name=f"f{i}") for i in range(129))), "at most 128"),
    "names": (OutputShape(tools=(F, F)), "two tools are named 'f'"),
    "no tools": (OutputShape(tool_choice=ToolChoice.REQUIRED), "there are no tools"),
    "no such tool": (OutputShape(tools=(F,), tool_choice=ToolChoice.NAMED, tool_name="g"), "none of tools"),
    "a regex and tools": (
        OutputShape(tools=(F,), format=OutputFormat(kind=FormatKind.REGEX, definition="a")),
        "cannot be combined",
    ),
}


@pytest.mark.parametrize(("shape", "says"), BEYOND.values(), ids=BEYOND)
def test_what_is_beyond_the_bounds_is_refused(shape: OutputShape, says: str) -> None:
    """Each bound has a message that names it, and is judged in no time."""
    began_s = time.perf_counter()
    with pytest.raises(InvalidValue, match=says) as refused:
        check_shape(shape)
    assert refused.value.param
    assert time.perf_counter() - began_s < 1
