"""Bounds on the form that an answer is asked to have, and schemas that no finite answer satisfies. Judged before work.

What a schema may say is the grammar engine's to judge; here is what would cost memory or time, or could never end.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from manent.domain.errors import InvalidValue
from manent.domain.output_shape import FormatKind, OutputShape, ToolChoice

DEFINITION_BYTES_MAX = 64 * 1024
SHAPE_BYTES_MAX = 256 * 1024
SCHEMA_DEPTH_MAX = 64
SCHEMA_NODES_MAX = 5000
TOOLS_MAX = 128
CHOICES_MAX = 1000


def check_shape(shape: OutputShape) -> None:
    """Refuse what is beyond the bounds.

    Raises:
        InvalidValue: it is; the message says what, and what would be right.
    """
    if len(shape.tools) > TOOLS_MAX:
        raise InvalidValue(f"tools has {len(shape.tools)} items; at most {TOOLS_MAX} are allowed", param="tools")
    _check_names(shape)
    size = sum(len(tool.parameters) + len(tool.description or "") for tool in shape.tools)
    if size + (len(shape.format.definition) if shape.format else 0) > SHAPE_BYTES_MAX:
        raise InvalidValue(f"tools and format are larger than {SHAPE_BYTES_MAX // 1024} KiB together", param="tools")
    for index, tool in enumerate(shape.tools):
        _check_schema(tool.parameters, f"tools[{index}].function.parameters")
    if shape.format is None:
        return
    if shape.format.kind is FormatKind.JSON_SCHEMA:
        _check_schema(shape.format.definition, "response_format.json_schema.schema")
        return
    param = f"structured_outputs.{shape.format.kind}"
    _check_size(shape.format.definition, param)
    if shape.format.kind is not FormatKind.JSON_OBJECT and shape.callable_tools:
        raise InvalidValue(f"{param} cannot be combined with tools; leave one of them out", param=param)


def _check_names(shape: OutputShape) -> None:
    names = [tool.name for tool in shape.tools]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise InvalidValue(f"two tools are named {twice!r}; names must differ", param="tools")
    if not names and shape.tool_choice is not ToolChoice.AUTO:
        if shape.tool_choice is not ToolChoice.NONE:
            raise InvalidValue("tool_choice asks for a call, but there are no tools", param="tool_choice")
    elif shape.tool_choice is ToolChoice.NAMED and shape.tool_name not in names:
        raise InvalidValue(f"tool_choice names {shape.tool_name!r}, which is none of tools", param="tool_choice")


def _check_size(definition: str, param: str) -> None:
    size = len(definition.encode())
    if size > DEFINITION_BYTES_MAX:
        raise InvalidValue(f"{param} has {size} bytes; at most {DEFINITION_BYTES_MAX} are allowed", param=param)


def _check_schema(definition: str, param: str) -> None:
    _check_size(definition, param)
    schema = json.loads(definition)
    _check_nesting(schema, param)
    if isinstance(schema, Mapping) and not _Endings(schema).can_end(schema):
        raise InvalidValue(f"{param} refers to itself in a way that no finite answer satisfies", param=param)


def _check_nesting(schema: object, param: str) -> None:
    """Level by level, so that nothing here is as deep as the schema."""
    level: list[Any] = [schema]
    nodes = depth = 0
    while level:
        depth += 1
        nodes += len(level)
        if depth > SCHEMA_DEPTH_MAX:
            raise InvalidValue(f"{param} is nested deeper than {SCHEMA_DEPTH_MAX} levels", param=param)
        if nodes > SCHEMA_NODES_MAX:
            raise InvalidValue(f"{param} has more than {SCHEMA_NODES_MAX} values", param=param)
        below: list[Any] = []
        for value in level:
            if isinstance(value, Mapping):
                below.extend(value.values())
            elif isinstance(value, list):
                below.extend(value)
        level = below


class _Endings:
    """Which schemas have a finite instance, as far as references, required members and required items decide it.

    A reference that is met again while it is followed cannot end on that way. What is not decided here counts as
    finite: the answer's length is bounded in any case.
    """

    def __init__(self, root: Mapping[str, Any]) -> None:
        self._root = root
        self._known: dict[str, bool] = {}

    def can_end(self, schema: object) -> bool:
        """Whether an instance can be finite."""
        if not isinstance(schema, Mapping):
            return True
        reference = schema.get("$ref")
        if isinstance(reference, str) and not self._follow(reference):
            return False
        if not all(self.can_end(part) for part in _list(schema.get("allOf"))):
            return False
        for name in ("anyOf", "oneOf"):
            options = _list(schema.get(name))
            if options and not any(self.can_end(option) for option in options):
                return False
        return all(self.can_end(part) for part in self._required(schema))

    def _follow(self, reference: str) -> bool:
        if reference not in self._known:
            self._known[reference] = False  # until proved otherwise: met again on its own way, it does not end
            self._known[reference] = self.can_end(self._resolve(reference))
        return self._known[reference]

    def _resolve(self, reference: str) -> object:
        found: object = self._root
        if not reference.startswith("#"):
            return None
        for step in reference.removeprefix("#").split("/")[1:]:
            name = step.replace("~1", "/").replace("~0", "~")
            found = found.get(name) if isinstance(found, Mapping) else None
        return found

    def _required(self, schema: Mapping[str, Any]) -> list[object]:
        """The schemas that every instance has to satisfy somewhere inside."""
        if schema.get("type", "object") == "object" or "properties" in schema:
            members = schema.get("properties")
            names = _list(schema.get("required"))
            if isinstance(members, Mapping):
                return [members[name] for name in names if isinstance(name, str) and name in members]
        least = schema.get("minItems")
        if isinstance(least, int) and least > 0:
            first = _list(schema.get("prefixItems"))[:least]
            return [*first, schema.get("items")] if least > len(first) else list(first)
        return []


def _list(value: object) -> Sequence[Any]:
    return value if isinstance(value, list) else ()
