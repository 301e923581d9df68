"""From the parameters about an answer's form to the domain's shape."""

from __future__ import annotations

import json
from typing import Any

from manent.adapters.http.errors import RequestRefused
from manent.adapters.http.wire_requests import ChatRequest
from manent.adapters.http.wire_tools import FunctionTool, NamedToolChoice, StructuredOutputs
from manent.domain.output_shape import FormatKind, OutputFormat, OutputShape, ReasoningEffort, Tool, ToolChoice

SHAPING = frozenset(
    {
        "parallel_tool_calls",
        "reasoning_effort",
        "response_format",
        "structured_outputs",
        "tool_choice",
        "tools",
    }
)
"""The parameters that say something about the form of an answer."""


def shape_of(asked: ChatRequest) -> OutputShape | None:
    """What a request says about the form of its answer; None where it says nothing.

    Raises:
        RequestRefused: parameters contradict each other.
    """
    if asked.model_fields_set.isdisjoint(SHAPING):
        return None
    output_format = _format(asked)
    tools = tuple(_tool(tool, index) for index, tool in enumerate(asked.tools or ()))
    choice, name = _choice(asked)
    effort = None if asked.reasoning_effort is None else ReasoningEffort(asked.reasoning_effort)
    shape = OutputShape(
        format=output_format,
        tools=tools,
        tool_choice=choice,
        tool_name=name,
        parallel=asked.parallel_tool_calls is not False,
        reasoning_effort=effort,
    )
    return None if says_nothing(shape) else shape


def says_nothing(shape: OutputShape) -> bool:
    """Whether an answer has this form anyway: no format, no effort, and no tools to call or to be forbidden."""
    return (
        shape.format is None
        and not shape.tools
        and shape.reasoning_effort is None
        and shape.tool_choice in {ToolChoice.AUTO, ToolChoice.NONE}
    )


def _choice(asked: ChatRequest) -> tuple[ToolChoice, str | None]:
    if isinstance(asked.tool_choice, NamedToolChoice):
        return ToolChoice.NAMED, asked.tool_choice.function.name
    return ToolChoice(asked.tool_choice or ToolChoice.AUTO), None


def _tool(tool: FunctionTool, index: int) -> Tool:
    function = tool.function
    param = f"tools[{index}].function.parameters"
    schema = function.parameters or {"type": "object", "properties": {}}
    if schema.get("type", "object") != "object":
        raise RequestRefused("invalid_value", f"{param} is no schema of an object; arguments have names", param=param)
    return Tool(
        name=function.name,
        description=function.description,
        parameters=json_text(schema, param),
        strict=bool(function.strict),
    )


def _format(asked: ChatRequest) -> OutputFormat | None:
    wanted, more = asked.response_format, asked.structured_outputs
    if more is not None:
        if wanted is not None and wanted.type != "text":
            raise _refused("structured_outputs", "it contradicts response_format; send one of them")
        return _structured(more)
    if wanted is None or wanted.type == "text":
        return None
    if wanted.type == "json_object":
        return OutputFormat(kind=FormatKind.JSON_OBJECT)
    param = "response_format.json_schema"
    if wanted.json_schema is None:
        raise RequestRefused("missing_required_parameter", f"Missing required parameter: '{param}'.", param=param)
    return OutputFormat(
        kind=FormatKind.JSON_SCHEMA, definition=json_text(wanted.json_schema.schema_, f"{param}.schema")
    )


def _structured(asked: StructuredOutputs) -> OutputFormat:
    choice = None if asked.choice is None else json.dumps(asked.choice, ensure_ascii=False)
    found = {FormatKind.REGEX: asked.regex, FormatKind.CHOICE: choice, FormatKind.GRAMMAR: asked.grammar}
    given = [OutputFormat(kind=kind, definition=text) for kind, text in found.items() if text is not None]
    if len(given) != 1:
        raise _refused("structured_outputs", "send exactly one of regex, choice and grammar")
    return given[0]


def json_text(value: Any, param: str) -> str:
    """``value`` as the domain has schemas; raises RequestRefused where it is nested too deeply."""
    try:
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    except RecursionError:
        raise _refused(param, "it is nested too deeply") from None


def _refused(param: str, why: str) -> RequestRefused:
    return RequestRefused("invalid_value", f"Invalid value for '{param}': {why}.", param=param)
