"""Tools, tool choice and text format of a response: to the domain's shape, and as they are told back."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from manent.adapters.http.errors import RequestRefused
from manent.adapters.http.output_shape import json_text, says_nothing
from manent.adapters.http.response_input import CUSTOM_ARGUMENT
from manent.adapters.http.wire_response_requests import (
    CALLABLE,
    ChosenTool,
    ResponseCustomTool,
    ResponseFunctionTool,
    ResponseInput,
)
from manent.domain.output_shape import FormatKind, OutputFormat, OutputShape, ReasoningEffort, Tool, ToolChoice

CUSTOM_PARAMETERS = json.dumps(
    {
        "type": "object",
        "properties": {CUSTOM_ARGUMENT: {"type": "string"}},
        "required": [CUSTOM_ARGUMENT],
        "additionalProperties": False,
    }
)


def shape_of_response(asked: ResponseInput) -> OutputShape | None:
    """What a request says about the form of its answer; None where it says nothing.

    Raises:
        RequestRefused: parameters contradict each other, or a tool that Manent does not have must be called.
    """
    output_format = _format(asked)
    tools = _tools(asked)
    choice, name, allowed = _choice(asked, {tool.name for tool in tools})
    kept = tuple(tool for tool in tools if allowed is None or tool.name in allowed)
    effort = None if asked.reasoning is None else asked.reasoning.effort
    shape = OutputShape(
        format=output_format,
        tools=kept,
        tool_choice=choice,
        tool_name=name,
        parallel=asked.parallel_tool_calls is not False,
        reasoning_effort=None if effort is None else ReasoningEffort(effort),
    )
    return None if says_nothing(shape) else shape


def told_tools(sent: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Tools as they are told back; of functions also what was left out."""
    return [
        {
            **tool,
            "description": tool.get("description"),
            "parameters": tool.get("parameters"),
            "strict": bool(tool.get("strict")),
        }
        if tool.get("type") == "function"
        else dict(tool)
        for tool in sent
    ]


def told_text(asked: ResponseInput) -> dict[str, Any]:
    """What is asked of the text, as it is told back."""
    text_format: dict[str, Any] = {"type": "text"}
    verbosity = "medium"
    if asked.text is not None:
        verbosity = asked.text.verbosity or verbosity
        if asked.text.format is not None:
            text_format = asked.text.format.model_dump(by_alias=True, exclude_none=True)
            if text_format["type"] == "json_schema":
                text_format = {"description": None, "strict": True, **text_format}
    return {"format": text_format, "verbosity": verbosity}


def _tools(asked: ResponseInput) -> list[Tool]:
    found = []
    for index, tool in enumerate(asked.tools or ()):
        if isinstance(tool, ResponseFunctionTool):
            found.append(_function(tool, f"tools[{index}].parameters"))
        elif isinstance(tool, ResponseCustomTool):
            found.append(_custom(tool))
    return found


def _function(tool: ResponseFunctionTool, param: str) -> Tool:
    schema = tool.parameters or {"type": "object", "properties": {}}
    if schema.get("type", "object") != "object":
        raise _refused(param, "it is no schema of an object; arguments have names")
    return Tool(
        name=tool.name,
        description=tool.description,
        parameters=json_text(schema, param),
        strict=bool(tool.strict),
    )


def _custom(tool: ResponseCustomTool) -> Tool:
    """A custom tool as a function of one text. The model is told of a grammar; it is not held to it."""
    says = [tool.description or ""]
    if tool.format is not None and isinstance(definition := tool.format.get("definition"), str):
        says.append(f"The input keeps to this grammar ({tool.format.get('syntax', 'unknown')}):\n{definition}")
    description = "\n".join(text for text in says if text) or None
    return Tool(name=tool.name, description=description, parameters=CUSTOM_PARAMETERS, strict=True, custom=True)


def _choice(asked: ResponseInput, names: set[str]) -> tuple[ToolChoice, str | None, set[str] | None]:
    """What must be called, by name where it is one, and which tools may be called: None is all."""
    chosen = asked.tool_choice
    if not isinstance(chosen, ChosenTool):
        if chosen == "required" and asked.tools and not names:
            raise _unsupported("tool_choice", "it asks for a call, but Manent has none of the tools")
        return ToolChoice(chosen or ToolChoice.AUTO), None, None
    if chosen.type == "allowed_tools":
        return _allowed(chosen, names)
    if chosen.type not in CALLABLE:
        raise _unsupported("tool_choice.type", f"Manent does not have {chosen.type!r}, and cannot be made to call it")
    if chosen.name not in names:
        raise _refused("tool_choice.name", f"{chosen.name!r} is none of tools")
    return ToolChoice.NAMED, chosen.name, None


def _allowed(chosen: ChosenTool, names: set[str]) -> tuple[ToolChoice, str | None, set[str] | None]:
    given = [str(tool.get("name")) for tool in chosen.tools or () if tool.get("type") in CALLABLE]
    unknown = next((name for name in given if name not in names), None)
    if unknown is not None:
        raise _refused("tool_choice.tools", f"{unknown[:80]!r} is none of tools")
    mode = ToolChoice(chosen.mode or ToolChoice.AUTO)
    if mode is ToolChoice.REQUIRED and not given:
        raise _unsupported("tool_choice", "it asks for a call, but Manent has none of the allowed tools")
    return mode, None, set(given)


def _format(asked: ResponseInput) -> OutputFormat | None:
    wanted = None if asked.text is None else asked.text.format
    if wanted is None or wanted.type == "text":
        return None
    if wanted.type == "json_object":
        return OutputFormat(kind=FormatKind.JSON_OBJECT)
    for member, value in (("name", wanted.name), ("schema", wanted.schema_)):
        if value is None:
            param = f"text.format.{member}"
            raise RequestRefused("missing_required_parameter", f"Missing required parameter: '{param}'.", param=param)
    return OutputFormat(kind=FormatKind.JSON_SCHEMA, definition=json_text(wanted.schema_, "text.format.schema"))


def _refused(param: str, why: str) -> RequestRefused:
    return RequestRefused("invalid_value", f"Invalid value for '{param}': {why}.", param=param)


def _unsupported(param: str, why: str) -> RequestRefused:
    return RequestRefused("unsupported_parameter", f"Unsupported parameter: '{param}': {why}.", param=param)
