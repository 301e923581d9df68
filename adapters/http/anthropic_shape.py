"""Tools, tool choice, thinking and format of Anthropic's messages: to the domain's shape."""

from __future__ import annotations

from manent.adapters.http.errors import RequestRefused
from manent.adapters.http.output_shape import json_text, says_nothing
from manent.adapters.http.wire_anthropic_requests import AnthropicTool, ClientTool, TokenCountRequest
from manent.domain.output_shape import FormatKind, OutputFormat, OutputShape, ReasoningEffort, Tool, ToolChoice
from manent.domain.schema_limits import check_shape

LOW_BELOW_TOKENS = 4096
MEDIUM_BELOW_TOKENS = 16384
_MODES = {"auto": ToolChoice.AUTO, "any": ToolChoice.REQUIRED, "none": ToolChoice.NONE, "tool": ToolChoice.NAMED}


def shape_of_message(asked: TokenCountRequest) -> OutputShape | None:
    """What a request says about the form of its answer; None where it says nothing.

    Raises:
        RequestRefused: parameters contradict each other, or a tool that Manent does not have must be called.
        InvalidValue: the form is beyond its bounds.
    """
    tools = tuple(
        _tool(tool, f"tools[{index}].input_schema")
        for index, tool in enumerate(asked.tools or ())
        if isinstance(tool, ClientTool)
    )
    choice, name = _choice(asked, {tool.name for tool in tools})
    chosen = asked.tool_choice
    shape = OutputShape(
        format=_format(asked),
        tools=tools,
        tool_choice=choice,
        tool_name=name,
        parallel=chosen is None or not chosen.disable_parallel_tool_use,
        reasoning_effort=_effort(asked),
    )
    if says_nothing(shape):
        return None
    check_shape(shape)
    return shape


def _tool(tool: ClientTool, param: str) -> Tool:
    if tool.input_schema.get("type", "object") != "object":
        raise _refused(param, "it is no schema of an object; input has names")
    schema = json_text(tool.input_schema, param)
    return Tool(name=tool.name, description=tool.description, parameters=schema, strict=bool(tool.strict))


def _choice(asked: TokenCountRequest, names: set[str]) -> tuple[ToolChoice, str | None]:
    chosen = asked.tool_choice
    if chosen is None:
        return ToolChoice.AUTO, None
    mode = _MODES[chosen.type]
    if mode is ToolChoice.REQUIRED and asked.tools and not names:
        raise _unsupported("tool_choice", "it asks for a call, but Manent has none of the tools")
    if mode is not ToolChoice.NAMED:
        return mode, None
    if chosen.name is None:
        param = "tool_choice.name"
        raise RequestRefused("missing_required_parameter", f"Missing required parameter: '{param}'.", param=param)
    if chosen.name not in names:
        own = next(
            (tool for tool in asked.tools or () if isinstance(tool, AnthropicTool) and tool.name == chosen.name), None
        )
        if own is not None:
            raise _unsupported("tool_choice.name", f"Manent does not have {own.type!r}, and cannot be made to call it")
        raise _refused("tool_choice.name", f"{chosen.name!r} is none of tools")
    return mode, chosen.name


def _format(asked: TokenCountRequest) -> OutputFormat | None:
    wanted = asked.output_format if asked.output_config is None else asked.output_config.format or asked.output_format
    if wanted is None:
        return None
    definition = json_text(wanted.schema_, "output_config.format.schema")
    return OutputFormat(kind=FormatKind.JSON_SCHEMA, definition=definition)


def _effort(asked: TokenCountRequest) -> ReasoningEffort | None:
    """What the template is told: not to think, the effort by its name, or the one that a budget comes nearest to."""
    thinking = asked.thinking
    if thinking is not None and thinking.type == "disabled":
        return ReasoningEffort.NONE
    if asked.output_config is not None and asked.output_config.effort is not None:
        return ReasoningEffort(asked.output_config.effort)
    if thinking is None or thinking.type != "enabled" or thinking.budget_tokens is None:
        return None
    if thinking.budget_tokens < LOW_BELOW_TOKENS:
        return ReasoningEffort.LOW
    return ReasoningEffort.MEDIUM if thinking.budget_tokens < MEDIUM_BELOW_TOKENS else ReasoningEffort.HIGH


def _refused(param: str, why: str) -> RequestRefused:
    return RequestRefused("invalid_value", f"Invalid value for '{param}': {why}.", param=param)


def _unsupported(param: str, why: str) -> RequestRefused:
    return RequestRefused("unsupported_parameter", f"Unsupported parameter: '{param}': {why}.", param=param)
